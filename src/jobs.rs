//! What runs in the background: due jobs, and housekeeping now and then.

use std::{sync::Arc, time::Duration};

use jiff::SignedDuration;
use tokio::time::sleep;

use crate::{
    auth::Auth,
    billing::Billing,
    chat::{Chat, PURGE_JOB},
    platform::{
        clock::SharedClock,
        db::{self, DatabaseSettings},
        job::{ClaimError, Job, JobError, Jobs},
        mail::{MAIL_JOB, Mail, MailError, Mailer},
        tasks::Tasks,
    },
};

/// How often due jobs are looked for when nobody calls.
const LOOK: Duration = Duration::from_secs(1);
/// How long to wait after the database failed.
const PAUSE: Duration = Duration::from_secs(5);
/// How often rows that have had their time are removed.
const HOUSEKEEPING: Duration = Duration::from_mins(10);
/// How often the signing keys are read, so that what was done to them elsewhere is known here.
const SIGNING_KEYS: Duration = Duration::from_secs(5);
/// How long a job that was put aside is kept.
const DEAD_JOB_LIFE: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Everything that the background works on.
#[derive(Clone)]
pub struct Background {
    /// The queue.
    pub jobs: Jobs,
    /// Carries mail.
    pub mailer: Arc<dyn Mailer>,
    /// Identity.
    pub auth: Auth,
    /// Access.
    pub billing: Billing,
    /// The chat.
    pub chat: Chat,
    /// Time.
    pub clock: SharedClock,
    /// Where the data is, for the housekeeping of its backups.
    pub database: DatabaseSettings,
    /// How often replies of dead instances are looked for.
    pub lease: Duration,
}

impl Background {
    /// Starts the background work.
    pub fn start(self, tasks: &Tasks) {
        tasks.spawn(self.clone().run_jobs(tasks.clone()));
        tasks.spawn(self.clone().settle_abandoned_replies(tasks.clone()));
        tasks.spawn(self.clone().follow_signing_keys(tasks.clone()));
        tasks.spawn(self.keep_house(tasks.clone()));
    }

    async fn run_jobs(self, tasks: Tasks) {
        while !tasks.is_stopping() {
            let pause = match self.run_due().await {
                Ok(()) => LOOK,
                Err(error) => {
                    tracing::error!(%error, "jobs cannot be run");
                    PAUSE
                }
            };
            tokio::select! {
                () = self.jobs.woken() => {}
                () = sleep(pause) => {}
                () = tasks.stopping() => {}
            }
        }
    }

    /// Runs every job that is due, one after the other.
    pub async fn run_due(&self) -> Result<(), ClaimError> {
        while let Some(job) = self.jobs.claim().await? {
            let result = self.run(&job).await;
            if let Err(error) = &result {
                tracing::warn!(job = %job.id, kind = job.kind, attempt = job.attempts, %error, "a job failed");
            }
            self.jobs.settle(&job, result).await?;
        }
        Ok(())
    }

    async fn run(&self, job: &Job) -> Result<(), JobError> {
        match job.kind.as_str() {
            MAIL_JOB => {
                let mail: Mail = job.payload()?;
                self.mailer.send(job.id, &mail).await.map_err(|error| match error {
                    MailError::Later(_) => JobError::Later(error.to_string()),
                    MailError::Refused(_) => JobError::Hopeless(error.to_string()),
                })
            }
            PURGE_JOB => self.chat.purge(job).await,
            _ => Err(JobError::Hopeless("nobody knows this kind of job".into())),
        }
    }

    async fn settle_abandoned_replies(self, tasks: Tasks) {
        loop {
            tokio::select! {
                () = sleep(self.lease) => {}
                () = tasks.stopping() => return,
            }
            if let Err(error) = self.chat.sweep().await {
                tracing::error!(%error, "abandoned replies cannot be settled");
            }
        }
    }

    async fn follow_signing_keys(self, tasks: Tasks) {
        loop {
            tokio::select! {
                () = sleep(SIGNING_KEYS) => {}
                () = tasks.stopping() => return,
            }
            if let Err(error) = self.auth.reload_signing_keys().await {
                tracing::error!(%error, "the signing keys cannot be read");
            }
        }
    }

    async fn keep_house(self, tasks: Tasks) {
        loop {
            if let Err(error) = self.sweep().await {
                tracing::error!(%error, "housekeeping failed");
            }
            tokio::select! {
                () = sleep(HOUSEKEEPING) => {}
                () = tasks.stopping() => return,
            }
        }
    }

    /// One round of housekeeping.
    pub async fn sweep(&self) -> Result<(), db::Error> {
        let now = self.clock.now();
        if let Err(error) = self.auth.rotate_due_signing_key().await {
            tracing::error!(%error, "the next signing key cannot be made");
        }
        self.auth.sweep().await?;
        self.billing.sweep().await?;
        self.jobs.remove_dead(now.saturating_sub(DEAD_JOB_LIFE).unwrap_or(now)).await?;
        if let Some(file) = self.database.sqlite_path() {
            let removed = db::remove_old_key_backups(&file, now)?;
            if removed > 0 {
                tracing::info!(removed, "old backups of data keys were removed");
            }
        }
        for count in self.jobs.counts().await? {
            let jobs = f64::from(u32::try_from(count.jobs).unwrap_or(u32::MAX));
            metrics::gauge!("jobs", "status" => count.status).set(jobs);
        }
        Ok(())
    }
}
