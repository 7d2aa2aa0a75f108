//! The hard stop: after a hundred wrong passwords in a row an account takes none until it is unlocked by mail.
//!
//! Throttles make guessing slow; this makes it end (NIST SP 800-63B-4, 3.2.2). It counts for everybody, devices that have
//! signed in before included. An address that is nobody's is counted, too: so both cost the same work. A locked account
//! answers the right password as it answers a wrong one.

pub(crate) mod http;
pub(crate) mod store;

use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;
use uuid::Uuid;

use super::{
    Auth, AuthError, Email,
    audit::{Action, AuditEvent},
    letters,
    throttle::Throttle,
};
use crate::platform::{
    client::Client,
    db::{self, Conn},
    job::NewJob,
    mail::MAIL_JOB,
    time,
    token::TokenKind,
};

/// Wrong passwords in a row that an account takes.
const MAX_FAILURES: i64 = 100;
/// How long a link to unlock is valid, and how long no other one is sent.
const UNLOCK_TTL: Duration = Duration::from_hours(24);
/// How long the count of an address that is nobody's is kept.
const NOBODY_TTL: Duration = Duration::from_hours(24);

const TOKEN: TokenKind = TokenKind { name: "ul", id_len: 0 };

/// Whose wrong passwords are counted.
#[derive(Clone, Debug)]
pub(in crate::auth) struct Account {
    key: Vec<u8>,
    user: Option<Uuid>,
}

/// A wrong password that is about to be counted. Made before the transaction and the same for everybody.
struct Failure {
    account: Account,
    event: AuditEvent,
    locked: AuditEvent,
    unlock_hash: [u8; 32],
    mail: NewJob,
    now: Timestamp,
}

impl Account {
    /// A user's, or that of an address of which a keyed hash is given.
    pub(in crate::auth) fn of(user: Option<Uuid>, address: [u8; 32]) -> Account {
        Account { key: user.map_or_else(|| address.to_vec(), |id| id.as_bytes().to_vec()), user }
    }

    /// Whether the account takes no password.
    pub(in crate::auth) async fn is_locked(&self, conn: &Conn) -> Result<bool, db::Error> {
        let failures = store::find_failures(&self.key).opt(conn).await?;
        Ok(failures.unwrap_or(0) >= MAX_FAILURES)
    }
}

/// Begins to count anew after a right password.
///
/// # Errors
///
/// [`AuthError::InvalidCredentials`] if the account was locked meanwhile.
pub(in crate::auth) async fn forget_failures(
    conn: &Conn,
    user: Uuid,
    now: Timestamp,
) -> Result<(), AuthError> {
    let forgotten = store::forget_failures(user.as_bytes(), user, MAX_FAILURES, now).opt(conn).await?;
    forgotten.map(|_| ()).ok_or(AuthError::InvalidCredentials)
}

/// Unlocks the account of somebody who has shown in another way who they are, such as by a link to a new password.
pub async fn unlock_user(conn: &Conn, user: Uuid, now: Timestamp) -> Result<(), db::Error> {
    store::unlock_user(user, now).exec(conn).await?;
    Ok(())
}

/// The time before which nobody's wrong passwords are forgotten.
pub(super) fn forgotten_before(now: Timestamp) -> Timestamp {
    time::before(now, NOBODY_TTL)
}

impl Failure {
    /// Counts it, and locks the account if there are too many. Says whether a mail was stored.
    async fn store(&self, conn: &Conn) -> Result<bool, db::Error> {
        let Account { key, user } = &self.account;
        let failures = store::count_failure(key, *user, self.now).one(conn).await?;
        self.event.store(conn).await?;
        if failures < MAX_FAILURES {
            return Ok(false);
        }
        if failures == MAX_FAILURES && user.is_some() {
            self.locked.store(conn).await?;
        }
        let before = time::before(self.now, UNLOCK_TTL);
        let renewed = store::renew_unlock_link(key, &self.unlock_hash, self.now, before).exec(conn).await?;
        if renewed > 0 {
            self.mail.store(conn).await?;
        }
        Ok(renewed > 0)
    }
}

impl Auth {
    /// Counts a wrong password, with its entry in the audit. The hundredth in a row locks the account and sends a link;
    /// while it is locked, another one at most once a day.
    pub(in crate::auth) async fn count_failure(
        &self,
        account: Account,
        email: &Email,
        event: AuditEvent,
        client: &Client,
    ) -> Result<(), AuthError> {
        let (token, unlock_hash) = TOKEN.issue(&[], &*self.0.random);
        let link = self.link("unlock", &token);
        let mail = self.0.jobs.prepare(MAIL_JOB, &letters::account_locked(email.address(), &link))?;
        let locked = self.audit(Action::AccountLocked, Some(client));
        let (event, locked) = match account.user {
            Some(id) => (event.failed().about(id), locked.about(id)),
            None => (event.failed(), locked),
        };
        let failure = Failure { account, event, locked, unlock_hash, mail, now: self.now() };
        if self.0.db.write(async move |c| failure.store(&c).await).await? {
            self.0.jobs.wake();
        }
        Ok(())
    }

    /// Unlocks an account by the token of a mail. Devices that are signed in are not touched.
    ///
    /// # Errors
    ///
    /// [`AuthError::InvalidCode`] for a token that is unknown, used, older than a day or older than another one.
    pub async fn unlock(&self, token: &SecretString, client: &Client) -> Result<(), AuthError> {
        let _ = self.admit(Throttle::Code, client).await?;
        let hash = TOKEN.read(token).ok_or(AuthError::InvalidCode)?.hash;
        let now = self.now();
        let after = time::before(now, UNLOCK_TTL);
        let event = self.audit(Action::AccountUnlocked, Some(client));
        self.0
            .db
            .write(async move |c| {
                let user = store::unlock(&hash, after, now).opt(&c).await?.ok_or(AuthError::InvalidCode)?;
                event.clone().by(user).about(user).store(&c).await?;
                Ok(())
            })
            .await
    }
}
