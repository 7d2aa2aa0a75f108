//! `keys …`: the keys of the program, also beside a running server.

use clap::{Subcommand, ValueEnum};

use super::{Failure, say};
use crate::{
    app::{Offices, World},
    auth::{Auth, AuthError, Rotation, SigningKey},
    config::Config,
    platform::time::rfc3339,
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
        /// In an emergency: revoke every key that there is, and sign with the new one at once
        #[arg(long)]
        now: bool,
    },
}

/// Keys, as they are typed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum KeyName {
    /// The one that signs access tokens.
    Signing,
}

/// Runs the command.
pub async fn run(command: &KeysCommand, config: &Config, world: &World) -> Result<(), Failure> {
    let offices = Offices::open(config, world).await?;
    let lines = lines(command, &offices.auth).await;
    offices.db.close().await?;
    lines?.iter().try_for_each(|line| say(line))
}

async fn lines(command: &KeysCommand, auth: &Auth) -> Result<Vec<String>, AuthError> {
    let rotation = match command {
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
