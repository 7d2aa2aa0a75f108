//! `user …`: what an operator does with users from the command line, also beside a running server.

use std::io::Read as _;

use clap::{Subcommand, ValueEnum};
use secrecy::SecretString;

use super::{Failure, say};
use crate::{
    app::{Offices, World},
    auth::{Administrator, Auth, AuthError, Email, ManagedUser, Password, Role, SuspensionForm},
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
    /// Show a user as JSON: no messages, no birth date
    Show {
        /// The id or e-mail address
        user: String,
    },
    /// Suspend a user and end all their sessions
    Suspend {
        /// The id or e-mail address
        user: String,
        /// Why, for operators
        #[arg(long)]
        reason: String,
        /// When it ends by itself, such as 2026-12-31T00:00:00Z [default: never]
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
    },
    /// End a suspension
    Unsuspend {
        /// The id or e-mail address
        user: String,
    },
    /// Change what a user may do
    SetRole {
        /// The id or e-mail address
        user: String,
        /// What the user may do
        #[arg(long, value_enum)]
        role: RoleName,
    },
    /// End all sessions of a user
    RevokeSessions {
        /// The id or e-mail address
        user: String,
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
    let offices = Offices::open(config, world).await?;
    let line = act(command, &offices.auth).await;
    offices.db.close().await?;
    say(&line?)
}

/// Does it, and says what was done.
async fn act(command: &UserCommand, auth: &Auth) -> Result<String, Failure> {
    let by = Administrator::Command;
    let done = match command {
        UserCommand::Create { email, role, password_stdin: _ } => {
            let email = Email::parse(email).map_err(|invalid| format!("--email: {}", invalid.detail))?;
            let created = auth.create_user(email, typed_password()?, (*role).into()).await;
            return Ok(format!("created {}", created.map_err(failure)?));
        }
        UserCommand::RevokeSessions { user } => {
            let id = found(auth, user).await?.user.id;
            auth.revoke_sessions(by, id).await?;
            return Ok(format!("ended all sessions of {id}"));
        }
        UserCommand::Show { user } => Ok(found(auth, user).await?),
        UserCommand::Suspend { user, reason, until } => {
            let form = SuspensionForm { reason: reason.clone(), until: until.clone() };
            auth.suspend(by, found(auth, user).await?.user.id, form).await
        }
        UserCommand::Unsuspend { user } => auth.unsuspend(by, found(auth, user).await?.user.id).await,
        UserCommand::SetRole { user, role } => {
            auth.set_role(by, found(auth, user).await?.user.id, (*role).into()).await
        }
    };
    Ok(serde_json::to_string_pretty(&done.map_err(failure)?)?)
}

fn typed_password() -> Result<Password, Failure> {
    let mut typed = String::new();
    std::io::stdin().lock().take(MAX_INPUT).read_to_string(&mut typed)?;
    let typed = SecretString::from(typed.trim_end_matches(['\r', '\n']));
    Ok(Password::parse(&typed).map_err(|invalid| format!("the password: {}", invalid.detail))?)
}

async fn found(auth: &Auth, user: &str) -> Result<ManagedUser, AuthError> {
    auth.find_managed_user(user).await?.ok_or(AuthError::NoSuchUser)
}

/// An error in the words of a command line.
fn failure(error: AuthError) -> Failure {
    match error {
        AuthError::Invalid(errors) => {
            let details: Vec<String> = errors.into_iter().map(|error| error.detail.into_owned()).collect();
            details.join(" ").into()
        }
        error => error.into(),
    }
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Role {
        match name {
            RoleName::User => Role::User,
            RoleName::Admin => Role::Admin,
        }
    }
}
