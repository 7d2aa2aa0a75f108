//! Sealing: what people write is unreadable without a key that does not lie beside it.
//!
//! Texts are sealed with XChaCha20-Poly1305 under a data key; data keys, one per user or named service, are sealed
//! under a master key from the settings. Owner, key, and the exact place of the text are authenticated with it, so a
//! sealed text that was moved to another row, column or user does not open.
//!
//! Sealed bytes are `version ‖ nonce (24) ‖ ciphertext ‖ tag (16)`.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    db::{self, Arg, Field, Kind, Row, Value},
    digest::hmac_sha256,
    random::Random,
};

const VERSION: u8 = 1;
const KEY_LEN: usize = 32;
const NONCE_LEN: usize = 24;

/// Something sealed. It can be stored in a `BYTEA` column, and nothing else can stand in for it.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Vec<u8>);

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

impl Arg for Sealed {
    type Of<'q> = &'q Sealed;
    const KIND: Kind = Kind::Bytes;
}

impl Arg for Option<Sealed> {
    type Of<'q> = Option<&'q Sealed>;
    const KIND: Kind = Kind::Bytes;
}

impl<'q> From<&'q Sealed> for Value<'q> {
    fn from(sealed: &'q Sealed) -> Self {
        Value::Bytes(&sealed.0)
    }
}

impl Field for Sealed {
    const KIND: Kind = Kind::Bytes;
    fn get(row: &Row<'_>, index: usize) -> db::Result<Self> {
        Field::get(row, index).map(Sealed)
    }
}

impl Field for Option<Sealed> {
    const KIND: Kind = Kind::Bytes;
    fn get(row: &Row<'_>, index: usize) -> db::Result<Self> {
        Ok(<Option<Vec<u8>> as Field>::get(row, index)?.map(Sealed))
    }
}

/// Where a sealed text belongs: a column of a row.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    column: &'static str,
    within: &'a [u8],
    row: &'a [u8],
}

impl<'a> Place<'a> {
    /// `column` as `table.column` of the row with this id.
    pub const fn new(column: &'static str, row: &'a [u8]) -> Self {
        Place { column, within: &[], row }
    }

    /// `column` as `table.column` of the row with this id inside another one, such as a message in its conversation.
    pub const fn inside(column: &'static str, within: &'a [u8], row: &'a [u8]) -> Self {
        Place { column, within, row }
    }
}

/// A text that does not open: another key, another place, or changed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sealed value of {0} does not open")]
pub struct DoesNotOpen(pub &'static str);

/// A key for one user's or one service's texts.
#[derive(Clone)]
pub struct DataKey {
    owner: String,
    id: Uuid,
    key: Zeroizing<[u8; KEY_LEN]>,
}

impl DataKey {
    /// A new key for `owner`, such as `user/…` or `service/mail`.
    pub fn generate(owner: String, id: Uuid, random: &dyn Random) -> DataKey {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        random.fill(&mut *key);
        DataKey { owner, id, key }
    }

    /// The key that a secret of full strength, such as an opaque token, gives for one purpose. Who knows only a hash of
    /// the secret cannot make it.
    pub fn derive(purpose: &'static str, secret: &SecretString) -> DataKey {
        let key = Zeroizing::new(hmac_sha256(secret.expose_secret().as_bytes(), purpose.as_bytes()));
        DataKey { owner: purpose.to_owned(), id: Uuid::nil(), key }
    }

    /// The key's id, for what has to remember which key it was made with.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Seals `text` for one place.
    pub fn seal(&self, place: Place<'_>, text: &[u8], random: &dyn Random) -> Sealed {
        encrypt(&self.key, &self.associated_data(place), text, random)
    }

    /// Opens what was sealed for this place.
    pub fn open(&self, place: Place<'_>, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, DoesNotOpen> {
        decrypt(&self.key, &self.associated_data(place), sealed).ok_or(DoesNotOpen(place.column))
    }

    /// Opens what was sealed for this place as text.
    pub fn open_text(&self, place: Place<'_>, sealed: &Sealed) -> Result<String, DoesNotOpen> {
        let bytes = self.open(place, sealed)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| DoesNotOpen(place.column))
    }

    /// A keyed hash of `data`, separate for every `purpose`. What is guessable, such as a short code or an address, is
    /// stored only as this.
    pub fn mac(&self, purpose: &'static str, data: &[u8]) -> [u8; 32] {
        let derived = Zeroizing::new(hmac_sha256(&*self.key, purpose.as_bytes()));
        hmac_sha256(&*derived, data)
    }

    fn associated_data(&self, place: Place<'_>) -> Vec<u8> {
        join(&[self.owner.as_bytes(), self.id.as_bytes(), place.column.as_bytes(), place.within, place.row])
    }
}

/// Compares secrets without telling by time where they differ.
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// A data key as it is stored.
#[derive(Clone, Debug)]
pub struct WrappedKey {
    /// Whose key.
    pub owner: String,
    /// The key's own id.
    pub id: Uuid,
    /// The id of the master key that it is sealed under.
    pub master_key: String,
    /// The sealed key.
    pub wrapped: Sealed,
}

/// The master keys of the settings. The first one seals, all of them open.
pub struct MasterKeys {
    first: (String, Zeroizing<[u8; KEY_LEN]>),
    others: Vec<(String, Zeroizing<[u8; KEY_LEN]>)>,
}

impl std::fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MasterKeys({}, and {} older)", self.first.0, self.others.len())
    }
}

impl MasterKeys {
    /// Reads `id:base64,id:base64`, each key 32 bytes.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong without showing any of it.
    pub fn parse(text: &str) -> Result<MasterKeys, String> {
        let mut keys = Vec::new();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let (id, key) = entry.split_once(':').ok_or("each key is written id:base64")?;
            let usable = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if id.is_empty() || id.len() > 32 || !id.chars().all(usable) {
                return Err("a key's id is 1 to 32 letters, digits, - or _".into());
            }
            let key =
                Zeroizing::new(BASE64_STANDARD.decode(key).map_err(|_| format!("key {id} is not base64"))?);
            let Ok(bytes) = <[u8; KEY_LEN]>::try_from(key.as_slice()) else {
                return Err(format!("key {id} is not 32 bytes long"));
            };
            if is_weak(&bytes) {
                return Err(format!("key {id} is not random; make one with `openssl rand -base64 32`"));
            }
            if keys.iter().any(|(other, _)| other == id) {
                return Err(format!("key {id} is there twice"));
            }
            keys.push((id.to_owned(), Zeroizing::new(bytes)));
        }
        let mut keys = keys.into_iter();
        let first = keys.next().ok_or("there is no key")?;
        Ok(MasterKeys { first, others: keys.collect() })
    }

    /// A new key in the form that [`MasterKeys::parse`] reads.
    pub fn generate(id: &str, random: &dyn Random) -> Zeroizing<String> {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        random.fill(&mut *key);
        Zeroizing::new(format!("{id}:{}", BASE64_STANDARD.encode(*key)))
    }

    /// Whether there is a master key of this name.
    pub fn has(&self, id: &str) -> bool {
        self.is_first(id) || self.others.iter().any(|(other, _)| other == id)
    }

    /// Whether a master key is the one that new keys are wrapped under.
    pub fn is_first(&self, id: &str) -> bool {
        self.first.0 == id
    }

    /// Seals a data key under the first master key.
    pub fn wrap(&self, key: &DataKey, random: &dyn Random) -> WrappedKey {
        let (master_key, master) = &self.first;
        let associated = wrap_data(&key.owner, key.id, master_key);
        WrappedKey {
            owner: key.owner.clone(),
            id: key.id,
            master_key: master_key.clone(),
            wrapped: encrypt(master, &associated, &*key.key, random),
        }
    }

    /// Opens a data key.
    pub fn unwrap(&self, wrapped: &WrappedKey) -> Result<DataKey, DoesNotOpen> {
        let master = std::iter::once(&self.first)
            .chain(&self.others)
            .find_map(|(id, key)| (*id == wrapped.master_key).then_some(key))
            .ok_or(DoesNotOpen("data_key.wrapped"))?;
        let associated = wrap_data(&wrapped.owner, wrapped.id, &wrapped.master_key);
        let bytes = decrypt(master, &associated, &wrapped.wrapped).ok_or(DoesNotOpen("data_key.wrapped"))?;
        let key = <[u8; KEY_LEN]>::try_from(bytes.as_slice()).map_err(|_| DoesNotOpen("data_key.wrapped"))?;
        Ok(DataKey { owner: wrapped.owner.clone(), id: wrapped.id, key: Zeroizing::new(key) })
    }
}

/// Whether a key was typed or left a placeholder rather than drawn: few distinct bytes, or nothing but text.
fn is_weak(key: &[u8; KEY_LEN]) -> bool {
    let mut distinct = key.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    distinct.len() < 12 || key.iter().all(u8::is_ascii_graphic)
}

fn wrap_data(owner: &str, id: Uuid, master_key: &str) -> Vec<u8> {
    join(&[b"data_key.wrapped", owner.as_bytes(), id.as_bytes(), master_key.as_bytes()])
}

/// Joins parts so that no two different lists give the same bytes.
fn join(parts: &[&[u8]]) -> Vec<u8> {
    let mut joined = vec![VERSION];
    for part in parts {
        let len = u64::try_from(part.len()).unwrap_or(u64::MAX);
        joined.extend_from_slice(&len.to_be_bytes());
        joined.extend_from_slice(part);
    }
    joined
}

fn encrypt(key: &[u8; KEY_LEN], associated: &[u8], text: &[u8], random: &dyn Random) -> Sealed {
    let nonce: [u8; NONCE_LEN] = random.bytes();
    let payload = Payload { msg: text, aad: associated };
    let Ok(ciphertext) = XChaCha20Poly1305::new(key.into()).encrypt(&XNonce::from(nonce), payload) else {
        // Only a text of 256 GiB is refused, and none gets here. Whatever else we returned would be stored in place of
        // somebody's words.
        std::process::abort();
    };
    Sealed([&[VERSION][..], &nonce, &ciphertext].concat())
}

fn decrypt(key: &[u8; KEY_LEN], associated: &[u8], sealed: &Sealed) -> Option<Zeroizing<Vec<u8>>> {
    let (version, rest) = sealed.0.split_first()?;
    let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_LEN>()?;
    if *version != VERSION {
        return None;
    }
    let payload = Payload { msg: ciphertext, aad: associated };
    XChaCha20Poly1305::new(key.into()).decrypt(&XNonce::from(*nonce), payload).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::random::SystemRandom;
    use proptest::prelude::*;

    fn key(owner: &str) -> DataKey {
        DataKey::generate(owner.into(), Uuid::nil(), &SystemRandom)
    }

    const HERE: Place<'static> = Place::inside("message.body", b"c1", b"m1");

    #[test]
    fn a_text_opens_only_with_its_key_at_its_place() {
        let ann = key("user/ann");
        let sealed = ann.seal(HERE, b"private", &SystemRandom);
        assert_eq!(ann.open_text(HERE, &sealed).unwrap(), "private");

        let elsewhere = [
            Place::inside("message.body", b"c1", b"m2"),
            Place::inside("message.body", b"c1m", b"1"),
            Place::new("message.body", b"c1m1"),
            Place::inside("job.payload", b"c1", b"m1"),
        ];
        for place in elsewhere {
            assert!(ann.open(place, &sealed).is_err());
        }
        assert!(key("user/ann").open(HERE, &sealed).is_err(), "another key");
        let renamed = DataKey { owner: "user/bob".into(), ..ann.clone() };
        assert!(renamed.open(HERE, &sealed).is_err(), "another owner");
        let renumbered = DataKey { id: Uuid::max(), ..ann.clone() };
        assert!(renumbered.open(HERE, &sealed).is_err(), "another key id");
    }

    proptest! {
        #[test]
        fn any_text_survives_and_any_change_is_noticed(text: Vec<u8>, at: prop::sample::Index, flip in 1u8..) {
            let ann = key("user/ann");
            let sealed = ann.seal(HERE, &text, &SystemRandom);
            prop_assert_eq!(ann.open(HERE, &sealed).unwrap().to_vec(), text);

            let mut changed = sealed.clone();
            let at = at.index(changed.0.len());
            changed.0[at] ^= flip;
            prop_assert!(ann.open(HERE, &changed).is_err());
            let cut = Sealed(sealed.0[..at].to_vec());
            prop_assert!(ann.open(HERE, &cut).is_err());
        }

        #[test]
        fn different_parts_never_join_to_the_same_bytes(a: Vec<Vec<u8>>, b: Vec<Vec<u8>>) {
            let joined = |parts: &[Vec<u8>]| join(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>());
            prop_assert_eq!(joined(&a) == joined(&b), a == b);
        }
    }

    #[test]
    fn data_keys_open_under_any_live_master_key_and_only_under_theirs() {
        let old = MasterKeys::generate("old", &SystemRandom);
        let new = MasterKeys::generate("new", &SystemRandom);
        let before = MasterKeys::parse(&old).unwrap();
        let during = MasterKeys::parse(&format!("{}, {}", *new, *old)).unwrap();
        let after = MasterKeys::parse(&new).unwrap();

        let wrapped = before.wrap(&key("user/ann"), &SystemRandom);
        assert!(during.unwrap(&wrapped).is_ok());
        assert!(after.unwrap(&wrapped).is_err());
        let moved = WrappedKey { owner: "user/bob".into(), ..wrapped };
        assert!(during.unwrap(&moved).is_err(), "a wrapped key was given to somebody else");
    }

    #[test]
    fn unusable_master_keys_are_named_without_being_shown() {
        let weak = BASE64_STANDARD.encode([7u8; 32]);
        let typed = BASE64_STANDARD.encode("correct-horse-battery-staple-123");
        for (text, complaint) in [
            ("", "no key"),
            ("abc", "id:base64"),
            ("a b:AAAA", "letters"),
            ("k:*", "not base64"),
            ("k:AAAA", "32 bytes"),
            (&format!("k:{weak}"), "not random"),
            (&format!("k:{typed}"), "not random"),
        ] {
            let error = MasterKeys::parse(text).unwrap_err();
            assert!(error.contains(complaint), "{text}: {error}");
            assert!(!error.contains(&weak) && !error.contains(&typed));
        }
        let one = MasterKeys::generate("k", &SystemRandom);
        assert!(MasterKeys::parse(&format!("{},{}", *one, *one)).unwrap_err().contains("twice"));
    }

    #[test]
    fn what_a_secret_sealed_opens_with_it_alone() {
        let key = |secret: &str| DataKey::derive("successor", &SecretString::from(secret));
        let sealed = key("one").seal(HERE, b"next", &SystemRandom);
        assert_eq!(key("one").open_text(HERE, &sealed).unwrap(), "next");
        assert!(key("other").open(HERE, &sealed).is_err());
        assert!(DataKey::derive("another purpose", &SecretString::from("one")).open(HERE, &sealed).is_err());
    }

    #[test]
    fn hashes_differ_by_key_purpose_and_data() {
        let (ann, bob) = (key("service/mac"), key("service/mac"));
        let mac = ann.mac("code", b"12345678");
        assert_eq!(mac, ann.mac("code", b"12345678"));
        assert_ne!(mac, ann.mac("address", b"12345678"));
        assert_ne!(mac, ann.mac("code", b"12345679"));
        assert_ne!(mac, bob.mac("code", b"12345678"));
    }
}
