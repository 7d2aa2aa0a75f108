//! Passwords: what is accepted, how they are hashed, how one is changed, and what to do when it is forgotten.

mod breach;
mod change;
mod hasher;
pub(crate) mod http;
mod reset;
mod rules;
pub(crate) mod store;

pub(in crate::auth) use self::reset::close_ways_around;
pub use self::{
    breach::BreachCheck,
    hasher::{HashError, Hasher, Pepper},
    rules::PasswordRules,
};

use secrecy::{ExposeSecret as _, SecretString};
use unicode_normalization::UnicodeNormalization as _;
use zeroize::Zeroizing;

use super::{Auth, Email};
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

impl Auth {
    /// Judges a new password: by the rules, then by whether it was in a breach.
    pub(super) async fn check_new_password(
        &self,
        password: &Password,
        email: Option<&Email>,
    ) -> Result<(), Invalid> {
        self.0.settings.password.check(password, email)?;
        self.refuse_breached(password).await
    }

    /// Refuses a password that was in a breach, if the operator wants that to be asked.
    pub(super) async fn refuse_breached(&self, password: &Password) -> Result<(), Invalid> {
        match &self.0.breaches {
            Some(breaches) if breaches.knows(password).await => {
                Err(Invalid::new("breached", "This password has become known elsewhere. Choose another one."))
            }
            _ => Ok(()),
        }
    }
}
