//! The outermost layer: what every answer has in common.
//!
//! It gives each request an id, renders problems, logs their cause once, writes one line per request, and sets the
//! headers that API.md promises everywhere. Paths are logged by their template and queries not at all: both can hold
//! what people typed.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::{
    client::ClientAddress,
    clock::SharedClock,
    problem::{Code, Problem},
    proxies::TrustedProxies,
    random::SharedRandom,
    server::PeerAddress,
};

/// The header that carries a request's id.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Content that is not one of our own pages may load and be framed by nothing.
const NO_CONTENT: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// How long not to repeat that a proxy seems to be missing in the settings, in microseconds.
const QUIET: i64 = 60_000_000;

/// What the layer has to know.
#[derive(Clone)]
pub struct Edge {
    /// Where request ids come from.
    pub random: SharedRandom,
    /// The time in request ids.
    pub clock: SharedClock,
    /// Whether callers come by https, as the public URL says; then HSTS is sent.
    pub https: bool,
    /// In development, the only hosts that are answered: a page elsewhere that resolves its name to this machine
    /// (DNS rebinding) must not reach the mailbox.
    pub only_hosts: Option<Arc<[String]>>,
    /// Whose word is taken on who calls.
    pub proxies: Arc<TrustedProxies>,
    /// When it was last said that a proxy seems to be missing there, in microseconds since 1970.
    pub said_at: Arc<AtomicI64>,
}

/// The id of the request that is being handled.
#[derive(Clone, Debug)]
pub struct RequestId(pub Arc<str>);

/// The middleware.
pub async fn edge(State(edge): State<Edge>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(&edge, request.headers());
    request.extensions_mut().insert(RequestId(id.clone()));
    find_client(&edge, &mut request);
    let method = known(request.method());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "(unknown)".to_owned(), |path| path.as_str().to_owned());
    let span = tracing::info_span!("request", id = %id);

    let allowed = edge.only_hosts.as_deref().is_none_or(|hosts| is_one_of(request.headers(), hosts));
    let response = if allowed {
        next.run(request).instrument(span.clone()).await
    } else {
        Problem::new(Code::Forbidden, "Development answers to localhost only.").into_response()
    };

    let _inside = span.enter();
    let mut response = render_problem(response, &id);
    add_headers(&edge, response.headers_mut(), &id);
    let status = response.status().as_u16();
    let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(method, route, status, ms, "request");
    metrics::histogram!("http_request_seconds", "method" => method, "route" => route, "status" => status.to_string())
        .record(started.elapsed());
    response
}

/// Finds out who calls, through proxies of ours.
fn find_client(edge: &Edge, request: &mut Request) {
    let Some(PeerAddress(peer)) = request.extensions().get::<PeerAddress>().copied() else { return };
    if edge.proxies.is_spoken_for(peer.ip(), request.headers()) {
        let (now, said_at) = (edge.clock.now().as_microsecond(), edge.said_at.load(Ordering::Relaxed));
        let due = now >= said_at.saturating_add(QUIET);
        // Of several at once one says it.
        if due && edge.said_at.compare_exchange(said_at, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            tracing::warn!(
                peer = %peer.ip(),
                "a forwarding header was ignored, because its sender is not in server.trusted_proxies; if that is a \
                 proxy of yours, all its clients share the limits of one until it is"
            );
        }
    }
    let address = edge.proxies.client(peer.ip(), request.headers());
    request.extensions_mut().insert(ClientAddress(address));
}

/// The method, if it is one of the nine of HTTP. Callers can invent others, and each would be a series of its own.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::CONNECT => "CONNECT",
        Method::TRACE => "TRACE",
        _ => "other",
    }
}

/// Axum answers some requests before any handler of ours; they become problems here.
fn render_problem(mut response: Response, id: &RequestIdText) -> Response {
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        None if response.status() == StatusCode::METHOD_NOT_ALLOWED => {
            let problem = Problem::new(Code::MethodNotAllowed, "`Allow` names the methods of this address.");
            match response.headers().get(header::ALLOW) {
                Some(methods) => problem.allowing(methods.clone()),
                None => problem,
            }
        }
        None => return response,
    };
    let code = problem.code().as_str();
    match problem.cause() {
        Some(cause) if problem.code().status().is_server_error() => tracing::error!(code, cause, "problem"),
        Some(cause) => tracing::info!(code, cause, "problem"),
        None => tracing::debug!(code, "problem"),
    }
    let mut rendered = problem.render(id);
    // Cookies and the like that were set beside the problem stay.
    for (name, value) in response.headers() {
        if !matches!(*name, header::CONTENT_TYPE | header::CONTENT_LENGTH | header::ALLOW) {
            rendered.headers_mut().append(name, value.clone());
        }
    }
    rendered
}

type RequestIdText = Arc<str>;

/// Takes the caller's id if it is harmless, else makes one.
fn request_id(edge: &Edge, headers: &HeaderMap) -> RequestIdText {
    let harmless = |id: &&str| {
        (8..=64).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    match headers.get(X_REQUEST_ID).and_then(|id| id.to_str().ok()).filter(harmless) {
        Some(id) => id.into(),
        None => edge.random.uuid(edge.clock.now()).to_string().into(),
    }
}

fn add_headers(edge: &Edge, headers: &mut HeaderMap, id: &str) {
    let mut default = |name: HeaderName, value: HeaderValue| {
        headers.entry(name).or_insert(value);
    };
    default(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    default(header::CONTENT_SECURITY_POLICY, NO_CONTENT);
    default(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    default(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if edge.https {
        default(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=63072000"));
    }
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(X_REQUEST_ID, id);
    }
}

fn is_one_of(headers: &HeaderMap, hosts: &[String]) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inside, _)) => inside,
        None => host.split(':').next().unwrap_or_default(),
    };
    hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
}
