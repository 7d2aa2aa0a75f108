//! Login with a password.

pub mod http;
mod proof;

use secrecy::SecretString;

pub(in crate::auth) use self::proof::Attempt;
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
    /// What shows that the device has signed in before; see [`KnownDevice`](super::throttle::KnownDevice).
    pub device_cookie: Option<String>,
}

/// What somebody gets who has signed in.
pub struct SignedIn {
    /// The tokens.
    pub tokens: Tokens,
    /// What shows the next time that the device has signed in before.
    pub device_cookie: String,
}

impl Auth {
    /// Signs somebody in.
    ///
    /// # Errors
    ///
    /// [`AuthError::InvalidCredentials`] for an unknown address, for a wrong password, and for any password of a locked
    /// account, after the same work; also for a password that was changed meanwhile. [`AuthError::Throttled`] before any
    /// work.
    pub async fn log_in(&self, form: LoginForm, client: &Client) -> Result<SignedIn, AuthError> {
        let mut faults = Faults::new();
        let email = faults.take("/email", Email::parse(&form.email));
        let password = faults.take("/password", Password::parse(&form.password));
        let device = faults.take("/device_name", Device::parse(form.device_name.as_deref(), client.address));
        let (Some(email), Some(password), Some(device)) = (email, password, device) else {
            return Err(AuthError::Invalid(faults.into_errors()));
        };
        let known = self.known_device(form.device_cookie.as_deref(), &email)?;
        let event = self.audit(Action::LoggedIn, Some(client));
        let attempt =
            Attempt { email: &email, password: &password, device: known.as_ref(), event: event.clone() };
        let proof = self.prove_password(attempt, client).await?;
        let renewed = if proof.outdated { self.renewed_hash(password).await } else { None };
        let hash = renewed.unwrap_or_else(|| proof.stored.clone());

        let id = proof.user_id;
        let device_cookie = self.remember_device(form.device_cookie.as_deref(), &email)?;
        let session = self.new_session(id, device, self.now());
        let tokens = self.sign(session.clone(), self.user(id).await?)?;
        let event = event.by(id).about(id).in_session(tokens.session.id);
        self.0
            .db
            .write(async move |c| {
                if users::store::replace_password(id, &proof.stored, &hash).exec(&c).await? == 0 {
                    return Err(AuthError::InvalidCredentials);
                }
                proof.settle(&c).await?;
                session.store(&c).await?;
                event.store(&c).await?;
                Ok(())
            })
            .await?;
        Ok(SignedIn { tokens, device_cookie })
    }

    /// A hash with today's parameters and key. Nobody is kept out because it could not be made.
    async fn renewed_hash(&self, password: Password) -> Option<String> {
        let renewed = self.0.hasher.hash(password).await;
        renewed.inspect_err(|error| tracing::warn!(%error, "a password keeps its older hash")).ok()
    }
}
