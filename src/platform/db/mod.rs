//! One set of queries on two engines.
//!
//! [`Db::read`] and [`Db::write`] run a closure on a [`Conn`]; the same closure works on SQLite and on PostgreSQL, and
//! nothing outside this module knows which one runs. What the layer promises:
//!
//! - `Ok` from a `write` closure commits, only `Err` rolls back. After a failed statement nothing more runs on that
//!   `Conn`, and an `Ok` becomes an error.
//! - A transaction sees one snapshot, and its own writes. One that changes what somebody else has changed since runs
//!   again. What it reads and does not change may have changed when it commits: a rule over several rows needs a common
//!   row that every closure concerned changes, see docs/adr/0014. SQLite does not show where one is missing.
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
mod pauses;
mod postgres;
mod query;
mod restore;
mod sqlite;
mod value;

use std::{path::PathBuf, sync::Arc, time::Duration};

use secrecy::{ExposeSecret as _, SecretString};

pub use self::{
    address::exposures,
    backup::{Backup, KEY_BACKUP_LIFE, remove_old_key_backups},
    conn::{Conn, MAX_ROWS},
    error::{Error, Result},
    migrate::{MIGRATIONS, MigrateError, Migrated, Migration, sqlite_text},
    query::{Declared, Query, Record, Row},
    restore::Restoring,
    value::{Arg, Field, Kind, Value},
};
use self::{
    pauses::Pauses,
    postgres::Postgres,
    sqlite::{Outcome, Sqlite},
};

use super::random::SharedRandom;

/// Where the data is.
#[derive(Clone, Debug)]
pub struct DatabaseSettings {
    /// `sqlite:PATH` or `postgres://…`; a secret, because it may hold a password.
    pub url: SecretString,
    /// Connections to PostgreSQL that one instance may open.
    pub pool_size: usize,
    /// Certificate authorities in PEM that PostgreSQL's certificate is checked against; the system's if absent.
    pub ca_file: Option<PathBuf>,
    /// How long things may take on PostgreSQL.
    pub limits: Limits,
}

/// How long things may take on PostgreSQL. No settings, because they only make sense together; tests shorten them.
///
/// A transaction that has gone silent gives up its rows before those who wait for them lose patience, and they do so
/// before their statement runs out of time. That comes before our own limit on an answer, because the server's word says
/// more; ours is for a server that says nothing any more.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long a caller waits until one of the pool's connections is free.
    pub wait: Duration,
    /// How long a new connection may take to be made, and how long it or an old one may take to say hello.
    pub connect: Duration,
    /// How long a connection may have been unused before it has to say hello again.
    pub trust: Duration,
    /// How long an open transaction may send nothing. The server then ends it: our process hangs, or is gone.
    pub idle_in_transaction: Duration,
    /// How long a statement may wait for a row that another transaction holds.
    pub lock: Duration,
    /// How long a statement may take.
    pub statement: Duration,
    /// How long we wait for the server's answer to one. Then the connection is given up.
    pub answer: Duration,
    /// How long a transaction that loses against others is run again.
    pub retry: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            wait: Duration::from_secs(5),
            connect: Duration::from_secs(5),
            trust: Duration::from_secs(10),
            idle_in_transaction: Duration::from_secs(5),
            lock: Duration::from_secs(8),
            statement: Duration::from_secs(10),
            answer: Duration::from_secs(12),
            retry: Duration::from_secs(5),
        }
    }
}

impl DatabaseSettings {
    /// The file of a `sqlite:` address.
    pub fn sqlite_path(&self) -> Option<PathBuf> {
        self.url.expose_secret().strip_prefix("sqlite:").map(PathBuf::from)
    }
}

/// A database, whichever engine it is. Cloning is cheap and gives the same one.
#[derive(Clone)]
pub struct Db(Arc<Inner>);

struct Inner {
    engine: Engine,
    /// Draws the pauses between tries.
    random: SharedRandom,
}

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
/// First and longest pause of a transaction that lost against others.
const RETRY: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(128));

impl Db {
    /// Opens the database; see [`Db::migrate`] for its schema.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] when the file or its settings cannot be used. PostgreSQL is not contacted yet.
    pub fn open(settings: &DatabaseSettings, random: SharedRandom) -> Result<Db> {
        let engine = match settings.sqlite_path() {
            Some(path) => {
                backup::create_private(&path)?;
                Engine::Sqlite(Sqlite::open(&path)?)
            }
            None => Engine::Postgres(Postgres::open(settings)?),
        };
        Ok(Db(Arc::new(Inner { engine, random })))
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
        match &self.0.engine {
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
        match &self.0.engine {
            Engine::Sqlite(sqlite) => sqlite.read_slow(closure, MAX_ROWS_SLOW).await,
            Engine::Postgres(postgres) => postgres.read(closure, MAX_ROWS_SLOW).await,
        }
    }

    /// A transaction: `Ok` from the closure commits, `Err` rolls back.
    ///
    /// The closure may run more than once and must await nothing but its queries. Its rules are guarded by what it
    /// changes, not by what it reads. When the caller is cancelled, the
    /// transaction happens whole or not at all.
    pub async fn write<T, E, F>(&self, closure: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: AsyncFn(Conn) -> Result<T, E> + Send + Sync + 'static,
    {
        self.transaction(Arc::new(closure), false).await.result
    }

    /// As [`Db::write`], but waits for space in the queue and runs again, without end, while the database is busy or
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
        let mut pauses = self.pauses(PATIENCE);
        loop {
            let outcome = self.transaction(Arc::clone(&closure), true).await;
            match outcome.failure {
                Some(error) if error.is_temporary() => {
                    tracing::warn!(%error, "a write that must not be refused waits for the database");
                    pauses.pause().await;
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
        match &self.0.engine {
            Engine::Sqlite(sqlite) => sqlite.write(closure, wait_for_space).await,
            Engine::Postgres(postgres) => postgres.write(&*closure, self.pauses(RETRY)).await,
        }
    }

    fn pauses(&self, (first, longest): (Duration, Duration)) -> Pauses {
        Pauses::new(first, longest, Arc::clone(&self.0.random))
    }

    /// Refuses new calls, lets running ones finish, and closes. On SQLite the queued writes are finished too, and one file
    /// is left behind, without a log beside it.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] when a closure on PostgreSQL does not end; its transaction is rolled back with the process.
    pub async fn close(&self) -> Result<()> {
        match &self.0.engine {
            Engine::Sqlite(sqlite) => sqlite.close().await,
            Engine::Postgres(postgres) => postgres.close().await,
        }
    }
}

fn report_slow_closure(engine: &'static str, took: Duration) {
    metrics::histogram!("db_closure_seconds", "engine" => engine).record(took);
    if took > SLOW_CLOSURE {
        metrics::counter!("db_slow_closures_total", "engine" => engine).increment(1);
    }
}
