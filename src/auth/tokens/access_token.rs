//! Access tokens: JWTs (RFC 9068) signed with Ed25519, and the keys that sign them.
//!
//! A token says which session it belongs to and nothing about the person. Whether that session lives, and what its user
//! may do, is asked of the database at every request.

use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    store::{self, SigningKeyRow},
    verified::{Verified, VerifiedTokens},
};
use crate::{
    auth::AuthSettings,
    platform::{
        db::{Db, Error},
        keyring::{Keyring, Service},
        random::Random,
        seal::{DoesNotOpen, Place},
    },
};

/// How far a caller's or another instance's clock may be off, in seconds.
const LEEWAY_S: i64 = 30;
const TYPE: &str = "at+jwt";
/// The longest token that is looked at; ours have a sixth of it.
const MAX_LEN: usize = 4096;

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
            aud: nowhere,
            sub: nobody,
            sid: nobody,
            token_gen: 1,
            jti: nobody,
            iat: 0,
            nbf: 0,
            exp: 0,
            auth_time: 0,
            amr: Vec::new(),
        }
    }
}

/// A token that is not ours, not valid now, or no token at all.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a valid access token")]
pub struct NotValid;

/// Why the signing keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeyError {
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] Error),
    /// A private key does not open.
    #[error(transparent)]
    DoesNotOpen(#[from] DoesNotOpen),
    /// No key could be made.
    #[error("no signing key could be made")]
    NoKey,
}

/// Signs and verifies access tokens.
#[derive(Clone)]
pub struct AccessTokens(Arc<Inner>);

struct Inner {
    issuer: String,
    ttl_s: i64,
    signing: EncodingKey,
    kid: String,
    verifying: Vec<(String, DecodingKey)>,
    jwks: Jwks,
    verified: VerifiedTokens,
}

/// The public keys, as RFC 7517 writes them.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Jwks {
    keys: Vec<PublicKey>,
}

/// A public key (RFC 8037).
#[derive(Clone, Debug, Serialize, ToSchema)]
struct PublicKey {
    kty: &'static str,
    crv: &'static str,
    alg: &'static str,
    #[serde(rename = "use")]
    usage: &'static str,
    kid: String,
    x: String,
}

impl AccessTokens {
    /// Loads the keys; makes the first one if there is none.
    pub async fn open(
        db: &Db,
        keyring: &Keyring,
        random: &dyn Random,
        now: Timestamp,
        settings: &AuthSettings,
    ) -> Result<AccessTokens, SigningKeyError> {
        let mut rows = stored_keys(db).await?;
        if rows.is_empty() {
            make_first_key(db, keyring, random, now).await?;
            rows = stored_keys(db).await?;
        }
        let newest = rows.first().ok_or(SigningKeyError::NoKey)?;
        let key = keyring.service(Service::Signing)?;
        let private = key.open(private_key_place(&newest.kid), &newest.private_key)?;
        let inner = Inner {
            issuer: settings.issuer.clone(),
            ttl_s: i64::try_from(settings.access_token_ttl.as_secs()).unwrap_or(i64::MAX),
            signing: EncodingKey::from_ed_der(&private),
            kid: newest.kid.clone(),
            verifying: rows
                .iter()
                .map(|row| (row.kid.clone(), DecodingKey::from_ed_der(&row.public_key)))
                .collect(),
            jwks: Jwks { keys: rows.iter().map(public_key).collect() },
            verified: VerifiedTokens::default(),
        };
        Ok(AccessTokens(Arc::new(inner)))
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
        };
        jsonwebtoken::encode(&header(&self.0.kid), &claims, &self.0.signing)
            .map(SecretString::from)
            .map_err(|_| NotValid)
    }

    /// What a token says, if it is valid at `now`.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, NotValid> {
        let remembered = self.0.verified.get(token).filter(|verified| self.key(&verified.kid).is_some());
        let is_new = remembered.is_none();
        let verified = remembered.map_or_else(|| self.verify_signature(token), Ok)?;
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

    /// What a token says, valid now or not: for logout.
    pub fn verify_expired(&self, token: &str) -> Result<Claims, NotValid> {
        self.verify_signature(token).map(|verified| verified.claims)
    }

    fn verify_signature(&self, token: &str) -> Result<Verified, NotValid> {
        if token.len() > MAX_LEN {
            return Err(NotValid);
        }
        let given = jsonwebtoken::decode_header(token).map_err(|_| NotValid)?;
        let kid = given.kid.clone().ok_or(NotValid)?;
        if given != header(&kid) {
            return Err(NotValid);
        }
        let key = self.key(&kid).ok_or(NotValid)?;
        // One algorithm per key, whatever the header says (RFC 8725, 3.1).
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[&self.0.issuer]);
        validation.set_audience(&[&self.0.issuer]);
        validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
        validation.validate_exp = false; // By the injected clock, in `verify`.
        let data = jsonwebtoken::decode::<Claims>(token, key, &validation).map_err(|_| NotValid)?;
        Ok(Verified { kid, claims: data.claims })
    }

    fn key(&self, kid: &str) -> Option<&DecodingKey> {
        self.0.verifying.iter().find(|(known, _)| known == kid).map(|(_, key)| key)
    }

    /// The public keys.
    pub fn jwks(&self) -> Jwks {
        self.0.jwks.clone()
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

async fn stored_keys(db: &Db) -> Result<Vec<SigningKeyRow>, Error> {
    db.read_slow(async |c| store::signing_keys().all(&c).await).await
}

async fn make_first_key(
    db: &Db,
    keyring: &Keyring,
    random: &dyn Random,
    now: Timestamp,
) -> Result<(), SigningKeyError> {
    let no_key = |_| SigningKeyError::NoKey;
    let seed = zeroize::Zeroizing::new(random.bytes::<32>());
    let pair = Ed25519KeyPair::from_seed_unchecked(&*seed).map_err(|_| SigningKeyError::NoKey)?;
    let private = pair.to_pkcs8v1().map_err(no_key)?;
    let public = pair.public_key().as_ref().to_vec();
    let kid = thumbprint(&public);
    let sealed = keyring.service(Service::Signing)?.seal(private_key_place(&kid), private.as_ref(), random);
    db.write(async move |c| store::add_signing_key(1, &kid, &public, &sealed, now).exec(&c).await).await?;
    Ok(())
}

fn private_key_place(kid: &str) -> Place<'_> {
    Place::new("signing_key.private_key", kid.as_bytes())
}

fn public_key(row: &SigningKeyRow) -> PublicKey {
    PublicKey {
        kty: "OKP",
        crv: "Ed25519",
        alg: "EdDSA",
        usage: "sig",
        kid: row.kid.clone(),
        x: BASE64_URL_SAFE_NO_PAD.encode(&row.public_key),
    }
}

/// The key's id: its thumbprint (RFC 7638, with the members of RFC 8037).
fn thumbprint(public_key: &[u8]) -> String {
    let x = BASE64_URL_SAFE_NO_PAD.encode(public_key);
    let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, members.as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(digest.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8037, appendix A.3.
    #[test]
    fn the_thumbprint_is_the_one_of_the_rfc() {
        let x = BASE64_URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
        assert_eq!(thumbprint(&x), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }
}
