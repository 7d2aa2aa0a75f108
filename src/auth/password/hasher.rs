//! Argon2id in threads of its own.
//!
//! A hash takes 19 MiB and tens of milliseconds. So it never runs where requests are answered, only so many run at
//! once, each thread keeps its memory between hashes, and who would wait too long is told to come back.

use std::{sync::Arc, time::Duration};

use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::phc::{Ident, Output, ParamsString, PasswordHash, Salt},
};
use tokio::{sync::oneshot, time::Instant};

use super::Password;
use crate::platform::{random::SharedRandom, seal::equal};

/// Argon2id v19, 19 MiB, two passes, one lane (OWASP Password Storage Cheat Sheet).
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const TAG_LEN: usize = 32;

/// Hashes that may wait, for each thread: about as many as are done before the last one has waited too long.
const QUEUE_PER_THREAD: usize = 32;
/// How long a hash may wait before it is refused.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// What an unknown account's password is compared with, so that the answer takes as long as for a known one.
const DUMMY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5J3Mgc2FsdC4uLg$ODx8mOkdXlp2Gcn0l2lN8PgG6m0RIgeuqkXyVnPm7jU";

/// Why there is no answer about a password.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum HashError {
    /// Too many are waiting.
    #[error("too many passwords are waiting to be hashed")]
    Busy,
    /// A stored hash cannot be read.
    #[error("a stored password hash cannot be read")]
    Unreadable,
}

/// Hashes and verifies passwords.
#[derive(Clone)]
pub struct Hasher {
    queue: std::sync::mpsc::SyncSender<Job>,
    random: SharedRandom,
}

struct Job {
    password: Password,
    task: Task,
    queued: Instant,
}

enum Task {
    Hash { salt: [u8; 16], answer: oneshot::Sender<Result<String, HashError>> },
    Verify { stored: Option<String>, answer: oneshot::Sender<Result<bool, HashError>> },
}

impl Hasher {
    /// Starts the threads: one less than there are cores, at least one.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    pub fn start(random: SharedRandom) -> std::io::Result<Hasher> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = cores.saturating_sub(1).max(1);
        let (queue, jobs) = std::sync::mpsc::sync_channel(threads.saturating_mul(QUEUE_PER_THREAD));
        let jobs = Arc::new(std::sync::Mutex::new(jobs));
        for number in 1..=threads {
            let jobs = Arc::clone(&jobs);
            std::thread::Builder::new().name(format!("password-hash-{number}")).spawn(move || work(&jobs))?;
        }
        Ok(Hasher { queue, random })
    }

    /// Hashes a new password; the result is a PHC string.
    pub async fn hash(&self, password: Password) -> Result<String, HashError> {
        let (answer, hashed) = oneshot::channel();
        self.submit(password, Task::Hash { salt: self.random.bytes(), answer })?;
        hashed.await.unwrap_or(Err(HashError::Busy))
    }

    /// Compares a password with a stored hash; without one, with a dummy that nothing matches.
    pub async fn verify(&self, password: Password, stored: Option<String>) -> Result<bool, HashError> {
        let (answer, verified) = oneshot::channel();
        self.submit(password, Task::Verify { stored, answer })?;
        verified.await.unwrap_or(Err(HashError::Busy))
    }

    fn submit(&self, password: Password, task: Task) -> Result<(), HashError> {
        let job = Job { password, task, queued: Instant::now() };
        self.queue.try_send(job).map_err(|_| {
            metrics::counter!("password_hash_refused_total").increment(1);
            HashError::Busy
        })
    }
}

/// One thread: takes jobs until the program ends.
fn work(jobs: &std::sync::Mutex<std::sync::mpsc::Receiver<Job>>) {
    let mut memory: Vec<Block> = Vec::new();
    loop {
        // The lock is held only while waiting for a job, so the threads take turns.
        let next = jobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        let waited = job.queued.elapsed();
        metrics::histogram!("password_hash_wait_seconds").record(waited);
        let late = waited > MAX_WAIT;
        // Nobody may be listening any more: the request was cancelled.
        match job.task {
            Task::Hash { salt, answer } if !answer.is_closed() => {
                let result =
                    if late { Err(HashError::Busy) } else { hash(&job.password, &salt, &mut memory) };
                let _ = answer.send(result);
            }
            Task::Verify { stored, answer } if !answer.is_closed() => {
                let result = if late {
                    Err(HashError::Busy)
                } else {
                    verify(&job.password, stored.as_deref(), &mut memory)
                };
                let _ = answer.send(result);
            }
            Task::Hash { .. } | Task::Verify { .. } => {}
        }
    }
}

fn hash(password: &Password, salt: &[u8], memory: &mut Vec<Block>) -> Result<String, HashError> {
    let params = params().map_err(|_| HashError::Unreadable)?;
    let tag = tag(password, salt, params.clone(), memory)?;
    let build = || {
        Ok::<_, argon2::password_hash::phc::Error>(PasswordHash {
            algorithm: Ident::new("argon2id")?,
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(&params).unwrap_or_default(),
            salt: Some(Salt::new(salt)?),
            hash: Some(Output::new(&tag)?),
        })
    };
    build().map(|phc| phc.to_string()).map_err(|_| HashError::Unreadable)
}

fn verify(password: &Password, stored: Option<&str>, memory: &mut Vec<Block>) -> Result<bool, HashError> {
    let known = stored.is_some();
    let stored = PasswordHash::new(stored.unwrap_or(DUMMY)).map_err(|_| HashError::Unreadable)?;
    let params = Params::try_from(&stored).map_err(|_| HashError::Unreadable)?;
    let (Some(salt), Some(expected)) = (stored.salt, stored.hash) else { return Err(HashError::Unreadable) };
    let tag = tag(password, &salt, params, memory)?;
    Ok(equal(&tag, expected.as_bytes()) && known)
}

fn params() -> argon2::Result<Params> {
    Params::new(MEMORY_KIB, PASSES, LANES, Some(TAG_LEN))
}

fn tag(
    password: &Password,
    salt: &[u8],
    params: Params,
    memory: &mut Vec<Block>,
) -> Result<[u8; TAG_LEN], HashError> {
    memory.resize(params.block_count(), Block::default());
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let mut tag = [0; TAG_LEN];
    argon2
        .hash_password_into_with_memory(password.expose().as_bytes(), salt, &mut tag, memory.as_mut_slice())
        .map_err(|_| HashError::Unreadable)?;
    Ok(tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::random::SystemRandom;
    use secrecy::SecretString;

    fn password(text: &str) -> Password {
        Password::parse(&SecretString::from(text)).unwrap()
    }

    #[tokio::test]
    async fn a_password_verifies_against_its_own_hash_only() {
        let hasher = Hasher::start(Arc::new(SystemRandom)).unwrap();
        let stored = hasher.hash(password("seven quiet lanterns")).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert_ne!(stored, hasher.hash(password("seven quiet lanterns")).await.unwrap(), "salted");

        assert_eq!(hasher.verify(password("seven quiet lanterns"), Some(stored.clone())).await, Ok(true));
        assert_eq!(hasher.verify(password("wrong quiet lanterns"), Some(stored)).await, Ok(false));
        assert_eq!(hasher.verify(password(""), None).await, Ok(false));
        assert_eq!(hasher.verify(password("x"), Some("garbage".into())).await, Err(HashError::Unreadable));
    }

    #[test]
    fn the_dummy_costs_what_a_new_hash_costs() {
        let dummy = PasswordHash::new(DUMMY).unwrap();
        let cost = |params: &Params| (params.m_cost(), params.t_cost(), params.p_cost(), params.output_len());
        let expected = Params::new(MEMORY_KIB, PASSES, LANES, Some(TAG_LEN)).unwrap();
        assert_eq!(cost(&Params::try_from(&dummy).unwrap()), cost(&expected));
        assert_eq!(dummy.salt.unwrap().len(), 16);
    }

    /// Another implementation's result (the reference `argon2` command), so that ours is Argon2id and nothing else.
    #[test]
    fn the_reference_implementation_agrees() {
        let stored = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let memory = &mut Vec::new();
        assert_eq!(verify(&password("password"), Some(stored), memory), Ok(true));
    }

    #[tokio::test]
    async fn who_would_wait_too_long_is_refused() {
        let hasher = Hasher::start(Arc::new(SystemRandom)).unwrap();
        let mut accepted = Vec::new();
        let mut refused = 0;
        for _ in 0..200 {
            let mut call = Box::pin(hasher.hash(password("seven quiet lanterns")));
            match futures_util::poll!(call.as_mut()) {
                std::task::Poll::Ready(result) => {
                    assert_eq!(result, Err(HashError::Busy));
                    refused += 1;
                }
                std::task::Poll::Pending => accepted.push(call),
            }
        }
        assert!(refused > 0 && !accepted.is_empty());
        for call in accepted {
            assert!(call.await.is_ok(), "who was let in is served");
        }
        assert!(hasher.hash(password("and afterwards it works")).await.is_ok());
    }
}
