//! SQLite files on disk: private ones, and backups: those that are asked for, and the one that is made before a migration
//! changes anything.
//!
//! Wrapped data keys never stay in the same file as what they open. A backup is two files, and the one with the keys
//! is removed after [`KEY_BACKUP_LIFE`]: from then on an erased user's words are gone from every backup.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use rusqlite::Connection;

use super::{Error, Result};

/// How long a file with wrapped data keys may outlive the moment it was written.
pub const KEY_BACKUP_LIFE: SignedDuration = SignedDuration::from_hours(35 * 24);

const KEYS_SUFFIX: &str = ".keys.sqlite";
const STAMP: &str = "%Y%m%dT%H%M%SZ";

/// Creates the directory and an empty file that only their owner can read. An existing file is left as it is.
pub(super) fn create_private(path: &Path) -> Result<()> {
    if let Some(directory) = path.parent() {
        create_directory(directory)?;
    }
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(unavailable(&error)),
        _ => Ok(()),
    }
}

fn create_directory(path: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| unavailable(&error))
}

/// A backup: two files, of which the one with the keys is to be removed first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Everything but the keys.
    pub data: PathBuf,
    /// The wrapped data keys, without which the rest is noise.
    pub keys: PathBuf,
}

/// Writes a consistent copy of the database into `backups/` beside it and returns its path.
pub(super) fn before_migration(database: &Path, version: i64, now: Timestamp) -> Result<PathBuf> {
    let directory = directory_of(database);
    Ok(write(database, &directory, &directory, version, now)?.data)
}

/// Writes a consistent copy of the database, also while it is written to: data and keys come from one moment.
///
/// The copy is whole, checked and flushed before it gets its final name.
pub(super) fn write(
    database: &Path,
    directory: &Path,
    keys_directory: &Path,
    version: i64,
    now: Timestamp,
) -> Result<Backup> {
    create_directory(directory)?;
    create_directory(keys_directory)?;
    let stem = database.file_stem().and_then(|stem| stem.to_str()).unwrap_or("database");
    let stamp = now.to_zoned(TimeZone::UTC).strftime(STAMP).to_string();
    let data = directory.join(format!("{stem}.{stamp}.v{version}.sqlite"));
    let keys = keys_directory.join(format!("{stem}.{stamp}.v{version}{KEYS_SUFFIX}"));
    let unfinished = [with_suffix(&data, ".unfinished"), with_suffix(&keys, ".unfinished")];
    let [data_unfinished, keys_unfinished] = &unfinished;
    for path in &unfinished {
        let _ = fs::remove_file(path); // Left over from a run that was killed.
        create_private(path)?;
    }

    let source = Connection::open(database)?;
    source.execute("VACUUM INTO ?1", [path_text(data_unfinished)?])?;
    drop(source);
    separate_keys(data_unfinished, keys_unfinished)?;

    // Keys first: data without keys is useless to keep, keys without data are removed by age.
    for (from, to) in [(keys_unfinished, &keys), (data_unfinished, &data)] {
        fs::File::open(from).and_then(|file| file.sync_all()).map_err(|error| unavailable(&error))?;
        fs::rename(from, to).map_err(|error| unavailable(&error))?;
    }
    sync_directory(directory)?;
    sync_directory(keys_directory)?;
    Ok(Backup { data, keys })
}

/// Names survive a loss of power only when their directory was flushed.
pub(super) fn sync_directory(directory: &Path) -> Result<()> {
    fs::File::open(directory).and_then(|file| file.sync_all()).map_err(|error| unavailable(&error))
}

/// The newest backup in a directory whose keys are there, or in another directory.
pub(super) fn newest(directory: &Path, keys_directory: &Path) -> Result<Option<Backup>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(|error| unavailable(&error))? {
        let data = entry.map_err(|error| unavailable(&error))?.path();
        let name = data.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(stem) = name.strip_suffix(".sqlite").filter(|_| !name.ends_with(KEYS_SUFFIX)) else {
            continue;
        };
        let keys = keys_directory.join(format!("{stem}{KEYS_SUFFIX}"));
        if let (Some(made), true) = (key_backup_time(&keys), keys.exists()) {
            found.push((made, Backup { data, keys }));
        }
    }
    Ok(found.into_iter().max_by_key(|(made, _)| *made).map(|(_, backup)| backup))
}

/// Moves the wrapped keys out of the copy and leaves no trace of them in its pages.
fn separate_keys(data: &Path, keys: &Path) -> Result<()> {
    let copy = Connection::open(data)?;
    copy.execute_batch("PRAGMA secure_delete = ON;")?;
    copy.execute("ATTACH DATABASE ?1 AS keys", [path_text(keys)?])?;
    if copy.table_exists(Some("main"), "data_key")? {
        copy.execute_batch(
            "CREATE TABLE keys.data_key AS SELECT * FROM main.data_key; DELETE FROM main.data_key; VACUUM main;",
        )?;
    }
    check_intact(&copy, &["main", "keys"])
}

/// Refuses files that SQLite finds fault with.
pub(super) fn check_intact(connection: &Connection, schemas: &[&str]) -> Result<()> {
    for schema in schemas {
        let verdict: String =
            connection.query_row(&format!("PRAGMA {schema}.integrity_check"), [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(Error::Unavailable("the backup is not intact".into()));
        }
    }
    Ok(())
}

/// Removes key backups beside `database` that are older than [`KEY_BACKUP_LIFE`]; returns how many.
///
/// The age is read from the name, so that copying a file does not make it young again.
pub fn remove_old_key_backups(database: &Path, now: Timestamp) -> Result<usize> {
    let entries = match fs::read_dir(directory_of(database)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        entries => entries.map_err(|error| unavailable(&error))?,
    };
    let mut removed: usize = 0;
    for entry in entries {
        let path = entry.map_err(|error| unavailable(&error))?.path();
        if key_backup_time(&path).is_some_and(|made| now.duration_since(made) > KEY_BACKUP_LIFE) {
            fs::remove_file(&path).map_err(|error| unavailable(&error))?;
            removed = removed.saturating_add(1);
        }
    }
    Ok(removed)
}

fn key_backup_time(path: &Path) -> Option<Timestamp> {
    let name = path.file_name()?.to_str()?.strip_suffix(KEYS_SUFFIX)?;
    let stamp = name.rsplit('.').nth(1)?;
    let civil = jiff::civil::DateTime::strptime(STAMP, stamp).ok()?;
    civil.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

fn directory_of(database: &Path) -> PathBuf {
    database.parent().unwrap_or(Path::new(".")).join("backups")
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

pub(super) fn path_text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Error::Unavailable("the database's path is not UTF-8".into()))
}

pub(super) fn unavailable(error: &std::io::Error) -> Error {
    Error::Unavailable(format!("files: {error}").into())
}
