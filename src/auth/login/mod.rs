//! Login with a password.

pub mod http;

use secrecy::SecretString;

use super::{Auth, AuthError, Device, Email, Password, Tokens, audit::Action, users};
use crate::platform::{client::Client, problem::Faults};

/// A login as it was sent.
pub struct LoginForm {
    /// The address.
    pub email: String,
    /// The password.
    pub password: SecretString,
    /// What the client calls itself.
    pub device_name: Option<String>,
}

impl Auth {
    /// Signs somebody in.
    ///
    /// # Errors
    ///
    /// [`AuthError::InvalidCredentials`] for an unknown address and for a wrong password, after the same work, and for a
    /// password that was changed meanwhile.
    pub async fn log_in(&self, form: LoginForm, client: &Client) -> Result<Tokens, AuthError> {
        let mut faults = Faults::new();
        let email = faults.take("/email", Email::parse(&form.email));
        let password = faults.take("/password", Password::parse(&form.password));
        let device = faults.take("/device_name", Device::parse(form.device_name.as_deref(), client.address));
        let (Some(email), Some(password), Some(device)) = (email, password, device) else {
            return Err(AuthError::Invalid(faults.into_errors()));
        };
        let found =
            self.0.db.read(async |c| users::store::find_credentials(email.key()).opt(&c).await).await?;
        let (id, stored) = found.map(|row| (row.id, row.password_hash)).unzip();
        let stored = stored.flatten();
        let verdict = self.0.hasher.verify(password.clone(), stored.clone()).await?;
        let (Some(id), Some(stored), true) = (id, stored, verdict.right) else {
            return Err(AuthError::InvalidCredentials);
        };
        let renewed = if verdict.outdated { self.renewed_hash(password).await } else { None };
        let hash = renewed.unwrap_or_else(|| stored.clone());

        let (session, tokens) = self.begin_session(self.user(id).await?, device, client)?;
        let event = self.audit(Action::LoggedIn, Some(client)).by(id).about(id).in_session(tokens.session.id);
        self.0
            .db
            .write(async move |c| {
                if users::store::replace_password(id, &stored, &hash).exec(&c).await? == 0 {
                    return Err(AuthError::InvalidCredentials);
                }
                session.store(&c).await?;
                event.store(&c).await?;
                Ok(())
            })
            .await?;
        self.0.jobs.wake(); // There may be a mail about an older session.
        Ok(tokens)
    }

    /// A hash with today's parameters and key. Nobody is kept out because it could not be made.
    async fn renewed_hash(&self, password: Password) -> Option<String> {
        let renewed = self.0.hasher.hash(password).await;
        renewed.inspect_err(|error| tracing::warn!(%error, "a password keeps its older hash")).ok()
    }
}
