//! Puts a backup of SQLite in the place of the database: made ready beside it, judged, and only then renamed.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use jiff::{Timestamp, tz::TimeZone};
use rusqlite::Connection;

use super::{
    Error, Result,
    backup::{Backup, check_intact, create_private, path_text, sync_directory, unavailable, with_suffix},
};

/// What SQLite keeps beside a database.
const COMPANIONS: [&str; 3] = ["", "-wal", "-shm"];

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
    for suffix in COMPANIONS {
        remove(&with_suffix(&ready, suffix))?; // Left over from a run that was killed.
    }
    create_private(&ready)?;
    fs::copy(&backup.data, &ready).map_err(|error| unavailable(&error))?;
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
        fs::File::open(&self.ready).and_then(|file| file.sync_all()).map_err(|error| unavailable(&error))?;
        for suffix in COMPANIONS {
            let (from, to) = (with_suffix(&self.target, suffix), with_suffix(&kept, suffix));
            match fs::rename(from, to) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(unavailable(&error)),
                _ => {}
            }
        }
        for suffix in COMPANIONS {
            let (from, to) = (with_suffix(&self.ready, suffix), with_suffix(&self.target, suffix));
            match fs::rename(from, to) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(unavailable(&error)),
                _ => {}
            }
        }
        sync_directory(
            self.target.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new(".")),
        )?;
        Ok(had_one.then_some(kept))
    }

    /// Leaves everything as it was.
    pub fn abandon(self) {
        for suffix in COMPANIONS {
            let _ = remove(&with_suffix(&self.ready, suffix)); // The next restore removes it, too.
        }
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(unavailable(&error)),
        _ => Ok(()),
    }
}
