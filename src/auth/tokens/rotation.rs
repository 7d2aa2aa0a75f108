//! Changing the keys that sign: on a schedule, by command, and at once when one may be known to others.
//!
//! A key is published for a time before it signs, because others keep the public set for some minutes, and stays in it
//! until every token that it signed has run out.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    access_token::stored_keys,
    keys::{KeyState, KeyTimes, NewKey, SigningKeyError, states},
    store,
};
use crate::{
    auth::{
        Auth, AuthError,
        audit::{Action, AuditEvent},
    },
    platform::{db, keyring::Service, time},
};

/// How long a key stays published after its last token has run out.
const RETIREMENT_MARGIN: Duration = Duration::from_mins(20);

/// A signing key, as an operator sees it.
#[derive(Clone, Debug)]
pub struct SigningKey {
    /// Its id: the thumbprint of its public part.
    pub kid: String,
    /// What it is for.
    pub state: KeyState,
    /// Since when it is in the public set.
    pub published_at: Timestamp,
    /// From when it signs.
    pub activates_at: Timestamp,
    /// When it is removed, if a newer one is there.
    pub retires_at: Option<Timestamp>,
    /// When it was made worthless.
    pub revoked_at: Option<Timestamp>,
}

/// What came of a rotation.
#[derive(Clone, Debug)]
pub enum Rotation {
    /// A new key is published and signs from its time on.
    Announced(SigningKey),
    /// The next key was announced before; nothing was changed.
    Waiting(SigningKey),
    /// A new key signs at once, and all others are revoked.
    Replaced(SigningKey),
}

impl Auth {
    /// The signing keys that there are, newest first.
    pub async fn signing_keys(&self) -> Result<Vec<SigningKey>, AuthError> {
        let rows = stored_keys(&self.0.db).await?;
        let times: Vec<KeyTimes> = rows.iter().map(store::SigningKeyRow::times).collect();
        let states = states(&times, self.now());
        Ok(rows
            .into_iter()
            .zip(states)
            .map(|(row, state)| SigningKey {
                kid: row.kid,
                state,
                published_at: row.published_at,
                activates_at: row.activates_at,
                retires_at: row.retires_at,
                revoked_at: row.revoked_at,
            })
            .collect())
    }

    /// Reads the signing keys again. Called every few seconds.
    pub async fn reload_signing_keys(&self) -> Result<(), AuthError> {
        Ok(self.0.tokens.reload().await?)
    }

    /// Announces the next key, if none is announced. Everybody stays signed in.
    pub async fn rotate_signing_key(&self) -> Result<Rotation, AuthError> {
        self.announce_signing_key("command").await
    }

    /// Announces the next key when the time of the present one comes to its end. Called now and then.
    pub async fn rotate_due_signing_key(&self) -> Result<(), AuthError> {
        let newest = self.signing_keys().await?.into_iter().next();
        let soon = time::after(self.now(), self.0.settings.signing_key_lead);
        let due =
            |key: &SigningKey| time::after(key.activates_at, self.0.settings.signing_key_rotation) <= soon;
        if newest.as_ref().is_none_or(due)
            && let Rotation::Announced(key) = self.announce_signing_key("schedule").await?
        {
            tracing::info!(kid = key.kid, "the next signing key is announced");
        }
        Ok(())
    }

    /// Makes every signing key worthless and a new one that signs at once. Access tokens that were handed out are refused
    /// from the next request on; sessions go on, and clients get new tokens by a refresh.
    pub async fn replace_signing_keys(&self) -> Result<Rotation, AuthError> {
        let now = self.now();
        let new = self.new_signing_key()?;
        let event = self.rotated(&new.kid, "command").with("revoked_others", true);
        let (key, retires_at) = (new.clone(), self.retirement(now));
        self.0
            .db
            .write(async move |c| {
                let NewKey { kid, public, private } = &new;
                let newest = store::newest_signing_key_number().opt(&c).await?.unwrap_or(0);
                let number = newest.saturating_add(1);
                if store::add_signing_key(number, kid, public, private, now, now).exec(&c).await? == 0 {
                    // No other one can have taken the number: the database makes one of two such transactions run again.
                    return Err(db::Error::Conflict);
                }
                store::revoke_signing_keys_before(number, now, retires_at).exec(&c).await?;
                event.store(&c).await
            })
            .await?;
        self.reload_signing_keys().await?;
        Ok(Rotation::Replaced(shown(key.kid, KeyState::Signing, now, now)))
    }

    async fn announce_signing_key(&self, by: &'static str) -> Result<Rotation, AuthError> {
        let now = self.now();
        let newest = stored_keys(&self.0.db).await?.into_iter().next();
        if let Some(row) = newest.as_ref().filter(|row| row.activates_at > now) {
            let next = shown(row.kid.clone(), KeyState::Announced, row.published_at, row.activates_at);
            return Ok(Rotation::Waiting(next));
        }
        let number = newest.map_or(0, |row| row.number).saturating_add(1);
        let activates_at = time::after(now, self.0.settings.signing_key_lead);
        let retires_at = self.retirement(activates_at);
        let new = self.new_signing_key()?;
        let key = shown(new.kid.clone(), KeyState::Announced, now, activates_at);
        let event = self.rotated(&new.kid, by);
        let was_first = self
            .0
            .db
            .write(async move |c| {
                let NewKey { kid, public, private } = &new;
                // Of two instances that do this at once, the number lets one through.
                if store::add_signing_key(number, kid, public, private, now, activates_at).exec(&c).await?
                    == 0
                {
                    return Ok::<_, db::Error>(false);
                }
                store::retire_signing_keys_before(number, retires_at).exec(&c).await?;
                event.store(&c).await?;
                Ok(true)
            })
            .await?;
        self.reload_signing_keys().await?;
        if was_first {
            return Ok(Rotation::Announced(key));
        }
        let theirs = self.signing_keys().await?.into_iter().next();
        Ok(Rotation::Waiting(theirs.unwrap_or(key)))
    }

    /// When a key is removed that signs for the last time at `last`.
    fn retirement(&self, last: Timestamp) -> Timestamp {
        time::after(time::after(last, self.0.settings.access_token_ttl), RETIREMENT_MARGIN)
    }

    fn new_signing_key(&self) -> Result<NewKey, AuthError> {
        Ok(NewKey::make(self.0.keyring.service(Service::Signing)?, &*self.0.random)?)
    }

    fn rotated(&self, kid: &str, by: &'static str) -> AuditEvent {
        self.audit(Action::SigningKeyRotated, None).with("by", by).with("kid", kid)
    }
}

fn shown(kid: String, state: KeyState, published_at: Timestamp, activates_at: Timestamp) -> SigningKey {
    SigningKey { kid, state, published_at, activates_at, retires_at: None, revoked_at: None }
}

impl From<SigningKeyError> for AuthError {
    fn from(error: SigningKeyError) -> Self {
        match error {
            SigningKeyError::Storage(error) => AuthError::Storage(error),
            SigningKeyError::DoesNotOpen(error) => error.into(),
            SigningKeyError::NoKey => AuthError::Signing,
        }
    }
}
