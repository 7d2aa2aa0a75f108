//! Passwords: what is accepted, and how they are hashed.

mod hasher;
mod rules;

pub use self::{
    hasher::{HashError, Hasher, Pepper},
    rules::PasswordRules,
};

use secrecy::{ExposeSecret as _, SecretString};
use unicode_normalization::UnicodeNormalization as _;
use zeroize::Zeroizing;

use crate::platform::problem::Invalid;

/// The longest password, in bytes, before it is hashed.
const MAX_BYTES: usize = 1024;

/// A password in one Unicode form (NFKC), so that every keyboard types the same.
#[derive(Clone)]
pub struct Password(SecretString);

impl Password {
    /// Takes a password as typed.
    pub fn parse(typed: &SecretString) -> Result<Password, Invalid> {
        let typed = typed.expose_secret();
        let too_long = || Invalid::new("too_long", "A password has at most 128 characters.");
        if typed.len() > MAX_BYTES {
            return Err(too_long());
        }
        let normal = Zeroizing::new(typed.nfkc().collect::<String>());
        if normal.len() > MAX_BYTES || normal.chars().count() > PasswordRules::MAX_CHARACTERS {
            return Err(too_long());
        }
        Ok(Password(SecretString::from(normal.as_str())))
    }

    fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}
