//! A password that shows who somebody is: for login, and for whatever asks again.

use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    auth::{
        Auth, AuthError, Email, HashError, Password,
        audit::AuditEvent,
        lockout::{self, Account},
        throttle::{Admission, KnownDevice, Throttle},
        users,
    },
    platform::{
        client::Client,
        db::{self, Conn},
    },
};

/// A password that somebody shows.
pub(super) struct Attempt<'a> {
    /// The address of the account.
    pub(super) email: &'a Email,
    /// What they say the password is.
    pub(super) password: &'a Password,
    /// The device, if it has signed in to the account before.
    pub(super) device: Option<&'a KnownDevice>,
    /// What the audit says if it is wrong.
    pub(super) event: AuditEvent,
}

/// The password was right.
#[derive(Clone)]
pub(super) struct Proof {
    /// Whose it is.
    pub(super) user_id: Uuid,
    /// The hash that it was compared with.
    pub(super) stored: String,
    /// Whether that should be made anew.
    pub(super) outdated: bool,
    pub(super) admission: Admission,
    now: Timestamp,
}

impl Proof {
    /// Begins to count wrong passwords anew, and gives back what the try took from the throttles. Part of the transaction
    /// of what the password was shown for, after the user's row was written.
    ///
    /// # Errors
    ///
    /// [`AuthError::InvalidCredentials`] if the account was locked meanwhile.
    pub(super) async fn settle(&self, conn: &Conn) -> Result<(), AuthError> {
        lockout::forget_failures(conn, self.user_id, self.now).await?;
        Ok(self.admission.refund(conn).await?)
    }
}

impl Auth {
    /// Compares a password: throttled before anything is looked up, one hash whatever is found, and a failure is counted
    /// and written down alike for everybody.
    ///
    /// # Errors
    ///
    /// [`AuthError::Throttled`]; [`AuthError::InvalidCredentials`] for an unknown account, a wrong password, and any
    /// password of an account that is locked.
    pub(super) async fn prove_password(
        &self,
        attempt: Attempt<'_>,
        client: &Client,
    ) -> Result<Proof, AuthError> {
        let Attempt { email, password, device, event } = attempt;
        let admission = self.admit(Throttle::Password { account: email.key(), device }, client).await?;
        let address = self.address_mac(email)?;
        let (account, found, locked) = self
            .0
            .db
            .read(async |c| {
                let found = users::store::find_credentials(email.key()).opt(&c).await?;
                let account = Account::of(found.as_ref().map(|row| row.id), address);
                let locked = account.is_locked(&c).await?;
                Ok::<_, db::Error>((account, found, locked))
            })
            .await?;
        let (id, stored) = found.map(|row| (row.id, row.password_hash)).unzip();
        let stored = stored.flatten();
        let verdict = match self.0.hasher.verify(password.clone(), stored.clone()).await {
            Err(HashError::Busy) => {
                // Nothing was compared, so nothing was tried.
                self.refund(admission).await?;
                return Err(HashError::Busy.into());
            }
            verdict => verdict?,
        };
        match (id, stored) {
            (Some(user_id), Some(stored)) if verdict.right && !locked => {
                Ok(Proof { user_id, stored, outdated: verdict.outdated, admission, now: self.now() })
            }
            _ => {
                self.count_failure(account, email, event, client).await?;
                Err(AuthError::InvalidCredentials)
            }
        }
    }
}
