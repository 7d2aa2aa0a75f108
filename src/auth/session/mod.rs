//! Sessions: begun by a login, kept alive by refresh tokens that are exchanged for the next, ended by logout.

mod ending;
pub(crate) mod http;
mod refresh;
pub(crate) mod store;

use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

pub use self::ending::ShownTokens;
pub(super) use self::refresh::FORGET_AFTER;
use self::store::{LiveSession, SessionRow};
use super::{
    Auth, AuthError, Caller, Device, Tokens, User,
    audit::{Action, AuditEvent},
    letters,
    tokens::Claims,
    users,
};
use crate::platform::{
    client::Client,
    db::{self, Conn},
    job::NewJob,
    keyring::Service,
    mail::MAIL_JOB,
    time,
    token::{OpaqueToken, TokenKind},
};

/// A session, as its user sees it.
#[derive(Clone, Serialize, ToSchema)]
#[schema(as = Session)]
pub struct SessionView {
    /// The session's id.
    pub id: Uuid,
    /// When it began.
    #[serde(serialize_with = "time::serialize")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it was last used, to the minute.
    #[serde(serialize_with = "time::serialize")]
    #[schema(value_type = String, format = DateTime)]
    pub last_seen_at: Timestamp,
    /// What the client called itself.
    pub device_name: Option<String>,
    /// The network that it was begun from.
    #[schema(example = "203.0.113.0/24")]
    pub address: Option<String>,
    /// Whether it is the session of this request.
    pub current: bool,
}

/// A refresh token names its session, so that it is found by key and not by hash. It is marked, so that an old one,
/// whose hash is not stored any more, is told from an invented one.
const REFRESH_TOKEN: TokenKind = TokenKind { name: "rt", id_len: 16 };

/// How many sessions a user may have; another one ends the oldest.
const MAX_SESSIONS: i64 = 20;
/// How much older `last_seen_at` may get than the last request.
const PRESENCE_INTERVAL: Duration = Duration::from_mins(1);
/// How often a request looks at its session again when that changed under its hands.
const LOOKS: usize = 3;

/// A session that is about to be stored.
pub struct NewSession {
    row: SessionRow,
    refresh_hash: [u8; 32],
    evicted: AuditEvent,
    notice: NewJob,
}

impl NewSession {
    /// Stores the session and ends the oldest where there are too many. The transaction has written the user's row before,
    /// so that two logins at once count one after the other.
    pub async fn store(&self, conn: &Conn) -> Result<(), db::Error> {
        let SessionRow { id, user_id, device_name, address, created_at, idle_expires_at, expires_at, .. } =
            &self.row;
        let others = MAX_SESSIONS.saturating_sub(1);
        let mut ended = store::end_oldest_sessions(*user_id, *created_at, others).all(conn).await?;
        ended.retain(|session| session.idle_expires_at > *created_at);
        if let Some(oldest) = ended.first() {
            let all: Vec<String> = ended.iter().map(|session| session.id.to_string()).collect();
            self.evicted.clone().in_session(oldest.id).with("sessions", all).store(conn).await?;
            self.notice.store(conn).await?;
        }
        store::add_session(
            *id,
            *user_id,
            &self.refresh_hash,
            device_name.as_deref(),
            address.as_deref(),
            *created_at,
            *idle_expires_at,
            *expires_at,
        )
        .exec(conn)
        .await?;
        Ok(())
    }
}

/// Holds the caller's session until the transaction ends, so that what it is used for does not happen after its end: a
/// request that was let in may have waited long for its body. The user's row comes before it, as everywhere.
///
/// # Errors
///
/// [`AuthError::Unauthenticated`] if it is over.
pub(super) async fn hold(conn: &Conn, caller: Caller, now: Timestamp) -> Result<(), AuthError> {
    users::store::hold_user(caller.user_id).exec(conn).await?;
    let held = store::hold_session(caller.session_id, caller.user_id, now).opt(conn).await?;
    held.map(|_| ()).ok_or(AuthError::Unauthenticated)
}

/// A refresh token of ours, and the session that it was one of.
#[derive(Clone, Copy)]
struct Presented {
    session: Uuid,
    hash: [u8; 32],
}

impl Auth {
    /// Refuses a token that we did not make or that is not valid now. Says nothing about its session.
    ///
    /// # Errors
    ///
    /// [`AuthError::Unauthenticated`].
    pub async fn check_signature(&self, token: &str) -> Result<(), AuthError> {
        let claims = self.0.tokens.verify(token, self.now()).await;
        claims.map(|_| ()).map_err(|_| AuthError::Unauthenticated)
    }

    /// Who presents this access token.
    ///
    /// The first request with the tokens of a refresh is noted before it is answered: it shows that their client has
    /// them.
    ///
    /// # Errors
    ///
    /// [`AuthError::Unauthenticated`] for a token that is not valid, for a session that has ended, and for a user who is
    /// suspended.
    pub async fn authenticate(&self, token: &str) -> Result<Caller, AuthError> {
        let now = self.0.clock.now();
        let claims = self.0.tokens.verify(token, now).await.map_err(|_| AuthError::Unauthenticated)?;
        for _ in 0..LOOKS {
            let live = self.live_session(&claims, now).await?.ok_or(AuthError::Unauthenticated)?;
            if self.note_presence(&live, &claims, now).await? {
                return Ok(Caller {
                    user_id: live.user_id,
                    session_id: live.id,
                    role: live.role,
                    auth_time: Timestamp::from_second(claims.auth_time).unwrap_or(Timestamp::MIN),
                    token_gen: claims.token_gen,
                });
            }
        }
        Err(db::Error::Conflict.into())
    }

    async fn live_session(&self, claims: &Claims, now: Timestamp) -> Result<Option<LiveSession>, db::Error> {
        let (Claims { sid, sub, token_gen, .. }, kid) = (claims, claims.kid.as_str());
        self.0.db.read(async |c| store::live_session(*sid, *sub, *token_gen, now, kid).opt(&c).await).await
    }

    /// Notes what this request tells about its client, at most once a refresh and once a minute. `false`: the session
    /// is another by now; look again.
    async fn note_presence(
        &self,
        live: &LiveSession,
        claims: &Claims,
        now: Timestamp,
    ) -> Result<bool, AuthError> {
        let Claims { sid, sub, token_gen, .. } = *claims;
        let seen_before = time::before(now, PRESENCE_INTERVAL);
        let is_first = live.seen_gen < token_gen;
        if !is_first && live.last_seen_at >= seen_before {
            return Ok(true);
        }
        let forget_before = time::before(now, FORGET_AFTER);
        let noted = self
            .0
            .db
            .write(async move |c| {
                store::note_presence(sid, sub, token_gen, now, seen_before, forget_before).exec(&c).await
            })
            .await;
        match noted {
            Ok(rows) => Ok(!is_first || rows > 0),
            // What decides about theft must be on record; when somebody was here last need not.
            Err(error) if is_first => Err(error.into()),
            Err(error) => {
                tracing::warn!(%error, "when a session was last used was not recorded");
                Ok(true)
            }
        }
    }

    /// Whether a caller's session still lives: for what lasts longer than a request. A signing key that was revoked since
    /// does not end it; the next request does.
    pub async fn is_live(&self, caller: Caller) -> Result<bool, AuthError> {
        let (Caller { session_id, user_id, .. }, now) = (caller, self.0.clock.now());
        let lives =
            self.0.db.read(async |c| store::session_lives(session_id, user_id, now).opt(&c).await).await?;
        Ok(lives.is_some())
    }

    /// The caller's session.
    pub async fn session(&self, caller: Caller) -> Result<SessionView, AuthError> {
        let Caller { session_id, user_id, .. } = caller;
        let row = self.0.db.read(async |c| store::find_session(session_id, user_id).opt(&c).await).await?;
        row.map(|row| view(row, true)).ok_or(AuthError::Unauthenticated)
    }

    /// The caller's live sessions, newest first.
    pub async fn sessions(&self, caller: Caller) -> Result<Vec<SessionView>, AuthError> {
        let (user, now) = (caller.user_id, self.now());
        let rows = self.0.db.read(async |c| store::sessions_of_user(user, now).all(&c).await).await?;
        Ok(rows
            .into_iter()
            .map(|row| {
                let current = row.id == caller.session_id;
                view(row, current)
            })
            .collect())
    }

    /// Begins a session, with what its client gets. Comes before the transaction that stores it, because nothing that
    /// can fail may come after that.
    pub(super) fn begin_session(
        &self,
        user: User,
        device: Device,
        client: &Client,
    ) -> Result<(NewSession, Tokens), AuthError> {
        let now = self.now();
        let id = self.0.random.uuid(now);
        let (refresh_token, refresh_hash) = self.new_refresh_token(id)?;
        let expires_at = time::after(now, self.0.settings.refresh_absolute_ttl);
        let row = SessionRow {
            id,
            user_id: user.id,
            token_gen: 1,
            auth_time: now,
            device_name: device.name,
            address: device.network,
            created_at: now,
            last_seen_at: now,
            idle_expires_at: time::after(now, self.0.settings.refresh_idle_ttl).min(expires_at),
            expires_at,
        };
        let evicted = self.audit(Action::SessionEvicted, Some(client)).by(user.id).about(user.id);
        let notice = self.0.jobs.prepare(MAIL_JOB, &letters::session_evicted(&user.email))?;
        let tokens = self.sign(row.clone(), refresh_token, user)?;
        Ok((NewSession { row, refresh_hash, evicted, notice }, tokens))
    }

    /// Signs what the user of a session gets.
    fn sign(&self, row: SessionRow, refresh_token: SecretString, user: User) -> Result<Tokens, AuthError> {
        let now = self.now();
        let access_token = self
            .0
            .tokens
            .issue(row.user_id, row.id, row.token_gen, row.auth_time, now, &*self.0.random)
            .map_err(|_| AuthError::Signing)?;
        Ok(Tokens {
            access_token,
            expires_in: self.0.settings.access_token_ttl,
            refresh_token,
            refresh_expires_at: row.idle_expires_at,
            refresh_expires_in: time::until(row.idle_expires_at, now),
            user,
            session: view(row, true),
        })
    }

    fn new_refresh_token(&self, session: Uuid) -> Result<(SecretString, [u8; 32]), AuthError> {
        let key = self.0.keyring.service(Service::Hashes)?;
        Ok(REFRESH_TOKEN.issue_marked(session.as_bytes(), key, &*self.0.random))
    }

    /// Reads a refresh token; `None` for anything that we did not make.
    fn read_refresh_token(&self, token: &SecretString) -> Result<Option<Presented>, AuthError> {
        let key = self.0.keyring.service(Service::Hashes)?;
        let read = REFRESH_TOKEN.read_marked(token, key);
        Ok(read.and_then(|OpaqueToken { id, hash }| {
            Some(Presented { session: Uuid::from_slice(&id).ok()?, hash })
        }))
    }
}

fn view(row: SessionRow, current: bool) -> SessionView {
    SessionView {
        id: row.id,
        created_at: row.created_at,
        last_seen_at: row.last_seen_at,
        device_name: row.device_name,
        address: row.address,
        current,
    }
}
