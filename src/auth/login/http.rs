//! The routes of login.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse as _, Response},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{FreshToken, LoginForm, SignedIn};
use crate::{
    auth::{
        Auth, CurrentUser,
        http::{Page, TokenDelivery, TokensAnswer, TokensReply},
    },
    platform::{
        client::Client,
        cookie::{cookies, set_cookie},
        extract::ApiJson,
        problem::Problem,
    },
};

/// The cookie of a device that has signed in before.
const DEVICE_COOKIE: &str = "__Host-dm_device";
/// How long a browser is asked to keep it: the most that browsers do.
const DEVICE_COOKIE_AGE: Duration = Duration::from_hours(400 * 24);

/// The routes.
pub fn router() -> OpenApiRouter<Auth> {
    OpenApiRouter::new().routes(routes!(log_in)).routes(routes!(reauthenticate))
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
    #[serde(default)]
    token_delivery: TokenDelivery,
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
    page: Page,
    headers: HeaderMap,
    ApiJson(body): ApiJson<LoginBody>,
) -> Result<Response, Problem> {
    let LoginBody { email, password, device_name, token_delivery } = body;
    page.check_for(token_delivery)?;
    let device_cookie = device_cookie(&headers).map(str::to_owned);
    let form = LoginForm { email, password, device_name, device_cookie };
    let SignedIn { tokens, device_cookie } = auth.log_in(form, &client).await?;
    let mut response = TokensReply::new(tokens, token_delivery).into_response();
    if let Some(cookie) = set_cookie(DEVICE_COOKIE, &device_cookie, DEVICE_COOKIE_AGE) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// What shows that the device of a call has signed in before.
pub(in crate::auth) fn device_cookie(headers: &HeaderMap) -> Option<&str> {
    cookies(headers, DEVICE_COOKIE).next()
}

/// How somebody shows again who they are.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Method {
    /// With the password.
    Password,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ReauthenticateBody {
    method: Method,
    #[schema(value_type = String, format = Password, max_length = 128, example = "seven quiet lanterns at dusk")]
    password: SecretString,
}

#[derive(Serialize, ToSchema)]
struct FreshTokenAnswer {
    /// A JWT for `authorization: Bearer`, in place of the one before.
    access_token: String,
    /// How long it is valid, in seconds.
    expires_in: u64,
}

impl From<FreshToken> for FreshTokenAnswer {
    fn from(token: FreshToken) -> Self {
        FreshTokenAnswer {
            access_token: token.access_token.expose_secret().to_owned(),
            expires_in: token.expires_in.as_secs(),
        }
    }
}

/// Show again who one is
///
/// Needed where a call answers `reauthentication_required`. The refresh token stays as it is; tokens that a
/// refresh gives do not have what this bought.
#[utoipa::path(post, path = "/v1/auth/reauthenticate", tag = "auth", request_body = ReauthenticateBody, responses(
    (status = 200, description = "An access token with a new `auth_time`.", body = FreshTokenAnswer),
))]
async fn reauthenticate(
    State(auth): State<Auth>,
    CurrentUser(caller): CurrentUser,
    client: Client,
    headers: HeaderMap,
    ApiJson(body): ApiJson<ReauthenticateBody>,
) -> Result<Json<FreshTokenAnswer>, Problem> {
    let Method::Password = body.method;
    let device = device_cookie(&headers);
    Ok(Json(auth.reauthenticate(caller, &body.password, device, &client).await?.into()))
}
