//! Argon2id in threads of its own.
//!
//! A hash takes 19 MiB and tens of milliseconds. So it never runs where requests are answered, only so many run at
//! once, each thread keeps its memory between hashes, and who would wait too long is told to come back.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use argon2::{
    Algorithm, Argon2, Block, KeyId, Params, ParamsBuilder, Version,
    password_hash::phc::{Ident, Output, ParamsString, PasswordHash, Salt},
};
use tokio::{sync::oneshot, time::Instant};
use zeroize::Zeroizing;

use super::Password;
use crate::platform::{
    random::SharedRandom,
    seal::{DataKey, equal},
};

/// Argon2id v19, 19 MiB, two passes, one lane (OWASP Password Storage Cheat Sheet).
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const TAG_LEN: usize = 32;

/// Hashes that may wait, for each thread: about as many as are done before the last one has waited too long.
const QUEUE_PER_THREAD: usize = 32;
/// How long a hash may wait before it is refused.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// The salt of the dummy that an unknown account's password is compared with.
const NO_SALT: &[u8; 16] = b"nobody has this.";

/// Why there is no answer about a password.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum HashError {
    /// Too many are waiting.
    #[error("too many passwords are waiting to be hashed")]
    Busy,
    /// A stored hash cannot be read.
    #[error("a stored password hash cannot be read")]
    Unreadable,
    /// A stored hash was made with a key that is not there.
    #[error("a stored password hash was made with another key")]
    UnknownKey,
    /// A hash could not be made. Never in practice: the parameters are constants.
    #[error("a password could not be hashed")]
    Failed,
}

/// What came of comparing a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it is the right one.
    pub right: bool,
    /// Whether the stored hash lags behind in parameters or key and should be made anew.
    pub outdated: bool,
}

/// The pepper: a secret that is not in the database in the clear and goes into every hash. Its id stands in the hash.
#[derive(Clone)]
pub struct Pepper {
    id: [u8; 8],
    secret: Zeroizing<[u8; 32]>,
}

impl Pepper {
    /// Derives the pepper from a service's key.
    pub fn new(key: &DataKey) -> Pepper {
        // The last eight bytes of a UUIDv7 are random; an Argon2 key id has no room for more.
        let (_, id) = key.id().as_u64_pair();
        Pepper { id: id.to_be_bytes(), secret: Zeroizing::new(key.mac("password", b"argon2 secret")) }
    }
}

/// Hashes and verifies passwords.
#[derive(Clone)]
pub struct Hasher {
    queue: std::sync::mpsc::SyncSender<Job>,
    random: SharedRandom,
    done: Arc<AtomicU64>,
}

struct Job {
    password: Password,
    task: Task,
    queued: Instant,
}

enum Task {
    Hash { salt: [u8; 16], answer: oneshot::Sender<Result<String, HashError>> },
    Verify { stored: Option<String>, answer: oneshot::Sender<Result<Verdict, HashError>> },
}

impl Hasher {
    /// Starts the threads: one less than there are cores, at least one.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    pub fn start(random: SharedRandom, pepper: &Pepper) -> std::io::Result<Hasher> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = cores.saturating_sub(1).max(1);
        let (queue, jobs) = queue(threads);
        let jobs = Arc::new(std::sync::Mutex::new(jobs));
        let done = Arc::new(AtomicU64::new(0));
        for number in 1..=threads {
            let (jobs, pepper, done) = (Arc::clone(&jobs), pepper.clone(), Arc::clone(&done));
            std::thread::Builder::new()
                .name(format!("password-hash-{number}"))
                .spawn(move || work(&jobs, &pepper, &done))?;
        }
        Ok(Hasher { queue, random, done })
    }

    /// How many passwords have been hashed or compared.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Hashes a new password; the result is a PHC string.
    pub async fn hash(&self, password: Password) -> Result<String, HashError> {
        let (answer, hashed) = oneshot::channel();
        self.submit(password, Task::Hash { salt: self.random.bytes(), answer })?;
        hashed.await.unwrap_or(Err(HashError::Busy))
    }

    /// Compares a password with a stored hash; without one, with a dummy that nothing matches.
    pub async fn verify(&self, password: Password, stored: Option<String>) -> Result<Verdict, HashError> {
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

/// Where jobs wait for so many threads.
fn queue(threads: usize) -> (std::sync::mpsc::SyncSender<Job>, std::sync::mpsc::Receiver<Job>) {
    std::sync::mpsc::sync_channel(threads.saturating_mul(QUEUE_PER_THREAD))
}

/// One thread: takes jobs until the program ends.
fn work(jobs: &std::sync::Mutex<std::sync::mpsc::Receiver<Job>>, pepper: &Pepper, done: &AtomicU64) {
    let mut memory: Vec<Block> = Vec::new();
    loop {
        // The lock is held only while waiting for a job, so the threads take turns.
        let next = jobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        let waited = job.queued.elapsed();
        metrics::histogram!("password_hash_wait_seconds").record(waited);
        let late = waited > MAX_WAIT;
        let count = || done.fetch_add(u64::from(!late), Ordering::Relaxed);
        // Nobody may be listening any more: the request was cancelled.
        match job.task {
            Task::Hash { salt, answer } if !answer.is_closed() => {
                let result = if late {
                    Err(HashError::Busy)
                } else {
                    guarded(&mut memory, |memory| hash(&job.password, &salt, pepper, memory))
                };
                count();
                let _ = answer.send(result);
            }
            Task::Verify { stored, answer } if !answer.is_closed() => {
                let result = if late {
                    Err(HashError::Busy)
                } else {
                    guarded(&mut memory, |memory| verify(&job.password, stored.as_deref(), pepper, memory))
                };
                count();
                let _ = answer.send(result);
            }
            Task::Hash { .. } | Task::Verify { .. } => {}
        }
    }
}

/// A panic fails its own job and no other: the thread may be the only one.
fn guarded<T>(
    memory: &mut Vec<Block>,
    job: impl FnOnce(&mut Vec<Block>) -> Result<T, HashError>,
) -> Result<T, HashError> {
    catch_unwind(AssertUnwindSafe(|| job(memory))).unwrap_or_else(|_| {
        tracing::error!("hashing a password panicked");
        Err(HashError::Failed)
    })
}

fn hash(
    password: &Password,
    salt: &[u8],
    pepper: &Pepper,
    memory: &mut Vec<Block>,
) -> Result<String, HashError> {
    let params = params(pepper)?;
    let tag = tag(password, salt, params.clone(), Some(pepper), memory)?;
    let build = || {
        Ok::<_, argon2::password_hash::phc::Error>(PasswordHash {
            algorithm: Ident::new("argon2id")?,
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(&params).unwrap_or_default(),
            salt: Some(Salt::new(salt)?),
            hash: Some(Output::new(&tag)?),
        })
    };
    build().map(|phc| phc.to_string()).map_err(|_| HashError::Failed)
}

fn verify(
    password: &Password,
    stored: Option<&str>,
    pepper: &Pepper,
    memory: &mut Vec<Block>,
) -> Result<Verdict, HashError> {
    let current = params(pepper)?;
    let Some(stored) = stored else {
        // As much work as for a hash that was made today.
        tag(password, NO_SALT, current, Some(pepper), memory)?;
        return Ok(Verdict { right: false, outdated: false });
    };
    let stored = PasswordHash::new(stored).map_err(|_| HashError::Unreadable)?;
    let params = Params::try_from(&stored).map_err(|_| HashError::Unreadable)?;
    let (Some(salt), Some(expected)) = (stored.salt, stored.hash) else { return Err(HashError::Unreadable) };
    // A hash without a key's id was made without a key.
    let pepper = match params.keyid() {
        [] => None,
        id if id == pepper.id => Some(pepper),
        _ => return Err(HashError::UnknownKey),
    };
    let outdated = params != current;
    let tag = tag(password, &salt, params, pepper, memory)?;
    Ok(Verdict { right: equal(&tag, expected.as_bytes()), outdated })
}

/// The parameters of a hash that is made now.
fn params(pepper: &Pepper) -> Result<Params, HashError> {
    let key = KeyId::new(&pepper.id).map_err(|_| HashError::Failed)?;
    ParamsBuilder::new()
        .m_cost(MEMORY_KIB)
        .t_cost(PASSES)
        .p_cost(LANES)
        .output_len(TAG_LEN)
        .keyid(key)
        .build()
        .map_err(|_| HashError::Failed)
}

fn tag(
    password: &Password,
    salt: &[u8],
    params: Params,
    pepper: Option<&Pepper>,
    memory: &mut Vec<Block>,
) -> Result<[u8; TAG_LEN], HashError> {
    memory.resize(params.block_count(), Block::default());
    let (algorithm, version) = (Algorithm::Argon2id, Version::V0x13);
    let argon2 = match pepper {
        Some(pepper) => Argon2::new_with_secret(&*pepper.secret, algorithm, version, params)
            .map_err(|_| HashError::Failed)?,
        None => Argon2::new(algorithm, version, params),
    };
    let mut tag = [0; TAG_LEN];
    argon2
        .hash_password_into_with_memory(password.expose().as_bytes(), salt, &mut tag, memory.as_mut_slice())
        .map_err(|_| HashError::Failed)?;
    Ok(tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::random::SystemRandom;
    use secrecy::SecretString;

    fn pepper() -> Pepper {
        Pepper { id: *b"a key id", secret: Zeroizing::new([7; 32]) }
    }

    fn start() -> Hasher {
        Hasher::start(Arc::new(SystemRandom), &pepper()).unwrap()
    }

    fn verdict(right: bool, outdated: bool) -> Result<Verdict, HashError> {
        Ok(Verdict { right, outdated })
    }

    fn password(text: &str) -> Password {
        Password::parse(&SecretString::from(text)).unwrap()
    }

    #[tokio::test]
    async fn a_password_verifies_against_its_own_hash_only() {
        let hasher = start();
        let stored = hasher.hash(password("seven quiet lanterns")).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1,keyid=YSBrZXkgaWQ$"), "{stored}");
        assert_ne!(stored, hasher.hash(password("seven quiet lanterns")).await.unwrap(), "salted");

        let verify = async |typed: &str, stored: Option<&str>| {
            hasher.verify(password(typed), stored.map(str::to_owned)).await
        };
        assert_eq!(verify("seven quiet lanterns", Some(&stored)).await, verdict(true, false));
        assert_eq!(verify("wrong quiet lanterns", Some(&stored)).await, verdict(false, false));
        assert_eq!(verify("", None).await, verdict(false, false));
        assert_eq!(verify("x", Some("garbage")).await, Err(HashError::Unreadable));
    }

    #[test]
    fn a_hash_needs_the_key_that_it_names() {
        let memory = &mut Vec::new();
        let typed = password("seven quiet lanterns");
        let stored = hash(&typed, NO_SALT, &pepper(), memory).unwrap();
        let renamed = Pepper { id: *b"another.", ..pepper() };
        assert_eq!(verify(&typed, Some(&stored), &renamed, memory), Err(HashError::UnknownKey));
        let other = Pepper { secret: Zeroizing::new([8; 32]), ..pepper() };
        assert_eq!(verify(&typed, Some(&stored), &other, memory), verdict(false, false));
    }

    /// Another implementation's result (the reference `argon2` command), so that ours is Argon2id and nothing else.
    #[test]
    fn the_reference_implementation_agrees() {
        let stored = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let memory = &mut Vec::new();
        let verdict = verify(&password("password"), Some(stored), &pepper(), memory).unwrap();
        assert!(verdict.right && verdict.outdated);
    }

    /// Jobs of one thread, which is the test's own and works when told to.
    struct Waiting {
        hasher: Hasher,
        jobs: std::sync::Mutex<std::sync::mpsc::Receiver<Job>>,
    }

    impl Waiting {
        fn new() -> Waiting {
            let (queue, jobs) = queue(1);
            let hasher = Hasher { queue, random: Arc::new(SystemRandom), done: Arc::default() };
            Waiting { hasher, jobs: jobs.into() }
        }

        fn ask(&self) -> Result<oneshot::Receiver<Result<Verdict, HashError>>, HashError> {
            let (answer, verdict) = oneshot::channel();
            let asked =
                self.hasher.submit(password("seven quiet lanterns"), Task::Verify { stored: None, answer });
            asked.map(|()| verdict)
        }

        /// Does all that waits; says how much it was.
        fn work(self) -> u64 {
            let done = Arc::clone(&self.hasher.done);
            drop(self.hasher);
            work(&self.jobs, &pepper(), &done);
            done.load(Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_nobody_in_it_is_forgotten() {
        let waiting = Waiting::new();
        let mut admitted: Vec<_> = (0..QUEUE_PER_THREAD).map(|_| waiting.ask().unwrap()).collect();
        assert_eq!(waiting.ask().unwrap_err(), HashError::Busy);

        let (first, last) = (admitted.remove(0), admitted.pop().unwrap());
        drop(admitted); // The others hang up, and cost nothing.
        assert_eq!(waiting.work(), 2);
        for answer in [first, last] {
            assert_eq!(answer.await.unwrap(), verdict(false, false));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waited_too_long_is_refused_without_a_hash() {
        let waiting = Waiting::new();
        let late = waiting.ask().unwrap();
        tokio::time::advance(Duration::from_millis(1)).await;
        let in_time = waiting.ask().unwrap();
        tokio::time::advance(MAX_WAIT).await;
        assert_eq!(waiting.work(), 1);
        assert_eq!(late.await.unwrap(), Err(HashError::Busy));
        assert_eq!(in_time.await.unwrap(), verdict(false, false));
    }
}
