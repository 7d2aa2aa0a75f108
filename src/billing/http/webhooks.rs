//! Where providers tell what happened. They are recognised by what they send; nobody is signed in here.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts as _, Request, State},
    http::{header, request::Parts},
    response::{IntoResponse as _, Response},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::super::{
    Billing,
    gateway::{Notice, Rejection},
    inbox::NotTaken,
};
use crate::platform::{
    client::Client,
    extract::{ApiPath, RawBody},
    problem::{Code, Problem},
};

/// The largest notice, in bytes.
const LARGEST: usize = 256 * 1024;

/// The routes.
pub fn routes() -> OpenApiRouter<Billing> {
    OpenApiRouter::new()
        .routes(routes!(by_post, by_query))
        .routes(routes!(by_post_with_secret, by_query_with_secret))
}

/// What a request brings besides its path.
struct Arrived {
    parts: Parts,
    client: Client,
    body: Bytes,
}

impl<S: Sync> FromRequest<S> for Arrived {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let Ok(client) = Client::from_request_parts(&mut parts, state).await;
        let request = Request::from_parts(parts.clone(), body);
        let RawBody(body) = RawBody::<LARGEST>::from_request(request, state).await?;
        Ok(Arrived { parts, client, body })
    }
}

/// Take a notice of a payment provider
///
/// What is accepted, and how it is answered, is that provider's business.
#[utoipa::path(post, path = "/v1/webhooks/{provider}", tag = "webhooks",
    params(("provider" = String, Path, description = "Its name in the settings.")), responses(
    (status = 200, description = "It was taken.", body = String, content_type = "text/plain"),
))]
async fn by_post(
    State(billing): State<Billing>,
    ApiPath(provider): ApiPath<String>,
    arrived: Arrived,
) -> Result<Response, Problem> {
    take(&billing, &provider, None, arrived).await
}

/// Take a notice of a payment provider that sends them as queries
#[utoipa::path(get, path = "/v1/webhooks/{provider}", tag = "webhooks",
    params(("provider" = String, Path, description = "Its name in the settings.")), responses(
    (status = 200, description = "It was taken.", body = String, content_type = "text/plain"),
))]
async fn by_query(
    State(billing): State<Billing>,
    ApiPath(provider): ApiPath<String>,
    arrived: Arrived,
) -> Result<Response, Problem> {
    take(&billing, &provider, None, arrived).await
}

/// Take a notice of a payment provider, under a path that only it knows
#[utoipa::path(post, path = "/v1/webhooks/{provider}/{secret}", tag = "webhooks", params(
    ("provider" = String, Path, description = "Its name in the settings."),
    ("secret" = String, Path, description = "What the settings say, for providers that do not sign."),
), responses(
    (status = 200, description = "It was taken.", body = String, content_type = "text/plain"),
))]
async fn by_post_with_secret(
    State(billing): State<Billing>,
    ApiPath((provider, secret)): ApiPath<(String, String)>,
    arrived: Arrived,
) -> Result<Response, Problem> {
    take(&billing, &provider, Some(&secret), arrived).await
}

/// Take a notice of a payment provider that sends them as queries, under a path that only it knows
#[utoipa::path(get, path = "/v1/webhooks/{provider}/{secret}", tag = "webhooks", params(
    ("provider" = String, Path, description = "Its name in the settings."),
    ("secret" = String, Path, description = "What the settings say, for providers that do not sign."),
), responses(
    (status = 200, description = "It was taken.", body = String, content_type = "text/plain"),
))]
async fn by_query_with_secret(
    State(billing): State<Billing>,
    ApiPath((provider, secret)): ApiPath<(String, String)>,
    arrived: Arrived,
) -> Result<Response, Problem> {
    take(&billing, &provider, Some(&secret), arrived).await
}

async fn take(
    billing: &Billing,
    provider: &str,
    path_secret: Option<&str>,
    arrived: Arrived,
) -> Result<Response, Problem> {
    let Arrived { parts, client, body } = arrived;
    let notice = Notice {
        method: &parts.method,
        path_secret,
        query: parts.uri.query().unwrap_or_default(),
        headers: &parts.headers,
        peer: Some(client.address),
        body: &body,
    };
    let reply = billing.receive(provider, &notice).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], reply).into_response())
}

impl From<NotTaken> for Problem {
    fn from(error: NotTaken) -> Self {
        match error {
            NotTaken::Rejected(Rejection::NotHere) => Problem::not_found(),
            NotTaken::Rejected(rejection @ Rejection::ForeignPeer) => {
                Problem::new(Code::Forbidden, "This sender may not send.").caused_by(rejection)
            }
            NotTaken::Rejected(rejection @ Rejection::NotGenuine(_)) => {
                Problem::new(Code::BadRequest, "The notice was not accepted.").caused_by(rejection)
            }
            NotTaken::Failed(error) => error.into(),
        }
    }
}
