//! The routes of changes of an address.

use axum::{Json, extract::State, http::StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    auth::{Auth, CurrentUser, User},
    platform::{client::Client, extract::ApiJson, problem::Problem},
};

/// The routes.
pub fn router() -> OpenApiRouter<Auth> {
    OpenApiRouter::new()
        .routes(routes!(change_email))
        .routes(routes!(confirm_email))
        .routes(routes!(undo_email_change))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct EmailBody {
    #[schema(format = Email, max_length = 254, example = "ann@example.org")]
    email: String,
}

/// Ask for another address
///
/// Sends a code to the new address; until it comes back nothing is changed. Needs a sign-in of the last minutes, else
/// `reauthentication_required`. The answer is the same whether or not the address has an account.
#[utoipa::path(post, path = "/v1/me/email", tag = "account", request_body = EmailBody, responses(
    (status = 204, description = "A code is on its way, or a mail that says that there is an account."),
))]
async fn change_email(
    State(auth): State<Auth>,
    CurrentUser(caller): CurrentUser,
    client: Client,
    ApiJson(body): ApiJson<EmailBody>,
) -> Result<StatusCode, Problem> {
    auth.change_email(caller, &body.email, &client).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct EmailCodeBody {
    /// The eight digits from the mail.
    #[schema(value_type = String, example = "12345678")]
    code: SecretString,
}

/// Switch to the new address
///
/// In the session that asked for it. Each call spends one of five tries. The old address is told, and can take the change
/// back for 72 hours.
#[utoipa::path(post, path = "/v1/me/email/confirm", tag = "account", request_body = EmailCodeBody, responses(
    (status = 200, description = "The caller, with the new address.", body = User),
))]
async fn confirm_email(
    State(auth): State<Auth>,
    CurrentUser(caller): CurrentUser,
    client: Client,
    ApiJson(body): ApiJson<EmailCodeBody>,
) -> Result<Json<User>, Problem> {
    Ok(Json(auth.confirm_email(caller, body.code.expose_secret(), &client).await?))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UndoBody {
    /// What stands behind `#token=` in the link.
    #[schema(value_type = String)]
    token: SecretString,
}

/// Take an old address back
///
/// By the link from the mail that told of the change. Ends every session. The password stops
/// working, whoever set it: the owner chooses a new one by "Forgot password".
#[utoipa::path(post, path = "/v1/auth/email/undo", tag = "auth", request_body = UndoBody, responses(
    (status = 204, description = "The account uses the old address again."),
))]
async fn undo_email_change(
    State(auth): State<Auth>,
    client: Client,
    ApiJson(body): ApiJson<UndoBody>,
) -> Result<StatusCode, Problem> {
    auth.undo_email_change(&body.token, &client).await?;
    Ok(StatusCode::NO_CONTENT)
}
