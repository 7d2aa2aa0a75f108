//! Login with a password, and showing it again.

pub mod http;
mod reauthenticate;

use secrecy::SecretString;
use uuid::Uuid;

pub use self::reauthenticate::FreshToken;
use super::{
    Auth, AuthError, Device, Email, Password, Tokens, administration,
    audit::{Action, AuditEvent},
    users,
};
use crate::platform::{client::Client, db::Conn, problem::Faults};

/// A login as it was sent.
pub struct LoginForm {
    /// The address.
    pub email: String,
    /// The password.
    pub password: SecretString,
    /// What the client calls itself.
    pub device_name: Option<String>,
}

/// A password that was the right one.
pub(super) struct CheckedPassword {
    /// Whose it is.
    pub(super) user_id: Uuid,
    /// The hash that it was compared with.
    pub(super) stored: String,
    hash: String,
}

impl CheckedPassword {
    /// Holds the user's row until the transaction ends, so that what the password opens does not happen beside a change of
    /// it, and stores a hash that was made anew.
    ///
    /// # Errors
    ///
    /// [`AuthError::InvalidCredentials`] if the password is another one by now.
    pub(super) async fn hold(&self, conn: &Conn) -> Result<(), AuthError> {
        match users::store::replace_password(self.user_id, &self.stored, &self.hash).exec(conn).await? {
            0 => Err(AuthError::InvalidCredentials),
            _ => Ok(()),
        }
    }
}

impl Auth {
    /// Signs somebody in.
    ///
    /// # Errors
    ///
    /// [`AuthError::InvalidCredentials`] for an unknown address and for a wrong password, after the same work, and for a
    /// password that was changed meanwhile. [`AuthError::AccountSuspended`] only after the right password.
    pub async fn log_in(&self, form: LoginForm, client: &Client) -> Result<Tokens, AuthError> {
        let mut faults = Faults::new();
        let email = faults.take("/email", Email::parse(&form.email));
        let password = faults.take("/password", Password::parse(&form.password));
        let device = faults.take("/device_name", Device::parse(form.device_name.as_deref(), client.address));
        let (Some(email), Some(password), Some(device)) = (email, password, device) else {
            return Err(AuthError::Invalid(faults.into_errors()));
        };
        let checked = self.check_password(Action::LoggedIn, &email, password, client).await?;
        let id = checked.user_id;

        let now = self.now();
        let session = self.new_session(id, device, now);
        let tokens = self.sign(session.clone(), self.user(id).await?)?;
        let event = self.audit(Action::LoggedIn, Some(client)).by(id).about(id).in_session(tokens.session.id);
        self.0
            .db
            .write(async move |c| {
                checked.hold(&c).await?;
                // After the statement above, which holds the user's row: no suspension comes between.
                if administration::store::find_suspension(id, now).opt(&c).await?.is_some() {
                    return Err(AuthError::AccountSuspended);
                }
                session.store(&c).await?;
                event.store(&c).await?;
                Ok::<_, AuthError>(())
            })
            .await?;
        Ok(tokens)
    }

    /// Compares a password with that of the owner of an address. Everything that takes a password comes through here, so
    /// that what limits guessing has one place.
    ///
    /// # Errors
    ///
    /// [`AuthError::InvalidCredentials`] for an address that nobody has, somebody without a password, and a wrong password,
    /// after the same work. An entry of the audit says that `action` was refused.
    pub(super) async fn check_password(
        &self,
        action: Action,
        email: &Email,
        password: Password,
        client: &Client,
    ) -> Result<CheckedPassword, AuthError> {
        let found =
            self.0.db.read(async |c| users::store::find_credentials(email.key()).opt(&c).await).await?;
        let (id, stored) = found.map(|row| (row.id, row.password_hash)).unzip();
        let stored = stored.flatten();
        let verdict = self.0.hasher.verify(password.clone(), stored.clone()).await?;
        let (Some(user_id), Some(stored), true) = (id, stored, verdict.right) else {
            let refused = self.audit(action, Some(client)).failed();
            let refused = id.into_iter().fold(refused, AuditEvent::about);
            self.0.db.write(async move |c| refused.store(&c).await).await?;
            return Err(AuthError::InvalidCredentials);
        };
        let renewed = if verdict.outdated { self.renewed_hash(password).await } else { None };
        let hash = renewed.unwrap_or_else(|| stored.clone());
        Ok(CheckedPassword { user_id, stored, hash })
    }

    /// A hash with today's parameters and key. Nobody is kept out because it could not be made.
    async fn renewed_hash(&self, password: Password) -> Option<String> {
        let renewed = self.0.hasher.hash(password).await;
        renewed.inspect_err(|error| tracing::warn!(%error, "a password keeps its older hash")).ok()
    }
}
