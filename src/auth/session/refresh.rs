//! The exchange of refresh tokens (ADR 0015).
//!
//! Of a session's tokens one is the newest, and one stands before it. The newest is exchanged for the next. The one
//! before it is what two tabs, a lost answer and a thief have in common: it gets the same successor for a while, then
//! another one if nobody has ever shown to have the first, and ends the session otherwise. Older ones end it at once.
//!
//! Each step is decided on a row that was read, prepared outside of any transaction, and taken by one guarded statement
//! that repeats everything the decision rests on. If the session has moved on meanwhile, that statement finds no row,
//! and the decision is made anew.

use std::time::Duration;

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;

use super::{
    Presented,
    store::{self, RefreshableSession, SessionRow},
};
use crate::{
    auth::{Auth, AuthError, Tokens, User, audit::Action, letters},
    platform::{
        client::Client,
        db,
        mail::MAIL_JOB,
        seal::{DataKey, DoesNotOpen, Place, Sealed, equal},
        time,
    },
};

/// How long the token before the newest gets the same successor.
const WINDOW: Duration = Duration::from_secs(10);
/// How often it does.
const MAX_REPLAYS: i64 = 128;
/// When a successor is forgotten: later than the window, so that instances whose clocks differ agree about that.
pub(in crate::auth) const FORGET_AFTER: Duration = Duration::from_mins(1);
/// How often a decision is made anew. Every time somebody else has moved the session on, which a presented token
/// survives only a few times.
const DECISIONS: usize = 8;

/// What a presented token is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worth {
    /// It is the newest.
    Newest,
    /// It was exchanged a moment ago: by another tab, or the answer is lost.
    Replay,
    /// It was exchanged a moment ago, and often since; after that time it is worth something else.
    Worn { wait: Duration },
    /// It was exchanged, and nobody has ever shown to have its successor: the answer was lost.
    Unanswered,
    /// Its client has shown to have its successor, or one after that.
    Stolen,
}

impl Worth {
    fn of(row: &RefreshableSession, presented: &[u8; 32], now: Timestamp) -> Worth {
        if equal(presented, &row.refresh_hash) {
            return Worth::Newest;
        }
        if !row.prev_hash.as_ref().is_some_and(|hash| equal(presented, hash)) {
            return Worth::Stolen;
        }
        match row.prev_used_at {
            Some(used) if used >= time::before(now, WINDOW) && row.sealed_succ.is_some() => {
                if row.prev_replays < MAX_REPLAYS {
                    return Worth::Replay;
                }
                Worth::Worn { wait: time::until(time::after(used, WINDOW), now) }
            }
            _ if row.seen_gen < row.token_gen => Worth::Unanswered,
            _ => Worth::Stolen,
        }
    }
}

impl Auth {
    /// Exchanges a refresh token for the next one and a fresh access token.
    ///
    /// Whatever can fail comes before the exchange. What is lost after it is mended by presenting the same token again.
    ///
    /// # Errors
    ///
    /// [`AuthError::InvalidGrant`] when there is no such session any more. [`AuthError::RefreshReused`] for a token that
    /// only a thief can hold: then the session is over, and its owner gets a mail. [`AuthError::TooManyReplays`] when a
    /// token was exchanged more often than any client does; the session goes on.
    pub async fn refresh(&self, token: &SecretString, client: &Client) -> Result<Tokens, AuthError> {
        let presented = self.read_refresh_token(token)?.ok_or(AuthError::InvalidGrant)?;
        for _ in 0..DECISIONS {
            let (id, now) = (presented.session, self.now());
            let found = self.0.db.read(async |c| store::session_to_refresh(id, now).opt(&c).await).await?;
            let row = found.ok_or(AuthError::InvalidGrant)?;
            let user = self.user(row.user_id).await?;
            let tokens = match Worth::of(&row, &presented.hash, now) {
                Worth::Newest => self.rotate(&presented, token, row, user, now).await?,
                Worth::Replay => self.replay(&presented, token, row, user, now).await?,
                Worth::Worn { wait } => return Err(AuthError::TooManyReplays { wait }),
                Worth::Unanswered => self.recover(&presented, token, row, user, client, now).await?,
                Worth::Stolen => {
                    if self.end_stolen(&presented, &row, &user, client, now).await? {
                        return Err(AuthError::RefreshReused);
                    }
                    None
                }
            };
            if let Some(tokens) = tokens {
                return Ok(tokens);
            }
        }
        Err(db::Error::Conflict.into())
    }

    async fn rotate(
        &self,
        presented: &Presented,
        token: &SecretString,
        row: RefreshableSession,
        user: User,
        now: Timestamp,
    ) -> Result<Option<Tokens>, AuthError> {
        let (user_id, token_gen, Presented { session, hash }) = (row.user_id, row.token_gen, *presented);
        let Successor { sealed, hash: next, tokens, idle_expires_at } =
            self.successor(token, row, user, now)?;
        let exchanged = self
            .0
            .db
            .write(async move |c| {
                store::rotate_session(
                    session,
                    user_id,
                    token_gen,
                    &hash,
                    &next,
                    &sealed,
                    now,
                    idle_expires_at,
                )
                .opt(&c)
                .await
            })
            .await?;
        Ok(exchanged.map(|_| tokens))
    }

    async fn replay(
        &self,
        presented: &Presented,
        token: &SecretString,
        row: RefreshableSession,
        user: User,
        now: Timestamp,
    ) -> Result<Option<Tokens>, AuthError> {
        let (user_id, token_gen, Presented { session, hash }) = (row.user_id, row.token_gen, *presented);
        let sealed = row.sealed_succ.as_ref().ok_or(DoesNotOpen(COLUMN))?;
        let successor = seal_key(token).open_text(place(&session), sealed)?;
        let tokens = self.sign(row.into(), SecretString::from(successor), user)?;
        let used_since = time::before(now, WINDOW);
        let counted = self
            .0
            .db
            .write(async move |c| {
                store::count_replay(session, user_id, token_gen, &hash, now, used_since, MAX_REPLAYS)
                    .opt(&c)
                    .await
            })
            .await?;
        Ok(counted.map(|_| tokens))
    }

    async fn recover(
        &self,
        presented: &Presented,
        token: &SecretString,
        row: RefreshableSession,
        user: User,
        client: &Client,
        now: Timestamp,
    ) -> Result<Option<Tokens>, AuthError> {
        let (user_id, token_gen, Presented { session, hash }) = (row.user_id, row.token_gen, *presented);
        let event = self
            .audit(Action::RefreshRecovered, Some(client))
            .by(user.id)
            .about(user.id)
            .in_session(session)
            .with("token_gen", token_gen);
        let Successor { sealed, hash: next, tokens, idle_expires_at } =
            self.successor(token, row, user, now)?;
        let used_before = time::before(now, WINDOW);
        let recovered = self
            .0
            .db
            .write(async move |c| {
                let recovered = store::recover_session(
                    session,
                    user_id,
                    token_gen,
                    &hash,
                    &next,
                    &sealed,
                    now,
                    idle_expires_at,
                    used_before,
                );
                let recovered = recovered.opt(&c).await?;
                if recovered.is_some() {
                    event.store(&c).await?;
                }
                Ok::<_, db::Error>(recovered)
            })
            .await?;
        Ok(recovered.map(|_| tokens))
    }

    /// Ends a session whose token was stolen, and tells its owner. `false`: it has moved on meanwhile.
    async fn end_stolen(
        &self,
        presented: &Presented,
        row: &RefreshableSession,
        user: &User,
        client: &Client,
        now: Timestamp,
    ) -> Result<bool, AuthError> {
        let (user_id, token_gen, Presented { session, hash }) = (row.user_id, row.token_gen, *presented);
        let event = self
            .audit(Action::RefreshReused, Some(client))
            .failed()
            .about(user.id)
            .in_session(session)
            .with("token_gen", token_gen);
        let mail = self.0.jobs.prepare(MAIL_JOB, &letters::refresh_token_reused(&user.email))?;
        let used_before = time::before(now, WINDOW);
        let ended = self
            .0
            .db
            .write(async move |c| {
                let ended = store::end_stolen_session(session, user_id, token_gen, &hash, now, used_before);
                let ended = ended.opt(&c).await?;
                if ended.is_some() {
                    event.store(&c).await?;
                    mail.store(&c).await?;
                }
                Ok::<_, db::Error>(ended.is_some())
            })
            .await?;
        if ended {
            self.0.jobs.wake();
        }
        Ok(ended)
    }

    /// A successor for a presented token, with what its client gets.
    fn successor(
        &self,
        token: &SecretString,
        row: RefreshableSession,
        user: User,
        now: Timestamp,
    ) -> Result<Successor, AuthError> {
        let (successor, hash) = self.new_refresh_token(row.id)?;
        let idle_expires_at = time::after(now, self.0.settings.refresh_idle_ttl).min(row.expires_at);
        let session = row.id;
        let sealed =
            seal_key(token).seal(place(&session), successor.expose_secret().as_bytes(), &*self.0.random);
        let token_gen = row.token_gen.saturating_add(1);
        let row = SessionRow { token_gen, last_seen_at: now, idle_expires_at, ..row.into() };
        let tokens = self.sign(row, successor, user)?;
        Ok(Successor { sealed, hash, tokens, idle_expires_at })
    }
}

struct Successor {
    sealed: Sealed,
    hash: [u8; 32],
    tokens: Tokens,
    idle_expires_at: Timestamp,
}

const COLUMN: &str = "session.sealed_succ";

fn place(session: &Uuid) -> Place<'_> {
    Place::new(COLUMN, session.as_bytes())
}

/// Only a holder of the presented token has this key: the database knows no more than the token's hash.
fn seal_key(presented: &SecretString) -> DataKey {
    DataKey::derive("session.successor", presented)
}

impl From<RefreshableSession> for SessionRow {
    fn from(row: RefreshableSession) -> Self {
        SessionRow {
            id: row.id,
            user_id: row.user_id,
            token_gen: row.token_gen,
            auth_time: row.auth_time,
            device_name: row.device_name,
            address: row.address,
            created_at: row.created_at,
            last_seen_at: row.last_seen_at,
            idle_expires_at: row.idle_expires_at,
            expires_at: row.expires_at,
        }
    }
}
