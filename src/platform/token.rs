//! Opaque tokens: random secrets that we hand out and store only as hashes.
//!
//! A token is `dm_KIND_` followed by base64url and eight hex digits of CRC-32. The prefix and the checksum let secret
//! scanners recognise a leaked one, and let us refuse a mistyped one before asking the database.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::{
    digest::sha256,
    random::Random,
    seal::{DataKey, equal},
};

/// Random bytes in every token.
const SECRET_LEN: usize = 32;
/// Bytes of the mark that tells a token of ours from an invented one.
const MARK_LEN: usize = 16;

/// A kind of token: what its prefix says and how many bytes name a row in front of the secret.
#[derive(Clone, Copy, Debug)]
pub struct TokenKind {
    /// The middle of the prefix.
    pub name: &'static str,
    /// Bytes of the row's id.
    pub id_len: usize,
}

/// A token that has been read: well-formed, not yet known to be anybody's.
pub struct OpaqueToken {
    /// The row that it names; empty for kinds that are found by their hash.
    pub id: Vec<u8>,
    /// What is stored of it.
    pub hash: [u8; 32],
}

impl TokenKind {
    /// Makes a token for the row `id`, with what is to be stored of it.
    pub fn issue(self, id: &[u8], random: &dyn Random) -> (SecretString, [u8; 32]) {
        self.write(&fresh_body(id, random))
    }

    /// As [`TokenKind::issue`], with a mark that only `key` makes. It still tells a token of ours when its hash is not
    /// stored any more, so that an invented one is not taken for an old one.
    pub fn issue_marked(self, id: &[u8], key: &DataKey, random: &dyn Random) -> (SecretString, [u8; 32]) {
        let mut body = fresh_body(id, random);
        let mark = key.mac(self.name, &body);
        body.extend(mark.iter().take(MARK_LEN));
        self.write(&body)
    }

    fn write(self, body: &[u8]) -> (SecretString, [u8; 32]) {
        let text = format!("dm_{}_{}", self.name, BASE64_URL_SAFE_NO_PAD.encode(body));
        let token = format!("{text}{:08x}", crc32fast::hash(text.as_bytes()));
        let token = SecretString::from(token);
        let hash = hash(&token);
        (token, hash)
    }

    /// Reads a token; `None` for anything that we cannot have made.
    pub fn read(self, token: &SecretString) -> Option<OpaqueToken> {
        let body = self.unwrap(token)?;
        let (id, secret) = body.split_at_checked(self.id_len)?;
        (secret.len() == SECRET_LEN).then(|| OpaqueToken { id: id.to_vec(), hash: hash(token) })
    }

    /// Reads a token that [`TokenKind::issue_marked`] made with this key; `None` for everything else.
    pub fn read_marked(self, token: &SecretString, key: &DataKey) -> Option<OpaqueToken> {
        let body = self.unwrap(token)?;
        let (body, mark) = body.split_last_chunk::<MARK_LEN>()?;
        let (id, secret) = body.split_at_checked(self.id_len)?;
        let expected = key.mac(self.name, body);
        let ours = secret.len() == SECRET_LEN && equal(expected.get(..MARK_LEN)?, mark);
        ours.then(|| OpaqueToken { id: id.to_vec(), hash: hash(token) })
    }

    /// The bytes inside a token that is written as one of ours.
    fn unwrap(self, token: &SecretString) -> Option<Zeroizing<Vec<u8>>> {
        let token = token.expose_secret();
        if token.len() > 256 || !token.is_ascii() {
            return None;
        }
        let (text, checksum) = token.split_at_checked(token.len().checked_sub(8)?)?;
        if format!("{:08x}", crc32fast::hash(text.as_bytes())) != checksum {
            return None;
        }
        let body = text.strip_prefix("dm_")?.strip_prefix(self.name)?.strip_prefix('_')?;
        BASE64_URL_SAFE_NO_PAD.decode(body).ok().map(Zeroizing::new)
    }
}

/// A row's id and a new secret, with room for a mark so that no copy is left behind.
fn fresh_body(id: &[u8], random: &dyn Random) -> Zeroizing<Vec<u8>> {
    let secret = Zeroizing::new(random.bytes::<SECRET_LEN>());
    let mut body = Zeroizing::new(Vec::with_capacity(128));
    body.extend_from_slice(id);
    body.extend_from_slice(&*secret);
    body
}

/// SHA-256: enough for a secret of 256 random bits, and fast (OWASP ASVS 6.5.2).
fn hash(token: &SecretString) -> [u8; 32] {
    sha256(token.expose_secret().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::random::SystemRandom;
    use proptest::prelude::*;

    const KIND: TokenKind = TokenKind { name: "rt", id_len: 4 };

    #[test]
    fn a_token_names_its_row_and_hashes_to_what_is_stored() {
        let (token, stored) = KIND.issue(b"row1", &SystemRandom);
        let read = KIND.read(&token).unwrap();
        assert_eq!((read.id.as_slice(), read.hash), (&b"row1"[..], stored));
        assert!(token.expose_secret().starts_with("dm_rt_"));
        assert!(TokenKind { name: "su", id_len: 4 }.read(&token).is_none(), "another kind");
        assert!(TokenKind { name: "rt", id_len: 5 }.read(&token).is_none(), "another shape");
    }

    #[test]
    fn a_marked_token_is_known_without_its_hash() {
        let key = |owner: &str| DataKey::generate(owner.into(), uuid::Uuid::nil(), &SystemRandom);
        let (ours, other) = (key("service/hashes"), key("service/hashes"));
        let (token, stored) = KIND.issue_marked(b"row1", &ours, &SystemRandom);
        let read = KIND.read_marked(&token, &ours).unwrap();
        assert_eq!((read.id.as_slice(), read.hash), (&b"row1"[..], stored));
        assert!(KIND.read_marked(&token, &other).is_none(), "another key");
        assert!(KIND.read(&token).is_none(), "another shape");
        let (invented, _) = KIND.issue(b"row1", &SystemRandom);
        assert!(KIND.read_marked(&invented, &ours).is_none(), "no mark");
        let (foreign, _) = KIND.issue_marked(b"row1", &other, &SystemRandom);
        assert!(KIND.read_marked(&foreign, &ours).is_none(), "somebody else's mark");
    }

    proptest! {
        #[test]
        fn nothing_else_is_read(text in ".{0,300}") {
            prop_assert!(KIND.read(&SecretString::from(text)).is_none());
        }

        #[test]
        fn a_mistyped_character_is_noticed(at: prop::sample::Index, c in proptest::char::range('!', '~')) {
            let (token, _) = KIND.issue(b"row1", &SystemRandom);
            let mut typed: Vec<char> = token.expose_secret().chars().collect();
            let at = at.index(typed.len());
            prop_assume!(typed[at] != c);
            typed[at] = c;
            prop_assert!(KIND.read(&SecretString::from(typed.into_iter().collect::<String>())).is_none());
        }
    }
}
