//! What can go wrong in the data layer, sorted by what a caller may do about it.

use std::sync::Arc;

/// A failure of the data layer.
///
/// Texts are for the log. They name tables, constraints and codes, never values: PostgreSQL's `DETAIL`, which
/// quotes rows, is dropped on purpose.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A unique constraint was violated. Expected conflicts are written `ON CONFLICT` and never get here.
    #[error("unique constraint violated: {0}")]
    Unique(Arc<str>),
    /// A foreign key points nowhere.
    #[error("foreign key violated")]
    ForeignKey,
    /// [`Query::one`](super::Query::one) found no row.
    #[error("no such row")]
    NotFound,
    /// The queue of writes or the pool of connections is full, or somebody else holds the database or a row of it.
    /// Nothing was changed; later it may work.
    #[error("the database is busy: {0}")]
    Busy(&'static str),
    /// Concurrent transactions could not be put in an order, even after several tries. Nothing was changed.
    #[error("the transaction lost against concurrent ones")]
    Conflict,
    /// The database cannot be used at the moment: disk full, I/O error, connection lost. After a lost
    /// connection a commit may or may not have happened.
    #[error("the database is unavailable: {0}")]
    Unavailable(Arc<str>),
    /// The database was closed because the program is ending.
    #[error("the database is closed")]
    Closed,
    /// The program broke a rule of this layer. Nothing was changed.
    #[error("misuse of the data layer: {0}")]
    Misuse(&'static str),
    /// The closure or a row mapping panicked. Nothing was changed.
    #[error("a database closure panicked")]
    Panicked,
    /// A statement failed for a reason that only a change of program or data can mend.
    #[error("the database refused: {0}")]
    Refused(Arc<str>),
}

/// The result of a statement.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Whether the same call may succeed later without anybody mending anything.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Error::Busy(_) | Error::Conflict | Error::Unavailable(_))
    }

    /// A statement on a handle whose closure has ended, or from another task.
    pub(super) const DEAD: Error = Error::Misuse("a connection was used outside its closure");
    /// A closure that awaited something else than its queries.
    pub(super) const AWAITED: Error = Error::Misuse("a closure awaited something else than its queries");
    /// A closure inside a closure.
    pub(super) const NESTED: Error = Error::Misuse("a closure opened another one");
    /// A query future that was dropped half-way inside a closure that went on.
    pub(super) const ABANDONED: Error = Error::Misuse("a closure abandoned a running query");

    /// SQLite ended the transaction by itself.
    pub(super) fn transaction_lost() -> Error {
        Error::Unavailable("the transaction was lost".into())
    }

    /// PostgreSQL says nothing any more.
    pub(super) fn no_answer() -> Error {
        Error::Unavailable("PostgreSQL did not answer in time".into())
    }

    /// Sorts what PostgreSQL says. `Busy` and `Conflict` are for what has certainly changed nothing.
    fn from_sqlstate(code: &str, message: &str) -> Error {
        let text = || format!("{message} ({code})").into();
        match code {
            "23503" => Error::ForeignKey,
            // Serialization failure, deadlock: run it again.
            "40001" | "40P01" => Error::Conflict,
            // The statement waited for `lock_timeout`; its transaction is over.
            "55P03" => Error::Busy("another transaction holds a row for too long"),
            // Read-only after a failover; ended for having been idle, or for its age; an end that nobody knows;
            // damaged data, which waits for somebody to mend it, as on SQLite.
            "25006" | "25P03" | "25P04" | "40003" | "XX001" | "XX002" => Error::Unavailable(text()),
            // Classes 08 connection, 53 resources (disk full, memory, connections), 57 operator (shutdown,
            // time-out), 58 system.
            _ if matches!(code.get(..2), Some("08" | "53" | "57" | "58")) => Error::Unavailable(text()),
            _ => Error::Refused(text()),
        }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{
            CannotOpen, DatabaseBusy, DatabaseCorrupt, DatabaseLocked, DiskFull, FileLockingProtocolFailed,
            NoLargeFileSupport, OutOfMemory, PermissionDenied, ReadOnly, SystemIoFailure,
        };

        let rusqlite::Error::SqliteFailure(failure, message) = &error else {
            return Error::Refused(error.to_string().into());
        };
        let text = || message.clone().unwrap_or_else(|| failure.to_string());
        match (failure.extended_code, failure.code) {
            (rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE | rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY, _) => {
                Error::Unique(text().into())
            }
            (rusqlite::ffi::SQLITE_CONSTRAINT_FOREIGNKEY, _) => Error::ForeignKey,
            (_, DatabaseBusy | DatabaseLocked) => Error::Busy("another process holds the SQLite file"),
            (
                _,
                CannotOpen
                | DatabaseCorrupt
                | DiskFull
                | FileLockingProtocolFailed
                | NoLargeFileSupport
                | OutOfMemory
                | PermissionDenied
                | ReadOnly
                | SystemIoFailure,
            ) => Error::Unavailable(text().into()),
            _ => Error::Refused(text().into()),
        }
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(answer) = error.as_db_error() else {
            let cause = std::error::Error::source(&error);
            return if error.is_closed() || cause.is_some_and(|cause| cause.is::<std::io::Error>()) {
                Error::Unavailable("the connection to PostgreSQL was lost".into())
            } else {
                Error::Refused(error.to_string().into())
            };
        };
        match answer.code().code() {
            "23505" => Error::Unique(answer.constraint().unwrap_or_default().into()),
            code => Error::from_sqlstate(code, answer.message()),
        }
    }
}

impl From<deadpool_postgres::PoolError> for Error {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        use deadpool_postgres::{HookError, PoolError, TimeoutType};

        match error {
            PoolError::Timeout(TimeoutType::Wait) => Error::Busy("no PostgreSQL connection became free"),
            PoolError::Timeout(_) => Error::no_answer(),
            PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => {
                match Error::from(error) {
                    // Whatever kept us from connecting, the answer to a caller is "later".
                    Error::Refused(text) => Error::Unavailable(text),
                    error => error,
                }
            }
            PoolError::Closed => Error::Closed,
            error => Error::Unavailable(error.to_string().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_postgres_says_is_sorted_by_what_a_caller_can_do() {
        let table = [
            (
                "Unavailable",
                "08000 08003 08006 08P01 25006 25P03 25P04 40003 53100 53200 53300 57014 57P01 57P02 57P03 57P05 58000 \
                 58030 XX001 XX002",
            ),
            ("Busy", "55P03"),
            ("Conflict", "40001 40P01"),
            ("ForeignKey", "23503"),
            (
                "Refused",
                "0A000 22003 22012 22P02 23502 23514 25001 25P01 25P02 40002 42501 42601 42P01 54000 P0001 XX000",
            ),
        ];
        for (expected, codes) in table {
            for code in codes.split_whitespace() {
                let error = Error::from_sqlstate(code, "as the server puts it");
                assert!(format!("{error:?}").starts_with(expected), "{code}: {error:?}");
                let waits = ["Unavailable", "Busy", "Conflict"].contains(&expected);
                assert_eq!(error.is_temporary(), waits, "{code}");
            }
        }
    }
}
