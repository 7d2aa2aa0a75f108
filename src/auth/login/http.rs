//! The routes of login.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, header},
};
use secrecy::SecretString;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{LoginForm, SignedIn};
use crate::{
    auth::{Auth, http::TokensAnswer},
    platform::{client::Client, cookie::cookie, extract::ApiJson, problem::Problem},
};

/// The cookie of a device that has signed in before.
const DEVICE_COOKIE: &str = "__Host-dm_device";
/// How long a browser is asked to keep it, in seconds: 400 days, the most that browsers do.
const DEVICE_COOKIE_AGE: u32 = 34_560_000;

/// The routes.
pub fn router() -> OpenApiRouter<Auth> {
    OpenApiRouter::new().routes(routes!(log_in))
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
///
/// Sets the cookie `__Host-dm_device`. It shows, the next time, that this browser has signed in to the account before: then
/// wrong passwords that come from elsewhere do not keep it waiting. It does nothing else.
#[utoipa::path(post, path = "/v1/auth/login", tag = "auth", request_body = LoginBody, responses(
    (status = 200, description = "Signed in.", body = TokensAnswer),
))]
async fn log_in(
    State(auth): State<Auth>,
    client: Client,
    headers: HeaderMap,
    ApiJson(body): ApiJson<LoginBody>,
) -> Result<([(header::HeaderName, String); 1], Json<TokensAnswer>), Problem> {
    let LoginBody { email, password, device_name } = body;
    let device_cookie = cookie(&headers, DEVICE_COOKIE).map(str::to_owned);
    let form = LoginForm { email, password, device_name, device_cookie };
    let SignedIn { tokens, device_cookie } = auth.log_in(form, &client).await?;
    Ok(([(header::SET_COOKIE, device_cookie_header(&device_cookie))], Json(tokens.into())))
}

fn device_cookie_header(value: &str) -> String {
    format!("{DEVICE_COOKIE}={value}; Path=/; Max-Age={DEVICE_COOKIE_AGE}; HttpOnly; Secure; SameSite=Strict")
}
