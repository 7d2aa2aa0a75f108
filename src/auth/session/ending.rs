//! The ends that people put to sessions. A session that has ended is a row that is gone, on every instance and after every
//! restart.

use secrecy::SecretString;
use uuid::Uuid;

use super::store::{self, EndedSession};
use crate::{
    auth::{Auth, AuthError, Caller, audit::Action},
    platform::{client::Client, db},
};

/// What shows which session is meant.
pub enum Proof<'a> {
    /// A refresh token of the session: the newest, or one that was exchanged since.
    Refresh(&'a SecretString),
    /// An access token of the session, expired or not.
    Access(&'a str),
}

impl Auth {
    /// Ends the session of a token, expired or not. Nothing happens if there is none.
    pub async fn log_out(&self, proof: Proof<'_>, client: &Client) -> Result<(), AuthError> {
        let Some(session) = self.session_of(&proof).await? else { return Ok(()) };
        let event = self.audit(Action::LoggedOut, Some(client));
        self.0
            .db
            .write(async move |c| {
                let ended = store::end_session_of_token(session).opt(&c).await?;
                if let Some(EndedSession { user_id, .. }) = ended {
                    event.clone().by(user_id).about(user_id).in_session(session).store(&c).await?;
                }
                Ok::<_, db::Error>(())
            })
            .await?;
        Ok(())
    }

    /// Ends all sessions of the user whose session a token is of. Nothing happens if that one has ended: who was thrown
    /// out once has no say about the others.
    pub async fn log_out_everywhere(&self, proof: Proof<'_>, client: &Client) -> Result<(), AuthError> {
        let Some(session) = self.session_of(&proof).await? else { return Ok(()) };
        let event = self.audit(Action::LoggedOutEverywhere, Some(client));
        self.0
            .db
            .write(async move |c| {
                let ended = store::end_sessions_beside(session).all(&c).await?;
                if let Some(EndedSession { user_id, .. }) = ended.first() {
                    let event = event.clone().by(*user_id).about(*user_id).in_session(session);
                    event.with("ended", ended.len()).store(&c).await?;
                }
                Ok::<_, db::Error>(())
            })
            .await?;
        Ok(())
    }

    /// Ends a session of the caller.
    ///
    /// # Errors
    ///
    /// [`AuthError::ReauthenticationRequired`] without a fresh sign-in, and then [`AuthError::NoSuchSession`] for one that
    /// is not the caller's or has ended.
    pub async fn end_session(&self, caller: Caller, session: Uuid, client: &Client) -> Result<(), AuthError> {
        self.require_fresh(caller)?;
        let event = self
            .audit(Action::SessionEnded, Some(client))
            .by_caller(caller)
            .about(caller.user_id)
            .with("ended", session.to_string());
        self.0
            .db
            .write(async move |c| {
                if store::end_session(session, caller.user_id).opt(&c).await?.is_none() {
                    return Err(AuthError::NoSuchSession);
                }
                event.store(&c).await?;
                Ok(())
            })
            .await
    }

    async fn session_of(&self, proof: &Proof<'_>) -> Result<Option<Uuid>, AuthError> {
        Ok(match proof {
            Proof::Refresh(token) => self.read_refresh_token(token)?.map(|presented| presented.session),
            Proof::Access(token) => {
                self.0.tokens.verify_expired(token, self.now()).await.ok().map(|claims| claims.sid)
            }
        })
    }
}
