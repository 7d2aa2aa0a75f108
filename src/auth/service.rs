//! Identity's shared parts, and what it knows of its users.

use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use super::{
    AgeAssurance, AuthSettings, Caller, Consent, Email, HashError, Jwks, Policy, Role, User,
    access_token::{AccessTokens, Claims, SigningKeyError},
    password::{Hasher, Password},
    store::{self, ConsentRow},
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
pub struct Auth(Arc<Parts>);

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

impl std::ops::Deref for Auth {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
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
        let hasher = Hasher::start(Arc::clone(&random))?;
        Ok(Auth(Arc::new(Parts { db, keyring, clock, random, jobs, hasher, tokens, settings })))
    }

    /// The documents that people consent to.
    pub fn policies(&self) -> &[Policy] {
        &self.settings.policies
    }

    /// The public keys of access tokens.
    pub fn jwks(&self) -> Jwks {
        self.tokens.jwks()
    }

    /// Who presents this access token.
    ///
    /// # Errors
    ///
    /// [`AuthError::Unauthenticated`] for a token that is not valid and for a session that has ended.
    pub async fn authenticate(&self, token: &str) -> Result<Caller, AuthError> {
        let now = self.clock.now();
        let Claims { sid, sub, .. } =
            self.tokens.verify(token, now).map_err(|_| AuthError::Unauthenticated)?;
        let live = self.db.read(async |c| store::live_session(sid, sub, now).opt(&c).await).await?;
        let live = live.ok_or(AuthError::Unauthenticated)?;
        Ok(Caller { user_id: live.user_id, session_id: live.id, role: live.role })
    }

    /// Stores consents. Each names the current version of a document.
    pub async fn consent(&self, id: Uuid, consents: Vec<Consent>) -> Result<User, AuthError> {
        self.check_consents(&consents)?;
        let now = self.clock.now();
        self.db
            .write(async move |c| {
                for Consent { document, version } in &consents {
                    store::add_consent(id, document, version, now).exec(&c).await?;
                }
                Ok::<_, db::Error>(())
            })
            .await?;
        self.user(id).await
    }

    /// Refuses a user who has not accepted the current version of every required document.
    pub async fn require_consents(&self, id: Uuid) -> Result<(), AuthError> {
        let given = self.db.read(async |c| store::consents_of(id).all(&c).await).await?;
        let has = |policy: &Policy| {
            given
                .iter()
                .any(|row: &ConsentRow| row.document == policy.document && row.version == policy.version)
        };
        let complete = self.policies().iter().filter(|policy| policy.required).all(has);
        if complete { Ok(()) } else { Err(AuthError::ConsentRequired) }
    }

    /// Creates a user for whose age and consents the operator vouches.
    pub async fn create_user(&self, email: Email, password: Password, role: Role) -> Result<Uuid, AuthError> {
        self.settings
            .password
            .check(&password, &email)
            .map_err(|invalid| invalid_field("/password", invalid))?;
        let hash = self.hasher.hash(password).await?;
        let now = self.clock.now();
        let id = self.random.uuid(now);
        let key = self.keyring.new_user_key(id);
        let policies = self.settings.policies.clone();
        self.db
            .write(async move |c| {
                let (address, email_key) = (email.address(), email.key());
                let user = store::add_user(
                    id,
                    address,
                    email_key,
                    &hash,
                    role,
                    None,
                    None,
                    AgeAssurance::Operator,
                    now,
                );
                if user.exec(&c).await? == 0 {
                    return Err(AuthError::AddressTaken);
                }
                key.store(&c, now).await?;
                for Policy { document, version, .. } in &policies {
                    store::add_consent(id, document, version, now).exec(&c).await?;
                }
                Ok(())
            })
            .await?;
        Ok(id)
    }

    /// Removes rows that have had their time, up to 500 from each table; returns how many. Called now and then.
    pub async fn sweep(&self) -> Result<u64, db::Error> {
        let now = self.clock.now();
        self.db
            .write(async move |c| {
                let signups = store::remove_expired_signups(now).exec(&c).await?;
                let refusals = store::remove_expired_age_refusals(now).exec(&c).await?;
                let sessions = store::remove_ended_sessions(now).exec(&c).await?;
                Ok(signups.saturating_add(refusals).saturating_add(sessions))
            })
            .await
    }

    /// Checks that consents name documents at their current versions.
    pub(super) fn check_consents(&self, consents: &[Consent]) -> Result<(), AuthError> {
        if consents.is_empty() {
            return Err(invalid_field("/consents", Invalid::new("missing", "Consent is needed.")));
        }
        let is_current = |consent: &Consent| {
            self.policies()
                .iter()
                .any(|policy| policy.document == consent.document && policy.version == consent.version)
        };
        if consents.iter().all(is_current) { Ok(()) } else { Err(AuthError::PolicyOutdated) }
    }

    /// A keyed hash of an address: all that is stored of one that is not a user's.
    pub(super) fn address_mac(&self, email: &Email) -> Result<[u8; 32], AuthError> {
        Ok(self.keyring.service(Service::Hashes)?.mac("address", email.key().as_bytes()))
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

pub(super) fn invalid_field(pointer: &'static str, invalid: Invalid) -> AuthError {
    AuthError::Invalid(vec![FieldError {
        pointer: pointer.into(),
        code: invalid.code,
        detail: invalid.detail,
    }])
}
