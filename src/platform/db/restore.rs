//! Puts a backup of SQLite in the place of the database: made ready beside it, judged, and only then renamed.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use jiff::{Timestamp, tz::TimeZone};
use rusqlite::Connection;

use super::{
    Error, Result,
    backup::{Backup, check_intact, create_private, path_text, sync_directory, unavailable, with_suffix},
};

/// What SQLite keeps beside a database.
const LOGS: [&str; 2] = ["-wal", "-shm"];

/// A backup that is put together and not in its place yet.
#[derive(Debug)]
pub struct Restoring {
    /// The database that will be replaced, or made.
    target: PathBuf,
    /// What will take its place.
    pub ready: PathBuf,
    /// Sessions that the backup had, all of which have ended.
    pub sessions: usize,
}

/// Puts data and keys together beside `target`. Nothing there is touched.
///
/// Nobody is signed in after a restore: what has happened since the backup, a suspension or a new password, is forgotten, so
/// everybody shows again who they are. Payment providers are asked anew about every subscription.
pub(super) fn prepare(backup: &Backup, target: &Path) -> Result<Restoring> {
    let ready = with_suffix(target, ".restoring");
    // Left over from a run that was killed.
    remove(&ready)?;
    for suffix in LOGS {
        remove(&with_suffix(&ready, suffix))?;
    }
    create_private(&ready)?;
    // Not `fs::copy`, which would give the copy the rights of the backup.
    let read = fs::File::open(&backup.data);
    let written = fs::OpenOptions::new().write(true).open(&ready);
    let copied = read.and_then(|mut from| io::copy(&mut from, &mut written?));
    copied.map_err(|error| unavailable(&error))?;
    let database = Connection::open(&ready)?;
    database.execute("ATTACH DATABASE ?1 AS keys", [path_text(&backup.keys)?])?;
    check_intact(&database, &["main", "keys"])?;
    database.execute_batch(
        "BEGIN; DELETE FROM main.data_key; INSERT INTO main.data_key SELECT * FROM keys.data_key; COMMIT;
         DETACH DATABASE keys;",
    )?;
    let sessions = database.execute("DELETE FROM session", [])?;
    if database.table_exists(Some("main"), "subscription")? {
        database.execute("UPDATE subscription SET observed_at = 0", [])?;
    }
    database.close().map_err(|(_, error)| error)?;
    Ok(Restoring { target: target.to_owned(), ready, sessions })
}

impl Restoring {
    /// Puts it in its place. What was there is kept beside it, under the name that is returned.
    pub fn finish(self, now: Timestamp) -> Result<Option<PathBuf>> {
        let stamp = now.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ");
        let kept = with_suffix(&self.target, &format!(".before-restore-{stamp}"));
        let had_one = self.target.exists();
        if had_one && kept.exists() {
            return Err(Error::Unavailable("another restore was made in this second".into()));
        }
        settle(&self.ready)?;
        fs::File::open(&self.ready).and_then(|file| file.sync_all()).map_err(|error| unavailable(&error))?;
        if had_one {
            // One that is damaged is kept as it is, with its log.
            let _ = settle(&self.target);
            fs::hard_link(&self.target, &kept).map_err(|error| unavailable(&error))?;
            for suffix in LOGS {
                move_if_there(&with_suffix(&self.target, suffix), &with_suffix(&kept, suffix))?;
            }
        }
        // One step: at no moment is there no database, or another one's log beside it.
        fs::rename(&self.ready, &self.target).map_err(|error| unavailable(&error))?;
        sync_directory(
            self.target.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new(".")),
        )?;
        Ok(had_one.then_some(kept))
    }

    /// Leaves everything as it was.
    pub fn abandon(self) {
        // What cannot be removed now is removed by the next restore.
        let _ = remove(&self.ready);
        for suffix in LOGS {
            let _ = remove(&with_suffix(&self.ready, suffix));
        }
    }
}

/// Takes what waits in the log of a database into its file. Nobody uses it any more, so the log can go.
fn settle(database: &Path) -> Result<()> {
    let connection = Connection::open(database)?;
    let is_busy: bool = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    connection.close().map_err(|(_, error)| error)?;
    if is_busy {
        return Err(Error::Unavailable("the database is still in use".into()));
    }
    LOGS.iter().try_for_each(|suffix| remove(&with_suffix(database, suffix)))
}

fn move_if_there(from: &Path, to: &Path) -> Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(unavailable(&error)),
        _ => Ok(()),
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(unavailable(&error)),
        _ => Ok(()),
    }
}
