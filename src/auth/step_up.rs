//! Renewed proof of identity: some things need a sign-in that is not long ago.

use super::{Auth, AuthError, Caller};
use crate::platform::time;

impl Auth {
    /// Refuses a caller who has not shown lately who they are.
    ///
    /// # Errors
    ///
    /// [`AuthError::ReauthenticationRequired`].
    pub fn require_fresh(&self, caller: Caller) -> Result<(), AuthError> {
        let until = time::after(caller.auth_time, self.0.settings.step_up_ttl);
        if self.now() < until { Ok(()) } else { Err(AuthError::ReauthenticationRequired) }
    }
}
