//! The routes of identity: those of its parts, and what they share.

mod delivery;

use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;

pub(super) use self::delivery::{Page, RefreshCookie, TokenDelivery, TokensReply, no_cookie};
use super::{
    Auth, AuthError, HashError, SessionView, Tokens, User, consents, email_change, lockout, login, password,
    session, signup, tokens,
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
        .merge(password::http::router())
        .merge(email_change::http::router())
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
    /// The refresh token, to be exchanged for the next; left out where a cookie has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
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
            refresh_token: Some(tokens.refresh_token.expose_secret().to_owned()),
            refresh_expires_at: tokens.refresh_expires_at,
            session: tokens.session,
            user: tokens.user,
        }
    }
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        let waiting = |detail, wait| Problem::new(Code::RateLimited, detail).retry_after(wait);
        let (code, detail) = match error {
            AuthError::Invalid(errors) => return Problem::validation(errors),
            AuthError::NoSuchSession | AuthError::NoSuchUser => return Problem::not_found(),
            AuthError::TooEarly { wait } => return waiting("A code was sent a moment ago.", wait),
            AuthError::TooManyReplays { wait } => {
                return waiting("The refresh token was exchanged too often in a few seconds.", wait);
            }
            AuthError::Throttled { wait } => {
                return waiting("This was tried too often. Wait before the next try.", wait);
            }
            AuthError::Storage(error) | AuthError::Key(KeyError::Storage(error)) => {
                return Problem::storage(error);
            }
            AuthError::Hash(HashError::Unreadable | HashError::UnknownKey | HashError::Failed)
            | AuthError::Key(_)
            | AuthError::Job(_)
            | AuthError::Stored(_)
            | AuthError::Signing => return Problem::internal(error),
            AuthError::Hash(HashError::Busy) => {
                (Code::Overloaded, "Too many people are signing in at the moment.")
            }
            AuthError::PolicyOutdated => {
                (Code::PolicyOutdated, "`GET /v1/policies` names the current versions.")
            }
            AuthError::AgeRestricted => (Code::AgeRestricted, "You have to be 18 to use this service."),
            AuthError::InvalidCode => (Code::InvalidCode, "The code is wrong, spent or expired."),
            AuthError::InvalidCredentials => {
                (Code::InvalidCredentials, "There is no such account, or the password is another.")
            }
            AuthError::ReauthenticationRequired => {
                (Code::ReauthenticationRequired, "This needs a sign-in that is not long ago.")
            }
            AuthError::InvalidGrant => (Code::InvalidGrant, "The refresh token is not valid any more."),
            AuthError::RefreshReused => (
                Code::RefreshTokenReused,
                "The refresh token was exchanged before. The session was ended, and its owner was told.",
            ),
            AuthError::Unauthenticated => {
                (Code::Unauthenticated, "The access token is not valid, or its session has ended.")
            }
            AuthError::AccountSuspended => (Code::AccountSuspended, "The account is suspended."),
            AuthError::Forbidden => (Code::Forbidden, "Your account may not do this."),
            AuthError::LastAdministrator => {
                (Code::Conflict, "Nobody else could administer. Make another user an administrator first.")
            }
            AuthError::OwnSuspension => (Code::Conflict, "Nobody can suspend themselves."),
            AuthError::InvalidCursor => {
                (Code::InvalidCursor, "This cursor was not given to you for this list.")
            }
            AuthError::ConsentRequired => {
                (Code::ConsentRequired, "A required policy has not been accepted in its current version.")
            }
            AuthError::AddressTaken => (Code::Conflict, "The address belongs to a user already."),
        };
        Problem::new(code, detail)
    }
}
