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
    verified::{Verified, VerifiedTokens},
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
/// The longest token that is looked at; ours have a sixth of it.
const MAX_LEN: usize = 4096;
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

impl Claims {
    fn is_valid_at(&self, now: Timestamp) -> bool {
        let now = now.as_second();
        let begun = self.nbf.max(self.iat) <= now.saturating_add(LEEWAY_S);
        let over = self.exp.saturating_add(LEEWAY_S) <= now;
        begun && !over
    }

    #[cfg(test)]
    pub(super) fn of_nobody() -> Claims {
        let (nobody, nowhere) = (Uuid::nil(), String::new());
        Claims {
            iss: nowhere.clone(),
            aud: nowhere.clone(),
            sub: nobody,
            sid: nobody,
            token_gen: 1,
            jti: nobody,
            iat: 0,
            nbf: 0,
            exp: 0,
            auth_time: 0,
            amr: Vec::new(),
            kid: nowhere,
        }
    }
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
    verified: VerifiedTokens,
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
            verified: VerifiedTokens::default(),
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
    async fn learn_key(&self, kid: &str) {
        if self.keys().knows(kid) {
            return;
        }
        let mut read_at = self.0.read_at.lock().await;
        let is_known_now = self.keys().knows(kid);
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
        jsonwebtoken::encode(&header(&key.kid), &claims, &key.signing)
            .map(SecretString::from)
            .map_err(|_| NotValid)
    }

    /// What a token says, if it is valid at `now`.
    pub async fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, NotValid> {
        let keys = self.keys();
        let is_good = |verified: &Verified| keys.verifying(&verified.kid, now).is_some();
        let remembered = self.0.verified.get(token).filter(is_good);
        let is_new = remembered.is_none();
        let verified = match remembered {
            Some(verified) => verified,
            None => self.verify_signature(token, now).await?,
        };
        if !verified.claims.is_valid_at(now) {
            if !is_new {
                self.0.verified.remove(token);
            }
            return Err(NotValid);
        }
        if is_new {
            self.0.verified.add(token, verified.clone());
        }
        Ok(verified.claims)
    }

    /// What a token says, if its key is good at `now`, expired or not: for logout.
    pub async fn verify_expired(&self, token: &str, now: Timestamp) -> Result<Claims, NotValid> {
        self.verify_signature(token, now).await.map(|verified| verified.claims)
    }

    async fn verify_signature(&self, token: &str, now: Timestamp) -> Result<Verified, NotValid> {
        if token.len() > MAX_LEN {
            return Err(NotValid);
        }
        let given = jsonwebtoken::decode_header(token).map_err(|_| NotValid)?;
        let kid = given.kid.clone().ok_or(NotValid)?;
        if given != header(&kid) {
            return Err(NotValid);
        }
        self.learn_key(&kid).await;
        let keys = self.keys();
        let key = keys.verifying(&kid, now).ok_or(NotValid)?;
        // One algorithm per key, whatever the header says (RFC 8725, 3.1).
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[&self.0.issuer]);
        validation.set_audience(&[&self.0.issuer]);
        validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
        validation.validate_exp = false; // By the injected clock, in `verify`.
        let data = jsonwebtoken::decode::<Claims>(token, key, &validation).map_err(|_| NotValid)?;
        Ok(Verified { kid: kid.clone(), claims: Claims { kid, ..data.claims } })
    }

    /// The public keys.
    pub fn jwks(&self, now: Timestamp) -> Jwks {
        self.keys().jwks(now)
    }
}

/// The header of our tokens, and of no others: one that brings a key, says where to fetch one, or names extensions is
/// refused (RFC 7515, 4.1; RFC 8725, 3.10).
fn header(kid: &str) -> Header {
    let mut header = Header::new(Algorithm::EdDSA);
    header.typ = Some(TYPE.to_owned());
    header.kid = Some(kid.to_owned());
    header
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
