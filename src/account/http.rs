//! The routes of the account.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    auth::{Auth, Consent, CurrentUser, ProfileChange, SessionView, User},
    billing::{Billing, Quota, Subscription},
    platform::{extract::ApiJson, json::Patch, problem::Problem},
};

/// What the routes need.
#[derive(Clone)]
pub struct Account {
    /// Who knows users and sessions.
    pub auth: Auth,
    /// Who knows access.
    pub billing: Billing,
}

/// The routes.
pub fn routes() -> OpenApiRouter<Account> {
    OpenApiRouter::new().routes(routes!(session)).routes(routes!(me, change_me)).routes(routes!(consent))
}

#[derive(Serialize, ToSchema)]
struct SessionAnswer {
    session: SessionView,
    user: User,
    subscription: Subscription,
    quota: Quota,
}

/// Validate the session
///
/// Everything that a frontend has to know when it starts.
#[utoipa::path(get, path = "/v1/session", tag = "account", responses(
    (status = 200, description = "The session lives.", body = SessionAnswer),
))]
async fn session(
    State(account): State<Account>,
    CurrentUser(caller): CurrentUser,
) -> Result<Json<SessionAnswer>, Problem> {
    let session = account.auth.session(caller).await?;
    let user = account.auth.user(caller.user_id).await?;
    let subscription = account.billing.subscription(caller.user_id).await.map_err(Problem::storage)?;
    let quota = subscription.quota.clone();
    Ok(Json(SessionAnswer { session, user, subscription, quota }))
}

/// The profile
#[utoipa::path(get, path = "/v1/me", tag = "account", responses(
    (status = 200, description = "The caller.", body = User),
))]
async fn me(State(account): State<Account>, CurrentUser(caller): CurrentUser) -> Result<Json<User>, Problem> {
    Ok(Json(account.auth.user(caller.user_id).await?))
}

/// A JSON Merge Patch: `null` clears, absent leaves.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ProfileBody {
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 64, example = "Ann")]
    display_name: Patch<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "en-GB")]
    locale: Patch<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "Europe/London")]
    time_zone: Patch<String>,
}

/// Change the profile
#[utoipa::path(patch, path = "/v1/me", tag = "account", request_body = ProfileBody, responses(
    (status = 200, description = "The caller, changed.", body = User),
))]
async fn change_me(
    State(account): State<Account>,
    CurrentUser(caller): CurrentUser,
    ApiJson(body): ApiJson<ProfileBody>,
) -> Result<Json<User>, Problem> {
    let ProfileBody { display_name, locale, time_zone } = body;
    let change = ProfileChange { display_name, locale, time_zone };
    Ok(Json(account.auth.change_profile(caller.user_id, change).await?))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ConsentsBody {
    /// Current versions of `GET /v1/policies`.
    consents: Vec<Consent>,
}

/// Accept policies
#[utoipa::path(post, path = "/v1/me/consents", tag = "account", request_body = ConsentsBody, responses(
    (status = 200, description = "The caller.", body = User),
))]
async fn consent(
    State(account): State<Account>,
    CurrentUser(caller): CurrentUser,
    ApiJson(body): ApiJson<ConsentsBody>,
) -> Result<Json<User>, Problem> {
    Ok(Json(account.auth.consent(caller.user_id, body.consents).await?))
}
