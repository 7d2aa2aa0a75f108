//! `keys …`: the keys of the program, also beside a running server.

use clap::{Subcommand, ValueEnum};

use super::{Failure, say};
use crate::{
    app::{Offices, World},
    auth::{Rotation, SigningKey},
    config::Config,
    platform::{
        keyring::{Keyring, Rewrapped},
        time::rfc3339,
    },
};

/// Managing keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// List the signing keys, newest first; no secret is shown
    List,
    /// Change a key; running servers notice by themselves
    Rotate {
        /// Which key
        #[arg(value_enum)]
        key: KeyName,
        /// In an emergency, for signing keys: revoke every key that there is, and sign with the new one at once
        #[arg(long)]
        now: bool,
    },
}

/// Keys, as they are typed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum KeyName {
    /// The one that signs access tokens.
    Signing,
    /// The one that data keys are wrapped under: the first of `security.master_keys` takes over from the others.
    Master,
}

/// Runs the command.
pub async fn run(command: &KeysCommand, config: &Config, world: &World) -> Result<(), Failure> {
    let offices = Offices::open(config, world).await?;
    let lines = lines(command, &offices).await;
    offices.db.close().await?;
    lines?.iter().try_for_each(|line| say(line))
}

async fn lines(command: &KeysCommand, offices: &Offices) -> Result<Vec<String>, Failure> {
    let auth = &offices.auth;
    let rotation = match command {
        KeysCommand::Rotate { key: KeyName::Master, now: false } => return rewrap(&offices.keyring).await,
        KeysCommand::Rotate { key: KeyName::Master, now: true } => {
            return Err("--now is for signing keys; a master key takes over at once".into());
        }
        KeysCommand::List => {
            let keys = auth.signing_keys().await?;
            return Ok(keys.iter().map(line).collect());
        }
        KeysCommand::Rotate { key: KeyName::Signing, now: false } => auth.rotate_signing_key().await?,
        KeysCommand::Rotate { key: KeyName::Signing, now: true } => auth.replace_signing_keys().await?,
    };
    Ok(match rotation {
        Rotation::Announced(key) => {
            vec![format!("announced {}, which signs from {}", key.kid, rfc3339(key.activates_at))]
        }
        Rotation::Waiting(key) => vec![format!(
            "nothing changed: {} is announced already and signs from {}",
            key.kid,
            rfc3339(key.activates_at)
        )],
        Rotation::Replaced(key) => vec![
            format!("{} signs from now on; every other key is revoked", key.kid),
            "Access tokens that were handed out are refused. Clients get new ones by a refresh.".to_owned(),
        ],
    })
}

async fn rewrap(keyring: &Keyring) -> Result<Vec<String>, Failure> {
    let Rewrapped { changed, kept, lost } = keyring.rewrap().await?;
    if lost > 0 {
        let why = "are wrapped under a master key that the settings do not have";
        return Err(format!("{changed} data keys were wrapped anew; {lost} {why}").into());
    }
    Ok(vec![
        format!(
            "{changed} data keys were wrapped anew, {kept} had been before; none is left under another master key"
        ),
        "Keep the old one for as long as there are backups of keys from before.".to_owned(),
    ])
}

fn line(key: &SigningKey) -> String {
    let more = [("revoked", key.revoked_at), ("removed after", key.retires_at)];
    let more = more.into_iter().filter_map(|(what, at)| Some(format!(" {what} {}", rfc3339(at?))));
    format!(
        "{} {} published {} signs from {}{}",
        key.kid,
        key.state.as_str(),
        rfc3339(key.published_at),
        rfc3339(key.activates_at),
        more.collect::<String>()
    )
}
