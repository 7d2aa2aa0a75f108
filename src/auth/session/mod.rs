//! Sessions: begun by a login, kept alive by refresh tokens that each work once, ended by logout.

pub mod http;
pub mod store;

use jiff::Timestamp;
use secrecy::SecretString;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use self::store::SessionRow;
use super::{Auth, AuthError, Caller, Device, Tokens, User, audit::Action, tokens::Claims};
use crate::platform::{
    client::Client,
    db::{self, Conn},
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
    /// When it was last refreshed.
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

/// A refresh token names its session, so that it is found by key and not by hash.
const REFRESH_TOKEN: TokenKind = TokenKind { name: "rt", id_len: 16 };

/// How many sessions a user may have; another one ends the oldest.
const MAX_SESSIONS: i64 = 20;

/// A session that is about to be stored.
#[derive(Clone)]
pub struct NewSession {
    row: SessionRow,
    refresh_token: SecretString,
    refresh_hash: [u8; 32],
}

impl NewSession {
    /// Stores the session and ends the oldest where there are too many. The transaction has written the user's row before,
    /// so that two logins at once count one after the other.
    pub async fn store(&self, conn: &Conn) -> Result<(), db::Error> {
        let SessionRow { id, user_id, device_name, address, created_at, idle_expires_at, expires_at, .. } =
            &self.row;
        let others = MAX_SESSIONS.saturating_sub(1);
        store::end_oldest_sessions(*user_id, *created_at, others).exec(conn).await?;
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

impl Auth {
    /// Who presents this access token.
    ///
    /// # Errors
    ///
    /// [`AuthError::Unauthenticated`] for a token that is not valid, for a session that has ended, and for a user who is
    /// suspended.
    pub async fn authenticate(&self, token: &str) -> Result<Caller, AuthError> {
        let now = self.0.clock.now();
        let claims = self.0.tokens.verify(token, now).await.map_err(|_| AuthError::Unauthenticated)?;
        let Claims { sid, sub, token_gen, auth_time, kid, .. } = claims;
        let auth_time = Timestamp::from_second(auth_time).map_err(|_| AuthError::Unauthenticated)?;
        let live = self.0.db.read(async |c| store::live_session(sid, sub, now, &kid).opt(&c).await).await?;
        let live = live.ok_or(AuthError::Unauthenticated)?;
        Ok(Caller { user_id: live.user_id, session_id: live.id, role: live.role, auth_time, token_gen })
    }

    /// Whether a caller's session still lives: for what lasts longer than a request. A signing key that was revoked since
    /// does not end it; the next request does.
    pub async fn is_live(&self, caller: Caller) -> Result<bool, AuthError> {
        let (Caller { session_id, user_id, .. }, now) = (caller, self.0.clock.now());
        let lives =
            self.0.db.read(async |c| store::session_lives(session_id, user_id, now).opt(&c).await).await?;
        Ok(lives.is_some())
    }

    /// Exchanges a refresh token for the next one and a fresh access token.
    ///
    /// Whatever can fail comes before the exchange: a token that was exchanged and not handed out would be the end of
    /// the session.
    pub async fn refresh(&self, token: &SecretString) -> Result<Tokens, AuthError> {
        let (id, OpaqueToken { hash, .. }) = read_refresh_token(token).ok_or(AuthError::InvalidGrant)?;
        let now = self.now();
        let found =
            self.0.db.read(async |c| store::find_session_to_refresh(id, &hash, now).opt(&c).await).await?;
        let row = found.ok_or(AuthError::InvalidGrant)?;
        let user = self.user(row.user_id).await?;

        let (refresh_token, refresh_hash) = REFRESH_TOKEN.issue(id.as_bytes(), &*self.0.random);
        let idle_expires_at = time::after(now, self.0.settings.refresh_idle_ttl).min(row.expires_at);
        let token_gen = row.token_gen.saturating_add(1);
        let row = SessionRow { token_gen, last_seen_at: now, idle_expires_at, ..row };
        let tokens = self.sign(NewSession { row, refresh_token, refresh_hash }, user)?;
        let exchanged = self
            .0
            .db
            .write(async move |c| {
                store::rotate_session(id, &hash, &refresh_hash, now, idle_expires_at).exec(&c).await
            })
            .await?;
        if exchanged > 0 { Ok(tokens) } else { Err(AuthError::InvalidGrant) }
    }

    /// Ends the session of a refresh token, expired or not. Nothing happens if there is none.
    pub async fn end_by_refresh_token(&self, token: &SecretString, client: &Client) -> Result<(), AuthError> {
        let Some((session, OpaqueToken { hash, .. })) = read_refresh_token(token) else { return Ok(()) };
        let event = self.audit(Action::LoggedOut, Some(client)).in_session(session);
        self.0
            .db
            .write(async move |c| {
                if let Some(user) = store::end_session_by_token(session, &hash).opt(&c).await? {
                    event.clone().by(user).about(user).store(&c).await?;
                }
                Ok(())
            })
            .await
    }

    /// Ends the session of an access token, expired or not. Nothing happens if there is none.
    pub async fn end_by_access_token(&self, token: &str, client: &Client) -> Result<(), AuthError> {
        let Ok(claims) = self.0.tokens.verify_expired(token, self.now()).await else { return Ok(()) };
        let Claims { sid, sub, .. } = claims;
        let event = self.audit(Action::LoggedOut, Some(client)).by(sub).about(sub).in_session(sid);
        self.0
            .db
            .write(async move |c| {
                if store::end_session(sid, sub).exec(&c).await? > 0 {
                    event.store(&c).await?;
                }
                Ok(())
            })
            .await
    }

    /// The caller's session.
    pub async fn session(&self, caller: Caller) -> Result<SessionView, AuthError> {
        let Caller { session_id, user_id, .. } = caller;
        let row = self.0.db.read(async |c| store::find_session(session_id, user_id).opt(&c).await).await?;
        row.map(|row| view(row, true)).ok_or(AuthError::Unauthenticated)
    }

    pub(super) fn new_session(&self, user_id: Uuid, device: Device, now: Timestamp) -> NewSession {
        let id = self.0.random.uuid(now);
        let (refresh_token, refresh_hash) = REFRESH_TOKEN.issue(id.as_bytes(), &*self.0.random);
        let expires_at = time::after(now, self.0.settings.refresh_absolute_ttl);
        let row = SessionRow {
            id,
            user_id,
            token_gen: 1,
            auth_time: now,
            device_name: device.name,
            address: device.network,
            created_at: now,
            last_seen_at: now,
            idle_expires_at: time::after(now, self.0.settings.refresh_idle_ttl).min(expires_at),
            expires_at,
        };
        NewSession { row, refresh_token, refresh_hash }
    }

    /// Signs what the user of a session gets. Comes before the transaction that stores the session, because nothing
    /// that can fail may come after it.
    pub(super) fn sign(&self, session: NewSession, user: User) -> Result<Tokens, AuthError> {
        let NewSession { row, refresh_token, .. } = session;
        let access_token = self
            .0
            .tokens
            .issue(row.user_id, row.id, row.token_gen, row.auth_time, self.now(), &*self.0.random)
            .map_err(|_| AuthError::Signing)?;
        Ok(Tokens {
            access_token,
            expires_in: self.0.settings.access_token_ttl,
            refresh_token,
            refresh_expires_at: row.idle_expires_at,
            user,
            session: view(row, true),
        })
    }
}

fn read_refresh_token(token: &SecretString) -> Option<(Uuid, OpaqueToken)> {
    let token = REFRESH_TOKEN.read(token)?;
    Some((Uuid::from_slice(&token.id).ok()?, token))
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
