//! The composition root: settings become services, services become routes. The one list of slices.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    http::{HeaderName, HeaderValue, Method, header},
    middleware,
    response::{IntoResponse as _, Response},
};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowOrigin, CorsLayer},
};
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use uuid::Uuid;

use crate::{
    account, auth,
    auth::{Auth, caller::Gate},
    billing,
    billing::Billing,
    chat,
    chat::{
        Chat, NamedProvider,
        providers::{demo::Demo, openai::OpenAi},
    },
    config::{Config, MailSettings, Profile, ProviderKind},
    jobs::Background,
    openapi,
    platform::{
        clock::SharedClock,
        db::{self, Db, Declared, MIGRATIONS, MigrateError},
        edge::{Edge, X_REQUEST_ID, edge},
        http_client,
        job::{self, Jobs},
        keyring::{self, KeyError, Keyring},
        mail::{Mailbox, Mailer, Smtp},
        problem::Problem,
        random::SharedRandom,
        seal::MasterKeys,
        tasks::Tasks,
    },
};

/// Paths that anybody may call; `*` stands for everything below. Every other route needs a live session.
pub const PUBLIC: &[&str] = &[
    "/v1/auth/*",
    "/v1/policies",
    "/v1/companions",
    "/.well-known/jwks.json",
    "/problems/{code}",
    "/openapi.json",
    "/docs",
    "/docs/*",
    "/dev/*",
];

/// How long a browser may remember what another origin may do.
const PREFLIGHT_AGE: Duration = Duration::from_mins(10);

/// Every query of the program, for the test that prepares them on both engines.
pub fn queries() -> Vec<(&'static str, &'static [Declared])> {
    vec![
        ("platform::job", job::ALL),
        ("platform::keyring", keyring::ALL),
        ("auth::audit", auth::audit::store::ALL),
        ("auth::consents", auth::consents::store::ALL),
        ("auth::lockout", auth::lockout::store::ALL),
        ("auth::session", auth::session::store::ALL),
        ("auth::signup", auth::signup::store::ALL),
        ("auth::throttle", auth::throttle::store::ALL),
        ("auth::tokens", auth::tokens::store::ALL),
        ("auth::users", auth::users::store::ALL),
        ("billing", billing::store::ALL),
        ("chat", chat::store::ALL),
    ]
}

/// What the program does not make itself.
#[derive(Clone)]
pub struct World {
    /// The time.
    pub clock: SharedClock,
    /// Randomness.
    pub random: SharedRandom,
    /// Background tasks.
    pub tasks: Tasks,
    /// This instance's id, the same after a restart.
    pub instance: Uuid,
}

/// The program, ready to answer requests.
pub struct App {
    /// All routes.
    pub router: Router,
    /// The background work, not started yet.
    pub background: Background,
    /// Identity, for commands.
    pub auth: Auth,
    /// The database, to be closed at the end.
    pub db: Db,
    /// The mailbox, in development.
    pub mailbox: Option<Mailbox>,
}

/// Why the program cannot start. Nothing is shown that is secret.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The schema cannot be used.
    #[error(transparent)]
    Schema(#[from] MigrateError),
    /// The database cannot be used.
    #[error(transparent)]
    Storage(#[from] db::Error),
    /// The master keys do not fit the database.
    #[error("the master keys cannot be used with this database: {0}")]
    Keys(#[from] KeyError),
    /// Identity cannot start.
    #[error(transparent)]
    Auth(#[from] auth::StartError),
    /// A setting cannot be used after all.
    #[error("{0}")]
    Setting(String),
}

impl App {
    /// Opens the database, brings its schema up to date where that is wanted, and builds the services.
    pub async fn start(config: &Config, world: &World) -> Result<App, StartError> {
        prepare_schema(config, world).await?;
        let db = Db::open(&config.database)?;
        let parts = services(config, world, db.clone()).await;
        if parts.is_err() {
            // Leaves the file tidy; the error that matters is the other one.
            let _ = db.close().await;
        }
        let (auth, billing, chat, jobs) = parts?;

        let mailbox =
            matches!(config.mail, MailSettings::Mailbox).then(|| Mailbox::new(Arc::clone(&world.clock)));
        let mailer = mailer(config, mailbox.as_ref())?;
        let router = router(config, world, &auth, &billing, &chat, mailbox.clone());
        let background = Background {
            jobs,
            mailer,
            auth: auth.clone(),
            billing,
            chat,
            clock: Arc::clone(&world.clock),
            database: config.database.clone(),
            lease: config.chat.lease,
        };
        Ok(App { router, background, auth, db, mailbox })
    }
}

async fn prepare_schema(config: &Config, world: &World) -> Result<(), StartError> {
    let is_sqlite = config.database.sqlite_path().is_some();
    if !is_sqlite && !config.migrate_on_start {
        return Ok(Db::check_schema(&config.database, MIGRATIONS).await?);
    }
    let done = Db::migrate(&config.database, MIGRATIONS, world.clock.now()).await?;
    if !done.applied.is_empty() {
        let backup = done.backup.map(|path| path.display().to_string());
        tracing::info!(applied = done.applied.join(", "), backup, "the schema was brought up to date");
    }
    Ok(())
}

async fn services(config: &Config, world: &World, db: Db) -> Result<(Auth, Billing, Chat, Jobs), StartError> {
    let World { clock, random, tasks, instance } = world.clone();
    let keys =
        config.master_keys.as_ref().ok_or_else(|| StartError::Setting("there is no master key".into()))?;
    let masters = MasterKeys::parse(keys.expose_secret()).map_err(StartError::Setting)?;
    let keyring = Keyring::open(db.clone(), masters, Arc::clone(&random), Arc::clone(&clock)).await?;
    let jobs = Jobs::new(db.clone(), keyring.clone(), Arc::clone(&clock), Arc::clone(&random));
    let auth = Auth::start(
        db.clone(),
        keyring.clone(),
        Arc::clone(&clock),
        Arc::clone(&random),
        jobs.clone(),
        config.auth.clone(),
    )
    .await?;
    let billing = Billing::new(db.clone(), Arc::clone(&clock), config.billing.clone());
    let chat = Chat::new(chat::Start {
        db,
        keyring,
        clock,
        random,
        tasks,
        jobs: jobs.clone(),
        auth: auth.clone(),
        billing: billing.clone(),
        companions: config.companions.clone(),
        route: providers(config)?,
        settings: config.chat.clone(),
        instance,
    });
    chat.recover().await?;
    Ok((auth, billing, chat, jobs))
}

fn providers(config: &Config) -> Result<Vec<NamedProvider>, StartError> {
    let mut route = Vec::new();
    for settings in &config.route {
        let provider: Arc<dyn chat::provider::ChatProvider> = match &settings.kind {
            ProviderKind::Demo(demo) => Arc::new(Demo::new(demo.clone())),
            ProviderKind::OpenAi(openai) => {
                let limits = config.provider_limits;
                let client = http_client::build(limits.connect, limits.idle)
                    .map_err(|error| StartError::Setting(format!("no HTTP client: {error}")))?;
                Arc::new(OpenAi::new(openai.clone(), client).map_err(StartError::Setting)?)
            }
        };
        route.push(NamedProvider { name: settings.name.clone(), provider });
    }
    Ok(route)
}

fn mailer(config: &Config, mailbox: Option<&Mailbox>) -> Result<Arc<dyn Mailer>, StartError> {
    Ok(match (&config.mail, mailbox) {
        (MailSettings::Smtp(smtp), _) => Arc::new(Smtp::new(smtp).map_err(StartError::Setting)?),
        (MailSettings::Mailbox, Some(mailbox)) => Arc::new(mailbox.clone()),
        (MailSettings::Mailbox, None) => return Err(StartError::Setting("there is no mailbox".into())),
    })
}

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

fn slices(auth: &Auth, billing: &Billing, chat: &Chat) -> OpenApiRouter {
    let account = account::http::Account { auth: auth.clone(), billing: billing.clone() };
    OpenApiRouter::with_openapi(Document::openapi())
        .merge(auth::http::router(auth.clone()))
        .merge(account::http::router(account))
        .merge(chat::http::router(chat.clone()))
}

impl App {
    /// The API document.
    pub fn document(&self) -> Value {
        let Background { auth, billing, chat, .. } = &self.background;
        openapi::complete(slices(auth, billing, chat).to_openapi(), PUBLIC)
    }
}

fn router(
    config: &Config,
    world: &World,
    auth: &Auth,
    billing: &Billing,
    chat: &Chat,
    mailbox: Option<Mailbox>,
) -> Router {
    let (routes, declared) = slices(auth, billing, chat).split_for_parts();
    let document = openapi::complete(declared, PUBLIC);
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
    let mut all = routes.merge(openapi::router(&document));
    if let Some(mailbox) = mailbox {
        all = all.merge(mailbox.router());
    }
    all.fallback(|| async { Problem::not_found() })
        .layer(middleware::from_fn_with_state(
            Gate { auth: auth.clone(), public: PUBLIC },
            auth::caller::gate,
        ))
        .layer(cors(&config.server.allowed_origins))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(outermost, edge))
}

/// Lets pages of the allowed origins call, and read what they need of the answer.
fn cors(origins: &[String]) -> CorsLayer {
    let origins: Vec<HeaderValue> = origins.iter().filter_map(|origin| origin.parse().ok()).collect();
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE, header::ACCEPT, X_REQUEST_ID])
        .expose_headers([
            X_REQUEST_ID,
            header::RETRY_AFTER,
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
