//! Typed settings: read in layers, judged as a whole, with every fault reported at once.

mod billing;
mod chat;
mod checks;
mod layers;
mod limits;
mod providers;
mod reader;
mod throttle;

use std::{
    ffi::OsString,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use self::reader::Reader;
pub use self::{
    billing::{PaymentKind, PaymentProvider},
    layers::Profile,
    limits::LimitSettings,
};
pub use crate::chat::providers::openai::KeyPlace;
use crate::{
    auth::{AuthSettings, PasswordRules, Policy},
    billing::BillingSettings,
    chat::{
        ChatSettings, Companion, Companions,
        providers::{anthropic::AnthropicSettings, demo::DemoSettings, openai::OpenAiSettings},
    },
    platform::{
        db::{self, DatabaseSettings},
        mail::SmtpSettings,
        proxies::TrustedProxies,
        seal::MasterKeys,
        telemetry::LogFormat,
    },
};

/// The shortest time that a signing key is published before it signs: twice what the public keys may be kept for.
const SHORTEST_KEY_LEAD: Duration = Duration::from_mins(20);
/// The file with the master key that `dev` makes.
const DEVELOPMENT_KEY_FILE: &str = "master.key";

/// An access token cannot be taken back from whoever signs requests with a stolen key, so it is short.
const LONGEST_ACCESS_TOKEN: Duration = Duration::from_hours(1);

/// Everything that an operator decides.
#[derive(Debug)]
pub struct Config {
    /// Which defaults were used.
    pub profile: Profile,
    /// Listening and addresses.
    pub server: ServerSettings,
    /// Where the data is.
    pub database: DatabaseSettings,
    /// Whether a PostgreSQL schema is brought up to date at start.
    pub migrate_on_start: bool,
    /// The master keys; `None` in development, where a file is made.
    pub master_keys: Option<SecretString>,
    /// How often anybody may call.
    pub limits: LimitSettings,
    /// Identity.
    pub auth: AuthSettings,
    /// Who is asked whether a new password was in a breach.
    pub breach_check_url: Option<Url>,
    /// Access.
    pub billing: BillingSettings,
    /// Who takes payments.
    pub payment_providers: Vec<PaymentProvider>,
    /// The chat.
    pub chat: ChatSettings,
    /// Who can be talked to.
    pub companions: Companions,
    /// Who answers, in the order in which they are tried.
    pub route: Vec<ProviderSettings>,
    /// Limits of the HTTP clients of providers.
    pub provider_limits: ProviderLimits,
    /// Where mail goes.
    pub mail: MailSettings,
    /// How much is logged.
    pub log_level: tracing::Level,
    /// How log lines look.
    pub log_format: LogFormat,
}

/// Listening and addresses.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Where metrics listen.
    pub metrics_listen: Option<SocketAddr>,
    /// How callers reach the API.
    pub public_url: Url,
    /// Where the frontend is.
    pub frontend_url: Url,
    /// Origins whose pages may call the API.
    pub allowed_origins: Vec<String>,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: TrustedProxies,
    /// Whom to tell about a hole.
    pub security_contact: Option<Url>,
    /// Where files are kept.
    pub data_dir: PathBuf,
    /// Connections that are answered at once.
    pub max_connections: usize,
    /// How long running replies may go on after a request to end.
    pub drain_timeout: Duration,
    /// How long requests are still taken after a request to end, so that a proxy can notice that we are not ready.
    pub drain_notice: Duration,
}

/// A provider with its name.
#[derive(Clone, Debug)]
pub struct ProviderSettings {
    /// The name in the settings.
    pub name: String,
    /// What it is.
    pub kind: ProviderKind,
}

/// The kinds of provider.
#[derive(Clone, Debug)]
pub enum ProviderKind {
    /// A server that speaks Anthropic's Messages.
    Anthropic(AnthropicSettings),
    /// Rules instead of a model.
    Demo(DemoSettings),
    /// A server that speaks Chat Completions.
    OpenAi(OpenAiSettings),
}

/// Limits of the HTTP clients of providers.
#[derive(Clone, Copy, Debug)]
pub struct ProviderLimits {
    /// To connect.
    pub connect: Duration,
    /// To be silent between two pieces.
    pub idle: Duration,
}

/// Where mail goes.
#[derive(Clone, Debug)]
pub enum MailSettings {
    /// To a page in development.
    Mailbox,
    /// To an SMTP server.
    Smtp(SmtpSettings),
}

/// Something about the settings that has to be mended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The setting.
    pub name: String,
    /// What is wrong; never shows a secret.
    pub what: String,
}

impl Fault {
    fn new(name: String, what: String) -> Fault {
        Fault { name, what }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.what)
    }
}

/// Where to read settings from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Which defaults to use.
    pub profile: Profile,
    /// A file that is laid over them.
    pub file: Option<PathBuf>,
    /// The environment.
    pub env: Vec<(OsString, OsString)>,
}

impl Config {
    /// Reads and judges the settings.
    ///
    /// # Errors
    ///
    /// Every fault there is.
    pub fn load(sources: &Sources) -> Result<Config, Vec<Fault>> {
        let mut faults = Vec::new();
        let settings = layers::load(sources.profile, sources.file.as_deref(), &sources.env, &mut faults);
        let mut reader = Reader::new(settings, faults);
        let config = read(&mut reader, sources.profile);
        let faults = reader.finish();
        config.filter(|_| faults.is_empty()).ok_or(faults)
    }

    /// The file with the master key that development makes.
    pub fn development_key_file(&self) -> PathBuf {
        self.server.data_dir.join(DEVELOPMENT_KEY_FILE)
    }
}

/// Reads every section, whatever is wrong with the ones before.
fn read(r: &mut Reader, profile: Profile) -> Option<Config> {
    let server = server(r, profile);
    let data_dir = server.as_ref().map(|server| server.data_dir.clone());
    let database = database(r, profile, data_dir.as_deref().unwrap_or(Path::new("data")));
    let migrate_on_start = r.flag("database.migrate_on_start");
    let master_keys = master_keys(r, profile);
    let limits = limits::read(r);
    let auth = auth(r, server.as_ref());
    let breach_check_url = r.optional_url("auth.breach_check_url");
    checks::breach_check_url(r, profile, breach_check_url.as_ref().and_then(Option::as_ref));
    let companions = companions(r);
    let (billing, payment_providers) =
        billing::read(r, profile, server.as_ref(), companions.as_ref()).unzip();
    let provider_limits = provider_limits(r);
    let chat = chat::read(r, provider_limits);
    let route = providers::route(r, profile);
    let mail = mail(r, profile);
    let log_level = r.choice(
        "log.level",
        &[
            ("error", tracing::Level::ERROR),
            ("warn", tracing::Level::WARN),
            ("info", tracing::Level::INFO),
            ("debug", tracing::Level::DEBUG),
            ("trace", tracing::Level::TRACE),
        ],
    );
    let log_format = r.choice("log.format", &[("json", LogFormat::Json), ("text", LogFormat::Text)]);
    Some(Config {
        profile,
        server: server?,
        database: database?,
        migrate_on_start: migrate_on_start?,
        master_keys: master_keys?,
        limits: limits?,
        auth: auth?,
        breach_check_url: breach_check_url?,
        billing: billing?,
        payment_providers: payment_providers?,
        chat: chat?,
        companions: companions?,
        route: route?,
        provider_limits: provider_limits?,
        mail: mail?,
        log_level: log_level?,
        log_format: log_format?,
    })
}

fn server(r: &mut Reader, profile: Profile) -> Option<ServerSettings> {
    let listen = r.address("server.listen");
    checks::listen(r, profile, "server.listen", listen);
    let metrics_listen = r.optional_address("server.metrics_listen");
    checks::listen(r, profile, "server.metrics_listen", metrics_listen.flatten());
    let public_url = match (r.optional_text("server.public_url"), listen, profile) {
        (None, ..) => None,
        // Development is reached where it listens.
        (Some(None), Some(listen), Profile::Development) => {
            Url::parse(&format!("http://localhost:{}", listen.port())).ok()
        }
        _ => r.url("server.public_url"),
    };
    checks::https(r, profile, "server.public_url", public_url.as_ref());
    let frontend_url = r.url("server.frontend_url");
    checks::https(r, profile, "server.frontend_url", frontend_url.as_ref());
    let allowed_origins = origins(r);
    checks::origins(r, profile, allowed_origins.as_deref().unwrap_or_default());
    let trusted_proxies = r.networks("server.trusted_proxies").map(TrustedProxies::new);
    checks::proxies(r, profile, trusted_proxies.as_ref());
    let security_contact = r.contact("server.security_contact");
    let data_dir = r.needed_text("server.data_dir").map(PathBuf::from);
    let max_connections = r.number("server.max_connections", 1, 1_000_000);
    let drain_timeout = r.duration("server.drain_timeout");
    let drain_notice = r.pause("server.drain_notice");
    Some(ServerSettings {
        listen: listen?,
        metrics_listen: metrics_listen?,
        public_url: public_url?,
        frontend_url: frontend_url?,
        allowed_origins: allowed_origins?,
        trusted_proxies: trusted_proxies?,
        security_contact: security_contact?,
        data_dir: data_dir?,
        max_connections: max_connections?,
        drain_timeout: drain_timeout?,
        drain_notice: drain_notice?,
    })
}

/// Exact origins: scheme, host and port, nothing else.
fn origins(r: &mut Reader) -> Option<Vec<String>> {
    let given = r.list("server.allowed_origins")?;
    let mut origins = Vec::new();
    for text in given {
        match Url::parse(&text).map(|url| url.origin().ascii_serialization()) {
            Ok(origin) if origin == text.trim_end_matches('/') => origins.push(origin),
            _ => {
                r.fault(
                    "server.allowed_origins",
                    format!("has “{text}”; an origin such as https://www.example.com is needed"),
                );
                return None;
            }
        }
    }
    Some(origins)
}

fn database(r: &mut Reader, profile: Profile, data_dir: &Path) -> Option<DatabaseSettings> {
    let given = r.secret("database.url");
    let pool_size = r.number("database.pool_size", 1, 1000);
    let ca_file = r.optional_path("database.ca_file");
    let url = match given? {
        None => SecretString::from(format!("sqlite:{}", data_dir.join("digitalmistress.sqlite").display())),
        Some(url) => {
            let text = url.expose_secret();
            let is_postgres = text.starts_with("postgres://") || text.starts_with("postgresql://");
            let is_sqlite =
                text.strip_prefix("sqlite:").is_some_and(|path| !path.is_empty() && !path.starts_with(':'));
            let is_usable = is_sqlite || (is_postgres && text.parse::<tokio_postgres::Config>().is_ok());
            if !is_usable {
                r.fault(
                    "database.url",
                    "cannot be read; sqlite:PATH or postgres://user:password@host/name is needed",
                );
                return None;
            }
            checks::database(r, profile, text);
            url
        }
    };
    Some(DatabaseSettings { url, pool_size: pool_size?, ca_file: ca_file?, limits: db::Limits::default() })
}

fn master_keys(r: &mut Reader, profile: Profile) -> Option<Option<SecretString>> {
    let keys = r.secret("security.master_keys")?;
    match &keys {
        Some(keys) => {
            if let Err(what) = MasterKeys::parse(keys.expose_secret()) {
                r.fault("security.master_keys", format!("cannot be used: {what}"));
            }
        }
        None if profile == Profile::Production => r.fault("security.master_keys", "is missing"),
        None => {}
    }
    Some(keys)
}

fn auth(r: &mut Reader, server: Option<&ServerSettings>) -> Option<AuthSettings> {
    let access_token_ttl = r.duration("auth.access_token_ttl");
    let refresh_idle_ttl = r.duration("auth.refresh_idle_ttl");
    let refresh_absolute_ttl = r.duration("auth.refresh_absolute_ttl");
    if access_token_ttl.is_some_and(|ttl| ttl > LONGEST_ACCESS_TOKEN) {
        r.fault("auth.access_token_ttl", "is more than an hour; sessions are kept alive by refresh tokens");
    }
    let (signing_key_rotation, signing_key_lead) = signing_keys(r).unzip();
    let audit_address_retention = r.duration("auth.audit_address_retention");
    let audit_retention = r.duration("auth.audit_retention");
    let min_length = r.number("auth.password_min_length", 8, 64);
    let step_up_ttl = r.duration("auth.step_up_ttl");
    let throttle = throttle::read(r);
    let frontend = server.map(|server| server.frontend_url.as_str().trim_end_matches('/').to_owned());
    let mut policies = Vec::new();
    for document in r.names_below("auth.policies") {
        let version = r.needed_text(&format!("auth.policies.{document}.version"));
        let url = r.optional_text(&format!("auth.policies.{document}.url"));
        let required = r.flag(&format!("auth.policies.{document}.required"));
        if let (Some(version), Some(url), Some(required), Some(frontend)) =
            (version, url, required, &frontend)
        {
            let url = url.unwrap_or_else(|| format!("{frontend}/{document}"));
            policies.push(Policy { document, version, url, required });
        }
    }
    Some(AuthSettings {
        issuer: server?.public_url.as_str().trim_end_matches('/').to_owned(),
        access_token_ttl: access_token_ttl?,
        refresh_idle_ttl: refresh_idle_ttl?,
        refresh_absolute_ttl: refresh_absolute_ttl?,
        step_up_ttl: step_up_ttl?,
        frontend_url: frontend?,
        signing_key_rotation: signing_key_rotation?,
        signing_key_lead: signing_key_lead?,
        audit_address_retention: audit_address_retention?,
        audit_retention: audit_retention?,
        allowed_origins: server?.allowed_origins.clone(),
        password: PasswordRules { min_length: min_length? },
        throttle: throttle?,
        policies,
    })
}

/// How long a key signs, and how long it is published before.
fn signing_keys(r: &mut Reader) -> Option<(Duration, Duration)> {
    let rotation = r.duration("auth.signing_key_rotation");
    let lead = r.duration("auth.signing_key_lead");
    let (rotation, lead) = (rotation?, lead?);
    if lead < SHORTEST_KEY_LEAD {
        r.fault(
            "auth.signing_key_lead",
            "is less than 20m, and others keep the public keys for some minutes",
        );
    }
    if rotation < lead.saturating_mul(2) {
        r.fault("auth.signing_key_rotation", "is less than twice auth.signing_key_lead");
    }
    Some((rotation, lead))
}

fn companions(r: &mut Reader) -> Option<Companions> {
    let mut companions = Vec::new();
    for id in r.names_below("chat.companions") {
        let key = |name: &str| format!("chat.companions.{id}.{name}");
        let order: Option<i64> = r.number(&key("order"), 0, 1_000_000);
        let name = r.needed_text(&key("name"));
        let tagline = r.text(&key("tagline"));
        let greeting = r.text(&key("greeting"));
        let avatar_url = r.optional_text(&key("avatar_url"));
        let available = r.flag(&key("available"));
        let requires_plan = r.optional_text(&key("requires_plan"));
        let prompt = r.needed_text(&key("prompt"));
        let follow = r.optional_flag(&key("follow"));
        let read = || {
            let card = crate::chat::CompanionCard {
                id: id.clone(),
                name: name?,
                tagline: tagline?,
                greeting: greeting?,
                avatar_url: avatar_url?,
                available: available?,
                requires_plan: requires_plan?,
            };
            Some((order?, Companion { card, prompt: prompt?, follow: follow? }))
        };
        companions.push(read());
    }
    // Whoever has a fault may be the one who is available.
    let mut companions = companions.into_iter().collect::<Option<Vec<_>>>()?;
    companions.sort_by_key(|(order, _)| *order);
    if !companions.iter().any(|(_, companion)| companion.card.available) {
        r.fault("chat.companions", "has nobody who is available");
        return None;
    }
    Some(Companions::new(companions.into_iter().map(|(_, companion)| companion).collect()))
}

fn provider_limits(r: &mut Reader) -> Option<ProviderLimits> {
    let connect = r.duration("chat.connect_timeout");
    let idle = r.duration("chat.idle_timeout");
    Some(ProviderLimits { connect: connect?, idle: idle? })
}

fn mail(r: &mut Reader, profile: Profile) -> Option<MailSettings> {
    let is_smtp = r.choice("mail.transport", &[("smtp", true), ("mailbox", false)]);
    let url = r.secret("mail.smtp_url");
    let from = r.text("mail.from");
    if !is_smtp? {
        checks::mailbox(r, profile);
        return Some(MailSettings::Mailbox);
    }
    let from = from.filter(|from| !from.is_empty());
    if from.is_none() {
        r.fault("mail.from", "is missing");
    }
    if let Some(url) = url.as_ref().and_then(Option::as_ref) {
        checks::mail_url(r, profile, url.expose_secret());
    }
    let Some(url) = url? else {
        r.fault("mail.smtp_url", "is missing");
        return None;
    };
    let settings = SmtpSettings { url, from: from? };
    if let Err(what) = settings.check() {
        r.fault("mail", format!("cannot be used: {what}"));
    }
    Some(MailSettings::Smtp(settings))
}
