//! Sign-up: from an address to a user, without telling anybody who has an account.
//!
//! Nothing exists before the code from the mail was given back: a pending sign-up is known by its token only. For an
//! address that has an account, a decoy is stored that answers alike in every way but can never succeed.

mod age;
mod form;
pub(crate) mod http;
mod pending;
pub(crate) mod store;
mod verify;

use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};
use secrecy::SecretString;

pub use self::form::SignupForm;
use self::{
    age::{Standing, is_minor},
    pending::Details,
    store::PendingSignup,
};
use super::{
    Auth, AuthError,
    code::{CODE_TRIES, CODE_TTL},
    service::invalid_field,
    throttle::Throttle,
};
use crate::platform::{client::Client, db, time, token::TokenKind};

/// How long a pending sign-up lives.
const SIGNUP_TTL: Duration = Duration::from_hours(1);
/// How often a new code may be sent, and how long to wait before.
const RESENDS: i64 = 5;
const RESEND_AFTER: Duration = Duration::from_mins(1);

const TOKEN: TokenKind = TokenKind { name: "su", id_len: 0 };

/// What somebody who signs up is told, whoever it is.
pub struct SignupStarted {
    /// The token of the pending sign-up.
    pub token: SecretString,
    /// How long it is valid.
    pub expires_in: Duration,
    /// When a new code may be asked for.
    pub resend_after: Duration,
}

impl Auth {
    /// Begins a sign-up and sends a code.
    ///
    /// The answer is the same for an address that has an account or was refused for age, in content and in the work
    /// behind it; it gets a mail that says so.
    ///
    /// # Errors
    ///
    /// [`AuthError::AgeRestricted`] for a birth date under 18. It costs the same work, and the hash before it bounds how
    /// many refusals can be written. [`AuthError::Throttled`] before any work.
    pub async fn sign_up(&self, form: SignupForm, client: &Client) -> Result<SignupStarted, AuthError> {
        let signup = self.parse_signup(form)?;
        let _ = self.admit(Throttle::SignUp { to: &signup.email }, client).await?;
        self.refuse_breached(&signup.password)
            .await
            .map_err(|invalid| invalid_field("/password", invalid))?;
        let now = self.now();
        let email_mac = self.address_mac(&signup.email)?;
        let standing = self.standing(signup.email.key(), email_mac, now).await?;
        let password_hash = self.0.hasher.hash(signup.password).await?;
        if is_minor(signup.birth_date, now.to_zoned(TimeZone::UTC).date()) {
            self.remember_refusal(email_mac, now).await?;
            return Err(AuthError::AgeRestricted);
        }
        let details = Details {
            email: signup.email.address().to_owned(),
            password_hash,
            birth_date: signup.birth_date,
            consents: signup.consents,
            locale: signup.locale,
        };
        let token = self.store_pending(&details, email_mac, standing, now).await?;
        Ok(SignupStarted { token, expires_in: SIGNUP_TTL, resend_after: RESEND_AFTER })
    }

    async fn store_pending(
        &self,
        details: &Details,
        email_mac: [u8; 32],
        standing: Standing,
        now: Timestamp,
    ) -> Result<SecretString, AuthError> {
        let id = self.0.random.uuid(now);
        let (token, token_hash) = TOKEN.issue(&[], &*self.0.random);
        let sealed = self.seal_details(id, details)?;
        let (code_mac, mail) = self.new_signup_code(id, &details.email, standing)?;
        let decoy = standing != Standing::New;
        self.0
            .db
            .write(async move |c| {
                store::add_pending_signup(
                    &token_hash,
                    id,
                    &email_mac,
                    decoy,
                    &sealed,
                    &code_mac,
                    time::after(now, CODE_TTL),
                    CODE_TRIES,
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
        Ok(token)
    }

    /// Sends a new code. Says when that is possible again.
    ///
    /// # Errors
    ///
    /// [`AuthError::InvalidCode`] for an unknown or expired sign-up, and when no code is left to send: then waiting does
    /// not help. [`AuthError::TooEarly`] before its time. [`AuthError::Throttled`] also when the address has had many mails.
    pub async fn resend_code(&self, token: &SecretString, client: &Client) -> Result<Duration, AuthError> {
        let _ = self.admit(Throttle::Code, client).await?;
        let token_hash = TOKEN.read(token).ok_or(AuthError::InvalidCode)?.hash;
        let now = self.now();
        let pending = self.resendable(token_hash, now).await?;
        let details = self.open_details(pending.id, &pending.details)?;
        let email = details.email()?;
        let _ = self.admit(Throttle::Mail { to: &email }, client).await?;
        let standing = self.standing_of(&pending, &email, now).await?;
        let (code_mac, mail) = self.new_signup_code(pending.id, &details.email, standing)?;
        let renewed = self
            .0
            .db
            .write(async move |c| {
                let (until, again) = (time::after(now, CODE_TTL), time::after(now, RESEND_AFTER));
                let renewed =
                    store::renew_code(&token_hash, &code_mac, until, CODE_TRIES, again, now).exec(&c).await?;
                if renewed > 0 {
                    mail.store(&c).await?;
                }
                Ok::<_, db::Error>(renewed > 0)
            })
            .await?;
        if !renewed {
            // Somebody else asked at the same moment. What that left says how long to wait.
            self.resendable(token_hash, now).await?;
            return Err(AuthError::TooEarly { wait: Duration::from_secs(1) });
        }
        self.0.jobs.wake();
        Ok(RESEND_AFTER)
    }

    /// The pending sign-up, if a new code may be sent for it now.
    async fn resendable(&self, token_hash: [u8; 32], now: Timestamp) -> Result<PendingSignup, AuthError> {
        let pending =
            self.0.db.read(async |c| store::find_pending_signup(&token_hash, now).opt(&c).await).await?;
        let pending = pending.filter(|row| row.resends_left > 0).ok_or(AuthError::InvalidCode)?;
        match time::until(pending.resend_at, now) {
            Duration::ZERO => Ok(pending),
            wait => Err(AuthError::TooEarly { wait }),
        }
    }
}
