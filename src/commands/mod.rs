//! The commands of the program.

mod backup;
mod banner;
mod billing;
mod doctor;
mod keys;
mod serve;
mod user;

use std::{ffi::OsString, io::Write as _, path::PathBuf, process::ExitCode, sync::Arc};

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::{
    app::{self, World},
    chat::AllowAll,
    config::{Config, Fault, Profile, Sources},
    platform::{
        clock::SystemClock,
        data_dir,
        db::{Db, MIGRATIONS},
        random::SystemRandom,
        service_manager::ServiceManager,
        tasks::Tasks,
    },
};

/// The backend of a companion-chat service for adults.
#[derive(Debug, Parser)]
#[command(name = "digitalmistress", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Options {
    /// A settings file that is laid over the defaults
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Which defaults to use; also DM_PROFILE [default: production, development for `dev`]
    #[arg(long, global = true, value_name = "PROFILE")]
    profile: Option<ProfileName>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProfileName {
    Development,
    Production,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start everything on this machine, with a demo companion and a mailbox page
    Dev,
    /// Start the server
    Serve,
    /// Bring the database's schema up to date
    Migrate,
    /// Read the settings and list everything that is wrong with them
    CheckConfig,
    /// Print the API document
    Openapi,
    /// Look at database, keys, mail, providers, clock and disk, and say what is wrong
    Doctor {
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Write a backup of a SQLite database, also beside a running server
    Backup {
        /// The directory for the data
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        /// The directory for the wrapped data keys, better on another disk [default: that of the data]
        #[arg(long, value_name = "DIR")]
        keys_to: Option<PathBuf>,
    },
    /// Put the newest backup of a directory in the place of a SQLite database that no server uses; ends every session
    Restore {
        /// The directory with the data
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        /// The directory with the wrapped data keys [default: that of the data]
        #[arg(long, value_name = "DIR")]
        keys_from: Option<PathBuf>,
    },
    /// Print completions for a shell
    Completions {
        /// Which shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Manage users
    #[command(subcommand)]
    User(user::UserCommand),
    /// Manage keys
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Manage subscriptions, also beside a running server
    #[command(subcommand)]
    Billing(billing::BillingCommand),
}

/// Why a command failed; printed to standard error.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs a command.
pub fn run(cli: &Cli, env: Vec<(OsString, OsString)>) -> ExitCode {
    match try_run(cli, env) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("digitalmistress: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn try_run(cli: &Cli, env: Vec<(OsString, OsString)>) -> Result<(), Failure> {
    if matches!(cli.command, Command::Openapi) {
        // Needs no settings: the document is the same everywhere.
        return say(&format!("{:#}", app::document()));
    }
    if let Command::Completions { shell } = cli.command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), env!("CARGO_PKG_NAME"), &mut script);
        return say(String::from_utf8_lossy(&script).trim_end());
    }
    let sources = sources(cli, env)?;
    let mut config = Config::load(&sources).map_err(|faults| list(&faults))?;
    if matches!(cli.command, Command::CheckConfig) {
        return say("The settings are sound.");
    }
    let world = real_world();
    add_development_key(&mut config, &world)?;
    crate::platform::telemetry::start_logging(config.log_format, config.log_level);
    let manager = ServiceManager::find(&sources.env);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match &cli.command {
            Command::Dev | Command::Serve => serve::serve(config, world, manager).await,
            Command::Migrate => migrate(&config, &world).await,
            Command::Doctor { json } => Box::pin(doctor::run(&config, &world, *json)).await,
            Command::Backup { to, keys_to } => {
                backup::back_up(&config, &world, to, keys_to.as_ref().unwrap_or(to)).await
            }
            Command::Restore { from, keys_from } => {
                backup::restore(&config, &world, from, keys_from.as_ref().unwrap_or(from)).await
            }
            Command::User(command) => user::run(command, &config, &world).await,
            Command::Keys(command) => keys::run(command, &config, &world).await,
            Command::Billing(command) => Box::pin(billing::run(command, &config, &world)).await,
            Command::CheckConfig | Command::Completions { .. } | Command::Openapi => Ok(()),
        }
    })
}

/// The machine's clock and randomness.
fn real_world() -> World {
    World {
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
        tasks: Tasks::default(),
        reply_filter: Arc::new(AllowAll),
    }
}

fn sources(cli: &Cli, env: Vec<(OsString, OsString)>) -> Result<Sources, Failure> {
    let from_env =
        env.iter().find(|(name, _)| name == "DM_PROFILE").map(|(_, value)| value.to_string_lossy());
    let given = match (cli.options.profile, from_env.as_deref()) {
        (Some(ProfileName::Development), _) | (None, Some("development")) => Some(Profile::Development),
        (Some(ProfileName::Production), _) | (None, Some("production")) => Some(Profile::Production),
        (None, None) => None,
        (None, Some(_)) => return Err("DM_PROFILE must be development or production".into()),
    };
    let profile = match (&cli.command, given) {
        (Command::Dev, Some(Profile::Production)) if cli.options.profile.is_some() => {
            return Err("`dev` is for development; `serve` is for production".into());
        }
        (Command::Dev, _) => Profile::Development,
        (_, given) => given.unwrap_or(Profile::Production),
    };
    if matches!(cli.command, Command::Serve) && profile == Profile::Development {
        return Err("`serve` is for production; `dev` starts with the development profile".into());
    }
    Ok(Sources { profile, file: cli.options.config.clone(), env })
}

fn list(faults: &[Fault]) -> Failure {
    let lines: Vec<String> = faults.iter().map(|fault| format!("  {fault}")).collect();
    format!("the settings cannot be used:\n{}", lines.join("\n")).into()
}

/// Development makes its own master key.
fn add_development_key(config: &mut Config, world: &World) -> Result<(), Failure> {
    if config.master_keys.is_none() && config.profile == Profile::Development {
        let file = config.development_key_file();
        config.master_keys = Some(data_dir::development_master_key(&file, &*world.random)?);
    }
    Ok(())
}

async fn migrate(config: &Config, world: &World) -> Result<(), Failure> {
    let done = Db::migrate(&config.database, MIGRATIONS, world.clock.now()).await?;
    if let Some(backup) = done.backup {
        say(&format!("backed up to {}", backup.display()))?;
    }
    for name in &done.applied {
        say(&format!("applied {name}"))?;
    }
    if done.applied.is_empty() { say("The schema is up to date.") } else { Ok(()) }
}

/// Prints a line for whoever gave the command. A closed pipe ends the command.
fn say(line: &str) -> Result<(), Failure> {
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

fn complain(line: &str) {
    // If even that fails there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{line}");
}
