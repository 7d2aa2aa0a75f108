//! A pooled connection while it is in use, and what becomes of it.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use deadpool_postgres::Object;
use futures_util::FutureExt as _;
use tokio_postgres::types::ToSql;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{
    super::{Error, Result, conn::lock, value::Value},
    connect::Line,
};

/// A pooled connection for as long as a closure runs. When that ends, it goes, whoever still has a handle.
pub struct Lease {
    connection: Mutex<Option<Arc<Connection>>>,
    line: Line,
}

/// A connection that is closed instead of returned unless its use ended cleanly.
///
/// Dropped half-way (a cancelled request, a panic, a broken socket, an answer that did not come) a transaction may still
/// be open on it. Closing makes the server roll back; returning it would show one customer's rows to another.
struct Connection {
    client: Option<Object>,
    /// Its use ended well.
    clean: AtomicBool,
    /// An answer did not come: nothing more is asked of it.
    silent: AtomicBool,
    /// Has closing wait for it.
    _in_use: TaskTrackerToken,
}

impl Lease {
    pub(super) fn new(client: Object, line: Line, in_use: TaskTrackerToken) -> Lease {
        let connection = Connection {
            client: Some(client),
            clean: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            _in_use: in_use,
        };
        Lease { connection: Mutex::new(Some(Arc::new(connection))), line }
    }

    /// Lends the lease to a closure's handle, and ends it when the returned guard goes.
    pub(super) fn lend(self) -> (Arc<Lease>, End) {
        let lease = Arc::new(self);
        (Arc::clone(&lease), End(lease))
    }

    pub(in super::super) async fn rows(
        &self,
        sql: &'static str,
        args: &[Value<'_>],
    ) -> Result<Vec<tokio_postgres::Row>> {
        let connection = self.connection()?;
        let client = connection.client()?;
        let statement = self.answer(&connection, client.prepare_cached(sql)).await?;
        self.answer(&connection, client.query(&statement, &parameters(args))).await
    }

    pub(in super::super) async fn execute(&self, sql: &'static str, args: &[Value<'_>]) -> Result<u64> {
        let connection = self.connection()?;
        let client = connection.client()?;
        let statement = self.answer(&connection, client.prepare_cached(sql)).await?;
        self.answer(&connection, client.execute(&statement, &parameters(args))).await
    }

    /// Opens a transaction.
    pub(super) async fn begin(&self) -> Result<()> {
        self.command("BEGIN ISOLATION LEVEL REPEATABLE READ").await
    }

    /// Commits, and is certain of it.
    ///
    /// PostgreSQL answers `COMMIT` of a failed transaction with a silent `ROLLBACK`, and the driver does not hand out
    /// the command tag that would tell. The savepoint before it fails where no healthy transaction is open, and then
    /// `COMMIT` is not run.
    pub(super) async fn commit(&self) -> Result<()> {
        match self.command("SAVEPOINT before_commit; COMMIT").await {
            Ok(()) => {
                self.end_cleanly();
                Ok(())
            }
            Err(error) => {
                self.roll_back().await;
                Err(error)
            }
        }
    }

    /// Rolls back; a connection on which even that fails is closed.
    pub(super) async fn roll_back(&self) {
        let is_silent = self.connection().is_ok_and(|connection| connection.silent.load(Ordering::Acquire));
        if !is_silent && self.command("ROLLBACK").await.is_ok() {
            self.end_cleanly();
        }
    }

    /// The connection may be used again, unless it owes an answer.
    pub(super) fn end_cleanly(&self) {
        if let Ok(connection) = self.connection() {
            connection.clean.store(!connection.silent.load(Ordering::Acquire), Ordering::Release);
        }
    }

    async fn command(&self, sql: &str) -> Result<()> {
        let connection = self.connection()?;
        self.answer(&connection, connection.client()?.batch_execute(sql)).await
    }

    fn connection(&self) -> Result<Arc<Connection>> {
        lock(&self.connection).clone().ok_or(Error::DEAD)
    }

    fn answer<T>(
        &self,
        connection: &Connection,
        call: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> impl Future<Output = Result<T>> {
        self.line.answer(call).map(|answer| match answer {
            Some(answer) => Ok(answer?),
            None => {
                connection.silent.store(true, Ordering::Release);
                Err(Error::no_answer())
            }
        })
    }
}

/// Ends a lease, however its closure ends.
pub(super) struct End(Arc<Lease>);

impl Drop for End {
    fn drop(&mut self) {
        lock(&self.0.connection).take();
    }
}

impl Connection {
    fn client(&self) -> Result<&Object> {
        self.client.as_ref().ok_or(Error::Closed)
    }
}

impl Drop for Connection {
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
