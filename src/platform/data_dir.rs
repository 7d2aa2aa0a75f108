//! The directory that one instance keeps its files in: its identity, its lock, and in development its master key.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use jiff::Timestamp;
use secrecy::SecretString;
use uuid::Uuid;

use super::{lock::FileLock, random::Random, seal::MasterKeys};

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another server uses it, and two would work in one name.
    #[error("another server is using the data directory {0}")]
    InUse(String),
    /// A file could not be read or written.
    #[error("the data directory cannot be used: {0}")]
    Io(#[from] io::Error),
}

/// Who a server is among those on one database: the same after a restart. Whoever has none, such as a command beside a
/// running server, makes no replies and settles none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instance(Uuid);

impl Instance {
    /// The id, as it is stored.
    pub fn id(self) -> Uuid {
        self.0
    }
}

/// A directory that this process has for itself, as long as the value lives.
#[derive(Debug)]
pub struct DataDir {
    /// Who the server is that has it.
    pub instance: Instance,
    _lock: FileLock,
}

impl DataDir {
    /// Takes the directory, making it if it is not there.
    pub fn take(path: &Path, random: &dyn Random, now: Timestamp) -> Result<DataDir, DataDirError> {
        create(path)?;
        let in_use = || DataDirError::InUse(path.display().to_string());
        let lock = FileLock::take(&path.join("lock"))?.ok_or_else(in_use)?;
        let text = read_or_write(&path.join("instance"), || random.uuid(now).to_string())?;
        let id = text.trim().parse().ok().filter(|id: &Uuid| !id.is_nil());
        let id = id.ok_or_else(|| io::Error::other("the file `instance` names nobody"))?;
        Ok(DataDir { instance: Instance(id), _lock: lock })
    }
}

/// The master key of a development directory, made at the first start.
pub fn development_master_key(file: &Path, random: &dyn Random) -> io::Result<SecretString> {
    if let Some(directory) = file.parent() {
        create(directory)?;
    }
    read_or_write(file, || MasterKeys::generate("dev", random).to_string())
        .map(|text| SecretString::from(text.trim()))
}

fn create(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// Reads a file; makes it for its owner's eyes only if it is not there.
fn read_or_write(path: &Path, content: impl FnOnce() -> String) -> io::Result<String> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            let content = content();
            file.write_all(content.as_bytes())?;
            file.sync_all()?;
            Ok(content)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::read_to_string(path),
        Err(error) => Err(error),
    }
}
