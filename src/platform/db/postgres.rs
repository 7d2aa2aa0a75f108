//! PostgreSQL: a pool of connections, serializable transactions, and connections that are closed when in doubt.

use std::{
    panic::AssertUnwindSafe,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use futures_util::FutureExt as _;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use rustls_platform_verifier::ConfigVerifierExt as _;
use tokio::time::Instant;
use tokio_postgres::{config::SslMode, types::ToSql};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    Conn, Error, MAX_ROWS, Result,
    address::{is_this_machine, names_ssl_mode},
    conn::Engine,
    report_slow_closure,
    sqlite::Outcome,
    value::Value,
};

/// How long a caller waits for a connection before it is told that the database is busy.
const WAIT: Duration = Duration::from_secs(5);
/// How long a transaction is run again after losing against others.
const RETRY_FOR: Duration = Duration::from_secs(5);
/// The longest pause before running again, in milliseconds.
const RETRY_PAUSE_MS: u64 = 32;
/// Limits that the server itself enforces, should this process hang.
const SESSION: &str = "SET statement_timeout = '10s'; SET idle_in_transaction_session_timeout = '10s';
                       SET lock_timeout = '8s'; SET TIME ZONE 'UTC'; SET client_min_messages = warning;";

/// The engine behind [`Db`](super::Db) for `postgres:` addresses.
pub(super) struct Postgres {
    pool: Pool,
}

impl Postgres {
    /// Builds the pool; connects when it is first used.
    pub(super) fn open(url: &str, pool_size: usize, ca_file: Option<&Path>) -> Result<Postgres> {
        let config = connect_config(url)?;
        let tls = MakeRustlsConnect::new(tls_config(ca_file)?);
        let manager =
            Manager::from_config(config, tls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
        let pool = Pool::builder(manager)
            .max_size(pool_size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(WAIT))
            .create_timeout(Some(WAIT))
            .recycle_timeout(Some(WAIT))
            .post_create(Hook::async_fn(|client, _| {
                Box::pin(async move { client.batch_execute(SESSION).await.map_err(HookError::Backend) })
            }))
            .build()
            .map_err(|error| Error::Unavailable(error.to_string().into()))?;
        Ok(Postgres { pool })
    }

    pub(super) async fn write<T, E, F>(&self, closure: &F) -> Outcome<T, E>
    where
        E: From<Error>,
        F: AsyncFn(Conn) -> Result<T, E>,
    {
        let started = Instant::now();
        let mut pause_ms = 1;
        loop {
            let outcome = self.transaction(closure).await;
            let lost_a_race = matches!(outcome.failure, Some(Error::Conflict));
            if !lost_a_race || started.elapsed() > RETRY_FOR {
                return outcome;
            }
            metrics::counter!("db_postgres_retries_total").increment(1);
            // Full jitter, so that those who collided do not collide again. The nanoseconds are random enough for that:
            // nothing but the pause depends on them, and nobody gains by guessing it.
            let jitter = u64::from(started.elapsed().subsec_nanos()).checked_rem(pause_ms).unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(jitter)).await;
            pause_ms = pause_ms.saturating_mul(2).min(RETRY_PAUSE_MS);
        }
    }

    /// One try.
    async fn transaction<T, E, F>(&self, closure: &F) -> Outcome<T, E>
    where
        E: From<Error>,
        F: AsyncFn(Conn) -> Result<T, E>,
    {
        let lease = match self.begin().await {
            Ok(lease) => lease,
            Err(error) => return Outcome::failed(error),
        };
        let started = Instant::now();
        let conn = Conn::new(Engine::Postgres(Box::new(lease)), MAX_ROWS);
        let result = AssertUnwindSafe(conn.scoped(closure(conn.clone()))).catch_unwind().await;
        report_slow_closure("postgres", started.elapsed());

        let (Engine::Postgres(lease), Ok(result)) = (conn.engine(), result) else {
            return Outcome::failed(Error::Panicked); // The lease closes its connection.
        };
        if conn.is_abandoned() {
            return Outcome {
                result: result.and(Err(Error::ABANDONED.into())),
                failure: Some(Error::ABANDONED),
            };
        }
        match (result, conn.failure()) {
            (Ok(value), None) => match lease.commit().await {
                Ok(()) => Outcome { result: Ok(value), failure: None },
                Err(error) => Outcome::failed(error),
            },
            // Whatever the closure made of the failed statement, nothing of it stays.
            (Ok(_), Some(failure)) => {
                lease.roll_back().await;
                Outcome::failed(failure)
            }
            (Err(error), failure) => {
                lease.roll_back().await;
                Outcome { result: Err(error), failure }
            }
        }
    }

    async fn begin(&self) -> Result<Lease> {
        let lease = Lease::new(self.pool.get().await?);
        lease.client()?.batch_execute("BEGIN ISOLATION LEVEL SERIALIZABLE").await?;
        Ok(lease)
    }

    /// Runs statements one by one, each with a snapshot of its own, as on SQLite.
    pub(super) async fn read<T, E, F>(&self, closure: F, max_rows: usize) -> Result<T, E>
    where
        E: From<Error>,
        F: AsyncFnOnce(Conn) -> Result<T, E>,
    {
        let lease = Lease::new(self.pool.get().await.map_err(Error::from)?);
        let conn = Conn::new(Engine::Postgres(Box::new(lease)), max_rows);
        let result = AssertUnwindSafe(conn.scoped(closure(conn.clone()))).catch_unwind().await;
        let (Engine::Postgres(lease), Ok(result)) = (conn.engine(), result) else {
            return Err(Error::Panicked.into());
        };
        if !conn.is_abandoned() {
            lease.return_to_pool();
        }
        match conn.failure() {
            Some(failure) => result.and(Err(failure.into())),
            None => result,
        }
    }

    /// A client outside the rules, for the migration runner.
    pub(super) async fn client(&self) -> Result<Object> {
        Ok(self.pool.get().await?)
    }

    pub(super) fn close(&self) {
        self.pool.close();
    }
}

/// A pooled connection that is closed instead of returned unless its use ended cleanly.
///
/// Dropped half-way (a cancelled request, a panic, a broken socket) a transaction may still be open on it. Closing
/// makes the server roll back; returning it would show one customer's rows to another.
pub(super) struct Lease {
    client: Option<Object>,
    clean: AtomicBool,
}

impl Lease {
    fn new(client: Object) -> Lease {
        Lease { client: Some(client), clean: AtomicBool::new(false) }
    }

    fn client(&self) -> Result<&Object> {
        self.client.as_ref().ok_or(Error::Closed)
    }

    pub(super) async fn rows(
        &self,
        sql: &'static str,
        args: &[Value<'_>],
    ) -> Result<Vec<tokio_postgres::Row>> {
        let client = self.client()?;
        let statement = client.prepare_cached(sql).await?;
        Ok(client.query(&statement, &parameters(args)).await?)
    }

    pub(super) async fn execute(&self, sql: &'static str, args: &[Value<'_>]) -> Result<u64> {
        let client = self.client()?;
        let statement = client.prepare_cached(sql).await?;
        Ok(client.execute(&statement, &parameters(args)).await?)
    }

    /// Commits, and is certain of it.
    ///
    /// PostgreSQL answers `COMMIT` of a failed transaction with a silent `ROLLBACK`, and the driver does not hand out
    /// the command tag that would tell. The savepoint before it fails where no healthy transaction is open, and then
    /// `COMMIT` is not run.
    async fn commit(&self) -> Result<()> {
        match self.client()?.batch_execute("SAVEPOINT before_commit; COMMIT").await.map_err(Error::from) {
            Ok(()) => {
                self.return_to_pool();
                Ok(())
            }
            Err(error) => {
                self.roll_back().await;
                Err(error)
            }
        }
    }

    /// Rolls back; a connection on which even that fails is closed.
    async fn roll_back(&self) {
        if let Ok(client) = self.client()
            && client.batch_execute("ROLLBACK").await.is_ok()
        {
            self.return_to_pool();
        }
    }

    fn return_to_pool(&self) {
        self.clean.store(true, Ordering::Release);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(client) = self.client.take()
            && !self.clean.load(Ordering::Acquire)
        {
            drop(Object::take(client));
        }
    }
}

fn parameters<'a>(args: &'a [Value<'_>]) -> Vec<&'a (dyn ToSql + Sync)> {
    args.iter().map(|value| -> &(dyn ToSql + Sync) { value }).collect()
}

/// Reads the address. Without an `sslmode` in it, anything but this machine is spoken to by TLS only.
fn connect_config(url: &str) -> Result<tokio_postgres::Config> {
    let mut config: tokio_postgres::Config =
        url.parse().map_err(|_| Error::Unavailable("the PostgreSQL address cannot be read".into()))?;
    if !names_ssl_mode(url) {
        config.ssl_mode(if is_this_machine(&config) { SslMode::Disable } else { SslMode::Require });
    }
    config.connect_timeout(WAIT);
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
