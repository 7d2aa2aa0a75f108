//! The keys that sign access tokens: what each is for at a moment, and the set that an instance works with.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use jsonwebtoken::{DecodingKey, EncodingKey};
use serde::Serialize;
use utoipa::ToSchema;

use super::store::SigningKeyRow;
use crate::platform::{
    db::Error,
    digest::sha256,
    random::Random,
    seal::{DataKey, DoesNotOpen, Place, Sealed},
};

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

/// What a signing key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Published, so that everybody knows it before it signs.
    Announced,
    /// Signs new tokens.
    Signing,
    /// Signs nothing any more; tokens that it signed are still good.
    Retiring,
    /// Past its end.
    Retired,
    /// Worthless before its end: whatever it signed is refused.
    Revoked,
}

impl KeyState {
    /// Its name, as commands show it.
    pub const fn as_str(self) -> &'static str {
        match self {
            KeyState::Announced => "announced",
            KeyState::Signing => "signing",
            KeyState::Retiring => "retiring",
            KeyState::Retired => "retired",
            KeyState::Revoked => "revoked",
        }
    }

    /// Whether tokens of a key in this state are good. One of an announced key is: another instance's clock may be ahead.
    const fn is_good(self) -> bool {
        match self {
            KeyState::Announced | KeyState::Signing | KeyState::Retiring => true,
            KeyState::Retired | KeyState::Revoked => false,
        }
    }
}

/// The times that decide what a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyTimes {
    /// From when it signs.
    pub(super) signs: Timestamp,
    /// When it is gone.
    pub(super) ends: Option<Timestamp>,
    /// Since when it is worthless.
    pub(super) revoked: Option<Timestamp>,
}

impl KeyTimes {
    fn is_usable(&self, now: Timestamp) -> bool {
        self.revoked.is_none() && self.ends.is_none_or(|end| end > now)
    }
}

/// What each key is for at `now`; keys and answer are newest first. The newest that has begun signs. Where none has, which
/// a clock that lags may make of a replacement in an emergency, the oldest that is to come signs: there is no gap.
pub(super) fn states(keys: &[KeyTimes], now: Timestamp) -> Vec<KeyState> {
    let begun = |key: &KeyTimes| key.is_usable(now) && key.signs <= now;
    let signing = keys.iter().position(begun).or_else(|| keys.iter().rposition(|key| key.is_usable(now)));
    let state = |(index, key): (usize, &KeyTimes)| match key {
        key if key.revoked.is_some() => KeyState::Revoked,
        key if !key.is_usable(now) => KeyState::Retired,
        _ if signing == Some(index) => KeyState::Signing,
        key if key.signs > now => KeyState::Announced,
        _ => KeyState::Retiring,
    };
    keys.iter().enumerate().map(state).collect()
}

/// The keys that an instance knows, newest first.
pub(super) struct KeySet(Vec<Key>);

pub(super) struct Key {
    pub(super) kid: String,
    pub(super) signing: EncodingKey,
    verifying: DecodingKey,
    public: PublicKey,
    times: KeyTimes,
}

impl KeySet {
    /// Opens stored keys, newest first.
    pub(super) fn open(rows: &[SigningKeyRow], key: &DataKey) -> Result<KeySet, DoesNotOpen> {
        let open = |row: &SigningKeyRow| {
            let private = key.open(private_key_place(&row.kid), &row.private_key)?;
            Ok(Key {
                kid: row.kid.clone(),
                signing: EncodingKey::from_ed_der(&private),
                verifying: DecodingKey::from_ed_der(&row.public_key),
                public: PublicKey::new(&row.kid, &row.public_key),
                times: row.times(),
            })
        };
        rows.iter().map(open).collect::<Result<_, _>>().map(KeySet)
    }

    /// The key that signs at `now`.
    pub(super) fn signing(&self, now: Timestamp) -> Option<&Key> {
        self.at(now).find(|(_, state)| *state == KeyState::Signing).map(|(key, _)| key)
    }

    /// Whether a key is known, good or not.
    pub(super) fn knows(&self, kid: &str) -> bool {
        self.0.iter().any(|key| key.kid == kid)
    }

    /// What verifies the tokens of a key that is good at `now`.
    pub(super) fn verifying(&self, kid: &str, now: Timestamp) -> Option<&DecodingKey> {
        let found = self.at(now).find(|(key, state)| key.kid == kid && state.is_good());
        found.map(|(key, _)| &key.verifying)
    }

    /// The public keys whose tokens are good, that which signs first.
    pub(super) fn jwks(&self, now: Timestamp) -> Jwks {
        let mut good: Vec<_> = self.at(now).filter(|(_, state)| state.is_good()).collect();
        good.sort_by_key(|(_, state)| *state != KeyState::Signing);
        Jwks { keys: good.into_iter().map(|(key, _)| key.public.clone()).collect() }
    }

    fn at(&self, now: Timestamp) -> impl Iterator<Item = (&Key, KeyState)> {
        let times: Vec<KeyTimes> = self.0.iter().map(|key| key.times).collect();
        self.0.iter().zip(states(&times, now))
    }
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

impl PublicKey {
    fn new(kid: &str, public_key: &[u8]) -> PublicKey {
        PublicKey {
            kty: "OKP",
            crv: "Ed25519",
            alg: "EdDSA",
            usage: "sig",
            kid: kid.to_owned(),
            x: BASE64_URL_SAFE_NO_PAD.encode(public_key),
        }
    }
}

/// A key that is about to be stored. It goes into a transaction, which may run twice.
#[derive(Clone)]
pub(super) struct NewKey {
    pub(super) kid: String,
    pub(super) public: Vec<u8>,
    pub(super) private: Sealed,
}

impl NewKey {
    /// Makes a key and seals its private part.
    pub(super) fn make(key: &DataKey, random: &dyn Random) -> Result<NewKey, SigningKeyError> {
        let seed = zeroize::Zeroizing::new(random.bytes::<32>());
        let pair = Ed25519KeyPair::from_seed_unchecked(&*seed).map_err(|_| SigningKeyError::NoKey)?;
        let private = pair.to_pkcs8v1().map_err(|_| SigningKeyError::NoKey)?;
        let public = pair.public_key().as_ref().to_vec();
        let kid = thumbprint(&public);
        let private = key.seal(private_key_place(&kid), private.as_ref(), random);
        Ok(NewKey { kid, public, private })
    }
}

fn private_key_place(kid: &str) -> Place<'_> {
    Place::new("signing_key.private_key", kid.as_bytes())
}

/// The key's id: its thumbprint (RFC 7638, with the members of RFC 8037).
fn thumbprint(public_key: &[u8]) -> String {
    let x = BASE64_URL_SAFE_NO_PAD.encode(public_key);
    let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    BASE64_URL_SAFE_NO_PAD.encode(sha256(members.as_bytes()))
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

    /// A key that signs from one minute and may have an end and a revocation.
    fn key(signs: i64, ends: Option<i64>, revoked: Option<i64>) -> KeyTimes {
        KeyTimes { signs: minute(signs), ends: ends.map(minute), revoked: revoked.map(minute) }
    }

    fn minute(minute: i64) -> Timestamp {
        Timestamp::from_second(minute * 60).unwrap()
    }

    #[test]
    fn times_alone_decide_what_a_key_is_for() {
        use KeyState::{Announced, Retired, Retiring, Revoked, Signing};

        let (first, second) = (key(0, Some(150), None), key(120, None, None));
        let replaced = key(0, Some(80), Some(50));
        for (what, keys, now, expected) in [
            ("the only one", vec![key(0, None, None)], 0, vec![Signing]),
            ("the next is announced", vec![second, first], 119, vec![Announced, Signing]),
            ("the next begins", vec![second, first], 120, vec![Signing, Retiring]),
            ("until its end", vec![second, first], 149, vec![Signing, Retiring]),
            ("the old one ends", vec![second, first], 150, vec![Signing, Retired]),
            ("an emergency", vec![key(50, None, None), replaced], 50, vec![Signing, Revoked]),
            (
                "with a next one",
                vec![key(50, None, None), replaced, replaced],
                51,
                vec![Signing, Revoked, Revoked],
            ),
            ("revoked beats retired", vec![key(50, None, None), replaced], 99, vec![Signing, Revoked]),
            ("a clock that lags", vec![key(50, None, None), replaced], 49, vec![Signing, Revoked]),
            ("two are to come", vec![key(60, None, None), key(50, None, None)], 40, vec![Announced, Signing]),
            ("nothing is left", vec![replaced], 60, vec![Revoked]),
            ("nothing was there", vec![], 0, vec![]),
        ] {
            assert_eq!(states(&keys, minute(now)), expected, "{what}");
        }
    }
}
