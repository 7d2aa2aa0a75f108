//! The composition root: settings become services, services become routes.

mod limits;
mod routes;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::Router;
use secrecy::ExposeSecret as _;

use self::limits::Limiter;
pub use self::routes::{PUBLIC, document};
use crate::{
    auth,
    auth::{Auth, password::BreachCheck},
    billing,
    billing::{
        Billing,
        gateway::Gateway,
        gateways::{dev::Dev, postback::Postback, stripe::Stripe},
    },
    chat,
    chat::{
        Chat, NamedProvider, SharedReplyFilter,
        providers::{anthropic::Anthropic, demo::Demo, openai::OpenAi},
    },
    config::{Config, MailSettings, PaymentKind, PaymentProvider, ProviderKind},
    health,
    jobs::Background,
    platform::{
        clock::SharedClock,
        data_dir::Instance,
        db::{self, Db, Declared, MIGRATIONS, MigrateError},
        http_client,
        job::{self, Jobs},
        keyring::{self, KeyError, Keyring, Service},
        mail::{Mailbox, Mailer, Smtp},
        random::SharedRandom,
        seal::MasterKeys,
        tasks::Tasks,
    },
};

/// How long a payment provider may take to let us connect, and to go on with an answer.
const GATEWAY_CONNECT: Duration = Duration::from_secs(5);
/// See [`GATEWAY_CONNECT`].
const GATEWAY_IDLE: Duration = Duration::from_secs(10);

/// Every query of the program, for the test that prepares them on both engines.
pub fn queries() -> Vec<(&'static str, &'static [Declared])> {
    vec![
        ("platform::job", job::ALL),
        ("platform::keyring", keyring::ALL),
        ("auth::administration", auth::administration::store::ALL),
        ("auth::audit", auth::audit::store::ALL),
        ("auth::consents", auth::consents::store::ALL),
        ("auth::email_change", auth::email_change::store::ALL),
        ("auth::password", auth::password::store::ALL),
        ("auth::lockout", auth::lockout::store::ALL),
        ("auth::session", auth::session::store::ALL),
        ("auth::signup", auth::signup::store::ALL),
        ("auth::throttle", auth::throttle::store::ALL),
        ("auth::tokens", auth::tokens::store::ALL),
        ("auth::users", auth::users::store::ALL),
        ("health", health::ALL),
        ("billing::checkout", billing::store::checkout::ALL),
        ("billing::queue", billing::store::queue::ALL),
        ("billing::quota", billing::store::quota::ALL),
        ("billing::rows", billing::store::rows::ALL),
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
    /// Who judges replies.
    pub reply_filter: SharedReplyFilter,
}

/// What commands need of the program: keys, identity and billing, over an open database.
pub struct Offices {
    /// Data keys.
    pub keyring: Keyring,
    /// Identity.
    pub auth: Auth,
    /// Billing.
    pub billing: Billing,
    /// The database, to be closed at the end.
    pub db: Db,
}

/// The program, ready to answer requests.
pub struct App {
    /// All routes.
    pub router: Router,
    /// The background work, not started yet.
    pub background: Background,
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
    /// Opens the database, brings its schema up to date where that is wanted, and builds the services of the server that
    /// `instance` is.
    pub async fn start(config: &Config, world: &World, instance: Instance) -> Result<App, StartError> {
        prepare_schema(config, world).await?;
        let db = Db::open(&config.database, Arc::clone(&world.random))?;
        let app = build(config, world, instance, &db).await;
        if app.is_err() {
            close_after_failure(&db).await;
        }
        app
    }

    /// Settles the replies that this instance was making when it last ended. Before the first request is answered.
    pub async fn recover(&self) -> Result<(), db::Error> {
        self.background.chat.recover().await
    }
}

impl Offices {
    /// Opens the database, whose schema must be up to date, and the services over it.
    pub async fn open(config: &Config, world: &World) -> Result<Offices, StartError> {
        Db::check_schema(&config.database, MIGRATIONS).await?;
        let db = Db::open(&config.database, Arc::clone(&world.random))?;
        match staff(config, world, &db).await {
            Ok((keyring, auth, billing)) => Ok(Offices { keyring, auth, billing, db }),
            Err(error) => {
                close_after_failure(&db).await;
                Err(error)
            }
        }
    }
}

async fn staff(config: &Config, world: &World, db: &Db) -> Result<(Keyring, Auth, Billing), StartError> {
    let Foundation { keyring, jobs, auth } = foundation(config, world, db).await?;
    let payments = payments(config, world, &keyring)?;
    let billing = billing(config, world, db, &keyring, &jobs, &auth, &payments);
    Ok((keyring, auth, billing))
}

/// Leaves the file tidy; the error that matters is another one.
async fn close_after_failure(db: &Db) {
    let _ = db.close().await;
}

async fn build(config: &Config, world: &World, instance: Instance, db: &Db) -> Result<App, StartError> {
    let Foundation { keyring, jobs, auth } = foundation(config, world, db).await?;
    let payments = payments(config, world, &keyring)?;
    let billing = billing(config, world, db, &keyring, &jobs, &auth, &payments);
    let limiter = Limiter::new(config.limits, Arc::clone(&world.clock));
    let chat = Chat::new(chat::Start {
        db: db.clone(),
        keyring,
        clock: Arc::clone(&world.clock),
        random: Arc::clone(&world.random),
        tasks: world.tasks.clone(),
        jobs: jobs.clone(),
        auth: auth.clone(),
        billing: billing.clone(),
        companions: config.companions.clone(),
        route: providers(config)?,
        filter: Arc::clone(&world.reply_filter),
        messages: limiter.messages(),
        settings: config.chat.clone(),
        instance: instance.id(),
    });
    chat.keep_personas().await?;
    let mailbox =
        matches!(config.mail, MailSettings::Mailbox).then(|| Mailbox::new(Arc::clone(&world.clock)));
    let router = routes::router(
        config,
        world,
        &auth,
        &billing,
        &chat,
        routes::Parts { db: db.clone(), limiter, mailbox: mailbox.clone(), checkout: payments.dev },
    );
    let background = Background {
        jobs,
        mailer: mailer(config, mailbox.as_ref())?,
        auth,
        billing,
        chat,
        clock: Arc::clone(&world.clock),
        database: config.database.clone(),
        lease: config.chat.lease,
        attempt: job::ATTEMPT,
        tasks: world.tasks.clone(),
    };
    Ok(App { router, background, db: db.clone(), mailbox })
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

/// What everything else stands on.
struct Foundation {
    keyring: Keyring,
    jobs: Jobs,
    auth: Auth,
}

async fn foundation(config: &Config, world: &World, db: &Db) -> Result<Foundation, StartError> {
    let World { clock, random, .. } = world.clone();
    let keys =
        config.master_keys.as_ref().ok_or_else(|| StartError::Setting("there is no master key".into()))?;
    let masters = MasterKeys::parse(keys.expose_secret()).map_err(StartError::Setting)?;
    let keyring = Keyring::open(db.clone(), masters, Arc::clone(&random), Arc::clone(&clock)).await?;
    let jobs = Jobs::new(db.clone(), keyring.clone(), Arc::clone(&clock), Arc::clone(&random));
    let settings = config.auth.clone();
    let breaches = breach_check(config)?;
    let auth =
        Auth::start(db.clone(), keyring.clone(), clock, random, jobs.clone(), breaches, settings).await?;
    Ok(Foundation { keyring, jobs, auth })
}

fn breach_check(config: &Config) -> Result<Option<BreachCheck>, StartError> {
    let Some(url) = &config.breach_check_url else { return Ok(None) };
    let client = http_client::build(BreachCheck::TIMEOUT, BreachCheck::TIMEOUT)
        .map_err(|error| StartError::Setting(format!("no HTTP client: {error}")))?;
    Ok(Some(BreachCheck::new(url, client)))
}

/// The payment providers, and the checkout page among them that is ours.
struct Payments {
    gateways: BTreeMap<String, Arc<dyn Gateway>>,
    dev: Option<Dev>,
}

fn payments(config: &Config, world: &World, keyring: &Keyring) -> Result<Payments, StartError> {
    let mut payments = Payments { gateways: BTreeMap::new(), dev: None };
    let no_client = |error| StartError::Setting(format!("no HTTP client: {error}"));
    for PaymentProvider { name, kind } in &config.payment_providers {
        let key =
            || keyring.service(Service::Hashes).cloned().map_err(|error| StartError::Keys(error.into()));
        let clock = Arc::clone(&world.clock);
        let gateway: Arc<dyn Gateway> = match kind {
            PaymentKind::Dev => {
                let random = Arc::clone(&world.random);
                let dev =
                    Dev::new(name, &config.server.public_url, key()?, clock, random).map_err(no_client)?;
                payments.dev = Some(dev.clone());
                Arc::new(dev)
            }
            PaymentKind::Postback(postback) => Arc::new(Postback::new(postback.clone(), key()?, clock)),
            PaymentKind::Stripe(stripe) => {
                let client = http_client::build(GATEWAY_CONNECT, GATEWAY_IDLE).map_err(no_client)?;
                Arc::new(Stripe::new(stripe.clone(), client))
            }
        };
        payments.gateways.insert(name.clone(), gateway);
    }
    Ok(payments)
}

fn billing(
    config: &Config,
    world: &World,
    db: &Db,
    keyring: &Keyring,
    jobs: &Jobs,
    auth: &Auth,
    payments: &Payments,
) -> Billing {
    Billing::new(billing::Start {
        db: db.clone(),
        clock: Arc::clone(&world.clock),
        random: Arc::clone(&world.random),
        keyring: keyring.clone(),
        jobs: jobs.clone(),
        auth: auth.clone(),
        settings: config.billing.clone(),
        gateways: payments.gateways.clone(),
    })
}

fn providers(config: &Config) -> Result<Vec<NamedProvider>, StartError> {
    let limits = config.provider_limits;
    let client = || {
        http_client::build(limits.connect, limits.idle)
            .map_err(|error| StartError::Setting(format!("no HTTP client: {error}")))
    };
    let mut route = Vec::new();
    for settings in &config.route {
        let provider: Arc<dyn chat::provider::ChatProvider> = match &settings.kind {
            ProviderKind::Demo(demo) => Arc::new(Demo::new(demo.clone())),
            ProviderKind::OpenAi(openai) => {
                Arc::new(OpenAi::new(openai.clone(), client()?).map_err(StartError::Setting)?)
            }
            ProviderKind::Anthropic(anthropic) => {
                Arc::new(Anthropic::new(anthropic.clone(), client()?).map_err(StartError::Setting)?)
            }
        };
        route.push(NamedProvider::new(&settings.name, provider, config.chat.breaker));
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
