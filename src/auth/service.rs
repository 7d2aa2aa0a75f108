//! Identity's shared parts, its errors and its housekeeping. What it can do is in the parts, one `impl Auth` in each.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::{
    AuthSettings, Email, HashError, audit, email_change, lockout,
    password::{self, BreachCheck, Hasher, Pepper},
    session, signup, throttle,
    tokens::{self, AccessTokens, SigningKeyError},
    users,
};
use crate::platform::{
    clock::SharedClock,
    db::{self, Db},
    job::{Jobs, PrepareError},
    keyring::{KeyError, Keyring, Service},
    problem::{FieldError, Invalid},
    random::SharedRandom,
    seal::DoesNotOpen,
    time,
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
    pub(super) breaches: Option<BreachCheck>,
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
        /// How long to wait.
        wait: Duration,
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
    /// A refresh token that only a thief can hold. The session is over.
    #[error("the refresh token was used again")]
    RefreshReused,
    /// A refresh token that was presented more often than any client does.
    #[error("the refresh token was presented too often")]
    TooManyReplays {
        /// How long to wait.
        wait: Duration,
    },
    /// The sign-in is too long ago for this.
    #[error("the sign-in is too long ago")]
    ReauthenticationRequired,
    /// Not a session of the caller.
    #[error("no such session")]
    NoSuchSession,
    /// No live session.
    #[error("no live session")]
    Unauthenticated,
    /// The user was suspended. Said only to who knows the password.
    #[error("the account is suspended")]
    AccountSuspended,
    /// The caller may not do this, or not any more.
    #[error("this is not allowed")]
    Forbidden,
    /// No user has this id or address. Only operators are told.
    #[error("there is no such user")]
    NoSuchUser,
    /// Nobody would be left who can administer.
    #[error("the last administrator has to stay one")]
    LastAdministrator,
    /// An administrator would suspend themselves.
    #[error("nobody suspends themselves")]
    OwnSuspension,
    /// A cursor that was not made for this list.
    #[error("the cursor is not valid")]
    InvalidCursor,
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
        breaches: Option<BreachCheck>,
        settings: AuthSettings,
    ) -> Result<Auth, StartError> {
        let tokens = AccessTokens::open(&db, &keyring, &*random, Arc::clone(&clock), &settings).await?;
        let pepper = Pepper::new(keyring.service(Service::Passwords)?);
        let hasher = Hasher::start(Arc::clone(&random), &pepper)?;
        Ok(Auth(Arc::new(Parts { db, keyring, clock, random, jobs, hasher, breaches, tokens, settings })))
    }

    /// Removes a batch of the rows of each table that have had their time, each in a transaction of its own. Returns how
    /// many the largest batch had; called again while that is a whole one.
    pub async fn sweep(&self) -> Result<u64, db::Error> {
        use audit::store::{forget_addresses, remove_old_audit_events};
        use email_change::store::{remove_expired_changes, remove_expired_undos};
        use lockout::store::remove_failures_of_nobody;
        use password::store::remove_expired_resets;
        use session::store::{forget_successors, remove_ended_sessions};
        use signup::store::{remove_expired_age_refusals, remove_expired_signups};
        use throttle::store::remove_full_buckets;
        use tokens::store::remove_retired_signing_keys;
        use users::store::remove_ended_holds;

        let (db, now) = (&self.0.db, self.now());
        let addresses_before = time::before(now, self.0.settings.audit_address_retention);
        let audit_before = time::before(now, self.0.settings.audit_retention);
        let exchanged_before = time::before(now, session::FORGET_AFTER);
        let failed_before = lockout::forgotten_before(now);
        let removed = [
            db.write(async move |c| remove_expired_signups(now).exec(&c).await).await?,
            db.write(async move |c| remove_expired_age_refusals(now).exec(&c).await).await?,
            db.write(async move |c| remove_ended_sessions(now).exec(&c).await).await?,
            db.write(async move |c| forget_successors(exchanged_before).exec(&c).await).await?,
            db.write(async move |c| remove_expired_resets(now).exec(&c).await).await?,
            db.write(async move |c| remove_expired_changes(now).exec(&c).await).await?,
            db.write(async move |c| remove_expired_undos(now).exec(&c).await).await?,
            db.write(async move |c| remove_ended_holds(now).exec(&c).await).await?,
            db.write(async move |c| remove_retired_signing_keys(now).exec(&c).await).await?,
            db.write(async move |c| forget_addresses(addresses_before).exec(&c).await).await?,
            db.write(async move |c| remove_old_audit_events(audit_before).exec(&c).await).await?,
            db.write(async move |c| remove_full_buckets(now).exec(&c).await).await?,
            db.write(async move |c| remove_failures_of_nobody(failed_before).exec(&c).await).await?,
        ];
        Ok(removed.into_iter().max().unwrap_or(0))
    }

    /// A keyed hash of an address: all that is stored of one that is not a user's.
    pub(super) fn address_mac(&self, email: &Email) -> Result<[u8; 32], AuthError> {
        Ok(self.0.keyring.service(Service::Hashes)?.mac("address", email.key().as_bytes()))
    }

    /// A link for a mail, to a page of the frontend. The token stands in the fragment, which browsers send to nobody.
    pub(super) fn link(&self, page: &str, token: &SecretString) -> Zeroizing<String> {
        Zeroizing::new(format!("{}/{page}#token={}", self.0.settings.frontend_url, token.expose_secret()))
    }

    /// Whether pages of this origin may use the refresh cookie.
    pub fn is_allowed_origin(&self, origin: &str) -> bool {
        self.0.settings.allowed_origins.iter().any(|allowed| allowed == origin)
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
