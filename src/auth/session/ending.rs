//! The ends that people put to sessions. A session that has ended is a row that is gone, on every instance and after every
//! restart.

use secrecy::SecretString;
use uuid::Uuid;

use super::store;
use crate::{
    auth::{
        Auth, AuthError, Caller,
        audit::{Action, AuditEvent},
    },
    platform::{client::Client, db},
};

/// The tokens that somebody shows who signs out. They name one session as a rule; each that is named ends.
#[derive(Clone, Copy)]
pub struct ShownTokens<'a> {
    /// A refresh token: the newest, or one that was exchanged since.
    pub refresh: Option<&'a SecretString>,
    /// An access token, expired or not.
    pub access: Option<&'a str>,
}

/// A session that a token names. It may be over.
struct NamedSession {
    id: Uuid,
    user_id: Uuid,
}

impl Auth {
    /// Ends the sessions of these tokens. Nothing happens if there are none.
    pub async fn log_out(&self, shown: ShownTokens<'_>, client: &Client) -> Result<(), AuthError> {
        let named = self.named_sessions(shown).await?;
        if named.is_empty() {
            return Ok(());
        }
        let ends = self.with_entries(named, Action::LoggedOut, client);
        self.0
            .db
            .write(async move |c| {
                for (NamedSession { id, user_id }, event) in &ends {
                    if store::end_session(*id, *user_id).exec(&c).await? > 0 {
                        event.store(&c).await?;
                    }
                }
                Ok::<_, db::Error>(())
            })
            .await?;
        Ok(())
    }

    /// Ends all sessions of the user whose session a token is of. Nothing happens if that one has ended: who was thrown
    /// out once has no say about the others.
    pub async fn log_out_everywhere(&self, shown: ShownTokens<'_>, client: &Client) -> Result<(), AuthError> {
        let named = self.named_sessions(shown).await?;
        if named.is_empty() {
            return Ok(());
        }
        let ends = self.with_entries(named, Action::LoggedOutEverywhere, client);
        self.0
            .db
            .write(async move |c| {
                for (NamedSession { id, user_id }, event) in &ends {
                    let ended = store::end_session_and_others(*id, *user_id).exec(&c).await?;
                    if ended > 0 {
                        event.clone().with("ended", ended).store(&c).await?;
                    }
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
                if store::end_session(session, caller.user_id).exec(&c).await? == 0 {
                    return Err(AuthError::NoSuchSession);
                }
                event.store(&c).await?;
                Ok(())
            })
            .await
    }

    /// Each session with the entry for its end. Two may end, of two users even, and each entry has an id of its own.
    fn with_entries(
        &self,
        named: Vec<NamedSession>,
        action: Action,
        client: &Client,
    ) -> Vec<(NamedSession, AuditEvent)> {
        let with_entry = |session: NamedSession| {
            let event = self.audit(action, Some(client)).by(session.user_id).about(session.user_id);
            let event = event.in_session(session.id);
            (session, event)
        };
        named.into_iter().map(with_entry).collect()
    }

    async fn named_sessions(&self, shown: ShownTokens<'_>) -> Result<Vec<NamedSession>, AuthError> {
        let mut named = Vec::new();
        let refresh = shown.refresh.map(|token| self.read_refresh_token(token)).transpose()?.flatten();
        if let Some(id) = refresh.map(|presented| presented.session) {
            let owner = self.0.db.read(async |c| store::find_session_owner(id).opt(&c).await).await?;
            named.extend(owner.map(|user_id| NamedSession { id, user_id }));
        }
        if let Some(token) = shown.access
            && let Ok(claims) = self.0.tokens.verify_expired(token, self.now()).await
        {
            named.push(NamedSession { id: claims.sid, user_id: claims.sub });
        }
        Ok(named)
    }
}
