//! The public keys, for other services that verify our tokens.

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::Jwks;
use crate::auth::Auth;

/// The routes.
pub fn router() -> OpenApiRouter<Auth> {
    OpenApiRouter::new().routes(routes!(jwks))
}

/// The public keys of access tokens
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "auth", responses(
    (status = 200, description = "A JSON Web Key Set (RFC 7517).", body = Jwks),
))]
async fn jwks(State(auth): State<Auth>) -> Response {
    ([(header::CACHE_CONTROL, "public, max-age=600")], Json(auth.jwks())).into_response()
}
