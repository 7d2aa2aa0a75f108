//! The routes of sessions.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use secrecy::SecretString;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{SessionView, ShownTokens};
use crate::{
    auth::{
        Auth, AuthError, CurrentUser,
        caller::bearer_token,
        http::{Page, RefreshCookie, TokenDelivery, TokensAnswer, TokensReply, no_cookie},
    },
    platform::{
        client::Client,
        extract::{ApiPath, OptionalJson},
        page::List,
        problem::{Code, Problem},
    },
};

/// The routes.
pub fn router() -> OpenApiRouter<Auth> {
    OpenApiRouter::new()
        .routes(routes!(refresh))
        .routes(routes!(log_out))
        .routes(routes!(log_out_everywhere))
        .routes(routes!(sessions))
        .routes(routes!(end_session))
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RefreshBody {
    /// Left out where the cookie has it.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    refresh_token: Option<SecretString>,
    /// Where the next one goes; by default where this one came from. What was in a cookie stays in one.
    #[serde(default)]
    token_delivery: Option<TokenDelivery>,
}

/// Exchange a refresh token
///
/// Each refresh token is exchanged for the next one. For ten seconds the same call gets the same answer, so that two tabs
/// or a lost answer do no harm; a token that was exchanged longer ago ends the session, unless the answer to it was lost.
#[utoipa::path(post, path = "/v1/auth/refresh", tag = "auth", request_body = Option<RefreshBody>, responses(
    (status = 200, description = "The next tokens.", body = TokensAnswer),
))]
async fn refresh(
    State(auth): State<Auth>,
    client: Client,
    page: Page,
    cookie: RefreshCookie,
    OptionalJson(body): OptionalJson<RefreshBody>,
) -> Result<TokensReply, Problem> {
    let RefreshBody { refresh_token, token_delivery } = body.unwrap_or_default();
    let Some((token, came)) = cookie.or(refresh_token)? else {
        // Whether there is a cookie no script can see: a page finds out by asking.
        return Err(AuthError::InvalidGrant.into());
    };
    let delivery = token_delivery.unwrap_or(came);
    if (came, delivery) == (TokenDelivery::Cookie, TokenDelivery::Body) {
        // A script that got into the page could read it then.
        return Err(Problem::new(Code::BadRequest, "A refresh token from the cookie stays in the cookie."));
    }
    page.check_for(delivery)?;
    Ok(TokensReply::new(auth.refresh(&token, &client).await?, delivery))
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LogoutBody {
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    refresh_token: Option<SecretString>,
}

/// What somebody sent who signs out.
struct SignOut {
    refresh: Option<(SecretString, TokenDelivery)>,
    access: Option<String>,
}

impl SignOut {
    fn of(cookie: RefreshCookie, body: Option<LogoutBody>, headers: &HeaderMap) -> Result<SignOut, Problem> {
        let refresh = cookie.or(body.and_then(|body| body.refresh_token))?;
        Ok(SignOut { refresh, access: bearer_token(headers).map(str::to_owned) })
    }

    fn tokens(&self) -> ShownTokens<'_> {
        ShownTokens { refresh: self.refresh.as_ref().map(|(token, _)| token), access: self.access.as_deref() }
    }

    fn used_cookie(&self) -> bool {
        matches!(self.refresh, Some((_, TokenDelivery::Cookie)))
    }
}

/// End the session
///
/// By the refresh token in the body or the cookie, or the access token in the header, expired or not. With none of them,
/// nothing happens.
#[utoipa::path(post, path = "/v1/auth/logout", tag = "auth", request_body = Option<LogoutBody>, responses(
    (status = 204, description = "The session is over, if there was one."),
))]
async fn log_out(
    State(auth): State<Auth>,
    client: Client,
    cookie: RefreshCookie,
    headers: HeaderMap,
    OptionalJson(body): OptionalJson<LogoutBody>,
) -> Result<Response, Problem> {
    let sign_out = SignOut::of(cookie, body, &headers)?;
    auth.log_out(sign_out.tokens(), &client).await?;
    Ok(signed_out(&sign_out))
}

/// End all sessions of the user
///
/// By the same tokens as logout.
#[utoipa::path(post, path = "/v1/auth/logout-all", tag = "auth", request_body = Option<LogoutBody>, responses(
    (status = 204, description = "The sessions are over, if there were any."),
))]
async fn log_out_everywhere(
    State(auth): State<Auth>,
    client: Client,
    cookie: RefreshCookie,
    headers: HeaderMap,
    OptionalJson(body): OptionalJson<LogoutBody>,
) -> Result<Response, Problem> {
    let sign_out = SignOut::of(cookie, body, &headers)?;
    auth.log_out_everywhere(sign_out.tokens(), &client).await?;
    Ok(signed_out(&sign_out))
}

/// Asks the browser of a page that used the cookie to forget what our origin left. Any other page could ask for that with
/// an empty call. Cookies are named one by one: the header's own word for them would also take those of every other host
/// of the domain, and the one that keeps a known device from being throttled.
fn signed_out(sign_out: &SignOut) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    if !sign_out.used_cookie() {
        return response;
    }
    let headers = response.headers_mut();
    headers.insert(
        header::HeaderName::from_static("clear-site-data"),
        HeaderValue::from_static(r#""cache", "storage""#),
    );
    if let Some(none) = no_cookie() {
        headers.append(header::SET_COOKIE, none);
    }
    response
}

/// The sessions of the user
///
/// Newest first.
#[utoipa::path(get, path = "/v1/sessions", tag = "auth", responses(
    (status = 200, description = "The live sessions.", body = List<SessionView>),
))]
async fn sessions(
    State(auth): State<Auth>,
    CurrentUser(caller): CurrentUser,
) -> Result<Json<List<SessionView>>, Problem> {
    Ok(Json(List { data: auth.sessions(caller).await? }))
}

/// End a session of the user
///
/// Needs a fresh sign-in.
#[utoipa::path(delete, path = "/v1/sessions/{id}", tag = "auth", params(
    ("id" = Uuid, Path, description = "The session.")
), responses(
    (status = 204, description = "It is over."),
))]
async fn end_session(
    State(auth): State<Auth>,
    CurrentUser(caller): CurrentUser,
    client: Client,
    ApiPath(id): ApiPath<Uuid>,
) -> Result<StatusCode, Problem> {
    auth.end_session(caller, id, &client).await?;
    Ok(StatusCode::NO_CONTENT)
}
