//! What is kept of a sign-up until its code comes back.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::age::Standing;
use crate::{
    auth::{Auth, AuthError, Consent, Email, code::CodeFor, letters},
    platform::{
        job::NewJob,
        keyring::Service,
        mail::{MAIL_JOB, Mail},
        seal::{DataKey, Place, Sealed},
    },
};

/// The column that holds what is sealed.
const COLUMN: &str = "pending_signup.details";

/// What is kept, sealed, until the code comes back.
#[derive(Serialize, Deserialize)]
pub(super) struct Details {
    pub(super) email: String,
    pub(super) password_hash: String,
    pub(super) birth_date: Date,
    pub(super) consents: Vec<Consent>,
    pub(super) locale: Option<String>,
}

impl Details {
    /// The address. It was valid when it was sealed.
    pub(super) fn email(&self) -> Result<Email, AuthError> {
        Email::parse(&self.email).map_err(|_| AuthError::Stored(COLUMN))
    }
}

impl Auth {
    /// A code and the mail that carries it; for a decoy a code that nobody gets, and the mail that says why.
    pub(super) fn new_signup_code(
        &self,
        signup: Uuid,
        to: &str,
        standing: Standing,
    ) -> Result<([u8; 32], NewJob), AuthError> {
        let (code, code_mac) = self.new_code(CodeFor::SignUp, signup)?;
        let mail: Mail = match standing {
            Standing::New => letters::signup_code(to, &code),
            Standing::Known => letters::already_registered(to),
            Standing::Refused => letters::signup_refused(to),
        };
        Ok((code_mac, self.0.jobs.prepare(MAIL_JOB, &mail)?))
    }

    pub(super) fn seal_details(&self, id: Uuid, details: &Details) -> Result<Sealed, AuthError> {
        let text = serde_json::to_vec(details).map(Zeroizing::new).map_err(|_| AuthError::Stored(COLUMN))?;
        Ok(self.signup_key()?.seal(Place::new(COLUMN, id.as_bytes()), &text, &*self.0.random))
    }

    pub(super) fn open_details(&self, id: Uuid, sealed: &Sealed) -> Result<Details, AuthError> {
        let place = Place::new(COLUMN, id.as_bytes());
        let text = self.signup_key()?.open(place, sealed)?;
        serde_json::from_slice(&text).map_err(|_| AuthError::Stored(COLUMN))
    }

    fn signup_key(&self) -> Result<&DataKey, AuthError> {
        Ok(self.0.keyring.service(Service::Signup)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_address_that_cannot_be_read_is_our_fault() {
        let details = Details {
            email: "nobody".into(),
            password_hash: String::new(),
            birth_date: Date::ZERO,
            consents: Vec::new(),
            locale: None,
        };
        assert!(matches!(details.email(), Err(AuthError::Stored(COLUMN))));
    }
}
