//! The audit: what was done to accounts, by whom, from where. Append-only, and part of the transaction of the change, so
//! that neither is there without the other.

mod reading;
pub(crate) mod store;

use jiff::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

pub use self::reading::{AuditEntry, AuditFilter};
use super::{Auth, Caller};
use crate::{
    platform::{
        client::Client,
        db::{self, Conn},
    },
    text_column,
};

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A user came to exist by sign-up.
    SignedUp,
    /// An operator created a user.
    UserCreated,
    /// Somebody signed in, or tried to.
    LoggedIn,
    /// Somebody ended their session.
    LoggedOut,
    /// Somebody ended all their sessions.
    LoggedOutEverywhere,
    /// Somebody ended a session of theirs by its id.
    SessionEnded,
    /// A session ended because there were too many.
    SessionEvicted,
    /// A client that had lost an answer refreshed again.
    RefreshRecovered,
    /// A refresh token was used after its successor: by a thief, or by tabs that do not share one.
    RefreshReused,
    /// Somebody showed again who they are.
    Reauthenticated,
    /// Too many failures: the account takes no password until it is unlocked by mail.
    AccountLocked,
    /// The account was unlocked by mail.
    AccountUnlocked,
    /// A way to a new password was asked for.
    PasswordResetRequested,
    /// A new password was set by a link from a mail.
    PasswordReset,
    /// The password was changed by its owner.
    PasswordChanged,
    /// A new address was asked for.
    EmailChangeRequested,
    /// A new address was shown to work and took the old one's place.
    EmailChanged,
    /// The owner of the old address took it back.
    EmailChangeUndone,
    /// Policies were accepted.
    ConsentGiven,
    /// An operator suspended a user.
    UserSuspended,
    /// An operator ended a suspension.
    UserUnsuspended,
    /// An operator ended a user's sessions.
    SessionsRevoked,
    /// An operator changed what a user may do.
    RoleChanged,
    /// A new key signs access tokens, or was announced to do so.
    SigningKeyRotated,
    /// A subscription is something else now at its provider.
    SubscriptionChanged,
    /// An operator gave access.
    AccessGranted,
    /// An operator took a grant back.
    GrantRevoked,
    /// Access is held up: by a provider, for money that was taken back, or by an operator.
    HoldOpened,
    /// What was held up is let go.
    HoldReleased,
}

text_column!(Action {
    SignedUp = "signup",
    UserCreated = "user.created",
    LoggedIn = "login",
    LoggedOut = "logout",
    LoggedOutEverywhere = "logout_all",
    SessionEnded = "session.ended",
    SessionEvicted = "session.evicted",
    RefreshRecovered = "session.refresh_recovered",
    RefreshReused = "session.reuse_detected",
    Reauthenticated = "reauthenticate",
    AccountLocked = "account.locked",
    AccountUnlocked = "account.unlocked",
    PasswordResetRequested = "password.reset_requested",
    PasswordReset = "password.reset",
    PasswordChanged = "password.changed",
    EmailChangeRequested = "email.change_requested",
    EmailChanged = "email.changed",
    EmailChangeUndone = "email.change_undone",
    ConsentGiven = "consent.given",
    UserSuspended = "user.suspended",
    UserUnsuspended = "user.unsuspended",
    SessionsRevoked = "user.sessions_revoked",
    RoleChanged = "user.role_changed",
    SigningKeyRotated = "signing_key.rotated",
    SubscriptionChanged = "subscription.changed",
    AccessGranted = "access.granted",
    GrantRevoked = "access.grant_revoked",
    HoldOpened = "access.held",
    HoldReleased = "access.released",
});

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditOutcome {
    /// It was done.
    Success,
    /// It was refused.
    Failure,
}

text_column!(AuditOutcome { Success = "success", Failure = "failure" });

/// An entry that is about to be stored. Made before the transaction, so that a transaction that runs again stores the
/// same one.
#[derive(Clone, Debug)]
pub struct AuditEvent {
    id: Uuid,
    at: Timestamp,
    action: Action,
    outcome: AuditOutcome,
    actor: Option<Uuid>,
    subject: Option<Uuid>,
    session: Option<Uuid>,
    address: Option<String>,
    agent: Option<String>,
    details: Map<String, Value>,
}

impl Auth {
    /// Something that a client did. Without a client it was a command or the program itself.
    pub fn audit(&self, action: Action, client: Option<&Client>) -> AuditEvent {
        let at = self.now();
        AuditEvent {
            id: self.0.random.uuid(at),
            at,
            action,
            outcome: AuditOutcome::Success,
            actor: None,
            subject: None,
            session: None,
            address: client.map(|client| client.address.to_string()),
            agent: client.and_then(|client| client.agent.clone()),
            details: Map::new(),
        }
    }
}

impl AuditEvent {
    /// It was refused.
    pub fn failed(self) -> AuditEvent {
        AuditEvent { outcome: AuditOutcome::Failure, ..self }
    }

    /// Who did it.
    pub fn by(self, actor: Uuid) -> AuditEvent {
        AuditEvent { actor: Some(actor), ..self }
    }

    /// Who did it, in which session.
    pub fn by_caller(self, caller: Caller) -> AuditEvent {
        AuditEvent { actor: Some(caller.user_id), session: Some(caller.session_id), ..self }
    }

    /// To whom.
    pub fn about(self, subject: Uuid) -> AuditEvent {
        AuditEvent { subject: Some(subject), ..self }
    }

    /// Which session it concerns.
    pub fn in_session(self, session: Uuid) -> AuditEvent {
        AuditEvent { session: Some(session), ..self }
    }

    /// More about it. Never what people wrote, an address of theirs, or a secret.
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> AuditEvent {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// Stores the entry with the change that it is about.
    pub async fn store(&self, conn: &Conn) -> Result<(), db::Error> {
        let details = Value::Object(self.details.clone()).to_string();
        store::add_audit_event(
            self.id,
            self.at,
            self.action,
            self.outcome,
            self.actor,
            self.subject,
            self.session,
            self.address.as_deref(),
            self.agent.as_deref(),
            &details,
        )
        .exec(conn)
        .await?;
        Ok(())
    }
}
