//! Showing again who one is, before a sensitive change.

use std::time::Duration;

use secrecy::SecretString;

use crate::{
    auth::{Auth, AuthError, Caller, Password, audit::Action, service::invalid_field, session},
    platform::client::Client,
};

/// An access token with a new `auth_time`.
pub struct FreshToken {
    /// The access token.
    pub access_token: SecretString,
    /// How long it is valid.
    pub expires_in: Duration,
}

impl Auth {
    /// Hands out an access token that says that its user has just shown who they are.
    ///
    /// It belongs to the same refresh of the session as the caller's, whose refresh token stays as it is. The session's own
    /// `auth_time` stays too: whoever else holds a token of this session has not shown anything.
    ///
    /// # Errors
    ///
    /// [`AuthError::InvalidCredentials`] for a wrong password.
    pub async fn reauthenticate(
        &self,
        caller: Caller,
        password: &SecretString,
        device_cookie: Option<&str>,
        client: &Client,
    ) -> Result<FreshToken, AuthError> {
        let password = Password::parse(password).map_err(|invalid| invalid_field("/password", invalid))?;
        let (email, _) = self.sign_in_of(caller.user_id).await?;
        let event = self.audit(Action::Reauthenticated, Some(client)).by_caller(caller);
        let known = self.known_device(device_cookie, &email)?;
        let checked = self.check_password(event.clone(), &email, password, known.as_ref(), client).await?;
        // The address may have become somebody else's a moment ago.
        if checked.user_id() != caller.user_id {
            return Err(AuthError::InvalidCredentials);
        }
        let now = self.now();
        let Caller { user_id, session_id, token_gen, .. } = caller;
        let access_token = self
            .0
            .tokens
            .issue(user_id, session_id, token_gen, now, now, &*self.0.random)
            .map_err(|_| AuthError::Signing)?;
        let event = event.about(user_id);
        self.0
            .db
            .write(async move |c| {
                checked.accept(&c).await?;
                session::hold(&c, caller, now).await?;
                event.store(&c).await?;
                Ok::<_, AuthError>(())
            })
            .await?;
        Ok(FreshToken { access_token, expires_in: self.0.settings.access_token_ttl })
    }
}
