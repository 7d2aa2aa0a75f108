//! Files that one process has for itself.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// A lock on a file, as long as the value lives. The operating system lets go of it when the process ends, however that
/// happens, so what is left behind is an empty file and no lock.
#[derive(Debug)]
pub struct FileLock(#[expect(dead_code, reason = "holds the lock")] File);

impl FileLock {
    /// Takes the lock, making the file if it is not there; `None` when another process has it.
    pub fn take(path: &Path) -> io::Result<Option<FileLock>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(FileLock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Takes the lock of another file: `FILE.lock` beside it, by whatever path it is reached. Its directory is made if it
    /// is not there.
    pub fn take_beside(file: &Path) -> io::Result<Option<FileLock>> {
        if let Some(directory) = file.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let mut path = match file.canonicalize() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => file.to_owned(),
            real => real?,
        }
        .into_os_string();
        path.push(".lock");
        Self::take(&PathBuf::from(path))
    }
}
