//! `user …`: what an operator does with users from the command line, also beside a running server.

use std::io::Read as _;

use clap::{Subcommand, ValueEnum};
use secrecy::SecretString;

use super::{Failure, say};
use crate::{
    app::{Identity, World},
    auth::{AuthError, Email, Password, Role},
    config::Config,
};

/// Managing users.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Create a user for whose age and consents you vouch
    Create {
        /// The e-mail address
        #[arg(long)]
        email: String,
        /// What the user may do
        #[arg(long, value_enum)]
        role: RoleName,
        /// Read the password from standard input (the only way: arguments show in process lists)
        #[arg(long, required = true)]
        password_stdin: bool,
    },
}

/// Roles, as they are typed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum RoleName {
    /// A customer.
    User,
    /// An operator.
    Admin,
}

/// The longest password that is read.
const MAX_INPUT: u64 = 4096;

/// Runs the command.
pub async fn run(command: &UserCommand, config: &Config, world: &World) -> Result<(), Failure> {
    let UserCommand::Create { email, role, password_stdin: _ } = command;
    let mut typed = String::new();
    std::io::stdin().lock().take(MAX_INPUT).read_to_string(&mut typed)?;
    let typed = SecretString::from(typed.trim_end_matches(['\r', '\n']));
    let email = Email::parse(email).map_err(|invalid| format!("--email: {}", invalid.detail))?;
    let password = Password::parse(&typed).map_err(|invalid| format!("the password: {}", invalid.detail))?;
    let role = match role {
        RoleName::User => Role::User,
        RoleName::Admin => Role::Admin,
    };

    let identity = Identity::open(config, world).await?;
    let created = identity.auth.create_user(email, password, role).await;
    identity.db.close().await?;
    match created {
        Ok(id) => say(&format!("created {id}")),
        Err(AuthError::Invalid(errors)) => {
            let details: Vec<String> = errors.into_iter().map(|error| error.detail.into_owned()).collect();
            Err(details.join(" ").into())
        }
        Err(error) => Err(error.into()),
    }
}
