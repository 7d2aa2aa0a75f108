//! The routes of passwords.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
};
use secrecy::SecretString;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    auth::{Auth, CurrentUser, login::http::device_cookie},
    platform::{client::Client, extract::ApiJson, problem::Problem},
};

/// The routes.
pub fn router() -> OpenApiRouter<Auth> {
    OpenApiRouter::new()
        .routes(routes!(forgot_password))
        .routes(routes!(reset_password))
        .routes(routes!(change_password))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ForgotBody {
    #[schema(format = Email, max_length = 254, example = "ann@example.com")]
    email: String,
}

/// Ask for a new password
///
/// Sends a link by mail if the address has an account. The answer is the same whether or not it has.
#[utoipa::path(post, path = "/v1/auth/password/forgot", tag = "auth", request_body = ForgotBody, responses(
    (status = 202, description = "A mail is on its way, if the address has an account."),
))]
async fn forgot_password(
    State(auth): State<Auth>,
    client: Client,
    ApiJson(body): ApiJson<ForgotBody>,
) -> Result<StatusCode, Problem> {
    auth.forgot_password(&body.email, &client).await?;
    Ok(StatusCode::ACCEPTED)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ResetBody {
    /// What stands behind `#token=` in the link.
    #[schema(value_type = String)]
    token: SecretString,
    /// As long as the operator asks for, by default 15 characters; spaces and every script are welcome.
    #[schema(value_type = String, format = Password, max_length = 128, example = "nine loud lanterns at dawn")]
    password: SecretString,
}

/// Set a new password by a link from a mail
///
/// Works once, ends every session, and signs nobody in.
#[utoipa::path(post, path = "/v1/auth/password/reset", tag = "auth", request_body = ResetBody, responses(
    (status = 204, description = "The new password is set."),
))]
async fn reset_password(
    State(auth): State<Auth>,
    client: Client,
    ApiJson(body): ApiJson<ResetBody>,
) -> Result<StatusCode, Problem> {
    auth.reset_password(&body.token, &body.password, &client).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangeBody {
    /// Left out only where there is none yet.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = Password, max_length = 128, example = "seven quiet lanterns at dusk")]
    current_password: Option<SecretString>,
    /// As long as the operator asks for, by default 15 characters; spaces and every script are welcome.
    #[schema(value_type = String, format = Password, max_length = 128, example = "nine loud lanterns at dawn")]
    new_password: SecretString,
}

/// Change the password
///
/// Needs a sign-in of the last minutes, else `reauthentication_required`. Ends every other session.
#[utoipa::path(post, path = "/v1/me/password", tag = "account", request_body = ChangeBody, responses(
    (status = 204, description = "The new password is set."),
))]
async fn change_password(
    State(auth): State<Auth>,
    CurrentUser(caller): CurrentUser,
    client: Client,
    headers: HeaderMap,
    ApiJson(body): ApiJson<ChangeBody>,
) -> Result<StatusCode, Problem> {
    let (current, device) = (body.current_password.as_ref(), device_cookie(&headers));
    auth.change_password(caller, current, &body.new_password, device, &client).await?;
    Ok(StatusCode::NO_CONTENT)
}
