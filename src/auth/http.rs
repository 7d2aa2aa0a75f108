//! The routes of identity.

use std::{net::IpAddr, time::Duration};

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Auth, AuthError, Consent, Device, Email, HashError, Jwks, Password, Policy, SessionView, Tokens, User,
    caller::bearer_token, signup::SignupForm,
};
use crate::platform::{
    extract::{ApiJson, OptionalJson},
    keyring::KeyError,
    page::List,
    problem::{Code, Faults, Invalid, Problem},
    server::PeerAddress,
    time,
};

/// The routes.
pub fn routes() -> OpenApiRouter<Auth> {
    OpenApiRouter::new()
        .routes(routes!(sign_up))
        .routes(routes!(verify_signup))
        .routes(routes!(resend_code))
        .routes(routes!(log_in))
        .routes(routes!(refresh))
        .routes(routes!(log_out))
        .routes(routes!(policies))
        .routes(routes!(jwks))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SignupBody {
    #[schema(format = Email, max_length = 254, example = "ann@example.com")]
    email: String,
    /// 15 characters or more; spaces and every script are welcome.
    #[schema(value_type = String, format = Password, max_length = 128, example = "seven quiet lanterns at dusk")]
    password: SecretString,
    #[schema(format = Date, example = "1990-12-31")]
    birth_date: String,
    /// The current versions of `GET /v1/policies`, at least the required ones.
    consents: Vec<Consent>,
    #[schema(example = "en-GB")]
    #[serde(default)]
    locale: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct SignupAnswer {
    /// Names this sign-up in `verify` and `resend`.
    signup_token: String,
    /// How long it can be verified, in seconds.
    expires_in: u64,
    /// When a new code may be asked for, in seconds.
    resend_after_s: u64,
}

/// Begin a sign-up
///
/// Sends a code by mail. The answer is the same whether or not the address has an account.
#[utoipa::path(post, path = "/v1/auth/signup", tag = "auth", request_body = SignupBody, responses(
    (status = 202, description = "A code is on its way, or a mail that says that there is an account.", body = SignupAnswer),
))]
async fn sign_up(
    State(auth): State<Auth>,
    ApiJson(body): ApiJson<SignupBody>,
) -> Result<(StatusCode, Json<SignupAnswer>), Problem> {
    let SignupBody { email, password, birth_date, consents, locale } = body;
    let started = auth.sign_up(SignupForm { email, password, birth_date, consents, locale }).await?;
    let answer = SignupAnswer {
        signup_token: started.token.expose_secret().to_owned(),
        expires_in: started.expires_in.as_secs(),
        resend_after_s: started.resend_after.as_secs(),
    };
    Ok((StatusCode::ACCEPTED, Json(answer)))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct VerifyBody {
    #[schema(value_type = String)]
    signup_token: SecretString,
    /// The eight digits from the mail.
    #[schema(value_type = String, example = "12345678")]
    code: SecretString,
}

/// Finish a sign-up
///
/// Only here does the user come to exist. Each call spends one of five tries.
#[utoipa::path(post, path = "/v1/auth/signup/verify", tag = "auth", request_body = VerifyBody, responses(
    (status = 201, description = "The user exists and is signed in.", body = TokensAnswer),
))]
async fn verify_signup(
    State(auth): State<Auth>,
    Extension(PeerAddress(peer)): Extension<PeerAddress>,
    ApiJson(body): ApiJson<VerifyBody>,
) -> Result<(StatusCode, Json<TokensAnswer>), Problem> {
    let device = Device { name: None, network: Some(network(peer.ip())) };
    let tokens = auth.verify_signup(&body.signup_token, body.code.expose_secret(), device).await?;
    Ok((StatusCode::CREATED, Json(tokens.into())))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ResendBody {
    #[schema(value_type = String)]
    signup_token: SecretString,
}

#[derive(Serialize, ToSchema)]
struct ResendAnswer {
    /// When a new code may be asked for again, in seconds.
    resend_after_s: u64,
}

/// Send a new code
///
/// The code before it stops working.
#[utoipa::path(post, path = "/v1/auth/signup/resend", tag = "auth", request_body = ResendBody, responses(
    (status = 202, description = "A mail is on its way.", body = ResendAnswer),
))]
async fn resend_code(
    State(auth): State<Auth>,
    ApiJson(body): ApiJson<ResendBody>,
) -> Result<(StatusCode, Json<ResendAnswer>), Problem> {
    let wait = auth.resend_code(&body.signup_token).await?;
    Ok((StatusCode::ACCEPTED, Json(ResendAnswer { resend_after_s: wait.as_secs() })))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LoginBody {
    #[schema(format = Email, max_length = 254, example = "ann@example.com")]
    email: String,
    #[schema(value_type = String, format = Password, max_length = 128, example = "seven quiet lanterns at dusk")]
    password: SecretString,
    /// What the device is to be called in the list of sessions.
    #[serde(default)]
    #[schema(max_length = 64, example = "Ann's phone")]
    device_name: Option<String>,
}

/// Sign in
#[utoipa::path(post, path = "/v1/auth/login", tag = "auth", request_body = LoginBody, responses(
    (status = 200, description = "Signed in.", body = TokensAnswer),
))]
async fn log_in(
    State(auth): State<Auth>,
    Extension(PeerAddress(peer)): Extension<PeerAddress>,
    ApiJson(body): ApiJson<LoginBody>,
) -> Result<Json<TokensAnswer>, Problem> {
    let mut faults = Faults::new();
    let email = faults.take("/email", Email::parse(&body.email));
    let password = faults.take("/password", Password::parse(&body.password));
    let name = faults.take("/device_name", body.device_name.map(device_name).transpose());
    let (Some(email), Some(password), Some(name)) = (email, password, name) else {
        return Err(faults.into_problem());
    };
    let device = Device { name, network: Some(network(peer.ip())) };
    Ok(Json(auth.log_in(&email, password, device).await?.into()))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RefreshBody {
    #[schema(value_type = String)]
    refresh_token: SecretString,
}

/// Exchange a refresh token
///
/// Each refresh token works once; the answer holds the next one.
#[utoipa::path(post, path = "/v1/auth/refresh", tag = "auth", request_body = RefreshBody, responses(
    (status = 200, description = "The next tokens.", body = TokensAnswer),
))]
async fn refresh(
    State(auth): State<Auth>,
    ApiJson(body): ApiJson<RefreshBody>,
) -> Result<Json<TokensAnswer>, Problem> {
    Ok(Json(auth.refresh(&body.refresh_token).await?.into()))
}

/// End the session
///
/// By the refresh token in the body or the access token in the header, expired or not. With neither, nothing happens.
#[utoipa::path(post, path = "/v1/auth/logout", tag = "auth", request_body = Option<RefreshBody>, responses(
    (status = 204, description = "The session is over, if there was one."),
))]
async fn log_out(
    State(auth): State<Auth>,
    headers: HeaderMap,
    OptionalJson(body): OptionalJson<RefreshBody>,
) -> Result<StatusCode, Problem> {
    if let Some(body) = body {
        auth.end_by_refresh_token(&body.refresh_token).await?;
    }
    if let Some(token) = bearer_token(&headers) {
        auth.end_by_access_token(token).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// The documents that people consent to
#[utoipa::path(get, path = "/v1/policies", tag = "auth", responses(
    (status = 200, description = "The current versions.", body = List<Policy>),
))]
async fn policies(State(auth): State<Auth>) -> Json<List<Policy>> {
    Json(List { data: auth.policies().to_vec() })
}

/// The public keys of access tokens
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "auth", responses(
    (status = 200, description = "A JSON Web Key Set (RFC 7517).", body = Jwks),
))]
async fn jwks(State(auth): State<Auth>) -> Response {
    ([(header::CACHE_CONTROL, "public, max-age=600")], Json(auth.jwks())).into_response()
}

/// What a client gets when it signs in.
#[derive(Serialize, ToSchema)]
#[schema(as = Tokens)]
struct TokensAnswer {
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
            AuthError::Hash(HashError::Unreadable)
            | AuthError::Key(_)
            | AuthError::Job(_)
            | AuthError::Signing => Problem::internal(error),
        }
    }
}

fn device_name(text: String) -> Result<String, Invalid> {
    if text.chars().count() > 64 {
        return Err(Invalid::new("too_long", "A device's name has at most 64 characters."));
    }
    if text.chars().any(char::is_control) {
        return Err(Invalid::new("invalid_format", "A device's name has no control characters."));
    }
    Ok(text)
}

/// The network of an address: enough to recognise one's own sessions, too little to follow anybody.
fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            format!("{}/48", std::net::Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_kept_as_networks() {
        for (address, kept) in [
            ("203.0.113.7", "203.0.113.0/24"),
            ("::ffff:203.0.113.7", "203.0.113.0/24"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
            ("::1", "::/48"),
        ] {
            assert_eq!(network(address.parse().unwrap()), kept);
        }
    }
}
