//! Identity: who is calling, and whether they may.
//!
//! This slice holds the user's row. Every other slice may ask it who a caller is; it must not know any of them.

pub(crate) mod administration;
pub(crate) mod audit;
pub(crate) mod caller;
mod code;
pub(crate) mod consents;
mod device;
mod email;
pub(crate) mod email_change;
pub(crate) mod http;
mod letters;
pub(crate) mod lockout;
pub(crate) mod login;
pub(crate) mod password;
mod service;
pub(crate) mod session;
pub(crate) mod signup;
mod step_up;
pub(crate) mod throttle;
pub(crate) mod tokens;
pub(crate) mod users;

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

pub use self::{
    administration::{Administrator, ManagedUser, SuspensionForm, begin_act},
    audit::{Action, AuditEntry, AuditEvent, AuditFilter},
    caller::CurrentUser,
    consents::{Consent, Policy},
    device::Device,
    email::Email,
    password::{HashError, Password, PasswordRules},
    service::{Auth, AuthError, StartError},
    session::SessionView,
    throttle::ThrottleSettings,
    tokens::{Jwks, KeyState, Rotation, SigningKey, Tokens},
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
    /// How long after a sign-in sensitive changes are possible.
    pub step_up_ttl: Duration,
    /// Where the frontend is, without a slash at the end: links in mails lead there, whatever a request says.
    pub frontend_url: String,
    /// How long one key signs access tokens.
    pub signing_key_rotation: Duration,
    /// How long a key is published before it signs.
    pub signing_key_lead: Duration,
    /// How long the audit keeps addresses.
    pub audit_address_retention: Duration,
    /// How long the audit keeps entries.
    pub audit_retention: Duration,
    /// Origins whose pages may use the refresh cookie.
    pub allowed_origins: Vec<String>,
    /// Which passwords are accepted.
    pub password: PasswordRules,
    /// How often passwords, codes, sign-ups and mails may be tried.
    pub throttle: ThrottleSettings,
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
    /// When the user last showed who they are, as the access token says.
    pub auth_time: Timestamp,
    /// Which refresh of the session the access token came with.
    pub token_gen: i64,
}
