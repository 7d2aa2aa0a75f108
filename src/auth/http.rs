//! The routes of identity: those of its parts, and what they share.

use std::time::Duration;

use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;

use super::{
    Auth, AuthError, HashError, SessionView, Tokens, User, consents, lockout, login, session, signup, tokens,
};
use crate::platform::{
    keyring::KeyError,
    problem::{Code, Problem},
    time,
};

/// The routes.
pub fn routes() -> OpenApiRouter<Auth> {
    OpenApiRouter::new()
        .merge(signup::http::router())
        .merge(login::http::router())
        .merge(lockout::http::router())
        .merge(session::http::router())
        .merge(consents::http::router())
        .merge(tokens::http::router())
}

/// What a client gets when it signs in.
#[derive(Serialize, ToSchema)]
#[schema(as = Tokens)]
pub(super) struct TokensAnswer {
    /// A JWT for `authorization: Bearer`.
    access_token: String,
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// How long the access token is valid, in seconds.
    expires_in: u64,
    /// The refresh token; it works once.
    refresh_token: String,
    /// When the refresh token ends if it is not used.
    #[serde(serialize_with = "time::serialize")]
    #[schema(value_type = String, format = DateTime)]
    refresh_expires_at: Timestamp,
    session: SessionView,
    user: User,
}

impl From<Tokens> for TokensAnswer {
    fn from(tokens: Tokens) -> Self {
        TokensAnswer {
            access_token: tokens.access_token.expose_secret().to_owned(),
            token_type: "Bearer",
            expires_in: tokens.expires_in.as_secs(),
            refresh_token: tokens.refresh_token.expose_secret().to_owned(),
            refresh_expires_at: tokens.refresh_expires_at,
            session: tokens.session,
            user: tokens.user,
        }
    }
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Invalid(errors) => Problem::validation(errors),
            AuthError::PolicyOutdated => {
                Problem::new(Code::PolicyOutdated, "`GET /v1/policies` names the current versions.")
            }
            AuthError::AgeRestricted => {
                Problem::new(Code::AgeRestricted, "You have to be 18 to use this service.")
            }
            AuthError::InvalidCode => Problem::new(Code::InvalidCode, "The code is wrong, spent or expired."),
            AuthError::TooEarly { wait_s } => {
                Problem::new(Code::RateLimited, "A code was sent a moment ago.")
                    .retry_after(Duration::from_secs(wait_s))
            }
            AuthError::Throttled { wait } => {
                Problem::new(Code::RateLimited, "This was tried too often. Wait before the next try.")
                    .retry_after(wait)
            }
            AuthError::InvalidCredentials => Problem::new(
                Code::InvalidCredentials,
                "There is no such account, or the password is another.",
            ),
            AuthError::InvalidGrant => {
                Problem::new(Code::InvalidGrant, "The refresh token is not valid any more.")
            }
            AuthError::Unauthenticated => Problem::new(
                Code::Unauthenticated,
                "The access token is not valid, or its session has ended.",
            ),
            AuthError::ConsentRequired => Problem::new(
                Code::ConsentRequired,
                "A required policy has not been accepted in its current version.",
            ),
            AuthError::AddressTaken => Problem::new(Code::Conflict, "The address belongs to a user already."),
            AuthError::Hash(HashError::Busy) => {
                Problem::new(Code::Overloaded, "Too many people are signing in at the moment.")
                    .retry_after(Duration::from_secs(1))
            }
            AuthError::Storage(error) | AuthError::Key(KeyError::Storage(error)) => Problem::storage(error),
            AuthError::Hash(HashError::Unreadable | HashError::UnknownKey | HashError::Failed)
            | AuthError::Key(_)
            | AuthError::Job(_)
            | AuthError::Stored(_)
            | AuthError::Signing => Problem::internal(error),
        }
    }
}
