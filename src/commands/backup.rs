//! `backup` and `restore`: for SQLite. PostgreSQL has its own tools, see docs/operations.md.

use std::path::Path;

use secrecy::ExposeSecret as _;

use super::{Failure, say};
use crate::{
    app::World,
    config::Config,
    platform::{
        db::{Db, MIGRATIONS, Restoring},
        keyring::Keyring,
        lock::FileLock,
        seal::MasterKeys,
    },
};

/// Writes a backup, also beside a running server.
pub async fn back_up(config: &Config, world: &World, to: &Path, keys_to: &Path) -> Result<(), Failure> {
    let made = Db::back_up(&config.database, to, keys_to, world.clock.now()).await?;
    say(&format!("data  {}", made.data.display()))?;
    say(&format!("keys  {}", made.keys.display()))?;
    say("The keys are to be kept elsewhere and for 35 days at most; without them the data cannot be read.")
}

/// Puts a backup in the database's place. No server may use it meanwhile.
pub async fn restore(config: &Config, world: &World, from: &Path, keys_from: &Path) -> Result<(), Failure> {
    let Some(file) = config.database.sqlite_path() else {
        return Err("this is for SQLite; PostgreSQL has its own tools, see docs/operations.md".into());
    };
    let _alone = FileLock::take_beside(&file)?
        .ok_or_else(|| format!("a server is using the database file {}", file.display()))?;
    let restoring = Db::prepare_restore(&config.database, from, keys_from, MIGRATIONS).await?;
    if let Err(error) = open_keys(config, world, &restoring).await {
        restoring.abandon();
        return Err(error);
    }
    let sessions = restoring.sessions;
    if let Some(kept) = restoring.finish(world.clock.now())? {
        say(&format!("what was there is {}", kept.display()))?;
    }
    say(&format!("restored {}; {sessions} sessions have ended", file.display()))?;
    say(
        "Before you start: `migrate`, then `keys rotate signing --now`: signing keys that were revoked since are back.",
    )
}

/// With other master keys than those of the backup nothing of it can be read: better known before than after.
async fn open_keys(config: &Config, world: &World, restoring: &Restoring) -> Result<(), Failure> {
    let keys = config.master_keys.as_ref().ok_or("there is no master key")?;
    let masters = MasterKeys::parse(keys.expose_secret())?;
    let mut settings = config.database.clone();
    settings.url = format!("sqlite:{}", restoring.ready.display()).into();
    let db = Db::open(&settings, world.random.clone())?;
    let opened = Keyring::open(db.clone(), masters, world.random.clone(), world.clock.clone()).await;
    let missing = match &opened {
        Ok(keyring) => keyring.missing_masters().await,
        Err(_) => Ok(Vec::new()),
    };
    db.close().await?;
    opened.map_err(|error| format!("the master keys do not fit the backup: {error}"))?;
    let missing = missing?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!("the master keys do not fit the backup: it needs {}, too", missing.join(", ")).into())
}
