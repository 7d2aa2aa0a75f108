//! The routes of sign-up.

use axum::{Json, extract::State, http::StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::SignupForm;
use crate::{
    auth::{
        Auth, Consent,
        http::{Page, TokenDelivery, TokensAnswer, TokensReply},
    },
    platform::{client::Client, extract::ApiJson, problem::Problem},
};

/// The routes.
pub fn router() -> OpenApiRouter<Auth> {
    OpenApiRouter::new().routes(routes!(sign_up)).routes(routes!(verify_signup)).routes(routes!(resend_code))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SignupBody {
    #[schema(format = Email, max_length = 254, example = "ann@example.com")]
    email: String,
    /// As long as the operator asks for, by default 15 characters; spaces and every script are welcome.
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
    (status = 202, description = "A code is on its way, or a mail that says why there is none.", body = SignupAnswer),
))]
async fn sign_up(
    State(auth): State<Auth>,
    client: Client,
    ApiJson(body): ApiJson<SignupBody>,
) -> Result<(StatusCode, Json<SignupAnswer>), Problem> {
    let SignupBody { email, password, birth_date, consents, locale } = body;
    let started = auth.sign_up(SignupForm { email, password, birth_date, consents, locale }, &client).await?;
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
    #[serde(default)]
    token_delivery: TokenDelivery,
}

/// Finish a sign-up
///
/// Only here does the user come to exist. Each call spends one of five tries.
#[utoipa::path(post, path = "/v1/auth/signup/verify", tag = "auth", request_body = VerifyBody, responses(
    (status = 201, description = "The user exists and is signed in.", body = TokensAnswer),
))]
async fn verify_signup(
    State(auth): State<Auth>,
    client: Client,
    page: Page,
    ApiJson(body): ApiJson<VerifyBody>,
) -> Result<(StatusCode, TokensReply), Problem> {
    page.check_for(body.token_delivery)?;
    let tokens = auth.verify_signup(&body.signup_token, body.code.expose_secret(), &client).await?;
    Ok((StatusCode::CREATED, TokensReply::new(tokens, body.token_delivery)))
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
/// The code before it stops working. At most five times for one sign-up.
#[utoipa::path(post, path = "/v1/auth/signup/resend", tag = "auth", request_body = ResendBody, responses(
    (status = 202, description = "A mail is on its way.", body = ResendAnswer),
))]
async fn resend_code(
    State(auth): State<Auth>,
    client: Client,
    ApiJson(body): ApiJson<ResendBody>,
) -> Result<(StatusCode, Json<ResendAnswer>), Problem> {
    let wait = auth.resend_code(&body.signup_token, &client).await?;
    Ok((StatusCode::ACCEPTED, Json(ResendAnswer { resend_after_s: wait.as_secs() })))
}
