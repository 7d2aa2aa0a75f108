//! Opaque tokens: random secrets that we hand out and store only as hashes.
//!
//! A token is `dm_KIND_` followed by base64url and eight hex digits of CRC-32. The prefix and the checksum let secret
//! scanners recognise a leaked one, and let us refuse a mistyped one before asking the database.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::{digest::sha256, random::Random};

/// Random bytes in every token.
const SECRET_LEN: usize = 32;

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
        let secret = Zeroizing::new(random.bytes::<SECRET_LEN>());
        let body = Zeroizing::new([id, &*secret].concat());
        let text = format!("dm_{}_{}", self.name, BASE64_URL_SAFE_NO_PAD.encode(&*body));
        let token = format!("{text}{:08x}", crc32fast::hash(text.as_bytes()));
        let hash = hash(&token);
        (SecretString::from(token), hash)
    }

    /// Reads a token; `None` for anything that we cannot have made.
    pub fn read(self, token: &SecretString) -> Option<OpaqueToken> {
        let token = token.expose_secret();
        if token.len() > 256 || !token.is_ascii() {
            return None;
        }
        let (text, checksum) = token.split_at_checked(token.len().checked_sub(8)?)?;
        if format!("{:08x}", crc32fast::hash(text.as_bytes())) != checksum {
            return None;
        }
        let body = text.strip_prefix("dm_")?.strip_prefix(self.name)?.strip_prefix('_')?;
        let body = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.decode(body).ok()?);
        let (id, secret) = body.split_at_checked(self.id_len)?;
        (secret.len() == SECRET_LEN).then(|| OpaqueToken { id: id.to_vec(), hash: hash(token) })
    }
}

/// SHA-256: enough for a secret of 256 random bits, and fast (OWASP ASVS 6.5.2).
fn hash(token: &str) -> [u8; 32] {
    sha256(token.as_bytes())
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
