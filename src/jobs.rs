//! What runs in the background: due jobs, and housekeeping now and then.

use std::{future::pending, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::join_all};
use jiff::SignedDuration;
use tokio::time::{sleep, timeout};

use crate::{
    auth::Auth,
    billing::Billing,
    chat::{Chat, DROP_JOB, PURGE_JOB},
    platform::{
        clock::SharedClock,
        db::{self, DatabaseSettings},
        job::{ClaimError, Job, JobError, Jobs},
        mail::{MAIL_JOB, Mail, MailError, Mailer, NO_MAIL_JOB},
        tasks::Tasks,
    },
};

/// Jobs that are run at once: a mail server that hangs holds up some of them, and not the rest.
const RUNNERS: usize = 4;
/// Payment providers' customers that are asked for at once.
const SYNCERS: usize = 2;
/// How often due jobs are looked for when nobody calls.
const LOOK: Duration = Duration::from_secs(1);
/// How long to wait after the database failed or a round panicked.
const PAUSE: Duration = Duration::from_secs(5);
/// How often rows that have had their time are removed.
const HOUSEKEEPING: Duration = Duration::from_mins(10);
/// What one step of removing old rows removes at most, see the `LIMIT` of its queries.
const STEP: u64 = 500;
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
    /// How long one attempt at a job may take.
    pub attempt: Duration,
    /// Background tasks, which tell when the program ends.
    pub tasks: Tasks,
}

impl Background {
    /// Starts the background work.
    pub fn start(self) {
        let tasks = self.tasks.clone();
        for _ in 0..RUNNERS {
            tasks.spawn(self.clone().run_jobs());
        }
        for _ in 0..SYNCERS {
            tasks.spawn(self.clone().ask_payment_providers());
        }
        tasks.spawn(self.clone().sweep_payment_providers());
        tasks.spawn(self.clone().settle_abandoned_replies());
        tasks.spawn(self.clone().follow_signing_keys());
        tasks.spawn(self.keep_house());
    }

    async fn run_jobs(self) {
        rounds(&self.tasks, || self.job_round(), || self.jobs.woken()).await;
    }

    async fn job_round(&self) -> Duration {
        match self.run_one_by_one().await {
            Ok(()) => LOOK,
            Err(error) => {
                tracing::error!(%error, "jobs cannot be run");
                PAUSE
            }
        }
    }

    /// Runs every job that is due, a few at once, and returns when all of them have been tried.
    ///
    /// # Errors
    ///
    /// When no more jobs can be handed out. Those that had been are finished all the same.
    pub async fn run_due(&self) -> Result<(), ClaimError> {
        join_all((0..RUNNERS).map(|_| self.run_one_by_one())).await.into_iter().collect()
    }

    /// Runs jobs until none is due, or the program is ending.
    async fn run_one_by_one(&self) -> Result<(), ClaimError> {
        while !self.tasks.is_stopping()
            && let Some(job) = self.jobs.claim().await?
        {
            let result = self.attempt(&job).await;
            if let Err(error) = &result {
                tracing::warn!(job = %job.id, kind = job.kind, attempt = job.attempts, %error, "a job failed");
            }
            self.jobs.settle(&job, result).await?;
        }
        Ok(())
    }

    /// Tries a job once, for a limited time. One that panics has failed.
    async fn attempt(&self, job: &Job) -> Result<(), JobError> {
        let attempt = AssertUnwindSafe(self.run(job)).catch_unwind();
        match timeout(self.attempt, attempt).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(JobError::Later("it panicked".into())),
            Err(_) => Err(JobError::Later("it took too long".into())),
        }
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
            NO_MAIL_JOB => Ok(()),
            PURGE_JOB => self.chat.purge(job).await,
            DROP_JOB => self.chat.remove_dropped(job).await,
            _ => Err(JobError::Hopeless("nobody knows this kind of job".into())),
        }
    }

    async fn ask_payment_providers(self) {
        rounds(&self.tasks, || self.sync_round(), || self.billing.woken()).await;
    }

    async fn sync_round(&self) -> Duration {
        match self.billing.sync_due(&self.tasks).await {
            Ok(()) => LOOK,
            Err(error) => {
                tracing::error!(%error, "payment providers cannot be asked");
                PAUSE
            }
        }
    }

    async fn sweep_payment_providers(self) {
        rounds(&self.tasks, || self.payment_sweep(), pending).await;
    }

    async fn payment_sweep(&self) -> Duration {
        if let Err(error) = self.billing.sweep_providers().await {
            tracing::error!(%error, "subscriptions cannot be swept");
        }
        self.billing.sweep_interval()
    }

    async fn settle_abandoned_replies(self) {
        rounds(&self.tasks, || self.settling_round(), pending).await;
    }

    async fn settling_round(&self) -> Duration {
        if let Err(error) = self.chat.sweep().await {
            tracing::error!(%error, "abandoned replies cannot be settled");
        }
        self.lease
    }

    async fn follow_signing_keys(self) {
        rounds(&self.tasks, || self.signing_key_round(), pending).await;
    }

    async fn signing_key_round(&self) -> Duration {
        if let Err(error) = self.auth.reload_signing_keys().await {
            tracing::error!(%error, "the signing keys cannot be read");
        }
        SIGNING_KEYS
    }

    async fn keep_house(self) {
        rounds(&self.tasks, || self.housekeeping_round(), pending).await;
    }

    async fn housekeeping_round(&self) -> Duration {
        if let Err(error) = self.sweep().await {
            tracing::error!(%error, "housekeeping failed");
        }
        HOUSEKEEPING
    }

    /// One round of housekeeping.
    pub async fn sweep(&self) -> Result<(), db::Error> {
        let now = self.clock.now();
        if let Err(error) = self.auth.rotate_due_signing_key().await {
            tracing::error!(%error, "the next signing key cannot be made");
        }
        let dead = now.saturating_sub(DEAD_JOB_LIFE).unwrap_or(now);
        self.step_by_step(|| self.auth.sweep()).await?;
        self.step_by_step(|| self.billing.sweep()).await?;
        self.step_by_step(|| self.jobs.remove_dead(dead)).await?;
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

    /// Removes what is old in small transactions, so that nobody waits long for one, until there is no more.
    async fn step_by_step<R>(&self, remove: impl Fn() -> R) -> db::Result<()>
    where
        R: Future<Output = db::Result<u64>>,
    {
        while remove().await? >= STEP && !self.tasks.is_stopping() {}
        Ok(())
    }
}

/// Works in rounds until the program ends. Each round says how long to pause, unless there is a call before. One that
/// panics costs only itself.
async fn rounds<R, C>(tasks: &Tasks, round: impl Fn() -> R, called: impl Fn() -> C)
where
    R: Future<Output = Duration>,
    C: Future<Output = ()>,
{
    while !tasks.is_stopping() {
        let pause = AssertUnwindSafe(round()).catch_unwind().await.unwrap_or_else(|_| {
            tracing::error!("a round of background work panicked");
            PAUSE
        });
        tokio::select! {
            () = called() => {}
            () = sleep(pause) => {}
            () = tasks.stopping() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::platform::telemetry::tests::logged;

    #[tokio::test(start_paused = true)]
    async fn a_round_that_panics_is_logged_and_the_next_one_comes() {
        let (log, _logging) = logged();
        let (tasks, begun) = (Tasks::default(), AtomicUsize::new(0));
        let round = || async {
            match begun.fetch_add(1, Ordering::Relaxed) {
                0 => panic!("private words"),
                1 => {}
                _ => tasks.stop(),
            }
            LOOK
        };
        rounds(&tasks, round, pending).await;
        assert_eq!(begun.into_inner(), 3);
        assert!(log.text().contains("a round of background work panicked"));
        assert!(!log.text().contains("private words"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_the_pause() {
        let (tasks, begun) = (Tasks::default(), AtomicUsize::new(0));
        let round = || async {
            if begun.fetch_add(1, Ordering::Relaxed) == 9 {
                tasks.stop();
            }
            HOUSEKEEPING
        };
        let started = tokio::time::Instant::now();
        rounds(&tasks, round, || async {}).await;
        assert!(started.elapsed() < HOUSEKEEPING);
    }
}
