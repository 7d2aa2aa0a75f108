//! `billing …`: what an operator does with subscriptions from the command line, also beside a running server.

use std::time::Duration;

use clap::Subcommand;
use tokio::time::sleep;
use uuid::Uuid;

use super::{Failure, say};
use crate::{
    app::{Offices, World},
    auth::{Administrator, AuthError},
    billing::{Billing, BillingError, GrantForm, Subscription},
    config::Config,
    platform::tasks::Tasks,
};

/// Managing subscriptions.
#[derive(Debug, Subcommand)]
pub enum BillingCommand {
    /// Show a user's subscriptions, grants and holds as JSON, and why access is as it is
    Show {
        /// The id or e-mail address
        user: String,
    },
    /// Ask the payment providers about a user now
    Sync {
        /// The id or e-mail address
        user: String,
    },
    /// Ask the payment providers about every notice whose effect is not stored yet
    Replay,
    /// Show the notices that were given up, as JSON
    Dead,
    /// Give a user a plan
    Grant {
        /// The id or e-mail address
        user: String,
        /// The plan's id
        #[arg(long)]
        plan: String,
        /// When it ends, such as 2026-12-31T00:00:00Z
        #[arg(long, value_name = "TIME")]
        until: String,
        /// Why, for operators
        #[arg(long)]
        reason: String,
    },
    /// Take a grant back that `show` lists
    Revoke {
        /// The id or e-mail address
        user: String,
        /// The grant's id
        grant: Uuid,
    },
    /// Hold up everything that a user may use
    Hold {
        /// The id or e-mail address
        user: String,
        /// Why, for the audit
        #[arg(long)]
        reason: String,
    },
    /// Let go of a hold that `show` lists, a provider's too
    Release {
        /// The id or e-mail address
        user: String,
        /// The hold's reference
        reference: String,
    },
}

/// How often a command that waits for an answer looks whether there is something to ask.
const LOOK: Duration = Duration::from_millis(50);

/// Runs the command.
pub async fn run(command: &BillingCommand, config: &Config, world: &World) -> Result<(), Failure> {
    let offices = Offices::open(config, world).await?;
    let line = Box::pin(act(command, &offices, &world.tasks)).await;
    offices.db.close().await?;
    say(&line?)
}

/// Does it, and says what was done.
async fn act(command: &BillingCommand, offices: &Offices, tasks: &Tasks) -> Result<String, Failure> {
    let billing = &offices.billing;
    Ok(match command {
        BillingCommand::Show { user } => {
            let insight = billing.insight(found(offices, user).await?).await?;
            serde_json::to_string_pretty(&insight)?
        }
        BillingCommand::Sync { user } => {
            let subscription = Box::pin(sync(billing, found(offices, user).await?, tasks)).await?;
            serde_json::to_string_pretty(&subscription)?
        }
        BillingCommand::Replay => {
            let subjects = billing.replay().await?;
            billing.sync_due(tasks).await?;
            let left = billing.dead().await?.len();
            format!("asked about {subjects}; {left} notices are still given up")
        }
        BillingCommand::Dead => serde_json::to_string_pretty(&billing.dead().await?)?,
        BillingCommand::Grant { user, plan, until, reason } => {
            let form = GrantForm { plan: plan.clone(), ends_at: until.clone(), reason: reason.clone() };
            let given = billing.grant(Administrator::Command, found(offices, user).await?, &form).await;
            serde_json::to_string_pretty(&given.map_err(failure)?)?
        }
        BillingCommand::Revoke { user, grant } => {
            billing.revoke_grant(Administrator::Command, found(offices, user).await?, *grant).await?;
            format!("revoked {grant}")
        }
        BillingCommand::Hold { user, reason } => {
            let held = billing.hold(found(offices, user).await?, reason).await;
            let reference = held.map_err(failure)?;
            format!("holds up everything until `billing release` with {reference}")
        }
        BillingCommand::Release { user, reference } => {
            billing.release(found(offices, user).await?, reference).await?;
            format!("released {reference}")
        }
    })
}

/// Asks, also where no server runs that would.
async fn sync(billing: &Billing, user: Uuid, tasks: &Tasks) -> Result<Subscription, BillingError> {
    let asking = async {
        loop {
            billing.sync_due(tasks).await?;
            sleep(LOOK).await;
        }
    };
    tokio::select! {
        subscription = billing.sync_user(user) => subscription,
        failed = asking => failed,
    }
}

/// An error in the words of a command line.
fn failure(error: BillingError) -> Failure {
    match error {
        BillingError::Invalid(errors) => {
            let details: Vec<String> = errors.into_iter().map(|error| error.detail.into_owned()).collect();
            details.join(" ").into()
        }
        error => error.into(),
    }
}

async fn found(offices: &Offices, user: &str) -> Result<Uuid, Failure> {
    let found = offices.auth.find_managed_user(user).await?;
    Ok(found.ok_or(AuthError::NoSuchUser)?.user.id)
}
