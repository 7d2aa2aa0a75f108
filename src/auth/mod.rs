//! Who is calling: sign-up, login, tokens, sessions, age and consents.
//!
//! This slice holds the user's row. Every other slice may ask it who a caller is; it must not know any of them.

mod access_token;
pub mod caller;
mod email;
pub mod http;
mod letters;
mod password;
pub mod profile;
mod service;
mod session;
mod signup;
pub mod store;

use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{platform::time, text_column};

pub use self::{
    access_token::Jwks,
    caller::CurrentUser,
    email::Email,
    password::{HashError, Password, PasswordRules},
    service::{Auth, AuthError, StartError},
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
    /// The documents that people consent to, in the order in which they are shown.
    pub policies: Vec<Policy>,
}

/// A document that people consent to.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Policy {
    /// Its name.
    #[schema(example = "terms")]
    pub document: String,
    /// Its current version.
    #[schema(example = "2026-11-01")]
    pub version: String,
    /// Where it can be read.
    pub url: String,
    /// Whether the service needs it.
    pub required: bool,
}

/// Consent to one version of one document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Consent {
    /// The document.
    #[schema(example = "terms", max_length = 64)]
    pub document: String,
    /// The version that was shown.
    #[schema(example = "2026-11-01", max_length = 64)]
    pub version: String,
}

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A customer.
    User,
    /// An operator.
    Admin,
}

text_column!(Role { User = "user", Admin = "admin" });

/// How we know that a user is an adult.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgeAssurance {
    /// The user said so.
    Declared,
    /// The operator, who created the user, vouches for it.
    Operator,
}

text_column!(AgeAssurance { Declared = "declared", Operator = "operator" });

/// A user, as the user sees it.
#[derive(Clone, Serialize, ToSchema)]
pub struct User {
    /// The user's id.
    pub id: Uuid,
    /// The address that mail goes to.
    pub email: String,
    /// Whether the user has shown that mail to it arrives.
    pub email_verified: bool,
    /// How the user wants to be called.
    pub display_name: Option<String>,
    /// The language, as a BCP 47 tag.
    #[schema(example = "en-GB")]
    pub locale: Option<String>,
    /// The time zone, as an IANA name.
    #[schema(example = "Europe/London")]
    pub time_zone: Option<String>,
    /// What the user may do.
    pub role: Role,
    /// When the user came to exist.
    #[serde(serialize_with = "time::serialize")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Whether a second factor is enrolled.
    pub mfa_enabled: bool,
    /// How we know that the user is an adult.
    pub age_assurance: AgeAssurance,
}

/// A session, as its user sees it.
#[derive(Clone, Serialize, ToSchema)]
#[schema(as = Session)]
pub struct SessionView {
    /// The session's id.
    pub id: Uuid,
    /// When it began.
    #[serde(serialize_with = "time::serialize")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it was last refreshed.
    #[serde(serialize_with = "time::serialize")]
    #[schema(value_type = String, format = DateTime)]
    pub last_seen_at: Timestamp,
    /// What the client called itself.
    pub device_name: Option<String>,
    /// The network that it was begun from.
    #[schema(example = "203.0.113.0/24")]
    pub address: Option<String>,
    /// Whether it is the session of this request.
    pub current: bool,
}

/// What a client gets when it signs in.
#[derive(Clone)]
pub struct Tokens {
    /// The access token.
    pub access_token: SecretString,
    /// How long that is valid.
    pub expires_in: Duration,
    /// The refresh token. Each one works once.
    pub refresh_token: SecretString,
    /// When the refresh token ends if it is not used: the earlier of the idle and the absolute end.
    pub refresh_expires_at: Timestamp,
    /// The session.
    pub session: SessionView,
    /// The user.
    pub user: User,
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

/// Where a session is begun from.
#[derive(Clone, Debug, Default)]
pub struct Device {
    /// What the client called itself.
    pub name: Option<String>,
    /// The network, never the whole address.
    pub network: Option<String>,
}
