//! From slices to routes: what they serve, what anybody may call, and what every answer passes through.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    http::{HeaderName, HeaderValue, Method, header},
    middleware,
    response::{IntoResponse as _, Response},
};
use serde_json::Value;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowOrigin, CorsLayer},
};
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;

use super::{
    World,
    limits::{Limiter, by_address, by_user},
};
use crate::{
    account::{self, http::Account},
    admin::{self, Admin},
    auth::{
        self, Auth,
        caller::{Gate, gate},
    },
    billing::{self, Billing, gateways::dev::Dev},
    chat::{self, Chat},
    config::{Config, Profile},
    contact, health, openapi,
    platform::{
        db::Db,
        edge::{Edge, X_REQUEST_ID, edge},
        extract::check_query,
        limits::{LIMIT_HEADER, POLICY_HEADER},
        mail::Mailbox,
        problem::Problem,
        public::PublicPaths,
    },
};

/// What anybody may call. Every other route needs a live session.
pub const PUBLIC: PublicPaths = PublicPaths(&[
    "/v1/auth/signup",
    "/v1/auth/signup/verify",
    "/v1/auth/signup/resend",
    "/v1/auth/login",
    "/v1/auth/refresh",
    "/v1/auth/logout",
    "/v1/auth/logout-all",
    "/v1/auth/password/forgot",
    "/v1/auth/password/reset",
    "/v1/auth/email/undo",
    "/v1/auth/unlock",
    "/v1/policies",
    "/v1/companions",
    "/v1/plans",
    "/v1/webhooks/{provider}",
    "/v1/webhooks/{provider}/{secret}",
    "/.well-known/jwks.json",
    "/problems/{code}",
    "/.well-known/security.txt",
    "/livez",
    "/readyz",
    "/version",
    "/openapi.json",
    "/docs",
    "/docs/scalar.js",
    "/docs/start.js",
    "/dev/mailbox",
    "/dev/mailbox/messages",
    "/dev/mailbox/messages/{id}",
    "/dev/checkout",
    "/dev/checkout/manage",
]);

/// Where payment providers send queries of their own making.
const NOTICES: &str = "/v1/webhooks/";

/// How long a browser may remember what another origin may do.
const PREFLIGHT_AGE: Duration = Duration::from_mins(10);

/// The document with every route that the slices declare.
#[derive(utoipa::OpenApi)]
#[openapi(info(
    title = "DigitalMistress API",
    version = "1",
    description = "Sign-up, sessions and companion chat. Errors are `application/problem+json`; their codes are listed \
                   at `/problems/{code}`. `POST /v1/chat` speaks the AI SDK UI message stream.",
    license(name = "Proprietary"),
    contact()
))]
struct Document;

/// What the slices serve: the one list of them. What they work with is added later, so that the document needs none of it.
struct Slices {
    auth: OpenApiRouter<Auth>,
    account: OpenApiRouter<Account>,
    chat: OpenApiRouter<Chat>,
    admin: OpenApiRouter<Admin>,
    billing: OpenApiRouter<Billing>,
}

impl Slices {
    fn all() -> Slices {
        Slices {
            auth: auth::http::routes(),
            account: account::http::routes(),
            chat: chat::http::routes(),
            admin: admin::http::routes(),
            billing: billing::http::routes(),
        }
    }

    fn document(self) -> Value {
        let Slices { auth, account, chat, admin, billing } = self;
        let mut declared = Document::openapi();
        for slice in [
            auth.into_openapi(),
            account.into_openapi(),
            chat.into_openapi(),
            billing.into_openapi(),
            admin.into_openapi(),
        ] {
            declared.merge(slice);
        }
        openapi::complete(declared, PUBLIC)
    }

    fn router(self, with: Account, talk: Chat, operators: Admin) -> Router {
        let Slices { auth, account, chat, admin, billing } = self;
        let auth = auth.with_state(with.auth.clone());
        let billing = billing.with_state(with.billing.clone());
        let (account, chat) = (account.with_state(with), chat.with_state(talk));
        let all = OpenApiRouter::new().merge(auth).merge(account).merge(chat).merge(billing);
        all.merge(admin.with_state(operators)).into()
    }
}

/// The API document.
pub fn document() -> Value {
    Slices::all().document()
}

/// What the slices do not have.
pub struct Parts {
    /// The database, for its health.
    pub db: Db,
    /// Who is limited by what.
    pub limiter: Limiter,
    /// The page with the mails, in development.
    pub mailbox: Option<Mailbox>,
    /// The checkout where nothing is paid, in development.
    pub checkout: Option<Dev>,
}

/// All routes, behind everything that a request passes through.
pub fn router(
    config: &Config,
    world: &World,
    auth: &Auth,
    billing: &Billing,
    chat: &Chat,
    parts: Parts,
) -> Router {
    let account = Account { auth: auth.clone(), billing: billing.clone() };
    // Until there are second factors, nobody in production has what administration needs there.
    let admin = Admin::new(auth.clone(), billing.clone(), config.profile == Profile::Production);
    let mut all = Slices::all().router(account, chat.clone(), admin).merge(openapi::router(&document()));
    all = all.merge(health::router(parts.db, world.tasks.clone()));
    let server = &config.server;
    all = all.merge(contact::router(server.security_contact.as_ref(), &server.public_url, world.clock.now()));
    if let Some(mailbox) = parts.mailbox {
        all = all.merge(mailbox.router());
    }
    if let Some(checkout) = parts.checkout {
        all = all.merge(checkout.router());
    }
    let guarded = all
        .fallback(|| async { Problem::not_found() })
        .layer(middleware::from_fn_with_state(parts.limiter.clone(), by_user))
        .layer(middleware::from_fn_with_state(Gate { auth: auth.clone(), public: PUBLIC }, gate))
        .layer(middleware::from_fn_with_state(NOTICES, check_query))
        .layer(middleware::from_fn_with_state(parts.limiter, by_address));
    let only_hosts = (config.profile == Profile::Development)
        .then(|| ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec().into());
    let outermost = Edge {
        random: Arc::clone(&world.random),
        clock: Arc::clone(&world.clock),
        https: config.server.public_url.scheme() == "https",
        only_hosts,
        proxies: Arc::new(config.server.trusted_proxies.clone()),
        said_at: Arc::default(),
    };
    answered(guarded, &config.server.allowed_origins, outermost)
}

/// Adds what every answer passes through. A page of an allowed origin may read all of them, that of a panic too.
fn answered(routes: Router, origins: &[String], outermost: Edge) -> Router {
    routes
        .layer(CatchPanicLayer::custom(panicked))
        .layer(cors(origins))
        .layer(middleware::from_fn_with_state(outermost, edge))
}

/// Lets pages of the allowed origins call, and read what they need of the answer.
fn cors(origins: &[String]) -> CorsLayer {
    let origins: Vec<HeaderValue> = origins.iter().filter_map(|origin| origin.parse().ok()).collect();
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_credentials(true) // For the refresh cookie.
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::ACCEPT,
            X_REQUEST_ID,
            HeaderName::from_static(chat::IDEMPOTENCY_KEY),
        ])
        .expose_headers([
            X_REQUEST_ID,
            header::RETRY_AFTER,
            LIMIT_HEADER,
            POLICY_HEADER,
            HeaderName::from_static(chat::ui_stream::PROTOCOL_HEADER.0),
        ])
        .max_age(PREFLIGHT_AGE)
}

/// A handler that panicked failed alone. What it said may hold anything, so it is not repeated.
fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    Problem::internal(Panicked).into_response()
}

#[derive(Debug, thiserror::Error)]
#[error("a handler panicked")]
struct Panicked;

#[cfg(test)]
mod tests {
    use axum::{body::Body, extract::Request, routing::get};
    use tower::ServiceExt as _;

    use super::*;
    use crate::platform::{clock::SystemClock, random::SystemRandom};

    #[tokio::test]
    async fn a_panic_is_an_answer_that_a_browser_may_read_and_tells_nothing() {
        async fn faulty() -> Response {
            panic!("private words")
        }
        let routes = Router::new().route("/", get(faulty));
        let outermost = Edge {
            random: Arc::new(SystemRandom),
            clock: Arc::new(SystemClock),
            https: false,
            only_hosts: None,
            proxies: Arc::default(),
            said_at: Arc::default(),
        };
        let origin = "https://www.example.com";
        let app = answered(routes, &[origin.to_owned()], outermost);
        let request = Request::get("/").header(header::ORIGIN, origin).body(Body::empty()).unwrap();

        let response = app.oneshot(request).await.unwrap();
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], origin);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["code"], "internal");
        assert!(!body.to_string().contains("private words"));
    }
}
