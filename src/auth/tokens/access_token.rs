//! Access tokens: JWTs (RFC 9068) signed with Ed25519.
//!
//! A token says which session it belongs to and nothing about the person. Whether that session lives, and what its user
//! may do, is asked of the database at every request.

use std::sync::{Arc, PoisonError, RwLock};

use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, Header, Validation};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::{
    keys::{Jwks, KeySet, NewKey, SigningKeyError},
    store::{self, SigningKeyRow},
};
use crate::{
    auth::AuthSettings,
    platform::{
        clock::SharedClock,
        db::{Db, Error},
        keyring::{Keyring, Service},
        random::Random,
    },
};

/// How far a caller's or another instance's clock may be off, in seconds.
const LEEWAY_S: i64 = 30;
const TYPE: &str = "at+jwt";
/// How often a token that names an unknown key may have the keys read again: anybody can make such tokens.
const UNKNOWN_KEY_PAUSE: SignedDuration = SignedDuration::from_secs(1);

/// What a token says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claims {
    iss: String,
    aud: String,
    /// The user.
    pub sub: Uuid,
    /// The session.
    pub sid: Uuid,
    /// Which refresh of the session it came with.
    #[serde(rename = "gen")]
    pub token_gen: i64,
    jti: Uuid,
    iat: i64,
    nbf: i64,
    exp: i64,
    /// When the user last showed who they are.
    pub auth_time: i64,
    /// How (RFC 8176).
    pub amr: Vec<String>,
    /// The key that signed it, from the header.
    #[serde(skip)]
    pub kid: String,
}

/// A token that is not ours, not valid now, or no token at all.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a valid access token")]
pub struct NotValid;

/// Signs and verifies access tokens.
#[derive(Clone)]
pub struct AccessTokens(Arc<Inner>);

struct Inner {
    issuer: String,
    ttl_s: i64,
    db: Db,
    keyring: Keyring,
    clock: SharedClock,
    keys: RwLock<Arc<KeySet>>,
    /// When they were read last. Whoever holds it reads them, and the others wait for that.
    read_at: Mutex<Timestamp>,
}

impl AccessTokens {
    /// Loads the keys; makes the first one if there is none.
    pub async fn open(
        db: &Db,
        keyring: &Keyring,
        random: &dyn Random,
        clock: SharedClock,
        settings: &AuthSettings,
    ) -> Result<AccessTokens, SigningKeyError> {
        let now = clock.now();
        if stored_keys(db).await?.is_empty() {
            let NewKey { kid, public, private } = NewKey::make(keyring.service(Service::Signing)?, random)?;
            db.write(async move |c| {
                store::add_signing_key(1, &kid, &public, &private, now, now).exec(&c).await
            })
            .await?;
        }
        let rows = stored_keys(db).await?;
        let inner = Inner {
            issuer: settings.issuer.clone(),
            ttl_s: i64::try_from(settings.access_token_ttl.as_secs()).unwrap_or(i64::MAX),
            keys: RwLock::new(Arc::new(KeySet::open(&rows, keyring.service(Service::Signing)?)?)),
            db: db.clone(),
            keyring: keyring.clone(),
            clock,
            read_at: Mutex::new(now),
        };
        Ok(AccessTokens(Arc::new(inner)))
    }

    /// Reads the keys again, so that what another instance or a command did to them is known here.
    pub async fn reload(&self) -> Result<(), SigningKeyError> {
        let mut read_at = self.0.read_at.lock().await;
        self.read_keys(&mut read_at).await
    }

    async fn read_keys(&self, read_at: &mut Timestamp) -> Result<(), SigningKeyError> {
        let rows = stored_keys(&self.0.db).await;
        // Also after a failure, and after the wait for it: who waited meanwhile must not begin the next wait.
        *read_at = self.0.clock.now();
        let keys = KeySet::open(&rows?, self.0.keyring.service(Service::Signing)?)?;
        *self.0.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        Ok(())
    }

    /// Reads the keys again if a token names one that is not known here, at most once a second.
    async fn learn_key_of(&self, token: &str) {
        let kid = jsonwebtoken::decode_header(token).ok().and_then(|header| header.kid);
        let Some(kid) = kid.filter(|kid| !self.keys().knows(kid)) else { return };
        let mut read_at = self.0.read_at.lock().await;
        let is_known_now = self.keys().knows(&kid);
        if !is_known_now
            && is_due(*read_at, self.0.clock.now())
            && let Err(error) = self.read_keys(&mut read_at).await
        {
            tracing::warn!(%error, "the signing keys could not be read again");
        }
    }

    fn keys(&self) -> Arc<KeySet> {
        Arc::clone(&self.0.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Signs a token for a session.
    pub fn issue(
        &self,
        user: Uuid,
        session: Uuid,
        token_gen: i64,
        auth_time: Timestamp,
        now: Timestamp,
        random: &dyn Random,
    ) -> Result<SecretString, NotValid> {
        let iat = now.as_second();
        let claims = Claims {
            iss: self.0.issuer.clone(),
            aud: self.0.issuer.clone(),
            sub: user,
            sid: session,
            token_gen,
            jti: random.uuid(now),
            iat,
            nbf: iat,
            exp: iat.saturating_add(self.0.ttl_s),
            auth_time: auth_time.as_second(),
            amr: vec!["pwd".to_owned()],
            kid: String::new(),
        };
        let keys = self.keys();
        let key = keys.signing(now).ok_or(NotValid)?;
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TYPE.to_owned());
        header.kid = Some(key.kid.clone());
        jsonwebtoken::encode(&header, &claims, &key.signing).map(SecretString::from).map_err(|_| NotValid)
    }

    /// What a token says, if it is valid at `now`.
    pub async fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, NotValid> {
        let claims = self.verify_expired(token, now).await?;
        let now = now.as_second();
        let begun = claims.nbf.max(claims.iat) <= now.saturating_add(LEEWAY_S);
        let over = claims.exp.saturating_add(LEEWAY_S) <= now;
        if begun && !over { Ok(claims) } else { Err(NotValid) }
    }

    /// What a token says, if its key is good at `now`, expired or not: for logout.
    pub async fn verify_expired(&self, token: &str, now: Timestamp) -> Result<Claims, NotValid> {
        self.learn_key_of(token).await;
        let header = jsonwebtoken::decode_header(token).map_err(|_| NotValid)?;
        let kid = header.kid.ok_or(NotValid)?;
        if header.typ.as_deref() != Some(TYPE) {
            return Err(NotValid);
        }
        let keys = self.keys();
        let key = keys.verifying(&kid, now).ok_or(NotValid)?;
        // One algorithm per key, whatever the header says (RFC 8725, 3.1).
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[&self.0.issuer]);
        validation.set_audience(&[&self.0.issuer]);
        validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
        validation.validate_exp = false; // By the injected clock, in `verify`.
        let data = jsonwebtoken::decode::<Claims>(token, key, &validation).map_err(|_| NotValid)?;
        Ok(Claims { kid, ..data.claims })
    }

    /// The public keys.
    pub fn jwks(&self, now: Timestamp) -> Jwks {
        self.keys().jwks(now)
    }
}

/// The stored keys, newest first.
pub(super) async fn stored_keys(db: &Db) -> Result<Vec<SigningKeyRow>, Error> {
    db.read_slow(async |c| store::signing_keys().all(&c).await).await
}

/// Whether the keys may be read again. A clock that went back counts as time that passed.
fn is_due(read_at: Timestamp, now: Timestamp) -> bool {
    now.duration_since(read_at).abs() >= UNKNOWN_KEY_PAUSE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_looked_for_once_a_second() {
        let at = |ms: i64| Timestamp::from_millisecond(ms).unwrap();
        for (read_at, now, due) in [
            (5000, 5000, false),
            (5000, 5999, false),
            (5000, 6000, true),
            (5000, 9000, true),
            (5000, 0, true),
        ] {
            assert_eq!(is_due(at(read_at), at(now)), due, "{read_at} {now}");
        }
    }
}
