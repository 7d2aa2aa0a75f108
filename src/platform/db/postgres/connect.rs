//! Connections to PostgreSQL: how they are made, what they are told, and how much silence they are allowed.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use deadpool_postgres::{
    ClientWrapper, Hook, HookError, Manager, ManagerConfig, Metrics, Object, Pool, RecyclingMethod, Runtime,
};
use futures_util::FutureExt as _;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use rustls_platform_verifier::ConfigVerifierExt as _;
use secrecy::ExposeSecret as _;
use tokio::time::{Instant, timeout};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::super::{
    DatabaseSettings, Error, Limits, Result,
    address::{is_this_machine, names_ssl_mode},
    conn::lock,
};

/// When the kernel asks an idle connection for a sign of life, how often again, and how many silences it takes.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(10), Duration::from_secs(5), 3);

/// The way to the server. Nothing on it is waited for without end, and silence is remembered.
///
/// A host that vanishes does not close its connections, and TCP goes on for a quarter of an hour. Where one connection
/// did not answer, those that were idle at that moment are closed instead of being tried one after the other.
#[derive(Clone)]
pub(super) struct Line(Arc<Inner>);

struct Inner {
    limits: Limits,
    silent_at: Mutex<Option<Instant>>,
}

impl Line {
    fn new(limits: Limits) -> Line {
        Line(Arc::new(Inner { limits, silent_at: Mutex::new(None) }))
    }

    /// Waits for the answer to a statement. `None`: none came.
    pub(super) fn answer<T>(&self, call: impl Future<Output = T>) -> impl Future<Output = Option<T>> {
        self.within(self.0.limits.answer, call)
    }

    // Not `async fn`: each layer of those would hold the call twice, and calls are large.
    fn within<T>(&self, limit: Duration, call: impl Future<Output = T>) -> impl Future<Output = Option<T>> {
        timeout(limit, call).map(|answer| {
            if answer.is_err() {
                *lock(&self.0.silent_at) = Some(Instant::now());
                metrics::counter!("db_postgres_silences_total").increment(1);
            }
            answer.ok()
        })
    }

    /// Takes a connection from the pool: one that is free, or a new one.
    pub(super) async fn take(&self, pool: &Pool) -> Result<Object> {
        let Limits { wait, connect, .. } = self.0.limits;
        timeout(wait.saturating_add(connect), pool.get())
            .await
            .map_err(|_| Error::no_answer())?
            .map_err(Error::from)
    }

    /// Refuses an idle connection that may be dead.
    async fn look_at(
        &self,
        client: &ClientWrapper,
        unused_for: Duration,
    ) -> std::result::Result<(), &'static str> {
        if lock(&self.0.silent_at).is_some_and(|at| at.elapsed() <= unused_for) {
            return Err("it was idle when another one did not answer");
        }
        if unused_for < self.0.limits.trust {
            return Ok(());
        }
        match self.within(self.0.limits.connect, client.simple_query("")).await {
            Some(Ok(_)) => Ok(()),
            _ => Err("it did not answer"),
        }
    }

    /// Tells a new connection our limits.
    async fn greet(&self, client: &ClientWrapper) -> std::result::Result<(), HookError> {
        match self.within(self.0.limits.connect, client.batch_execute(&session(self.0.limits))).await {
            Some(told) => told.map_err(HookError::Backend),
            None => Err(HookError::message("it did not answer")),
        }
    }
}

/// Builds the pool; connects when it is first used.
pub(super) fn pool(settings: &DatabaseSettings) -> Result<(Pool, Line)> {
    let Limits { wait, connect, .. } = settings.limits;
    let config = connect_config(settings.url.expose_secret(), settings.limits)?;
    let tls = MakeRustlsConnect::new(tls_config(settings.ca_file.as_deref())?);
    // Our own look at idle connections comes before the manager's, which only sees closed ones.
    let manager =
        Manager::from_config(config, tls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
    let line = Line::new(settings.limits);
    let (greeting, looking) = (line.clone(), line.clone());
    let pool = Pool::builder(manager)
        .max_size(settings.pool_size)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(wait))
        .create_timeout(Some(connect))
        .post_create(Hook::async_fn(move |client, _| {
            let line = greeting.clone();
            Box::pin(async move { line.greet(client).await })
        }))
        .pre_recycle(Hook::async_fn(move |client, metrics: &Metrics| {
            let (line, unused_for) = (looking.clone(), metrics.last_used());
            Box::pin(async move { line.look_at(client, unused_for).await.map_err(HookError::message) })
        }))
        .build()
        .map_err(|error| Error::Unavailable(error.to_string().into()))?;
    Ok((pool, line))
}

/// What a new connection is told: limits that the server itself enforces, should this process hang.
fn session(limits: Limits) -> String {
    let Limits { idle_in_transaction, lock, statement, .. } = limits;
    format!(
        "SET idle_in_transaction_session_timeout = {}; SET lock_timeout = {}; SET statement_timeout = {};
         SET TIME ZONE 'UTC'; SET client_min_messages = warning;",
        idle_in_transaction.as_millis(),
        lock.as_millis(),
        statement.as_millis(),
    )
}

/// Reads the address. Without an `sslmode` in it, anything but this machine is spoken to by TLS only; without limits for
/// TCP in it, ours apply.
fn connect_config(url: &str, limits: Limits) -> Result<tokio_postgres::Config> {
    let mut config: tokio_postgres::Config =
        url.parse().map_err(|_| Error::Unavailable("the PostgreSQL address cannot be read".into()))?;
    if !names_ssl_mode(url) {
        config.ssl_mode(if is_this_machine(&config) { SslMode::Disable } else { SslMode::Require });
    }
    if !url.contains("keepalives") {
        let (idle, interval, retries) = KEEPALIVE;
        config.keepalives_idle(idle).keepalives_interval(interval).keepalives_retries(retries);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(limits.answer);
    }
    config.connect_timeout(limits.connect);
    config.application_name("digitalmistress");
    Ok(config)
}

/// Certificates are always checked: against `ca_file` where one is given, else against the system's authorities.
fn tls_config(ca_file: Option<&Path>) -> Result<ClientConfig> {
    let unusable = |error: &dyn std::fmt::Display| Error::Unavailable(format!("TLS: {error}").into());
    let Some(path) = ca_file else {
        return ClientConfig::with_platform_verifier().map_err(|error| unusable(&error));
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unusable(&error))? {
        roots.add(certificate.map_err(|error| unusable(&error))?).map_err(|error| unusable(&error))?;
    }
    Ok(ClientConfig::builder().with_root_certificates(Arc::new(roots)).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_gives_up_a_dead_connection_too() {
        let limits = Limits::default();
        let ours = connect_config("postgres://app@db.example/app", limits).unwrap();
        assert_eq!(ours.get_tcp_user_timeout(), Some(&limits.answer));
        assert_eq!(ours.get_keepalives_idle(), Duration::from_secs(10));
        assert_eq!(ours.get_keepalives_interval(), Some(Duration::from_secs(5)));
        assert_eq!(ours.get_keepalives_retries(), Some(3));

        let url = "postgres://app@db.example/app?tcp_user_timeout=60&keepalives_idle=120";
        let theirs = connect_config(url, limits).unwrap();
        assert_eq!(theirs.get_tcp_user_timeout(), Some(&Duration::from_secs(60)));
        assert_eq!(theirs.get_keepalives_idle(), Duration::from_secs(120));
        assert_eq!(theirs.get_keepalives_interval(), None);
    }
}
