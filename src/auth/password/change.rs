//! A new password in place of a known one.

use secrecy::SecretString;

use super::{Password, reset::close_ways_around};
use crate::{
    auth::{Auth, AuthError, Caller, audit::Action, letters, service::invalid_field, session, users},
    platform::{
        client::Client,
        mail::MAIL_JOB,
        problem::{Faults, Invalid},
    },
};

impl Auth {
    /// Changes the caller's password and ends all their other sessions. Who has none yet sets a first one without a current
    /// one.
    ///
    /// # Errors
    ///
    /// [`AuthError::ReauthenticationRequired`] if the sign-in is too long ago. [`AuthError::InvalidCredentials`] for a wrong
    /// current password, and for one that was changed meanwhile.
    pub async fn change_password(
        &self,
        caller: Caller,
        current: Option<&SecretString>,
        new: &SecretString,
        client: &Client,
    ) -> Result<(), AuthError> {
        self.require_fresh(caller)?;
        let mut faults = Faults::new();
        let current = faults.take("/current_password", current.map(Password::parse).transpose());
        let new = faults.take("/new_password", Password::parse(new));
        let (Some(current), Some(new)) = (current, new) else {
            return Err(AuthError::Invalid(faults.into_errors()));
        };
        let user_id = caller.user_id;
        let (email, sign_in) = self.sign_in_of(user_id).await?;
        // Before the current one is compared: who looks for a good new one is not guessing.
        self.check_new_password(&new, Some(&email))
            .await
            .map_err(|invalid| invalid_field("/new_password", invalid))?;
        let replaced = match (current, sign_in.password_hash) {
            (None, None) => None,
            (None, Some(_)) => {
                let missing = Invalid::new("missing", "The current password is needed.");
                return Err(invalid_field("/current_password", missing));
            }
            (Some(current), _) => {
                let checked =
                    self.check_password(Action::PasswordChanged, &email, current, None, client).await?;
                // The address may have become somebody else's a moment ago.
                if checked.proof.user_id != user_id {
                    return Err(AuthError::InvalidCredentials);
                }
                Some(checked)
            }
        };
        let hash = self.0.hasher.hash(new).await?;
        let notice = self.0.jobs.prepare(MAIL_JOB, &letters::password_changed(email.address()))?;
        let event = self.audit(Action::PasswordChanged, Some(client)).by_caller(caller).about(user_id);
        self.0
            .db
            .write(async move |c| {
                match &replaced {
                    Some(checked) => checked.replace(&c, &hash).await?,
                    None if users::store::set_first_password(user_id, &hash).exec(&c).await? == 0 => {
                        return Err(AuthError::InvalidCredentials);
                    }
                    None => {}
                }
                session::store::end_other_sessions(user_id, caller.session_id).exec(&c).await?;
                close_ways_around(&c, user_id).await?;
                notice.store(&c).await?;
                event.store(&c).await?;
                Ok(())
            })
            .await?;
        self.0.jobs.wake();
        Ok(())
    }
}
