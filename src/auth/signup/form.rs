//! The form of a sign-up.

use jiff::{civil::Date, tz::TimeZone};
use secrecy::SecretString;

use crate::{
    auth::{Auth, AuthError, Consent, Email, Password, Policy, consents::check_shape, users::locale},
    platform::problem::{Faults, Invalid},
};

/// A sign-up as it was sent.
pub struct SignupForm {
    /// The address.
    pub email: String,
    /// The password.
    pub password: SecretString,
    /// The birth date, `YYYY-MM-DD`.
    pub birth_date: String,
    /// The documents that were accepted.
    pub consents: Vec<Consent>,
    /// A language tag.
    pub locale: Option<String>,
}

/// A sign-up whose every field is valid.
pub(super) struct Signup {
    pub(super) email: Email,
    pub(super) password: Password,
    pub(super) birth_date: Date,
    pub(super) consents: Vec<Consent>,
    pub(super) locale: Option<String>,
}

impl Auth {
    /// Reads a form and names everything that is wrong with it at once.
    pub(super) fn parse_signup(&self, form: SignupForm) -> Result<Signup, AuthError> {
        let mut faults = Faults::new();
        let today = self.now().to_zoned(TimeZone::UTC).date();
        let email = faults.take("/email", Email::parse(&form.email));
        let password = faults.take("/password", Password::parse(&form.password));
        let birth_date = faults.take("/birth_date", birth_date(&form.birth_date, today));
        let locale = faults.take("/locale", form.locale.as_deref().map(locale).transpose());
        if let Some(password) = &password {
            faults.take("/password", self.0.settings.password.check(password, email.as_ref()));
        }
        let missing = |policy: &&Policy| {
            policy.required && !form.consents.iter().any(|consent| consent.document == policy.document)
        };
        if let Err(invalid) = check_shape(&form.consents) {
            faults.add("/consents", invalid.code, invalid.detail);
        } else if let Some(policy) = self.policies().iter().find(missing) {
            faults.add("/consents", "missing", format!("Consent to `{}` is needed.", policy.document));
        }
        let (Some(email), Some(password), Some(birth_date), Some(locale), true) =
            (email, password, birth_date, locale, faults.is_empty())
        else {
            return Err(AuthError::Invalid(faults.into_errors()));
        };
        self.check_consents(&form.consents)?;
        Ok(Signup { email, password, birth_date, consents: form.consents, locale })
    }
}

fn birth_date(text: &str, today: Date) -> Result<Date, Invalid> {
    let invalid = || Invalid::new("invalid_format", "A date looks like 1990-12-31.");
    // Exactly this form: the parser would take times and week dates too.
    if text.len() != 10 {
        return Err(invalid());
    }
    let date: Date = Date::strptime("%Y-%m-%d", text).map_err(|_| invalid())?;
    if date > today {
        return Err(Invalid::new("in_future", "A birth date is not in the future."));
    }
    if date.year() < 1900 {
        return Err(Invalid::new("out_of_range", "Nobody that old is alive."));
    }
    Ok(date)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn only_real_past_dates_are_birth_dates() {
        let today = date(2026, 11, 22);
        assert_eq!(birth_date("1990-12-31", today), Ok(date(1990, 12, 31)));
        for (text, code) in [
            ("2026-11-23", "in_future"),
            ("1899-12-31", "out_of_range"),
            ("1990-02-30", "invalid_format"),
            ("1990-1-1", "invalid_format"),
            ("31.12.1990", "invalid_format"),
            ("1990-12-31T00:00", "invalid_format"),
            ("", "invalid_format"),
            ("19900-1231", "invalid_format"),
        ] {
            assert_eq!(birth_date(text, today).map_err(|invalid| invalid.code), Err(code), "{text}");
        }
    }
}
