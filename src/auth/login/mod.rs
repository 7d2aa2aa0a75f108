//! Login with a password, and showing it again.

pub(crate) mod http;
mod proof;
mod reauthenticate;

use secrecy::SecretString;
use uuid::Uuid;

use self::proof::{Attempt, Proof};
pub use self::reauthenticate::FreshToken;
use super::{
    Auth, AuthError, Device, Email, Password, Tokens, administration,
    audit::{Action, AuditEvent},
    throttle::KnownDevice,
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
    /// What shows that the device has signed in before; see [`KnownDevice`].
    pub device_cookie: Option<String>,
}

/// What somebody gets who has signed in.
pub struct SignedIn {
    /// The tokens.
    pub tokens: Tokens,
    /// What shows the next time that the device has signed in before.
    pub device_cookie: String,
}

/// A password that was the right one.
pub(super) struct CheckedPassword {
    proof: Proof,
    hash: String,
}

impl CheckedPassword {
    /// Whose password it is.
    pub(super) fn user_id(&self) -> Uuid {
        self.proof.user_id
    }

    /// Accepts it in the transaction of what it opens: holds the user's row, so that none of that happens beside a change of
    /// the password, stores a hash that was made anew, begins to count wrong passwords anew and refunds the throttles.
    ///
    /// # Errors
    ///
    /// [`AuthError::InvalidCredentials`] if the password is another one by now, or the account was locked.
    pub(super) async fn accept(&self, conn: &Conn) -> Result<(), AuthError> {
        self.replace(conn, &self.hash).await
    }

    /// As [`CheckedPassword::accept`], with another password's hash in place of this one's.
    pub(super) async fn replace(&self, conn: &Conn, new_hash: &str) -> Result<(), AuthError> {
        let Proof { user_id, stored, .. } = &self.proof;
        match users::store::replace_password(*user_id, stored, new_hash).exec(conn).await? {
            0 => Err(AuthError::InvalidCredentials),
            _ => self.proof.settle(conn).await,
        }
    }
}

impl Auth {
    /// Signs somebody in.
    ///
    /// # Errors
    ///
    /// [`AuthError::InvalidCredentials`] for an unknown address, for a wrong password, and for any password of a locked
    /// account, after the same work; also for a password that was changed meanwhile. [`AuthError::Throttled`] before any
    /// work. [`AuthError::AccountSuspended`] only after the right password.
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
        let checked = self.check_password(event.clone(), &email, password, known.as_ref(), client).await?;
        let id = checked.user_id();
        let device_cookie = self.remember_device(form.device_cookie.as_deref(), &email)?;

        let now = self.now();
        let (session, tokens) = self.begin_session(self.user(id).await?, device, client)?;
        let refused = event.clone().failed().about(id).with("reason", "suspended");
        let event = event.by(id).about(id).in_session(tokens.session.id);
        let suspended = self
            .0
            .db
            .write(async move |c| {
                checked.accept(&c).await?;
                // After the statement above, which holds the user's row: no suspension comes between. The password was
                // right all the same, and an operator wants to know of it.
                if administration::store::find_suspension(id, now).opt(&c).await?.is_some() {
                    refused.store(&c).await?;
                    return Ok(true);
                }
                session.store(&c).await?;
                event.store(&c).await?;
                Ok::<_, AuthError>(false)
            })
            .await?;
        if suspended {
            return Err(AuthError::AccountSuspended);
        }
        self.0.jobs.wake(); // There may be a mail about an older session.
        Ok(SignedIn { tokens, device_cookie })
    }

    /// Compares a password with that of the owner of an address. Everything that takes a password comes through here, so
    /// that what limits guessing has one place.
    ///
    /// # Errors
    ///
    /// [`AuthError::Throttled`] before any work. [`AuthError::InvalidCredentials`] for an address that nobody has, somebody
    /// without a password, a wrong password, and any password of a locked account, after the same work. An entry of the
    /// audit says that what `event` is about was refused.
    pub(super) async fn check_password(
        &self,
        event: AuditEvent,
        email: &Email,
        password: Password,
        device: Option<&KnownDevice>,
        client: &Client,
    ) -> Result<CheckedPassword, AuthError> {
        let proof =
            self.prove_password(Attempt { email, password: &password, device, event }, client).await?;
        let renewed = if proof.outdated { self.renewed_hash(password).await } else { None };
        let hash = renewed.unwrap_or_else(|| proof.stored.clone());
        Ok(CheckedPassword { proof, hash })
    }

    /// Refunds what a right password took from the throttles, where what it was shown for came to nothing.
    pub(super) async fn refund_password(&self, checked: &CheckedPassword) -> Result<(), AuthError> {
        self.refund(checked.proof.admission.clone()).await
    }

    /// A hash with today's parameters and key. Nobody is kept out because it could not be made.
    async fn renewed_hash(&self, password: Password) -> Option<String> {
        let renewed = self.0.hasher.hash(password).await;
        renewed.inspect_err(|error| tracing::warn!(%error, "a password keeps its older hash")).ok()
    }
}
