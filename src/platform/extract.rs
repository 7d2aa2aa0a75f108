//! What handlers take from a request, with our rejections instead of the framework's.

use std::time::Duration;

use axum::{
    body::{Body, HttpBody as _},
    extract::{FromRequest, FromRequestParts, Path, Request, State},
    http::{HeaderMap, header, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::{
    json,
    problem::{Code, Faults, Problem},
};

/// The largest body of an ordinary call.
pub const BODY_LIMIT: usize = 64 * 1024;
/// The most parameters that a query string may have.
const MAX_PARAMETERS: usize = 16;
/// The largest body of any call: clients of the chat send their whole history.
pub const LARGEST_BODY: usize = 256 * 1024;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A JSON body of at most `LIMIT` bytes, read strictly.
pub struct ApiJson<T, const LIMIT: usize = BODY_LIMIT>(pub T);

impl<S: Sync, T: DeserializeOwned, const LIMIT: usize> FromRequest<S> for ApiJson<T, LIMIT> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        check_content_type(request.headers())?;
        let bytes = read_body(request.into_body(), LIMIT).await?;
        json::read(&bytes).map(ApiJson)
    }
}

/// A JSON body that may be left out altogether.
pub struct OptionalJson<T>(pub Option<T>);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = read_body(body, BODY_LIMIT).await?;
        if bytes.is_empty() {
            return Ok(OptionalJson(None));
        }
        check_content_type(&parts.headers)?;
        json::read(&bytes).map(|body| OptionalJson(Some(body)))
    }
}

/// A body of any kind as it came, of at most `LIMIT` bytes.
pub struct RawBody<const LIMIT: usize>(pub bytes::Bytes);

impl<S: Sync, const LIMIT: usize> FromRequest<S> for RawBody<LIMIT> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        read_body(request.into_body(), LIMIT).await.map(RawBody)
    }
}

/// Waits for the whole body of a request, at most that of the largest call. What its own call makes of its size is decided
/// later.
pub async fn with_whole_body(request: Request) -> Result<Request, Problem> {
    let (parts, body) = request.into_parts();
    let body = read_body(body, LARGEST_BODY).await?;
    Ok(Request::from_parts(parts, Body::from(body)))
}

async fn read_body(body: Body, limit: usize) -> Result<bytes::Bytes, Problem> {
    let too_large = || Problem::new(Code::PayloadTooLarge, format!("The limit is {} KiB.", limit / 1024));
    if body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, limit).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(Code::BadRequest, "The body could not be read.")),
        Err(_) => Err(Problem::new(Code::BadRequest, "The body took too long to arrive.")),
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let refused = |detail| Err(Problem::new(Code::UnsupportedMediaType, detail));
    if headers.contains_key(header::CONTENT_ENCODING) {
        return refused("Send the body without a content encoding.");
    }
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = given.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let is_utf8 = parts.all(|parameter| match parameter.split_once('=') {
        Some((name, value)) if name.eq_ignore_ascii_case("charset") => {
            value.trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    });
    match essence.as_str() {
        "application/json" | "application/merge-patch+json" if is_utf8 => Ok(()),
        _ => refused("Send `content-type: application/json`, in UTF-8."),
    }
}

/// The variable parts of a path. What does not fit names nothing.
pub struct ApiPath<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for ApiPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(ApiPath(value)),
            Err(_) => Err(Problem::not_found()),
        }
    }
}

/// The query string, as name and value. Unknown names are ignored; [`check_query`] says what is refused.
pub struct ApiQuery(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for ApiQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        ApiQuery::parse(parts.uri.query())
    }
}

/// The middleware that refuses a query string with a name that comes twice, or with too many, on every route: readers
/// differ on which of two values counts, and a proxy or a log may have read the other one. Below `foreign` the query is
/// somebody else's, and judged there.
pub async fn check_query(State(foreign): State<&'static str>, request: Request, next: Next) -> Response {
    if request.uri().path().starts_with(foreign) {
        return next.run(request).await;
    }
    match ApiQuery::parse(request.uri().query()) {
        Ok(_) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

impl ApiQuery {
    fn parse(query: Option<&str>) -> Result<ApiQuery, Problem> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            // Counted first: comparing each name with all others is only cheap where there are few.
            if pairs.len() == MAX_PARAMETERS {
                return Err(Problem::new(Code::BadRequest, "There are too many query parameters."));
            }
            if pairs.iter().any(|(seen, _)| *seen == name) {
                return Err(Problem::new(Code::BadRequest, "A query parameter is there twice."));
            }
            pairs.push((name.into_owned(), value.into_owned()));
        }
        Ok(ApiQuery(pairs))
    }

    /// A parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(seen, _)| seen == name).map(|(_, value)| value.as_str())
    }

    /// The `limit` of a list: 1 to 100, 20 if absent, clamped if beyond.
    pub fn limit(&self) -> Result<i64, Problem> {
        match self.get("limit").map(str::parse::<i64>) {
            None => Ok(20),
            Some(Ok(limit)) => Ok(limit.clamp(1, 100)),
            Some(Err(_)) => {
                let mut faults = Faults::new();
                faults.add("/limit", "wrong_type", "The limit must be a whole number.");
                Err(faults.into_problem())
            }
        }
    }
}
