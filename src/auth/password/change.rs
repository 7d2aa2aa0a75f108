//! A new password in place of a known one.

use secrecy::SecretString;

use super::{Password, reset::close_ways_around};
use crate::{
    auth::{
        Auth, AuthError, Caller, Email,
        audit::{Action, AuditEvent},
        letters,
        login::CheckedPassword,
        service::invalid_field,
        session,
        throttle::Throttle,
        users,
    },
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
        device_cookie: Option<&str>,
        client: &Client,
    ) -> Result<(), AuthError> {
        self.require_fresh(caller)?;
        let now = self.now();
        let mut faults = Faults::new();
        let current = faults.take("/current_password", current.map(Password::parse).transpose());
        let new = faults.take("/new_password", Password::parse(new));
        let (Some(current), Some(new)) = (current, new) else {
            return Err(AuthError::Invalid(faults.into_errors()));
        };
        let user_id = caller.user_id;
        let (email, sign_in) = self.sign_in_of(user_id).await?;
        if current.is_none() && sign_in.password_hash.is_some() {
            let missing = Invalid::new("missing", "The current password is needed.");
            return Err(invalid_field("/current_password", missing));
        }
        // Before the current one is compared: who looks for a good new one is not guessing.
        self.0.settings.password.check(&new, Some(&email)).map_err(not_accepted)?;
        let event = self.audit(Action::PasswordChanged, Some(client)).by_caller(caller);
        let shown = self.show_current(current, &email, event.clone(), device_cookie, client).await?;
        // The address may have become somebody else's a moment ago.
        if shown.as_ref().is_some_and(|checked| checked.user_id() != user_id) {
            return Err(AuthError::InvalidCredentials);
        }
        let hash = match (self.hash_new(new).await, &shown) {
            (Ok(hash), _) => hash,
            (Err(error), None) => return Err(error),
            (Err(error), Some(checked)) => {
                self.refund_password(checked).await?;
                return Err(error);
            }
        };
        let notice = self.0.jobs.prepare(MAIL_JOB, &letters::password_changed(email.address()))?;
        let event = event.about(user_id);
        self.0
            .db
            .write(async move |c| {
                match &shown {
                    Some(checked) => checked.replace(&c, &hash).await?,
                    None if users::store::set_first_password(user_id, &hash).exec(&c).await? == 0 => {
                        return Err(AuthError::InvalidCredentials);
                    }
                    None => {}
                }
                session::hold(&c, caller, now).await?;
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

    /// Hashes a password that is not known from a breach. It comes after a throttle, because it may ask a service.
    async fn hash_new(&self, new: Password) -> Result<String, AuthError> {
        self.refuse_breached(&new).await.map_err(not_accepted)?;
        Ok(self.0.hasher.hash(new).await?)
    }

    /// Compares the current password, where there is one.
    async fn show_current(
        &self,
        current: Option<Password>,
        email: &Email,
        event: AuditEvent,
        device_cookie: Option<&str>,
        client: &Client,
    ) -> Result<Option<CheckedPassword>, AuthError> {
        let Some(current) = current else {
            let _ = self.admit(Throttle::Code, client).await?;
            return Ok(None);
        };
        let known = self.known_device(device_cookie, email)?;
        self.check_password(event, email, current, known.as_ref(), client).await.map(Some)
    }
}

fn not_accepted(invalid: Invalid) -> AuthError {
    invalid_field("/new_password", invalid)
}
