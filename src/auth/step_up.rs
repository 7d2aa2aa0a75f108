//! Sensitive changes need that the user has shown who they are a short while ago.

use super::{Auth, AuthError, Caller};
use crate::platform::time;

impl Auth {
    /// Refuses a caller whose sign-in is too long ago.
    ///
    /// The access token's `auth_time` counts. [`Auth::reauthenticate`] hands out a token with a new one; a refresh goes back
    /// to that of the session, so what a second sign-in bought ends with its token.
    ///
    /// # Errors
    ///
    /// [`AuthError::ReauthenticationRequired`].
    pub fn require_fresh(&self, caller: Caller) -> Result<(), AuthError> {
        let until = time::after(caller.auth_time, self.0.settings.step_up_ttl);
        if self.now() < until { Ok(()) } else { Err(AuthError::ReauthenticationRequired) }
    }
}
