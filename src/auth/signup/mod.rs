//! Sign-up: from an address to a user, without telling anybody who has an account.
//!
//! Nothing exists before the code from the mail was given back: a pending sign-up is known by its token only. For an
//! address that has an account, a decoy is stored that answers alike in every way but can never succeed.

mod form;
pub mod http;
pub mod store;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

pub use self::form::SignupForm;
use self::{
    form::{Signup, is_minor},
    store::TriedSignup,
};
use super::{
    AgeAssurance, Auth, AuthError, Consent, Device, Email, Role, Tokens, User, consents, letters,
    service::invalid_field, users,
};
use crate::platform::{
    db,
    job::NewJob,
    keyring::Service,
    mail::{MAIL_JOB, Mail},
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

impl Auth {
    /// Begins a sign-up and sends a code.
    ///
    /// The answer is the same for an address that has an account, in content and in the work behind it; that one gets a
    /// mail that says so.
    pub async fn sign_up(&self, form: SignupForm) -> Result<SignupStarted, AuthError> {
        let signup = self.parse_signup(form)?;
        let now = self.now();
        let email_mac = self.address_mac(&signup.email)?;
        self.refuse_minors(&signup, email_mac, now).await?;

        let email_key = signup.email.key().to_owned();
        let known = self
            .0
            .db
            .read(async |c| users::store::find_credentials(&email_key).opt(&c).await)
            .await?
            .is_some();
        let password_hash = self.0.hasher.hash(signup.password).await?;
        let details = Details {
            email: signup.email.address().to_owned(),
            password_hash,
            birth_date: signup.birth_date,
            consents: signup.consents,
            locale: signup.locale,
        };

        let id = self.0.random.uuid(now);
        let (token, token_hash) = TOKEN.issue(&[], &*self.0.random);
        let sealed = self.seal_details(id, &details)?;
        let (code_mac, mail) = self.new_code(id, &details.email, known)?;
        self.0
            .db
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
        self.0.jobs.wake();
        Ok(SignupStarted { token, expires_in: SIGNUP_TTL, resend_after: RESEND_AFTER })
    }

    /// Sends a new code. Says when that is possible again.
    pub async fn resend_code(&self, token: &SecretString) -> Result<Duration, AuthError> {
        let token_hash = TOKEN.read(token).ok_or(AuthError::InvalidCode)?.hash;
        let now = self.now();
        let pending =
            self.0.db.read(async |c| store::find_pending_signup(&token_hash, now).opt(&c).await).await?;
        let pending = pending.ok_or(AuthError::InvalidCode)?;
        let earliest = if pending.resends_left > 0 { pending.resend_at } else { pending.expires_at };
        let too_early = AuthError::TooEarly { wait_s: time::seconds_until(earliest, now).max(1) };
        if earliest > now {
            return Err(too_early);
        }
        let details = self.open_details(pending.id, &pending.details)?;
        let (code_mac, mail) = self.new_code(pending.id, &details.email, pending.decoy)?;
        let renewed = self
            .0
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
        self.0.jobs.wake();
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
        let tried = self.0.db.write(async move |c| store::spend_try(&token_hash, now).opt(&c).await).await?;
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
        let user_id = self.0.random.uuid(now);
        let key = self.0.keyring.new_user_key(user_id);
        let birth_date = details.birth_date.to_string();
        let place = Place::new("app_user.birth_date", user_id.as_bytes());
        let birth_date = key.key.seal(place, birth_date.as_bytes(), &*self.0.random);
        let session = self.new_session(user_id, device, now);
        let user = User {
            id: user_id,
            email: email.address().to_owned(),
            email_verified: true,
            display_name: None,
            locale: details.locale.clone(),
            time_zone: None,
            role: Role::User,
            created_at: now,
            mfa_enabled: false,
            age_assurance: AgeAssurance::Declared,
        };
        let tokens = self.sign(session.clone(), user)?;
        self.0
            .db
            .write(async move |c| {
                // The one that deletes the row goes on; a second try with the same right code does not.
                if store::take_pending_signup(&token_hash).exec(&c).await? == 0 {
                    return Err(AuthError::InvalidCode);
                }
                let created = users::store::add_user(
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
                    consents::store::add_consent(user_id, document, version, now).exec(&c).await?;
                }
                store::make_decoys(&tried.email_mac).exec(&c).await?;
                session.store(&c).await?;
                Ok(())
            })
            .await?;
        Ok(tokens)
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
            self.0
                .db
                .write(async move |c| store::remember_age_refusal(&email_mac, until).exec(&c).await)
                .await?;
            return Err(AuthError::AgeRestricted);
        }
        let refused =
            self.0.db.read(async |c| store::find_age_refusal(&email_mac, now).opt(&c).await).await?;
        if refused.is_some() { Err(AuthError::AgeRestricted) } else { Ok(()) }
    }

    /// A code and the mail that carries it; for a decoy a code that nobody gets, and the mail that says why.
    fn new_code(&self, signup: Uuid, to: &str, decoy: bool) -> Result<([u8; 32], NewJob), AuthError> {
        let code = Zeroizing::new(self.0.random.eight_digits());
        let mail: Mail =
            if decoy { letters::already_registered(to) } else { letters::signup_code(to, &code) };
        Ok((self.code_mac(signup, &code)?, self.0.jobs.prepare(MAIL_JOB, &mail)?))
    }

    fn code_mac(&self, signup: Uuid, code: &str) -> Result<[u8; 32], AuthError> {
        let key = self.0.keyring.service(Service::Hashes)?;
        Ok(key.mac("sign-up code", &[signup.as_bytes(), code.as_bytes()].concat()))
    }

    fn seal_details(&self, id: Uuid, details: &Details) -> Result<Sealed, AuthError> {
        let text = serde_json::to_vec(details)
            .map(Zeroizing::new)
            .map_err(|_| db::Error::Refused("a pending sign-up cannot be written".into()))?;
        Ok(self.signup_key()?.seal(
            Place::new("pending_signup.details", id.as_bytes()),
            &text,
            &*self.0.random,
        ))
    }

    fn open_details(&self, id: Uuid, sealed: &Sealed) -> Result<Details, AuthError> {
        let place = Place::new("pending_signup.details", id.as_bytes());
        let text = self.signup_key()?.open(place, sealed)?;
        serde_json::from_slice(&text)
            .map_err(|_| db::Error::Refused("a pending sign-up cannot be read".into()).into())
    }

    fn signup_key(&self) -> Result<&DataKey, AuthError> {
        Ok(self.0.keyring.service(Service::Signup)?)
    }
}
