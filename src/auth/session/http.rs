//! The routes of sessions.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use secrecy::SecretString;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    auth::{Auth, caller::bearer_token, http::TokensAnswer},
    platform::{
        client::Client,
        extract::{ApiJson, OptionalJson},
        problem::Problem,
    },
};

/// The routes.
pub fn router() -> OpenApiRouter<Auth> {
    OpenApiRouter::new().routes(routes!(refresh)).routes(routes!(log_out))
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
    client: Client,
    headers: HeaderMap,
    OptionalJson(body): OptionalJson<RefreshBody>,
) -> Result<StatusCode, Problem> {
    if let Some(body) = body {
        auth.end_by_refresh_token(&body.refresh_token, &client).await?;
    }
    if let Some(token) = bearer_token(&headers) {
        auth.end_by_access_token(token, &client).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}
