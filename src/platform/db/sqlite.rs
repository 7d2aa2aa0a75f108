//! SQLite: one writer thread that lets everything queued share a commit, and a few readers.
//!
//! One fsync per commit is what a durable SQLite write costs. The writer takes what is queued, runs each closure in
//! a savepoint of its own inside one transaction, commits once, and only then answers everybody.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, config::DbConfig};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::{
    Conn, Error, MAX_ROWS, Result, Row,
    conn::{Engine, lock},
    report_slow_closure,
    value::Value,
};

/// A connection that statements lock one at a time.
pub(super) type Shared = Arc<Mutex<Connection>>;

/// Writes that may wait. The next one is refused as busy, which becomes a 503.
const QUEUE: usize = 1024;
/// Closures that share one commit.
const GROUP: usize = 64;
/// Statements that a connection keeps prepared.
const STATEMENTS: usize = 256;
/// Connections for whole-table reads, so that those never hold up the short ones.
const SLOW_READERS: usize = 2;
/// How long to wait for another process that holds the file, such as `user create` beside a running server.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait before trying to open the file again.
const OPEN_PAUSE: Duration = Duration::from_millis(10);

/// The engine behind [`Db`](super::Db) for `sqlite:` addresses.
pub(super) struct Sqlite {
    writer: mpsc::Sender<Message>,
    readers: Arc<Readers>,
    slow_readers: Arc<Readers>,
}

enum Message {
    Job(Box<dyn Job>),
    Close(oneshot::Sender<Result<()>>),
}

/// A closure on its way through the writer thread.
trait Job: Send {
    /// Whether somebody still waits for the answer.
    fn is_wanted(&self) -> bool;
    /// Runs the closure; `true` when its changes are to stay.
    fn run(&mut self, connection: &Shared) -> bool;
    /// Sends the answer, once the group has been committed or lost.
    fn answer(self: Box<Self>, committed: Result<()>);
}

/// What became of a closure: its own result, and the failure of this layer that may be behind it.
pub(super) struct Outcome<T, E> {
    pub result: Result<T, E>,
    pub failure: Option<Error>,
}

impl<T, E: From<Error>> Outcome<T, E> {
    pub(super) fn failed(error: Error) -> Self {
        Outcome { result: Err(error.clone().into()), failure: Some(error) }
    }
}

impl Sqlite {
    /// Opens the file, creating it for its owner's eyes only, and starts the writer thread.
    pub(super) fn open(path: &Path) -> Result<Sqlite> {
        let writer = open(path, false)?;
        let (queue, jobs) = mpsc::channel(QUEUE);
        let runtime = tokio::runtime::Handle::current();
        std::thread::Builder::new()
            .name("sqlite-writer".into())
            .spawn(move || {
                // So that a timer inside a closure is refused as "awaited something else" instead of panicking.
                let _context = runtime.enter();
                write_until_closed(&Arc::new(Mutex::new(writer)), jobs);
            })
            .map_err(|error| Error::Unavailable(error.to_string().into()))?;

        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Sqlite {
            writer: queue,
            readers: Readers::open(path, cores.saturating_mul(2).max(4))?,
            slow_readers: Readers::open(path, SLOW_READERS)?,
        })
    }

    pub(super) async fn write<T, E, F>(&self, closure: Arc<F>, wait_for_space: bool) -> Outcome<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: AsyncFn(Conn) -> Result<T, E> + Send + Sync + 'static,
    {
        let (send, answer) = oneshot::channel();
        let job = Message::Job(Box::new(WriteJob { closure, outcome: None, answer: send }));
        let queued = if wait_for_space {
            self.writer.send(job).await.map_err(|_| Error::Closed)
        } else {
            self.writer.try_send(job).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => Error::Busy("too many writes are waiting"),
                mpsc::error::TrySendError::Closed(_) => Error::Closed,
            })
        };
        if let Err(error) = queued {
            return Outcome::failed(error);
        }
        answer.await.unwrap_or_else(|_| Outcome::failed(Error::Closed))
    }

    /// Runs on the caller's thread: a point read takes microseconds, less than handing it to another thread.
    pub(super) async fn read<T, E, F>(&self, closure: F) -> Result<T, E>
    where
        E: From<Error>,
        F: AsyncFnOnce(Conn) -> Result<T, E>,
    {
        let reader = self.readers.borrow().await?;
        read_on(&reader.connection, closure, MAX_ROWS)
    }

    pub(super) async fn read_slow<T, E, F>(&self, closure: F, max_rows: usize) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: AsyncFnOnce(Conn) -> Result<T, E> + Send + 'static,
    {
        let reader = self.slow_readers.borrow().await?;
        #[expect(
            clippy::disallowed_methods,
            reason = "the read is awaited here, so it cannot outlive its caller"
        )]
        tokio::task::spawn_blocking(move || read_on(&reader.connection, closure, max_rows))
            .await
            .unwrap_or_else(|_| Err(Error::Panicked.into()))
    }

    /// Refuses new writes, finishes the queued ones, then leaves one tidy file behind.
    pub(super) async fn close(&self) -> Result<()> {
        let (send, answer) = oneshot::channel();
        self.writer.send(Message::Close(send)).await.map_err(|_| Error::Closed)?;
        answer.await.unwrap_or(Err(Error::Closed))
    }
}

/// Opens a connection with the settings that every one of ours has.
///
/// Switching a new file to WAL does not wait for another process that does the same, so this tries again for a while.
pub(super) fn open(path: &Path, read_only: bool) -> Result<Connection> {
    let given_up = tokio::time::Instant::now().checked_add(BUSY_TIMEOUT);
    loop {
        match try_open(path, read_only) {
            Err(Error::Busy(_)) if given_up.is_some_and(|end| tokio::time::Instant::now() < end) => {
                #[expect(clippy::disallowed_methods, reason = "at start, before any request is answered")]
                std::thread::sleep(OPEN_PAUSE);
            }
            result => return result,
        }
    }
}

fn try_open(path: &Path, read_only: bool) -> Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // The plan of a statement depends on the statement alone. Else each new value of an argument that might choose an index
    // has the statement prepared again, which costs more than running it (sqlite.org/queryplanner-ng.html, QPSG).
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // No mmap: an I/O error there is a signal that ends the process instead of an error that fails a call.
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA mmap_size = 0;
         PRAGMA temp_store = MEMORY; PRAGMA cache_size = -8000; PRAGMA wal_autocheckpoint = 4000;",
    )?;
    if read_only {
        connection.execute_batch("PRAGMA query_only = ON;")?;
    }
    Ok(connection)
}

/// Polls a future that may await only the database. On SQLite that is never a wait.
fn at_once<T, E: From<Error>>(future: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => Err(Error::AWAITED.into()),
    }
}

fn read_on<T, E, F>(connection: &Shared, closure: F, max_rows: usize) -> Result<T, E>
where
    E: From<Error>,
    F: AsyncFnOnce(Conn) -> Result<T, E>,
{
    let conn =
        Conn::new(Engine::Sqlite { connection: Arc::clone(connection), in_transaction: false }, max_rows);
    let run = || at_once(conn.scoped(closure(conn.clone())));
    match catch_unwind(AssertUnwindSafe(run)) {
        Err(_) => Err(Error::Panicked.into()),
        Ok(result) => match conn.failure() {
            Some(failure) => result.and(Err(failure.into())),
            None => result,
        },
    }
}

/// Connections that reads borrow and always give back.
struct Readers {
    idle: Mutex<Vec<Shared>>,
    free: Arc<Semaphore>,
}

impl Readers {
    fn open(path: &Path, count: usize) -> Result<Arc<Readers>> {
        let idle = (0..count)
            .map(|_| open(path, true).map(|connection| Arc::new(Mutex::new(connection))))
            .collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(Readers { idle: Mutex::new(idle), free: Arc::new(Semaphore::new(count)) }))
    }

    async fn borrow(self: &Arc<Self>) -> Result<Borrowed> {
        let permit = Arc::clone(&self.free).acquire_owned().await.map_err(|_| Error::Closed)?;
        let connection = lock(&self.idle).pop().ok_or(Error::Closed)?;
        Ok(Borrowed { readers: Arc::clone(self), connection, _permit: permit })
    }
}

/// A reader that goes back however its use ends, and only then lets the next borrower in.
struct Borrowed {
    readers: Arc<Readers>,
    connection: Shared,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        lock(&self.readers.idle).push(Arc::clone(&self.connection));
    }
}

struct WriteJob<T, E, F> {
    closure: Arc<F>,
    outcome: Option<Outcome<T, E>>,
    answer: oneshot::Sender<Outcome<T, E>>,
}

impl<T, E, F> Job for WriteJob<T, E, F>
where
    T: Send,
    E: From<Error> + Send,
    F: AsyncFn(Conn) -> Result<T, E> + Send + Sync,
{
    fn is_wanted(&self) -> bool {
        !self.answer.is_closed()
    }

    fn run(&mut self, connection: &Shared) -> bool {
        let conn =
            Conn::new(Engine::Sqlite { connection: Arc::clone(connection), in_transaction: true }, MAX_ROWS);
        let closure = &self.closure;
        let run = || at_once(conn.scoped(closure(conn.clone())));
        let outcome = match catch_unwind(AssertUnwindSafe(run)) {
            Err(_) => Outcome::failed(Error::Panicked),
            Ok(result) => match conn.failure() {
                // Whatever the closure made of the failed statement, nothing of it stays.
                Some(failure) => Outcome {
                    result: result.and_then(|_| Err(failure.clone().into())),
                    failure: Some(failure),
                },
                None => Outcome { result, failure: None },
            },
        };
        let keep = outcome.result.is_ok();
        self.outcome = Some(outcome);
        keep
    }

    fn answer(self: Box<Self>, committed: Result<()>) {
        let outcome = match (self.outcome, committed) {
            // The closure's own refusal stands whether or not the group was committed.
            (Some(outcome), committed) if committed.is_ok() || outcome.result.is_err() => outcome,
            (_, committed) => Outcome::failed(committed.err().unwrap_or(Error::Closed)),
        };
        // Nobody may be listening any more; the write happened all the same.
        let _ = self.answer.send(outcome);
    }
}

/// The writer thread.
fn write_until_closed(connection: &Shared, mut jobs: mpsc::Receiver<Message>) {
    let mut closing: Option<oneshot::Sender<Result<()>>> = None;
    while let Some(message) = jobs.blocking_recv() {
        match message {
            Message::Job(first) => {
                if let Some(asked) = write_group(connection, first, &mut jobs) {
                    jobs.close();
                    closing = Some(asked);
                }
            }
            Message::Close(asked) => {
                jobs.close();
                closing = Some(asked);
            }
        }
    }
    let result = lock(connection)
        .execute_batch("PRAGMA optimize; PRAGMA wal_checkpoint(TRUNCATE);")
        .map_err(Error::from);
    if let Some(asked) = closing {
        let _ = asked.send(result);
    }
}

/// Runs what is queued in one transaction. Returns the request to close, if one was met on the way.
fn write_group(
    connection: &Shared,
    first: Box<dyn Job>,
    jobs: &mut mpsc::Receiver<Message>,
) -> Option<oneshot::Sender<Result<()>>> {
    let mut done = Vec::new();
    let mut next = Some(first);
    let mut close = None;
    let mut state = command(connection, "BEGIN IMMEDIATE");
    while let Some(mut job) = next.take() {
        if job.is_wanted() {
            if state.is_ok() {
                state = run_in_savepoint(connection, job.as_mut());
            }
            done.push(job);
        }
        if state.is_err() || done.len() >= GROUP {
            break;
        }
        match jobs.try_recv() {
            Ok(Message::Job(job)) => next = Some(job),
            Ok(Message::Close(asked)) => close = Some(asked),
            Err(_) => {}
        }
    }
    metrics::histogram!("db_sqlite_group_size").record(u32::try_from(done.len()).unwrap_or(u32::MAX));
    let committed = state.and_then(|()| command(connection, "COMMIT")).inspect_err(|error| {
        tracing::error!(%error, writes = done.len(), "a group of writes was lost");
        if !lock(connection).is_autocommit() {
            // If even this fails, the next `BEGIN` does too, and its group is answered with the error.
            let _ = command(connection, "ROLLBACK");
        }
    });
    for job in done {
        job.answer(committed.clone());
    }
    close
}

/// Runs one closure so that its changes can be undone alone. An error means that the whole group is lost.
fn run_in_savepoint(connection: &Shared, job: &mut dyn Job) -> Result<()> {
    command(connection, "SAVEPOINT closure")?;
    let started = tokio::time::Instant::now();
    let keep = job.run(connection);
    report_slow_closure("sqlite", started.elapsed());
    // A full disk or an I/O error may have ended the outer transaction; a later SAVEPOINT would open a new one.
    if lock(connection).is_autocommit() {
        return Err(Error::transaction_lost());
    }
    if !keep {
        command(connection, "ROLLBACK TO closure")?;
    }
    command(connection, "RELEASE closure")
}

fn command(connection: &Shared, sql: &str) -> Result<()> {
    lock(connection).prepare_cached(sql)?.raw_execute()?;
    Ok(())
}

pub(super) fn rows<T>(
    connection: &Shared,
    in_transaction: bool,
    sql: &'static str,
    args: &[Value<'_>],
    max: usize,
    read: fn(&Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    statement(connection, in_transaction, sql, args, |statement| {
        let mut found = Vec::new();
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            // The rest is stepped through all the same: a statement with RETURNING has to run to its end.
            if found.len() < max {
                found.push(read(&Row::Sqlite(row))?);
            }
        }
        Ok(found)
    })
}

pub(super) fn execute(
    connection: &Shared,
    in_transaction: bool,
    sql: &'static str,
    args: &[Value<'_>],
) -> Result<u64> {
    statement(connection, in_transaction, sql, args, |statement| {
        Ok(u64::try_from(statement.raw_execute()?).unwrap_or(u64::MAX))
    })
}

/// Prepares, binds and runs, and checks before and after that the transaction is still there.
fn statement<T>(
    connection: &Shared,
    in_transaction: bool,
    sql: &'static str,
    args: &[Value<'_>],
    run: impl FnOnce(&mut rusqlite::CachedStatement<'_>) -> Result<T>,
) -> Result<T> {
    let connection = lock(connection);
    let lost = || in_transaction && connection.is_autocommit();
    if lost() {
        return Err(Error::transaction_lost());
    }
    let mut statement = connection.prepare_cached(sql)?;
    for position in 1..=statement.parameter_count() {
        // To SQLite `$2` is a name, numbered by first appearance, so bind by what the name says.
        let value = statement
            .parameter_name(position)
            .and_then(|name| name.strip_prefix('$'))
            .and_then(|number| number.parse::<usize>().ok())
            .and_then(|number| args.get(number.checked_sub(1)?))
            .ok_or_else(|| Error::Refused("a parameter is not one of the declared ones".into()))?;
        if matches!(value, Value::Text(text) if text.contains('\0')) {
            // PostgreSQL refuses it, too; this way a test on SQLite notices.
            return Err(Error::Refused("a text with NUL".into()));
        }
        statement.raw_bind_parameter(position, value)?;
    }
    let result = run(&mut statement);
    drop(statement);
    if lost() { Err(Error::transaction_lost()) } else { result }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plan that depends on arguments is made anew for each: most of what a statement costs.
    #[test]
    fn statements_are_prepared_once_whatever_their_arguments() {
        let dir = tempfile::tempdir().unwrap();
        for read_only in [false, true] {
            let connection = open(&dir.path().join("db"), read_only).unwrap();
            assert!(connection.db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG).unwrap());
        }
    }
}
