//! Access tokens whose signature was found right, so that it is not checked again with every request.
//!
//! Only the signature is remembered. Whether the token is valid now, whether its key still counts and whether its session
//! lives is asked every time.

use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, PoisonError},
};

use super::Claims;
use crate::platform::digest::sha256;

/// How many tokens are remembered at most.
const MOST: usize = 4096;

/// What was signed, and by which key.
#[derive(Clone)]
pub struct Verified {
    /// The key's id.
    pub kid: String,
    /// What the token says.
    pub claims: Claims,
}

/// Remembers verified tokens by their hash.
///
/// In two halves: when the younger is full, the older is dropped. A token that is in use moves to the younger half, so
/// what is dropped was not used for at least as many others as fill one.
#[derive(Default)]
pub struct VerifiedTokens(Mutex<Halves>);

#[derive(Default)]
struct Halves {
    young: HashMap<Key, Verified>,
    old: HashMap<Key, Verified>,
}

type Key = [u8; 32];

impl Halves {
    fn keep(&mut self, key: Key, verified: Verified) {
        if self.young.len() >= MOST / 2 {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, verified);
    }
}

impl VerifiedTokens {
    /// What a token says, if it was verified before.
    pub fn get(&self, token: &str) -> Option<Verified> {
        let key = hash(token);
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(verified) = halves.young.get(&key) {
            return Some(verified.clone());
        }
        let verified = halves.old.remove(&key)?;
        halves.keep(key, verified.clone());
        Some(verified)
    }

    /// Remembers a token whose signature is right.
    pub fn add(&self, token: &str, verified: Verified) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keep(hash(token), verified);
    }

    /// Forgets a token.
    pub fn remove(&self, token: &str) {
        let key = hash(token);
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        halves.young.remove(&key);
        halves.old.remove(&key);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let halves = self.0.lock().unwrap();
        halves.young.len() + halves.old.len()
    }
}

fn hash(token: &str) -> Key {
    sha256(token.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_number_is_bounded() {
        let claims = Claims::of_nobody();
        let tokens = VerifiedTokens::default();
        let add = |token: &str| {
            tokens.add(token, Verified { kid: "k".into(), claims: claims.clone() });
        };
        add("used");
        add("unused");
        for n in 0..3 * MOST {
            add(&n.to_string());
            assert!(tokens.get("used").is_some(), "{n}");
            assert!(tokens.len() <= MOST);
        }
        assert!(tokens.get("unused").is_none());
        tokens.remove("used");
        assert!(tokens.get("used").is_none());
    }
}
