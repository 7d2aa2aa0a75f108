//! The routes of administration. A handler reaches users through an [`Operator`] alone, which only an administrator becomes.

use axum::{
    Json,
    extract::FromRequestParts,
    http::{StatusCode, request::Parts},
};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{Admin, AdminError, Operator};
use crate::{
    auth::{Action, AuditEntry, AuditFilter, CurrentUser, ManagedUser, Role, SuspensionForm},
    billing::{Grant, GrantForm},
    platform::{
        client::Client,
        extract::{ApiJson, ApiPath, ApiQuery},
        page::Page,
        problem::{Code, Faults, Problem},
    },
};

/// The routes.
pub fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::new()
        .routes(routes!(find_users))
        .routes(routes!(user))
        .routes(routes!(suspend))
        .routes(routes!(unsuspend))
        .routes(routes!(revoke_sessions))
        .routes(routes!(set_role))
        .routes(routes!(grant))
        .routes(routes!(revoke_grant))
        .routes(routes!(audit))
}

impl FromRequestParts<Admin> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Problem> {
        let CurrentUser(caller) = CurrentUser::from_request_parts(parts, admin).await?;
        let Ok(client) = Client::from_request_parts(parts, admin).await;
        Ok(admin.admit(caller, client)?)
    }
}

/// Find a user
#[utoipa::path(get, path = "/v1/admin/users", tag = "admin", params(
    ("query" = String, Query, description = "An id or an e-mail address, exactly."),
), responses(
    (status = 200, description = "The user with this id or address, or nobody.", body = Page<ManagedUser>),
))]
async fn find_users(operator: Operator, query: ApiQuery) -> Result<Json<Page<ManagedUser>>, Problem> {
    let Some(query) = query.get("query") else {
        return Err(fault("/query", "missing", "An id or an e-mail address is needed."));
    };
    let found = operator.find_user(query).await?;
    Ok(Json(Page { data: found.into_iter().collect(), next_cursor: None }))
}

/// A user
#[utoipa::path(get, path = "/v1/admin/users/{id}", tag = "admin", params(("id" = Uuid, Path)), responses(
    (status = 200, description = "The user.", body = ManagedUser),
))]
async fn user(operator: Operator, ApiPath(id): ApiPath<Uuid>) -> Result<Json<ManagedUser>, Problem> {
    Ok(Json(operator.user(id).await?))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SuspendBody {
    /// For operators; the user does not see it.
    #[schema(max_length = 500, example = "Chargeback, ticket 1017")]
    reason: String,
    /// When the suspension ends by itself; absent or `null`: never.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<String>,
}

/// Suspend a user
///
/// Ends all their sessions at once. They can sign in again when the suspension is over.
#[utoipa::path(post, path = "/v1/admin/users/{id}/suspend", tag = "admin", params(("id" = Uuid, Path)),
    request_body = SuspendBody, responses(
    (status = 200, description = "The user, suspended.", body = ManagedUser),
))]
async fn suspend(
    operator: Operator,
    ApiPath(id): ApiPath<Uuid>,
    ApiJson(body): ApiJson<SuspendBody>,
) -> Result<Json<ManagedUser>, Problem> {
    let form = SuspensionForm { reason: body.reason, until: body.until };
    Ok(Json(operator.suspend(id, form).await?))
}

/// End a suspension
#[utoipa::path(post, path = "/v1/admin/users/{id}/unsuspend", tag = "admin", params(("id" = Uuid, Path)), responses(
    (status = 200, description = "The user, not suspended.", body = ManagedUser),
))]
async fn unsuspend(operator: Operator, ApiPath(id): ApiPath<Uuid>) -> Result<Json<ManagedUser>, Problem> {
    Ok(Json(operator.unsuspend(id).await?))
}

/// End all sessions of a user
#[utoipa::path(post, path = "/v1/admin/users/{id}/revoke-sessions", tag = "admin", params(("id" = Uuid, Path)), responses(
    (status = 204, description = "The user is signed out everywhere."),
))]
async fn revoke_sessions(operator: Operator, ApiPath(id): ApiPath<Uuid>) -> Result<StatusCode, Problem> {
    operator.revoke_sessions(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RoleBody {
    role: Role,
}

/// Change what a user may do
///
/// It counts from the user's next request on.
#[utoipa::path(put, path = "/v1/admin/users/{id}/role", tag = "admin", params(("id" = Uuid, Path)),
    request_body = RoleBody, responses(
    (status = 200, description = "The user, changed.", body = ManagedUser),
))]
async fn set_role(
    operator: Operator,
    ApiPath(id): ApiPath<Uuid>,
    ApiJson(body): ApiJson<RoleBody>,
) -> Result<Json<ManagedUser>, Problem> {
    Ok(Json(operator.set_role(id, body.role).await?))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct GrantBody {
    /// The id of a plan.
    #[schema(example = "plus")]
    plan: String,
    /// Until when.
    #[schema(value_type = String, format = DateTime)]
    ends_at: String,
    /// For operators; the user does not see it.
    #[schema(max_length = 500, example = "Apology for an outage, ticket 1018")]
    reason: String,
}

/// Give a user a plan
///
/// It counts beside what the user pays for; the higher plan decides.
#[utoipa::path(post, path = "/v1/admin/users/{id}/grants", tag = "admin", params(("id" = Uuid, Path)),
    request_body = GrantBody, responses(
    (status = 201, description = "The grant.", body = Grant),
))]
async fn grant(
    operator: Operator,
    ApiPath(id): ApiPath<Uuid>,
    ApiJson(body): ApiJson<GrantBody>,
) -> Result<(StatusCode, Json<Grant>), Problem> {
    let form = GrantForm { plan: body.plan, ends_at: body.ends_at, reason: body.reason };
    Ok((StatusCode::CREATED, Json(operator.grant(id, &form).await?)))
}

/// Take a grant back
#[utoipa::path(delete, path = "/v1/admin/users/{id}/grants/{grant_id}", tag = "admin", params(
    ("id" = Uuid, Path), ("grant_id" = Uuid, Path),
), responses(
    (status = 204, description = "It gives nothing any more."),
))]
async fn revoke_grant(
    operator: Operator,
    ApiPath((id, grant_id)): ApiPath<(Uuid, Uuid)>,
) -> Result<StatusCode, Problem> {
    operator.revoke_grant(id, grant_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Read the audit
///
/// What was done to accounts, by whom and from where, newest first.
#[utoipa::path(get, path = "/v1/admin/audit", tag = "admin", params(
    ("subject" = Option<Uuid>, Query, description = "Only entries about this user."),
    ("actor" = Option<Uuid>, Query, description = "Only entries by this user."),
    ("action" = Option<String>, Query, description = "Only entries of this action."),
    ("limit" = Option<i64>, Query, description = "1 to 100; 20 if absent."),
    ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before."),
), responses(
    (status = 200, description = "A page of entries.", body = Page<AuditEntry>),
))]
async fn audit(operator: Operator, query: ApiQuery) -> Result<Json<Page<AuditEntry>>, Problem> {
    let filter = AuditFilter {
        subject: id(&query, "subject", "/subject")?,
        actor: id(&query, "actor", "/actor")?,
        action: match query.get("action") {
            None => None,
            Some(name) => Some(
                Action::from_text(name)
                    .ok_or_else(|| fault("/action", "unknown_value", "No action has this name."))?,
            ),
        },
    };
    Ok(Json(operator.audit(filter, query.get("cursor"), query.limit()?).await?))
}

fn id(query: &ApiQuery, name: &str, pointer: &'static str) -> Result<Option<Uuid>, Problem> {
    let given = query.get(name).map(Uuid::try_parse).transpose();
    given.map_err(|_| fault(pointer, "invalid_format", "An id of a user is needed."))
}

fn fault(pointer: &'static str, code: &'static str, detail: &'static str) -> Problem {
    let mut faults = Faults::new();
    faults.add(pointer, code, detail);
    faults.into_problem()
}

impl From<AdminError> for Problem {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::NotAnAdministrator => Problem::new(Code::Forbidden, "This is for administrators."),
            AdminError::NoSecondFactor => Problem::new(
                Code::Forbidden,
                "Administration needs a second factor, which this version does not have. Use the commands.",
            ),
            AdminError::Auth(error) => error.into(),
        }
    }
}
