//! Work that must follow a commit: rows that are written in the transaction that makes the work necessary.
//!
//! A job runs at least once. Claiming it moves its time to the end of the claim, so a job whose runner died is simply
//! due again; the count of attempts is the fence that keeps a slow runner from finishing what another has taken over.
//! What the jobs do is not known here.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::Notify;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    clock::SharedClock,
    db::{Conn, Db, Error, Result},
    keyring::{Keyring, Service},
    random::SharedRandom,
    seal::{DoesNotOpen, Place, Sealed},
};
use crate::{queries, record};

/// How long a runner has for one attempt before the job is due again.
pub const CLAIM: SignedDuration = SignedDuration::from_mins(2);
/// How long one attempt may take: it has ended before another one may begin.
pub const ATTEMPT: Duration = Duration::from_secs(90);
/// Attempts before a job is put aside for an operator.
pub const MAX_ATTEMPTS: i64 = 12;
/// First and longest pause between attempts.
const BACKOFF: (SignedDuration, SignedDuration) =
    (SignedDuration::from_secs(5), SignedDuration::from_hours(1));

queries! {
    fn add(id: Uuid, kind: str, payload: Sealed, run_at: Timestamp, created_at: Timestamp) =
        "INSERT INTO job (id, kind, payload, status, attempts, run_at, created_at)
         VALUES ($1, $2, $3, 'waiting', 0, $4, $5)";

    /// Takes the job that has been due longest. The second condition on `run_at` decides between two runners.
    fn claim(now: Timestamp, until: Timestamp) -> ClaimedRow =
        "UPDATE job SET attempts = attempts + 1, run_at = $2
          WHERE id = (SELECT id FROM job WHERE status = 'waiting' AND run_at <= $1 ORDER BY run_at LIMIT 1)
            AND status = 'waiting' AND run_at <= $1
         RETURNING id, kind, payload, attempts";

    fn finish(id: Uuid, attempts: i64) = "DELETE FROM job WHERE id = $1 AND attempts = $2";

    fn again(id: Uuid, attempts: i64, run_at: Timestamp, last_error: str) =
        "UPDATE job SET run_at = $3, last_error = $4 WHERE id = $1 AND attempts = $2";

    fn bury(id: Uuid, attempts: i64, last_error: str) =
        "UPDATE job SET status = 'dead', last_error = $3 WHERE id = $1 AND attempts = $2";

    /// Dead jobs hold people's words too; they are not kept for ever.
    fn remove_dead(before: Timestamp) =
        "DELETE FROM job WHERE id IN (SELECT id FROM job WHERE status = 'dead' AND run_at < $1 LIMIT 500)";

    scan fn counts() -> Count = "SELECT status, COUNT(*) AS jobs FROM job GROUP BY status";
}

record! {
    /// A job's row, claimed.
    pub struct ClaimedRow {
        id: Uuid,
        kind: String,
        payload: Sealed,
        attempts: i64,
    }
}

record! {
    /// How many jobs are in a state.
    pub struct Count {
        /// `waiting` or `dead`.
        pub status: String,
        /// How many.
        pub jobs: i64,
    }
}

/// Writes jobs and hands them out.
#[derive(Clone)]
pub struct Jobs {
    db: Db,
    keyring: Keyring,
    clock: SharedClock,
    random: SharedRandom,
    wake: Arc<Notify>,
}

/// A job that is sealed and ready to be stored in a transaction.
pub struct NewJob {
    id: Uuid,
    kind: &'static str,
    payload: Sealed,
    run_at: Timestamp,
    created_at: Timestamp,
}

impl NewJob {
    /// Stores the job; it runs only if the transaction commits.
    pub async fn store(&self, conn: &Conn) -> Result<()> {
        add(self.id, self.kind, &self.payload, self.run_at, self.created_at).exec(conn).await?;
        Ok(())
    }
}

/// A job that this runner has taken.
pub struct Job {
    /// Its id: the same at every attempt.
    pub id: Uuid,
    /// What is to be done.
    pub kind: String,
    /// How often it has been tried, this time included.
    pub attempts: i64,
    payload: Zeroizing<Vec<u8>>,
}

impl Job {
    /// What the job has to say.
    pub fn payload<T: DeserializeOwned>(&self) -> std::result::Result<T, JobError> {
        serde_json::from_slice(&self.payload)
            .map_err(|_| JobError::Hopeless("its payload cannot be read".into()))
    }
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// It may work later.
    #[error("{0}")]
    Later(String),
    /// No number of attempts will help.
    #[error("{0}")]
    Hopeless(String),
}

impl From<Error> for JobError {
    fn from(error: Error) -> Self {
        JobError::Later(error.to_string())
    }
}

/// Why a job could not be written.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// What it has to say cannot be written as JSON.
    #[error("the payload of a job of the kind {0} cannot be written as JSON")]
    Payload(&'static str),
    /// The services' key is missing.
    #[error(transparent)]
    DoesNotOpen(#[from] DoesNotOpen),
}

/// Why no job could be handed out.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] Error),
    /// The services' key is missing.
    #[error(transparent)]
    DoesNotOpen(#[from] DoesNotOpen),
}

impl Jobs {
    /// Builds the queue.
    pub fn new(db: Db, keyring: Keyring, clock: SharedClock, random: SharedRandom) -> Jobs {
        Jobs { db, keyring, clock, random, wake: Arc::default() }
    }

    /// Seals a job, outside of any transaction.
    ///
    /// # Errors
    ///
    /// Never in practice: the services' keys are opened at start, and our payloads serialise.
    pub fn prepare(
        &self,
        kind: &'static str,
        payload: &impl Serialize,
    ) -> std::result::Result<NewJob, PrepareError> {
        let now = self.clock.now();
        let id = self.random.uuid(now);
        let text = serde_json::to_vec(payload).map_err(|_| PrepareError::Payload(kind))?;
        let text = Zeroizing::new(text);
        let key = self.keyring.service(Service::Jobs)?;
        let payload = key.seal(Place::new("job.payload", id.as_bytes()), &text, &*self.random);
        Ok(NewJob { id, kind, payload, run_at: now, created_at: now })
    }

    /// Tells the runner that a transaction with jobs has been committed. Without it they wait for the next round.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Completes when [`Jobs::wake`] was called.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Takes the next job that is due, if there is one.
    pub async fn claim(&self) -> std::result::Result<Option<Job>, ClaimError> {
        let now = self.clock.now();
        let until = now.saturating_add(CLAIM).unwrap_or(now);
        let Some(row) = self.db.write(async move |c| claim(now, until).opt(&c).await).await? else {
            return Ok(None);
        };
        let key = self.keyring.service(Service::Jobs)?;
        match key.open(Place::new("job.payload", row.id.as_bytes()), &row.payload) {
            Ok(payload) => Ok(Some(Job { id: row.id, kind: row.kind, attempts: row.attempts, payload })),
            Err(error) => {
                let (id, attempts, text) = (row.id, row.attempts, error.to_string());
                self.db.write(async move |c| bury(id, attempts, &text).exec(&c).await).await?;
                Err(error.into())
            }
        }
    }

    /// Records how an attempt ended.
    pub async fn settle(&self, job: &Job, result: std::result::Result<(), JobError>) -> Result<()> {
        let (id, attempts) = (job.id, job.attempts);
        match result {
            Ok(()) => self.db.write(async move |c| finish(id, attempts).exec(&c).await).await?,
            Err(JobError::Later(text)) if attempts < MAX_ATTEMPTS => {
                let run_at = self.clock.now().saturating_add(pause(attempts)).unwrap_or(Timestamp::MAX);
                self.db.write(async move |c| again(id, attempts, run_at, &text).exec(&c).await).await?
            }
            Err(JobError::Later(text) | JobError::Hopeless(text)) => {
                tracing::error!(job = %id, kind = job.kind, attempts, error = text, "a job was put aside");
                self.db.write(async move |c| bury(id, attempts, &text).exec(&c).await).await?
            }
        };
        Ok(())
    }

    /// Removes up to 500 jobs that were put aside before `before`; returns how many.
    pub async fn remove_dead(&self, before: Timestamp) -> Result<u64> {
        self.db.write(async move |c| remove_dead(before).exec(&c).await).await
    }

    /// How many jobs wait and how many were put aside.
    pub async fn counts(&self) -> Result<Vec<Count>> {
        self.db.read_slow(async |c| counts().all(&c).await).await
    }
}

/// Doubles with every attempt.
fn pause(attempts: i64) -> SignedDuration {
    let (first, longest) = BACKOFF;
    let doublings = u32::try_from(attempts.saturating_sub(1).clamp(0, 20)).unwrap_or(0);
    first.saturating_mul(2i32.saturating_pow(doublings)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_an_hour() {
        let seconds: Vec<i64> = (1..=12).map(|attempt| pause(attempt).as_secs()).collect();
        assert_eq!(seconds, [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]);
        assert_eq!(pause(i64::MAX).as_secs(), 3600);
    }

    #[test]
    fn an_attempt_has_ended_and_been_recorded_before_another_may_begin() {
        assert!(ATTEMPT.as_secs() + 30 <= CLAIM.unsigned_abs().as_secs());
    }
}
