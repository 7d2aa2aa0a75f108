//! A pooled connection while it is in use, and what becomes of it.

use std::sync::atomic::{AtomicBool, Ordering};

use deadpool_postgres::Object;
use futures_util::FutureExt as _;
use tokio_postgres::types::ToSql;

use super::{
    super::{Error, Result, value::Value},
    connect::Line,
};

/// A pooled connection that is closed instead of returned unless its use ended cleanly.
///
/// Dropped half-way (a cancelled request, a panic, a broken socket, an answer that did not come) a transaction may still
/// be open on it. Closing makes the server roll back; returning it would show one customer's rows to another.
pub struct Lease {
    client: Option<Object>,
    line: Line,
    /// Its use ended well.
    clean: AtomicBool,
    /// An answer did not come: nothing more is asked of it.
    silent: AtomicBool,
}

impl Lease {
    pub(super) fn new(client: Object, line: Line) -> Lease {
        Lease { client: Some(client), line, clean: AtomicBool::new(false), silent: AtomicBool::new(false) }
    }

    pub(in super::super) async fn rows(
        &self,
        sql: &'static str,
        args: &[Value<'_>],
    ) -> Result<Vec<tokio_postgres::Row>> {
        let client = self.client()?;
        let statement = self.answer(client.prepare_cached(sql)).await?;
        self.answer(client.query(&statement, &parameters(args))).await
    }

    pub(in super::super) async fn execute(&self, sql: &'static str, args: &[Value<'_>]) -> Result<u64> {
        let client = self.client()?;
        let statement = self.answer(client.prepare_cached(sql)).await?;
        self.answer(client.execute(&statement, &parameters(args))).await
    }

    /// Opens a transaction.
    pub(super) async fn begin(&self) -> Result<()> {
        self.answer(self.client()?.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ")).await
    }

    /// Commits, and is certain of it.
    ///
    /// PostgreSQL answers `COMMIT` of a failed transaction with a silent `ROLLBACK`, and the driver does not hand out
    /// the command tag that would tell. The savepoint before it fails where no healthy transaction is open, and then
    /// `COMMIT` is not run.
    pub(super) async fn commit(&self) -> Result<()> {
        match self.answer(self.client()?.batch_execute("SAVEPOINT before_commit; COMMIT")).await {
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
        if !self.silent.load(Ordering::Acquire)
            && let Ok(client) = self.client()
            && self.answer(client.batch_execute("ROLLBACK")).await.is_ok()
        {
            self.end_cleanly();
        }
    }

    /// The connection may be used again, unless it owes an answer.
    pub(super) fn end_cleanly(&self) {
        self.clean.store(!self.silent.load(Ordering::Acquire), Ordering::Release);
    }

    fn client(&self) -> Result<&Object> {
        self.client.as_ref().ok_or(Error::Closed)
    }

    fn answer<T>(
        &self,
        call: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> impl Future<Output = Result<T>> {
        self.line.answer(call).map(|answer| match answer {
            Some(answer) => Ok(answer?),
            None => {
                self.silent.store(true, Ordering::Release);
                Err(Error::no_answer())
            }
        })
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
