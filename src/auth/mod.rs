//! Who is calling: sign-up, login, tokens, sessions, age and consents.
//!
//! This slice holds the user's row. Every other slice may ask it who a caller is; it must not know any of them.

pub mod audit;
pub mod caller;
pub mod consents;
mod device;
mod email;
pub mod http;
mod letters;
pub mod lockout;
pub mod login;
mod password;
mod service;
pub mod session;
pub mod signup;
pub mod throttle;
pub mod tokens;
pub mod users;

use std::time::Duration;

use uuid::Uuid;

pub use self::{
    caller::CurrentUser,
    consents::{Consent, Policy},
    device::Device,
    email::Email,
    password::{HashError, Password, PasswordRules},
    service::{Auth, AuthError, StartError},
    session::SessionView,
    throttle::{Rate, ThrottleSettings},
    tokens::{Jwks, Tokens},
    users::{AgeAssurance, ProfileChange, Role, User},
};

/// The fewest years that a user has lived.
pub const ADULT_AGE: i16 = 18;

/// What the operator decides about identity.
#[derive(Clone, Debug)]
pub struct AuthSettings {
    /// Who signs access tokens and who they are for: our public URL.
    pub issuer: String,
    /// How long an access token is valid.
    pub access_token_ttl: Duration,
    /// How long a session lives without a refresh.
    pub refresh_idle_ttl: Duration,
    /// How long a session lives at most.
    pub refresh_absolute_ttl: Duration,
    /// Which passwords are accepted.
    pub password: PasswordRules,
    /// How often passwords, codes, sign-ups and mails may be tried.
    pub throttle: ThrottleSettings,
    /// Where the frontend is, without a slash at the end. Links in mails lead there.
    pub frontend: String,
    /// The documents that people consent to, in the order in which they are shown.
    pub policies: Vec<Policy>,
}

/// Who is calling: a user with a live session.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// The user.
    pub user_id: Uuid,
    /// The session.
    pub session_id: Uuid,
    /// The user's role, from the user's row.
    pub role: Role,
}
