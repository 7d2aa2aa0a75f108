//! The routes of login.

use axum::extract::State;
use secrecy::SecretString;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::LoginForm;
use crate::{
    auth::{
        Auth,
        http::{Page, TokenDelivery, TokensAnswer, TokensReply},
    },
    platform::{client::Client, extract::ApiJson, problem::Problem},
};

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
    #[serde(default)]
    token_delivery: TokenDelivery,
}

/// Sign in
#[utoipa::path(post, path = "/v1/auth/login", tag = "auth", request_body = LoginBody, responses(
    (status = 200, description = "Signed in.", body = TokensAnswer),
))]
async fn log_in(
    State(auth): State<Auth>,
    client: Client,
    page: Page,
    ApiJson(body): ApiJson<LoginBody>,
) -> Result<TokensReply, Problem> {
    let LoginBody { email, password, device_name, token_delivery } = body;
    page.check_for(token_delivery)?;
    let form = LoginForm { email, password, device_name };
    Ok(TokensReply::new(auth.log_in(form, &client).await?, token_delivery))
}
