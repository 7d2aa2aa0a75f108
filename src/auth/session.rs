//! Sessions: begun by a login, kept alive by refresh tokens that each work once, ended by logout.

use jiff::Timestamp;
use secrecy::SecretString;
use uuid::Uuid;

use super::{
    Auth, AuthError, Caller, Device, Email, Password, SessionView, Tokens,
    store::{self, SessionRow},
};
use crate::platform::{
    db::{self, Conn},
    time,
    token::{OpaqueToken, TokenKind},
};

/// A refresh token names its session, so that it is found by key and not by hash.
const REFRESH_TOKEN: TokenKind = TokenKind { name: "rt", id_len: 16 };

/// A session that is about to be stored.
#[derive(Clone)]
pub struct NewSession {
    row: SessionRow,
    expires_at: Timestamp,
    refresh_token: SecretString,
    refresh_hash: [u8; 32],
}

impl NewSession {
    /// Stores the session.
    pub async fn store(&self, conn: &Conn) -> Result<(), db::Error> {
        let SessionRow { id, user_id, device_name, address, created_at, idle_expires_at, .. } = &self.row;
        store::add_session(
            *id,
            *user_id,
            &self.refresh_hash,
            device_name.as_deref(),
            address.as_deref(),
            *created_at,
            *idle_expires_at,
            self.expires_at,
        )
        .exec(conn)
        .await?;
        Ok(())
    }
}

impl Auth {
    /// Signs somebody in.
    ///
    /// # Errors
    ///
    /// [`AuthError::InvalidCredentials`] for an unknown address and for a wrong password, after the same work.
    pub async fn log_in(
        &self,
        email: &Email,
        password: Password,
        device: Device,
    ) -> Result<Tokens, AuthError> {
        let found = self.db.read(async |c| store::find_credentials(email.key()).opt(&c).await).await?;
        let (user, stored) = found.map(|row| (row.id, row.password_hash)).unzip();
        let right = self.hasher.verify(password, stored.flatten()).await?;
        let (Some(user), true) = (user, right) else { return Err(AuthError::InvalidCredentials) };

        let session = self.new_session(user, device, self.now());
        let stored = session.clone();
        self.db.write(async move |c| stored.store(&c).await).await?;
        self.tokens_for(session).await
    }

    /// Exchanges a refresh token for the next one and a fresh access token.
    pub async fn refresh(&self, token: &SecretString) -> Result<Tokens, AuthError> {
        let (session, OpaqueToken { hash, .. }) = read_refresh_token(token).ok_or(AuthError::InvalidGrant)?;
        let now = self.now();
        let (refresh_token, refresh_hash) = REFRESH_TOKEN.issue(session.as_bytes(), &*self.random);
        let idle_end = time::after(now, self.settings.refresh_idle_ttl);
        let row = self
            .db
            .write(async move |c| {
                store::rotate_session(session, &hash, &refresh_hash, now, idle_end).opt(&c).await
            })
            .await?;
        let row = row.ok_or(AuthError::InvalidGrant)?;
        let expires_at = row.idle_expires_at;
        self.tokens_for(NewSession { row, expires_at, refresh_token, refresh_hash }).await
    }

    /// Ends the session of a refresh token, expired or not. Nothing happens if there is none.
    pub async fn end_by_refresh_token(&self, token: &SecretString) -> Result<(), AuthError> {
        let Some((session, OpaqueToken { hash, .. })) = read_refresh_token(token) else { return Ok(()) };
        self.db.write(async move |c| store::end_session_by_token(session, &hash).exec(&c).await).await?;
        Ok(())
    }

    /// Ends the session of an access token, expired or not. Nothing happens if there is none.
    pub async fn end_by_access_token(&self, token: &str) -> Result<(), AuthError> {
        let Ok(claims) = self.tokens.verify_expired(token) else { return Ok(()) };
        self.db.write(async move |c| store::end_session(claims.sid, claims.sub).exec(&c).await).await?;
        Ok(())
    }

    /// The caller's session.
    pub async fn session(&self, caller: Caller) -> Result<SessionView, AuthError> {
        let Caller { session_id, user_id, .. } = caller;
        let row = self.db.read(async |c| store::find_session(session_id, user_id).opt(&c).await).await?;
        row.map(|row| view(row, true)).ok_or(AuthError::Unauthenticated)
    }

    pub(super) fn new_session(&self, user_id: Uuid, device: Device, now: Timestamp) -> NewSession {
        let id = self.random.uuid(now);
        let (refresh_token, refresh_hash) = REFRESH_TOKEN.issue(id.as_bytes(), &*self.random);
        let expires_at = time::after(now, self.settings.refresh_absolute_ttl);
        let row = SessionRow {
            id,
            user_id,
            token_gen: 1,
            auth_time: now,
            device_name: device.name,
            address: device.network,
            created_at: now,
            last_seen_at: now,
            idle_expires_at: time::after(now, self.settings.refresh_idle_ttl).min(expires_at),
        };
        NewSession { row, expires_at, refresh_token, refresh_hash }
    }

    pub(super) async fn tokens_for(&self, session: NewSession) -> Result<Tokens, AuthError> {
        let NewSession { row, refresh_token, .. } = session;
        let now = self.now();
        let access_token = self
            .tokens
            .issue(row.user_id, row.id, row.token_gen, row.auth_time, now, &*self.random)
            .map_err(|_| AuthError::Signing)?;
        Ok(Tokens {
            access_token,
            expires_in: self.settings.access_token_ttl,
            refresh_token,
            refresh_expires_at: row.idle_expires_at,
            user: self.user(row.user_id).await?,
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
