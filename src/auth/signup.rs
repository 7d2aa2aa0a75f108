//! Sign-up: from an address to a user, without telling anybody who has an account.
//!
//! Nothing exists before the code from the mail was given back: a pending sign-up is known by its token only. For an
//! address that has an account, a decoy is stored that answers alike in every way but can never succeed.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    ADULT_AGE, AgeAssurance, Auth, AuthError, Consent, Device, Email, Password, Role, Tokens, letters,
    profile::locale,
    service::invalid_field,
    store::{self, TriedSignup},
};
use crate::platform::{
    db,
    job::NewJob,
    keyring::Service,
    mail::{MAIL_JOB, Mail},
    problem::{Faults, Invalid},
    seal::{DataKey, Place, Sealed, equal},
    time,
    token::TokenKind,
};

/// How long a pending sign-up lives.
const SIGNUP_TTL: Duration = Duration::from_hours(1);
/// How long one code is valid.
const CODE_TTL: Duration = Duration::from_mins(10);
/// How often one code may be tried.
const TRIES: i64 = 5;
/// How often a new code may be sent, and how long to wait before.
const RESENDS: i64 = 5;
const RESEND_AFTER: Duration = Duration::from_mins(1);
/// How long somebody who was too young is remembered.
const REFUSAL_TTL: SignedDuration = SignedDuration::from_hours(30 * 24);

const TOKEN: TokenKind = TokenKind { name: "su", id_len: 0 };
/// Digits of a code.
const CODE_LEN: usize = 8;

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

/// What somebody who signs up is told, whoever it is.
pub struct SignupStarted {
    /// The token of the pending sign-up.
    pub token: SecretString,
    /// How long it is valid.
    pub expires_in: Duration,
    /// When a new code may be asked for.
    pub resend_after: Duration,
}

/// What is kept, sealed, until the code comes back.
#[derive(Serialize, Deserialize)]
struct Details {
    email: String,
    password_hash: String,
    birth_date: Date,
    consents: Vec<Consent>,
    locale: Option<String>,
}

struct Signup {
    email: Email,
    password: Password,
    birth_date: Date,
    consents: Vec<Consent>,
    locale: Option<String>,
}

impl Auth {
    /// Begins a sign-up and sends a code.
    ///
    /// The answer is the same for an address that has an account, in content and in the work behind it; that one gets a
    /// mail that says so.
    pub async fn sign_up(&self, form: SignupForm) -> Result<SignupStarted, AuthError> {
        let signup = self.parse(form)?;
        let now = self.now();
        let email_mac = self.address_mac(&signup.email)?;
        self.refuse_minors(&signup, email_mac, now).await?;

        let email_key = signup.email.key().to_owned();
        let known =
            self.db.read(async |c| store::find_credentials(&email_key).opt(&c).await).await?.is_some();
        let password_hash = self.hasher.hash(signup.password).await?;
        let details = Details {
            email: signup.email.address().to_owned(),
            password_hash,
            birth_date: signup.birth_date,
            consents: signup.consents,
            locale: signup.locale,
        };

        let id = self.random.uuid(now);
        let (token, token_hash) = TOKEN.issue(&[], &*self.random);
        let sealed = self.seal_details(id, &details)?;
        let (code_mac, mail) = self.new_code(id, &details.email, known)?;
        self.db
            .write(async move |c| {
                store::add_pending_signup(
                    &token_hash,
                    id,
                    &email_mac,
                    known,
                    &sealed,
                    &code_mac,
                    time::after(now, CODE_TTL),
                    TRIES,
                    RESENDS,
                    time::after(now, RESEND_AFTER),
                    time::after(now, SIGNUP_TTL),
                    now,
                )
                .exec(&c)
                .await?;
                mail.store(&c).await
            })
            .await?;
        self.jobs.wake();
        Ok(SignupStarted { token, expires_in: SIGNUP_TTL, resend_after: RESEND_AFTER })
    }

    /// Sends a new code. Says when that is possible again.
    pub async fn resend_code(&self, token: &SecretString) -> Result<Duration, AuthError> {
        let token_hash = TOKEN.read(token).ok_or(AuthError::InvalidCode)?.hash;
        let now = self.now();
        let pending =
            self.db.read(async |c| store::find_pending_signup(&token_hash, now).opt(&c).await).await?;
        let pending = pending.ok_or(AuthError::InvalidCode)?;
        let earliest = if pending.resends_left > 0 { pending.resend_at } else { pending.expires_at };
        let too_early = AuthError::TooEarly { wait_s: time::seconds_until(earliest, now).max(1) };
        if earliest > now {
            return Err(too_early);
        }
        let details = self.open_details(pending.id, &pending.details)?;
        let (code_mac, mail) = self.new_code(pending.id, &details.email, pending.decoy)?;
        let renewed = self
            .db
            .write(async move |c| {
                let (until, again) = (time::after(now, CODE_TTL), time::after(now, RESEND_AFTER));
                let renewed =
                    store::renew_code(&token_hash, &code_mac, until, TRIES, again, now).exec(&c).await?;
                if renewed > 0 {
                    mail.store(&c).await?;
                }
                Ok::<_, db::Error>(renewed > 0)
            })
            .await?;
        self.jobs.wake();
        // Somebody else asked at the same moment.
        if renewed { Ok(RESEND_AFTER) } else { Err(too_early) }
    }

    /// Ends a sign-up with the code from the mail. Only here does the user come to exist.
    ///
    /// # Errors
    ///
    /// [`AuthError::InvalidCode`] for a wrong or spent code, a decoy, and when another sign-up for the same address was
    /// faster. Every call spends a try, whatever comes of it.
    pub async fn verify_signup(
        &self,
        token: &SecretString,
        code: &str,
        device: Device,
    ) -> Result<Tokens, AuthError> {
        let token_hash = TOKEN.read(token).ok_or(AuthError::InvalidCode)?.hash;
        let now = self.now();
        let tried = self.db.write(async move |c| store::spend_try(&token_hash, now).opt(&c).await).await?;
        let tried = tried.ok_or(AuthError::InvalidCode)?;
        let code = code.trim();
        let right = code.len() == CODE_LEN && equal(&self.code_mac(tried.id, code)?, &tried.code_mac);
        if tried.decoy || !right {
            return Err(AuthError::InvalidCode);
        }
        self.create_signed_up_user(token_hash, tried, device, now).await
    }

    async fn create_signed_up_user(
        &self,
        token_hash: [u8; 32],
        tried: TriedSignup,
        device: Device,
        now: Timestamp,
    ) -> Result<Tokens, AuthError> {
        let details = self.open_details(tried.id, &tried.details)?;
        let email = Email::parse(&details.email).map_err(|invalid| invalid_field("/email", invalid))?;
        let user_id = self.random.uuid(now);
        let key = self.keyring.new_user_key(user_id);
        let birth_date = details.birth_date.to_string();
        let place = Place::new("app_user.birth_date", user_id.as_bytes());
        let birth_date = key.key.seal(place, birth_date.as_bytes(), &*self.random);
        let session = self.new_session(user_id, device, now);
        let stored = session.clone();
        self.db
            .write(async move |c| {
                // The one that deletes the row goes on; a second try with the same right code does not.
                if store::take_pending_signup(&token_hash).exec(&c).await? == 0 {
                    return Err(AuthError::InvalidCode);
                }
                let created = store::add_user(
                    user_id,
                    email.address(),
                    email.key(),
                    &details.password_hash,
                    Role::User,
                    details.locale.as_deref(),
                    Some(&birth_date),
                    AgeAssurance::Declared,
                    now,
                );
                if created.exec(&c).await? == 0 {
                    return Err(AuthError::InvalidCode);
                }
                key.store(&c, now).await?;
                for Consent { document, version } in &details.consents {
                    store::add_consent(user_id, document, version, now).exec(&c).await?;
                }
                store::end_pending_signups(&tried.email_mac).exec(&c).await?;
                stored.store(&c).await?;
                Ok(())
            })
            .await?;
        self.tokens_for(session).await
    }

    fn parse(&self, form: SignupForm) -> Result<Signup, AuthError> {
        let mut faults = Faults::new();
        let today = self.now().to_zoned(TimeZone::UTC).date();
        let email = faults.take("/email", Email::parse(&form.email));
        let password = faults.take("/password", Password::parse(&form.password));
        let birth_date = faults.take("/birth_date", birth_date(&form.birth_date, today));
        let locale = faults.take("/locale", form.locale.as_deref().map(locale).transpose());
        if let (Some(email), Some(password)) = (&email, &password) {
            faults.take("/password", self.settings.password.check(password, email));
        }
        let missing = |policy: &&super::Policy| {
            policy.required && !form.consents.iter().any(|consent| consent.document == policy.document)
        };
        if let Some(policy) = self.policies().iter().find(missing) {
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

    /// Refuses who is too young now, and who was with another birth date lately.
    async fn refuse_minors(
        &self,
        signup: &Signup,
        email_mac: [u8; 32],
        now: Timestamp,
    ) -> Result<(), AuthError> {
        let today = now.to_zoned(TimeZone::UTC).date();
        if is_minor(signup.birth_date, today) {
            let until = now.saturating_add(REFUSAL_TTL).unwrap_or(Timestamp::MAX);
            self.db
                .write(async move |c| store::remember_age_refusal(&email_mac, until).exec(&c).await)
                .await?;
            return Err(AuthError::AgeRestricted);
        }
        let refused = self.db.read(async |c| store::find_age_refusal(&email_mac, now).opt(&c).await).await?;
        if refused.is_some() { Err(AuthError::AgeRestricted) } else { Ok(()) }
    }

    /// A code and the mail that carries it; for a decoy a code that nobody gets, and the mail that says why.
    fn new_code(&self, signup: Uuid, to: &str, decoy: bool) -> Result<([u8; 32], NewJob), AuthError> {
        let code = Zeroizing::new(self.random.eight_digits());
        let mail: Mail =
            if decoy { letters::already_registered(to) } else { letters::signup_code(to, &code) };
        Ok((self.code_mac(signup, &code)?, self.jobs.prepare(MAIL_JOB, &mail)?))
    }

    fn code_mac(&self, signup: Uuid, code: &str) -> Result<[u8; 32], AuthError> {
        let key = self.keyring.service(Service::Hashes)?;
        Ok(key.mac("sign-up code", &[signup.as_bytes(), code.as_bytes()].concat()))
    }

    fn seal_details(&self, id: Uuid, details: &Details) -> Result<Sealed, AuthError> {
        let text = serde_json::to_vec(details)
            .map(Zeroizing::new)
            .map_err(|_| db::Error::Refused("a pending sign-up cannot be written".into()))?;
        Ok(self.signup_key()?.seal(Place::new("pending_signup.details", id.as_bytes()), &text, &*self.random))
    }

    fn open_details(&self, id: Uuid, sealed: &Sealed) -> Result<Details, AuthError> {
        let place = Place::new("pending_signup.details", id.as_bytes());
        let text = self.signup_key()?.open(place, sealed)?;
        serde_json::from_slice(&text)
            .map_err(|_| db::Error::Refused("a pending sign-up cannot be read".into()).into())
    }

    fn signup_key(&self) -> Result<&DataKey, AuthError> {
        Ok(self.keyring.service(Service::Signup)?)
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

/// Whether somebody has not lived 18 years on `today`. Who was born on a 29th of February comes of age on the 1st of March.
fn is_minor(birth: Date, today: Date) -> bool {
    let years = today.year().saturating_sub(birth.year());
    let birthday_to_come = (today.month(), today.day()) < (birth.month(), birth.day());
    years.saturating_sub(i16::from(birthday_to_come)) < ADULT_AGE
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn the_eighteenth_birthday_decides() {
        let born = date(2008, 11, 22);
        for (today, minor) in [
            (date(2026, 11, 21), true),
            (date(2026, 11, 22), false),
            (date(2026, 12, 1), false),
            (date(2027, 1, 1), false),
            (date(2008, 11, 22), true),
        ] {
            assert_eq!(is_minor(born, today), minor, "{today}");
        }
        let leap = date(2008, 2, 29);
        assert!(is_minor(leap, date(2026, 2, 28)));
        assert!(!is_minor(leap, date(2026, 3, 1)));
    }

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
