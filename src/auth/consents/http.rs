//! The routes of consents that need no session. Who has one consents at `POST /v1/me/consents`, in `account`.

use axum::{Json, extract::State};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::Policy;
use crate::{auth::Auth, platform::page::List};

/// The routes.
pub fn router() -> OpenApiRouter<Auth> {
    OpenApiRouter::new().routes(routes!(policies))
}

/// The documents that people consent to
#[utoipa::path(get, path = "/v1/policies", tag = "auth", responses(
    (status = 200, description = "The current versions.", body = List<Policy>),
))]
async fn policies(State(auth): State<Auth>) -> Json<List<Policy>> {
    Json(List { data: auth.policies().to_vec() })
}
