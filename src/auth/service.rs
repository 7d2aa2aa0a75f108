//! Identity's shared parts, its errors and its housekeeping. What it can do is in the parts, one `impl Auth` in each.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use super::{
    AuthSettings, Email, HashError, lockout,
    password::{Hasher, Pepper},
    session, signup, throttle,
    tokens::{AccessTokens, SigningKeyError},
};
use crate::platform::{
    clock::SharedClock,
    db::{self, Db},
    job::{Jobs, PrepareError},
    keyring::{KeyError, Keyring, Service},
    problem::{FieldError, Invalid},
    random::SharedRandom,
    seal::DoesNotOpen,
};

/// Identity.
#[derive(Clone)]
pub struct Auth(pub(super) Arc<Parts>);

/// What the service works with.
pub struct Parts {
    pub(super) db: Db,
    pub(super) keyring: Keyring,
    pub(super) clock: SharedClock,
    pub(super) random: SharedRandom,
    pub(super) jobs: Jobs,
    pub(super) hasher: Hasher,
    pub(super) tokens: AccessTokens,
    pub(super) settings: AuthSettings,
}

/// Why identity refuses, named for what a caller can do.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// Fields that are not valid.
    #[error("the request is not valid")]
    Invalid(Vec<FieldError>),
    /// Consent to a version that is not the current one.
    #[error("a policy is not the current one")]
    PolicyOutdated,
    /// Too young, or refused for that lately.
    #[error("not an adult")]
    AgeRestricted,
    /// A code that is wrong or spent.
    #[error("the code is not valid")]
    InvalidCode,
    /// Asked again too early.
    #[error("too early")]
    TooEarly {
        /// How long to wait, in seconds.
        wait_s: u64,
    },
    /// Tried too often.
    #[error("tried too often")]
    Throttled {
        /// How long to wait.
        wait: Duration,
    },
    /// Wrong address or password.
    #[error("the credentials are not valid")]
    InvalidCredentials,
    /// A refresh token that is expired, ended or unknown.
    #[error("the refresh token is not valid")]
    InvalidGrant,
    /// No live session.
    #[error("no live session")]
    Unauthenticated,
    /// A policy has to be accepted first.
    #[error("consent is missing")]
    ConsentRequired,
    /// The address belongs to a user already. Only operators are told.
    #[error("the address is taken")]
    AddressTaken,
    /// Too many passwords are being checked.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// A key or sealed value does not open.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Stored data that cannot be read, or could not be written in its form.
    #[error("what {0} holds cannot be read")]
    Stored(&'static str),
    /// A mail could not be written down.
    #[error(transparent)]
    Job(#[from] PrepareError),
    /// An access token could not be signed.
    #[error("an access token could not be signed")]
    Signing,
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] db::Error),
}

impl From<DoesNotOpen> for AuthError {
    fn from(error: DoesNotOpen) -> Self {
        AuthError::Key(error.into())
    }
}

/// Why identity could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The signing keys cannot be used.
    #[error(transparent)]
    SigningKey(#[from] SigningKeyError),
    /// The key of passwords is missing.
    #[error(transparent)]
    Pepper(#[from] DoesNotOpen),
    /// The threads that hash passwords did not start.
    #[error("the threads that hash passwords did not start: {0}")]
    Threads(#[from] std::io::Error),
}

impl Auth {
    /// Starts identity: opens the signing keys and the threads that hash passwords.
    pub async fn start(
        db: Db,
        keyring: Keyring,
        clock: SharedClock,
        random: SharedRandom,
        jobs: Jobs,
        settings: AuthSettings,
    ) -> Result<Auth, StartError> {
        let tokens = AccessTokens::open(&db, &keyring, &*random, clock.now(), &settings).await?;
        let pepper = Pepper::new(keyring.service(Service::Passwords)?);
        let hasher = Hasher::start(Arc::clone(&random), &pepper)?;
        Ok(Auth(Arc::new(Parts { db, keyring, clock, random, jobs, hasher, tokens, settings })))
    }

    /// Removes a batch of the rows of each table that have had their time, each in a transaction of its own. Returns how
    /// many the largest batch had; called again while that is a whole one.
    pub async fn sweep(&self) -> Result<u64, db::Error> {
        use lockout::store::remove_failures_of_nobody;
        use session::store::remove_ended_sessions;
        use signup::store::{remove_expired_age_refusals, remove_expired_signups};
        use throttle::store::remove_full_buckets;

        let (db, now) = (&self.0.db, self.now());
        let before = lockout::forgotten_before(now);
        let removed = [
            db.write(async move |c| remove_expired_signups(now).exec(&c).await).await?,
            db.write(async move |c| remove_expired_age_refusals(now).exec(&c).await).await?,
            db.write(async move |c| remove_ended_sessions(now).exec(&c).await).await?,
            db.write(async move |c| remove_full_buckets(now).exec(&c).await).await?,
            db.write(async move |c| remove_failures_of_nobody(before).exec(&c).await).await?,
        ];
        Ok(removed.into_iter().max().unwrap_or(0))
    }

    /// A keyed hash of an address: all that is stored of one that is not a user's.
    pub(super) fn address_mac(&self, email: &Email) -> Result<[u8; 32], AuthError> {
        Ok(self.0.keyring.service(Service::Hashes)?.mac("address", email.key().as_bytes()))
    }

    /// How many passwords have been hashed or compared since the start. Tests count with it: whoever may not come in has
    /// cost the same.
    pub fn passwords_hashed(&self) -> u64 {
        self.0.hasher.done()
    }

    pub(super) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }
}

pub(super) fn invalid_field(pointer: &'static str, invalid: Invalid) -> AuthError {
    AuthError::Invalid(vec![FieldError {
        pointer: pointer.into(),
        code: invalid.code,
        detail: invalid.detail,
    }])
}
