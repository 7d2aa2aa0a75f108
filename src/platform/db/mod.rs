//! One set of queries on two engines.
//!
//! [`Db::read`] and [`Db::write`] run a closure on a [`Conn`]; the same closure works on SQLite and on PostgreSQL, and
//! nothing outside this module knows which one runs. What the layer promises:
//!
//! - `Ok` from a `write` closure commits, only `Err` rolls back. After a failed statement nothing more runs on that
//!   `Conn`, and an `Ok` becomes an error.
//! - Transactions are serializable. One that lost against others runs again; races are still settled by guarded
//!   `UPDATE … RETURNING`, not by isolation.
//! - A `Conn` dies with its closure.
//! - A panic fails its call alone.
//! - A call that was cancelled happened whole or not at all, and its connection is never reused half-way.
//! - Everything is bounded: the queue of writes, the pool, the rows of a query.
//!
//! Closures are short: they await nothing but their queries, and do no hashing and no sealing.

mod address;
mod backup;
mod conn;
mod error;
mod migrate;
mod postgres;
mod query;
mod sqlite;
mod value;

use std::{path::PathBuf, sync::Arc, time::Duration};

use secrecy::{ExposeSecret as _, SecretString};

pub use self::{
    address::exposures,
    backup::{KEY_BACKUP_LIFE, remove_old_key_backups},
    conn::{Conn, MAX_ROWS},
    error::{Error, Result},
    migrate::{MIGRATIONS, MigrateError, Migrated, Migration, sqlite_text},
    query::{Declared, Query, Record, Row},
    value::{Arg, Field, Kind, Value},
};
use self::{
    postgres::Postgres,
    sqlite::{Outcome, Sqlite},
};

/// Where the data is.
#[derive(Clone, Debug)]
pub struct DatabaseSettings {
    /// `sqlite:PATH` or `postgres://…`; a secret, because it may hold a password.
    pub url: SecretString,
    /// Connections to PostgreSQL that one instance may open.
    pub pool_size: usize,
    /// Certificate authorities in PEM that PostgreSQL's certificate is checked against; the system's if absent.
    pub ca_file: Option<PathBuf>,
}

impl DatabaseSettings {
    /// The file of a `sqlite:` address.
    pub fn sqlite_path(&self) -> Option<PathBuf> {
        self.url.expose_secret().strip_prefix("sqlite:").map(PathBuf::from)
    }
}

/// A database, whichever engine it is. Cloning is cheap and gives the same one.
#[derive(Clone)]
pub struct Db(Arc<Engine>);

enum Engine {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

/// Longer closures hold up everybody behind them on SQLite.
const SLOW_CLOSURE: Duration = Duration::from_millis(50);
/// The most rows that [`Db::read_slow`] may return.
const MAX_ROWS_SLOW: usize = 100_000;
/// First and longest pause of [`Db::write_patiently`].
const PATIENCE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

impl Db {
    /// Opens the database; see [`Db::migrate`] for its schema.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] when the file or its settings cannot be used. PostgreSQL is not contacted yet.
    pub fn open(settings: &DatabaseSettings) -> Result<Db> {
        let engine = match settings.sqlite_path() {
            Some(path) => {
                backup::create_private(&path)?;
                Engine::Sqlite(Sqlite::open(&path)?)
            }
            None => Engine::Postgres(Postgres::open(
                settings.url.expose_secret(),
                settings.pool_size,
                settings.ca_file.as_deref(),
            )?),
        };
        Ok(Db(Arc::new(engine)))
    }

    /// Reads. Statements run one by one, each with a snapshot of its own.
    pub async fn read<T, E, F>(&self, closure: F) -> Result<T, E>
    where
        E: From<Error>,
        F: AsyncFnOnce(Conn) -> Result<T, E>,
    {
        if Conn::inside_a_closure() {
            return Err(Error::NESTED.into());
        }
        match &*self.0 {
            Engine::Sqlite(sqlite) => sqlite.read(closure).await,
            Engine::Postgres(postgres) => postgres.read(closure, MAX_ROWS).await,
        }
    }

    /// Reads much, away from the threads that answer requests. For queries that are marked `scan`.
    pub async fn read_slow<T, E, F>(&self, closure: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: AsyncFnOnce(Conn) -> Result<T, E> + Send + 'static,
    {
        if Conn::inside_a_closure() {
            return Err(Error::NESTED.into());
        }
        match &*self.0 {
            Engine::Sqlite(sqlite) => sqlite.read_slow(closure, MAX_ROWS_SLOW).await,
            Engine::Postgres(postgres) => postgres.read(closure, MAX_ROWS_SLOW).await,
        }
    }

    /// A transaction: `Ok` from the closure commits, `Err` rolls back.
    ///
    /// The closure may run more than once and must await nothing but its queries. When the caller is cancelled, the
    /// transaction happens whole or not at all.
    pub async fn write<T, E, F>(&self, closure: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: AsyncFn(Conn) -> Result<T, E> + Send + Sync + 'static,
    {
        self.transaction(Arc::new(closure), false).await.result
    }

    /// As [`Db::write`], but waits for space in the queue and runs again, without end, while the database is
    /// unavailable. For what must not be refused, such as settling a reply.
    ///
    /// # Errors
    ///
    /// Only those that waiting cannot mend, and the closure's own.
    pub async fn write_patiently<T, E, F>(&self, closure: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: AsyncFn(Conn) -> Result<T, E> + Send + Sync + 'static,
    {
        let closure = Arc::new(closure);
        let (mut pause, longest) = PATIENCE;
        loop {
            let outcome = self.transaction(Arc::clone(&closure), true).await;
            match outcome.failure {
                Some(error) if error.is_temporary() => {
                    tracing::warn!(%error, "a write that must not be refused waits for the database");
                    tokio::time::sleep(pause).await;
                    pause = pause.saturating_mul(2).min(longest);
                }
                _ => return outcome.result,
            }
        }
    }

    async fn transaction<T, E, F>(&self, closure: Arc<F>, wait_for_space: bool) -> Outcome<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: AsyncFn(Conn) -> Result<T, E> + Send + Sync + 'static,
    {
        if Conn::inside_a_closure() {
            return Outcome::failed(Error::NESTED);
        }
        match &*self.0 {
            Engine::Sqlite(sqlite) => sqlite.write(closure, wait_for_space).await,
            Engine::Postgres(postgres) => postgres.write(&*closure).await,
        }
    }

    /// Finishes what is queued and closes. On SQLite one file is left behind, without a log beside it.
    pub async fn close(&self) -> Result<()> {
        match &*self.0 {
            Engine::Sqlite(sqlite) => sqlite.close().await,
            Engine::Postgres(postgres) => {
                postgres.close();
                Ok(())
            }
        }
    }
}

fn report_slow_closure(engine: &'static str, took: Duration) {
    metrics::histogram!("db_closure_seconds", "engine" => engine).record(took);
    if took > SLOW_CLOSURE {
        metrics::counter!("db_slow_closures_total", "engine" => engine).increment(1);
    }
}
