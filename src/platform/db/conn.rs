//! The handle that queries run on, and the rules that it enforces.
//!
//! A [`Conn`] lives inside the closure it was given to and dies with it: each run of a closure is a *scope* with a
//! number, kept in a task-local while the closure is being polled. A handle that was kept, sent out or used from a
//! spawned task finds another number there, or none, and every statement on it is an error.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use super::{Error, Result, Row, postgres, sqlite, value::Value};

tokio::task_local! {
    /// The closure that is being polled.
    static SCOPE: u64;
}

/// Locks without caring whether a holder panicked: what is behind these locks is valid at every step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The most rows that one query may return inside `read` or `write`.
pub const MAX_ROWS: usize = 500;

/// A connection inside a closure. Cloning gives the same connection.
#[derive(Clone)]
pub struct Conn(Arc<Inner>);

struct Inner {
    scope: u64,
    engine: Engine,
    max_rows: usize,
    /// The first statement that failed. Nothing more runs after it.
    failure: Mutex<Option<Error>>,
    /// Statements that were begun and have not ended.
    running: AtomicUsize,
}

/// What a [`Conn`] stands on.
pub(super) enum Engine {
    Sqlite { connection: sqlite::Shared, in_transaction: bool },
    Postgres(Arc<postgres::Lease>),
}

impl Conn {
    pub(super) fn new(engine: Engine, max_rows: usize) -> Conn {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Conn(Arc::new(Inner {
            scope: NEXT.fetch_add(1, Ordering::Relaxed),
            engine,
            max_rows,
            failure: Mutex::new(None),
            running: AtomicUsize::new(0),
        }))
    }

    /// Polls `future` inside this connection's scope.
    pub(super) async fn scoped<T>(&self, future: impl Future<Output = T>) -> T {
        SCOPE.scope(self.0.scope, future).await
    }

    /// Whether the caller stands inside a closure.
    pub(super) fn inside_a_closure() -> bool {
        SCOPE.try_with(|_| ()).is_ok()
    }

    /// Why the transaction cannot commit, if it cannot.
    pub(super) fn failure(&self) -> Option<Error> {
        if self.0.running.load(Ordering::Acquire) > 0 {
            return Some(Error::ABANDONED);
        }
        lock(&self.0.failure).clone()
    }

    /// Whether a statement was begun and abandoned: its answer may still be on the wire.
    pub(super) fn is_abandoned(&self) -> bool {
        self.0.running.load(Ordering::Acquire) > 0
    }

    pub(super) async fn rows<T>(
        &self,
        sql: &'static str,
        args: &[Value<'_>],
        read: fn(&Row<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let max = self.0.max_rows;
        self.guarded(async {
            let rows = match &self.0.engine {
                Engine::Sqlite { connection, in_transaction } => {
                    sqlite::rows(connection, *in_transaction, sql, args, max.saturating_add(1), read)?
                }
                Engine::Postgres(lease) => lease
                    .rows(sql, args)
                    .await?
                    .iter()
                    .map(|row| read(&Row::Postgres(row)))
                    .collect::<Result<_>>()?,
            };
            if rows.len() > max {
                return Err(Error::Misuse("a query returned more rows than a closure may read"));
            }
            Ok(rows)
        })
        .await
    }

    pub(super) async fn first<T>(
        &self,
        sql: &'static str,
        args: &[Value<'_>],
        read: fn(&Row<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        self.guarded(async {
            match &self.0.engine {
                Engine::Sqlite { connection, in_transaction } => {
                    Ok(sqlite::rows(connection, *in_transaction, sql, args, 1, read)?.pop())
                }
                Engine::Postgres(lease) => {
                    lease.rows(sql, args).await?.first().map(|row| read(&Row::Postgres(row))).transpose()
                }
            }
        })
        .await
    }

    pub(super) async fn execute(&self, sql: &'static str, args: &[Value<'_>]) -> Result<u64> {
        self.guarded(async {
            match &self.0.engine {
                Engine::Sqlite { connection, in_transaction } => {
                    sqlite::execute(connection, *in_transaction, sql, args)
                }
                Engine::Postgres(lease) => lease.execute(sql, args).await,
            }
        })
        .await
    }

    /// Runs one statement under the rules: in scope, nothing failed before, and a failure is remembered.
    async fn guarded<T>(&self, statement: impl Future<Output = Result<T>>) -> Result<T> {
        if SCOPE.try_with(|scope| *scope != self.0.scope).unwrap_or(true) {
            return Err(Error::DEAD);
        }
        if let Some(failure) = lock(&self.0.failure).clone() {
            return Err(failure);
        }
        self.0.running.fetch_add(1, Ordering::AcqRel);
        // No guard on drop: a statement that is dropped half-way must stay counted, see `failure`.
        let result = statement.await;
        self.0.running.fetch_sub(1, Ordering::AcqRel);
        if let Err(error) = &result {
            lock(&self.0.failure).get_or_insert_with(|| error.clone());
        }
        result
    }
}
