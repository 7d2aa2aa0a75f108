//! Brings the schema up to date: numbered files, forward only, each in one transaction.
//!
//! A migration's row is inserted before its statements run. A second instance that starts at the same moment waits on
//! that key, finds it taken and moves on; no lock is needed. The row holds the file's SHA-256, so a released file that
//! was edited afterwards is noticed instead of silently not applied.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{
    DatabaseSettings, Db, Error, Result,
    backup::{self, Backup},
    postgres::Postgres,
    restore::{self, Restoring},
    sqlite,
};
use crate::platform::digest::sha256;

/// A step of the schema.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Its number; they count up by one from 1.
    pub version: i64,
    /// Its file name.
    pub name: &'static str,
    /// Its statements, in PostgreSQL's words; see [`sqlite_text`].
    pub sql: &'static str,
}

macro_rules! migrations {
    ($($version:literal $name:literal),* $(,)?) => {
        &[$(Migration {
            version: $version,
            name: $name,
            sql: include_str!(concat!("../../../migrations/", $name)),
        }),*]
    };
}

/// Every step, in order.
pub const MIGRATIONS: &[Migration] = migrations![
    1 "0001_platform.sql",
    2 "0002_identity.sql",
    3 "0003_chat.sql",
    4 "0004_audit.sql",
    5 "0005_throttle.sql",
    6 "0006_credentials.sql",
    7 "0007_administration.sql",
    8 "0008_regenerate.sql",
    9 "0009_personas.sql",
    10 "0010_free_failures.sql",
    11 "0011_billing.sql",
];

/// What a run of the migrations did.
#[derive(Debug, Default)]
pub struct Migrated {
    /// Names of the files that were applied by this run.
    pub applied: Vec<&'static str>,
    /// The copy that was made before.
    pub backup: Option<PathBuf>,
}

/// Why the schema cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// A newer program has been here.
    #[error("the database is at version {found}, newer than the {known} that this program knows")]
    Newer {
        /// The version in the database.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// A file was changed after it had been applied.
    #[error("migration {0} is not the file that this database was made with")]
    Changed(&'static str),
    /// Steps are missing and this command does not apply them.
    #[error("{0} migration(s) are pending: run `digitalmistress migrate`")]
    Pending(usize),
    /// A step failed; the database is as it was before that step.
    #[error("migration {name} failed: {error}")]
    Failed {
        /// The step's file name.
        name: &'static str,
        /// Why.
        error: Error,
    },
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] Error),
}

const CREATE: &str = "CREATE TABLE IF NOT EXISTS schema_migration (
    version BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL, sha256 TEXT NOT NULL, applied_at BIGINT NOT NULL
);";
const APPLIED: &str = "SELECT version, sha256 FROM schema_migration ORDER BY version";
const INSERT: &str =
    "INSERT INTO schema_migration (version, name, sha256, applied_at) VALUES ($1, $2, $3, $4)";

impl Db {
    /// Writes a backup of a SQLite database, also beside a running server: data into one directory, the wrapped data keys into
    /// another or the same.
    ///
    /// # Errors
    ///
    /// [`Error::Misuse`] on PostgreSQL, which has its own tools.
    pub async fn back_up(
        settings: &DatabaseSettings,
        directory: &Path,
        keys_directory: &Path,
        now: Timestamp,
    ) -> Result<Backup> {
        let Some(file) = settings.sqlite_path() else { return Err(NOT_SQLITE) };
        if !file.exists() {
            return Err(Error::Unavailable("there is no database at this path".into()));
        }
        let version =
            Runner::open(settings).await?.applied().await?.last().map_or(0, |(version, _)| *version);
        backup::write(&file, directory, keys_directory, version, now)
    }

    /// Puts the newest backup of a directory together, ready to take the database's place; see [`Restoring::finish`].
    ///
    /// # Errors
    ///
    /// When there is none, it is not intact, or its schema is newer than `known`.
    pub async fn prepare_restore(
        settings: &DatabaseSettings,
        directory: &Path,
        keys_directory: &Path,
        known: &[Migration],
    ) -> Result<Restoring, MigrateError> {
        let target = settings.sqlite_path().ok_or(NOT_SQLITE)?;
        let found = backup::newest(directory, keys_directory)?;
        let found = found.ok_or_else(|| Error::Unavailable("there is no backup with its keys".into()))?;
        let restoring = restore::prepare(&found, &target)?;
        match Db::check_schema(&at(settings, &restoring.ready), known).await {
            Ok(()) | Err(MigrateError::Pending(_)) => Ok(restoring),
            Err(error) => {
                restoring.abandon();
                Err(error)
            }
        }
    }

    /// Applies the `known` migrations that are missing. An existing SQLite file is backed up first.
    pub async fn migrate(
        settings: &DatabaseSettings,
        known: &[Migration],
        now: Timestamp,
    ) -> Result<Migrated, MigrateError> {
        let mut runner = Runner::open(settings).await?;
        let mut done = Migrated::default();
        let applied = runner.applied().await?;
        let pending = pending(known, &applied)?;
        if let (Runner::Sqlite(_, path), Some((version, _)), false) =
            (&runner, applied.last(), pending.is_empty())
        {
            done.backup = Some(backup::before_migration(path, *version, now)?);
        }
        for migration in pending {
            match runner.apply(migration, now).await {
                Ok(()) => done.applied.push(migration.name),
                // Another instance was faster. Whether it applied the same file is checked below.
                Err(Error::Unique(_)) => {}
                Err(error) => return Err(MigrateError::Failed { name: migration.name, error }),
            }
        }
        match self::pending(known, &runner.applied().await?)?.len() {
            0 => Ok(done),
            missing => Err(MigrateError::Pending(missing)),
        }
    }

    /// Refuses a schema that is not exactly what the `known` migrations make.
    pub async fn check_schema(settings: &DatabaseSettings, known: &[Migration]) -> Result<(), MigrateError> {
        let mut runner = Runner::open(settings).await?;
        match pending(known, &runner.applied().await?)?.len() {
            0 => Ok(()),
            missing => Err(MigrateError::Pending(missing)),
        }
    }
}

/// What these commands answer to PostgreSQL.
const NOT_SQLITE: Error =
    Error::Misuse("this is for SQLite; PostgreSQL has its own tools, see docs/operations.md");

/// The same settings with another SQLite file.
fn at(settings: &DatabaseSettings, file: &Path) -> DatabaseSettings {
    DatabaseSettings { url: format!("sqlite:{}", file.display()).into(), ..settings.clone() }
}

/// The known migrations that are not applied yet, after checking those that are.
fn pending<'k>(
    known: &'k [Migration],
    applied: &[(i64, String)],
) -> Result<Vec<&'k Migration>, MigrateError> {
    let newest = known.last().map_or(0, |migration| migration.version);
    if let Some((found, _)) = applied.last()
        && *found > newest
    {
        return Err(MigrateError::Newer { found: *found, known: newest });
    }
    let mut missing = Vec::new();
    for migration in known {
        match applied.iter().find(|(version, _)| *version == migration.version) {
            Some((_, sha256)) if *sha256 == fingerprint(migration.sql) => {}
            Some(_) => return Err(MigrateError::Changed(migration.name)),
            None => missing.push(migration),
        }
    }
    Ok(missing)
}

fn fingerprint(sql: &str) -> String {
    use std::fmt::Write as _;
    sha256(sql.as_bytes()).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // Writing to a string cannot fail.
        text
    })
}

/// Rewrites a migration for SQLite: four type names, and every table is made strict.
pub fn sqlite_text(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len());
    for line in sql.lines() {
        let mut rest = line;
        while let Some(start) = rest.find(|c: char| c.is_ascii_alphanumeric() || c == '_') {
            let (before, word_on) = rest.split_at(start);
            let end =
                word_on.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(word_on.len());
            let (word, after) = word_on.split_at(end);
            out.push_str(before);
            out.push_str(match word {
                "UUID" | "BYTEA" => "BLOB",
                "BIGINT" | "BOOLEAN" => "INTEGER",
                word => word,
            });
            rest = after;
        }
        out.push_str(rest);
        if line == ");" {
            out.truncate(out.len().saturating_sub(1));
            out.push_str(" STRICT;");
        }
        out.push('\n');
    }
    out
}

/// The one connection that migrations run on, outside the rules for closures.
enum Runner {
    Sqlite(rusqlite::Connection, PathBuf),
    Postgres(Box<deadpool_postgres::Object>),
}

impl Runner {
    async fn open(settings: &DatabaseSettings) -> Result<Runner> {
        let mut runner = if let Some(path) = settings.sqlite_path() {
            backup::create_private(&path)?;
            Runner::Sqlite(sqlite::open(&path, false)?, path)
        } else {
            let client = Postgres::open(settings)?.client().await?;
            // A migration may take longer than a request ever should.
            client.batch_execute("SET statement_timeout = 0; SET lock_timeout = 0;").await?;
            Runner::Postgres(Box::new(client))
        };
        runner.create_table().await?;
        Ok(runner)
    }

    async fn create_table(&mut self) -> Result<()> {
        match self {
            Runner::Sqlite(connection, _) => Ok(connection.execute_batch(&sqlite_text(CREATE))?),
            Runner::Postgres(client) => {
                // `IF NOT EXISTS` still collides with a second instance that creates it at this moment.
                if client.batch_execute(CREATE).await.is_err() {
                    client.batch_execute(CREATE).await?;
                }
                Ok(())
            }
        }
    }

    async fn applied(&mut self) -> Result<Vec<(i64, String)>> {
        match self {
            Runner::Sqlite(connection, _) => {
                let mut statement = connection.prepare(APPLIED)?;
                let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
                Ok(rows.collect::<rusqlite::Result<_>>()?)
            }
            Runner::Postgres(client) => {
                let rows = client.query(APPLIED, &[]).await?;
                rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
            }
        }
    }

    /// Applies one step: its row first, then its statements, all or nothing.
    async fn apply(&mut self, migration: &Migration, now: Timestamp) -> Result<()> {
        let (sha256, at) = (fingerprint(migration.sql), now.as_microsecond());
        match self {
            Runner::Sqlite(connection, _) => {
                let transaction =
                    connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
                transaction.execute(INSERT, (migration.version, migration.name, &sha256, at))?;
                transaction.execute_batch(&sqlite_text(migration.sql))?;
                Ok(transaction.commit()?)
            }
            Runner::Postgres(client) => {
                let transaction = client.transaction().await?;
                transaction.execute(INSERT, &[&migration.version, &migration.name, &sha256, &at]).await?;
                transaction.batch_execute(migration.sql).await?;
                Ok(transaction.commit().await?)
            }
        }
    }
}
