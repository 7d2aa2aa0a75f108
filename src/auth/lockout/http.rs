//! The route that unlocks an account.

use axum::{extract::State, http::StatusCode};
use secrecy::SecretString;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    auth::Auth,
    platform::{client::Client, extract::ApiJson, problem::Problem},
};

/// The routes.
pub fn router() -> OpenApiRouter<Auth> {
    OpenApiRouter::new().routes(routes!(unlock))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UnlockBody {
    /// What stands behind `#token=` in the link of the mail.
    #[schema(value_type = String)]
    token: SecretString,
}

/// Unlock an account
///
/// After a hundred wrong passwords in a row an account takes none, and its owner gets a mail with a link to
/// `/unlock#token=…` of the frontend. The page there should send this when a button is pressed and not before: programs that
/// look through mail open links, too.
#[utoipa::path(post, path = "/v1/auth/unlock", tag = "auth", request_body = UnlockBody, responses(
    (status = 204, description = "The account takes its password again."),
))]
async fn unlock(
    State(auth): State<Auth>,
    client: Client,
    ApiJson(body): ApiJson<UnlockBody>,
) -> Result<StatusCode, Problem> {
    auth.unlock(&body.token, &client).await?;
    Ok(StatusCode::NO_CONTENT)
}
