//! Codes that are mailed: eight digits that somebody types to show that they read the mail. They are short, so one is valid
//! for minutes and for a few tries, each of which is spent before it is compared.

use std::time::Duration;

use uuid::Uuid;
use zeroize::Zeroizing;

use super::{Auth, AuthError};
use crate::platform::{keyring::Service, seal::equal};

/// How long a code is valid.
pub(super) const CODE_TTL: Duration = Duration::from_mins(10);
/// How often one code may be tried.
pub(super) const CODE_TRIES: i64 = 5;
const LEN: usize = 8;

/// What a code shows the address for. A code for one thing is none for another.
#[derive(Clone, Copy)]
pub(super) enum CodeFor {
    /// A sign-up.
    SignUp,
    /// Another address of a user.
    EmailChange,
}

impl Auth {
    /// A new code for what the row with this id holds, and all that is stored of it: a keyed hash.
    pub(super) fn new_code(
        &self,
        purpose: CodeFor,
        row: Uuid,
    ) -> Result<(Zeroizing<String>, [u8; 32]), AuthError> {
        let code = Zeroizing::new(self.0.random.eight_digits());
        let mac = self.code_mac(purpose, row, &code)?;
        Ok((code, mac))
    }

    /// Whether this is the row's code.
    pub(super) fn is_code(
        &self,
        purpose: CodeFor,
        row: Uuid,
        typed: &str,
        stored: &[u8],
    ) -> Result<bool, AuthError> {
        let typed = typed.trim();
        Ok(typed.len() == LEN && equal(&self.code_mac(purpose, row, typed)?, stored))
    }

    fn code_mac(&self, purpose: CodeFor, row: Uuid, code: &str) -> Result<[u8; 32], AuthError> {
        let purpose = match purpose {
            CodeFor::SignUp => "sign-up code",
            CodeFor::EmailChange => "e-mail code",
        };
        let key = self.0.keyring.service(Service::Hashes)?;
        Ok(key.mac(purpose, &[row.as_bytes(), code.as_bytes()].concat()))
    }
}
