//! PostgreSQL: a pool of connections, transactions over one snapshot, and connections that are closed when in doubt.

mod connect;
mod lease;

use std::{panic::AssertUnwindSafe, sync::Arc};

use deadpool_postgres::{Object, Pool};
use futures_util::FutureExt as _;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use self::connect::Line;
pub(super) use self::lease::Lease;
use super::{
    Conn, DatabaseSettings, Error, Limits, MAX_ROWS, Result, conn::Engine, pauses::Pauses,
    report_slow_closure, sqlite::Outcome,
};

/// The engine behind [`Db`](super::Db) for `postgres:` addresses.
pub(super) struct Postgres {
    pool: Pool,
    line: Line,
    limits: Limits,
    /// Connections that are in use.
    in_use: TaskTracker,
}

impl Postgres {
    /// Builds the pool; connects when it is first used.
    pub(super) fn open(settings: &DatabaseSettings) -> Result<Postgres> {
        let (pool, line) = connect::pool(settings)?;
        Ok(Postgres { pool, line, limits: settings.limits, in_use: TaskTracker::new() })
    }

    /// Runs the closure in a transaction, and again when it loses against others. [`Error::Conflict`] when it always did.
    pub(super) async fn write<T, E, F>(&self, closure: &F, mut pauses: Pauses) -> Outcome<T, E>
    where
        E: From<Error>,
        F: AsyncFn(Conn) -> Result<T, E>,
    {
        let started = Instant::now();
        loop {
            let outcome = self.transaction(closure).await;
            let lost_a_race = matches!(outcome.failure, Some(Error::Conflict));
            if !lost_a_race || started.elapsed() > self.limits.retry {
                return outcome;
            }
            metrics::counter!("db_postgres_retries_total").increment(1);
            pauses.pause().await;
        }
    }

    /// One try.
    async fn transaction<T, E, F>(&self, closure: &F) -> Outcome<T, E>
    where
        E: From<Error>,
        F: AsyncFn(Conn) -> Result<T, E>,
    {
        let lease = match self.lease().await {
            Ok(lease) => lease,
            Err(error) => return Outcome::failed(error),
        };
        if let Err(error) = lease.begin().await {
            return Outcome::failed(error);
        }
        let started = Instant::now();
        let (lease, _end) = lease.lend();
        let conn = Conn::new(Engine::Postgres(Arc::clone(&lease)), MAX_ROWS);
        let result = AssertUnwindSafe(conn.scoped(closure(conn.clone()))).catch_unwind().await;
        report_slow_closure("postgres", started.elapsed());

        let Ok(result) = result else {
            return Outcome::failed(Error::Panicked); // Not ended cleanly, the connection is closed.
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

    async fn lease(&self) -> Result<Lease> {
        Ok(Lease::new(self.client().await?, self.line.clone(), self.in_use.token()))
    }

    /// Runs statements one by one, each with a snapshot of its own, as on SQLite.
    pub(super) async fn read<T, E, F>(&self, closure: F, max_rows: usize) -> Result<T, E>
    where
        E: From<Error>,
        F: AsyncFnOnce(Conn) -> Result<T, E>,
    {
        let (lease, _end) = self.lease().await?.lend();
        let conn = Conn::new(Engine::Postgres(Arc::clone(&lease)), max_rows);
        let result = AssertUnwindSafe(conn.scoped(closure(conn.clone()))).catch_unwind().await;
        let Ok(result) = result else { return Err(Error::Panicked.into()) };
        if !conn.is_abandoned() {
            lease.end_cleanly();
        }
        match conn.failure() {
            Some(failure) => result.and(Err(failure.into())),
            None => result,
        }
    }

    /// A client outside the rules, for the migration runner.
    pub(super) async fn client(&self) -> Result<Object> {
        self.line.take(&self.pool).await
    }

    /// Refuses new calls and waits for those that have a connection, but not longer than for one answer.
    pub(super) async fn close(&self) -> Result<()> {
        self.pool.close();
        self.in_use.close();
        let ended = timeout(self.limits.answer, self.in_use.wait()).await;
        ended.map_err(|_| Error::Busy("a closure is still running"))
    }
}
