//! How often anybody may call, counted in this process.
//!
//! These limits keep one caller from using up what all share. They are no protection of accounts, of money or of a day's
//! messages: those are counted in the database, where a restart and a second instance change nothing. Who the callers are, and
//! which policy is theirs, is not known here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::{clock::SharedClock, rate::Rate};

/// `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-11): what the limit is.
pub const POLICY_HEADER: HeaderName = HeaderName::from_static("ratelimit-policy");
/// `RateLimit` (the same draft): what is left of it.
pub const LIMIT_HEADER: HeaderName = HeaderName::from_static("ratelimit");

/// The most buckets. Those that are full again make room; if there is none, newcomers share one.
const MAX_BUCKETS: usize = 131_072;
/// How often room is looked for in a full table, in microseconds: it costs a look at every bucket.
const SWEEP_EVERY: i64 = 1_000_000;
/// The key of the bucket that newcomers share when there is no room.
const SHARED: u128 = u128::MAX;

/// What is limited together: a name, as the headers tell it, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The name.
    pub name: &'static str,
    /// How often.
    pub rate: Rate,
}

/// Counts. Cloning gives the same counts.
#[derive(Clone)]
pub struct Limits(Arc<Inner>);

struct Inner {
    clock: SharedClock,
    buckets: Mutex<Buckets>,
}

/// When each bucket is full again, in microseconds since 1970.
#[derive(Default)]
struct Buckets {
    full_at: HashMap<Key, i64>,
    swept_at: i64,
}

/// Whose bucket it is: a policy's name, and a caller.
type Key = (&'static str, u128);

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    policy: Policy,
    /// Calls that are left at once.
    left: u32,
    /// How long until all are there again.
    whole_in: Duration,
    /// How long to wait, for whoever came too early.
    pub wait: Option<Duration>,
}

impl Limits {
    /// Nobody has called yet.
    pub fn new(clock: SharedClock) -> Limits {
        Limits(Arc::new(Inner { clock, buckets: Mutex::default() }))
    }

    /// Counts a call of `key`, if there is one left.
    pub fn take(&self, policy: Policy, key: u128) -> Verdict {
        let take = policy.rate.take(self.0.clock.now());
        let mut buckets = self.buckets();
        let key = buckets.room((policy.name, key), take.now);
        let full_at = buckets.full_at.entry(key).or_insert(take.now);
        // An empty bucket is the most that there can be to wait for, also when the clock was set back.
        *full_at = (*full_at).min(take.latest.saturating_add(take.interval));
        let wait = take.wait(*full_at);
        if !wait.is_zero() {
            return Verdict::of(policy, *full_at, take.now, Some(wait));
        }
        *full_at = (*full_at).max(take.now).saturating_add(take.interval);
        Verdict::of(policy, *full_at, take.now, None)
    }

    /// What is left, without counting a call.
    pub fn look(&self, policy: Policy, key: u128) -> Verdict {
        let take = policy.rate.take(self.0.clock.now());
        let full_at = self.buckets().full_at.get(&(policy.name, key)).copied().unwrap_or(take.now);
        let wait = take.wait(full_at);
        Verdict::of(policy, full_at, take.now, (!wait.is_zero()).then_some(wait))
    }

    fn buckets(&self) -> MutexGuard<'_, Buckets> {
        self.0.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buckets {
    /// The key under which a call is counted: its own, if there is room for it.
    fn room(&mut self, key: Key, now: i64) -> Key {
        if self.full_at.len() < MAX_BUCKETS || self.full_at.contains_key(&key) {
            return key;
        }
        if now.saturating_sub(self.swept_at).unsigned_abs() >= SWEEP_EVERY.unsigned_abs() {
            self.swept_at = now;
            self.full_at.retain(|_, full_at| *full_at > now);
        }
        if self.full_at.len() < MAX_BUCKETS { key } else { (key.0, SHARED) }
    }
}

/// One policy, and the counts.
#[derive(Clone)]
pub struct Limit {
    limits: Limits,
    policy: Policy,
}

impl Limit {
    /// A policy that is counted in `limits`.
    pub fn new(limits: Limits, policy: Policy) -> Limit {
        Limit { limits, policy }
    }

    /// See [`Limits::take`].
    pub fn take(&self, key: u128) -> Verdict {
        self.limits.take(self.policy, key)
    }

    /// See [`Limits::look`].
    pub fn look(&self, key: u128) -> Verdict {
        self.limits.look(self.policy, key)
    }
}

impl Verdict {
    fn of(policy: Policy, full_at: i64, now: i64, wait: Option<Duration>) -> Verdict {
        let missing = u64::try_from(full_at.saturating_sub(now)).unwrap_or(0);
        let interval = u64::try_from(policy.rate.every.as_micros()).unwrap_or(u64::MAX).max(1);
        let gone = u32::try_from(missing.div_ceil(interval)).unwrap_or(u32::MAX);
        let left = if wait.is_some() { 0 } else { policy.rate.burst.saturating_sub(gone) };
        Verdict { policy, left, whole_in: Duration::from_micros(missing), wait }
    }

    /// Adds what there is to know to the headers of an answer, behind what other policies said.
    pub fn tell(&self, headers: &mut HeaderMap) {
        let Policy { name, rate } = self.policy;
        let window = seconds(rate.every.saturating_mul(rate.burst));
        for (header, value) in [
            (POLICY_HEADER, format!("\"{name}\";q={};w={window}", rate.burst)),
            (
                LIMIT_HEADER,
                format!("\"{name}\";r={};t={}", self.left, seconds(self.wait.unwrap_or(self.whole_in))),
            ),
        ] {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.append(header, value);
            }
        }
    }
}

/// Whole seconds, rounded up.
fn seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use jiff::Timestamp;

    use super::*;
    use crate::platform::clock::Clock;

    struct Hand(AtomicI64);

    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp::from_microsecond(self.0.load(Ordering::Relaxed)).unwrap()
        }
    }

    fn limits() -> (Limits, Arc<Hand>) {
        let hand = Arc::new(Hand(AtomicI64::new(1_000_000_000)));
        (Limits::new(hand.clone()), hand)
    }

    const POLICY: Policy =
        Policy { name: "calls", rate: Rate { burst: 3, every: Duration::from_millis(1500) } };

    fn told(verdict: Verdict) -> (String, String) {
        let mut headers = HeaderMap::new();
        verdict.tell(&mut headers);
        let text = |name: HeaderName| headers[name].to_str().unwrap().to_owned();
        (text(POLICY_HEADER), text(LIMIT_HEADER))
    }

    #[test]
    fn a_burst_is_let_through_and_then_one_at_a_time() {
        let (limits, hand) = limits();
        let policy = "\"calls\";q=3;w=5".to_owned();
        for left in [("\"calls\";r=2;t=2"), ("\"calls\";r=1;t=3"), ("\"calls\";r=0;t=5")] {
            assert_eq!(told(limits.take(POLICY, 1)), (policy.clone(), left.to_owned()));
        }
        let refused = limits.take(POLICY, 1);
        assert_eq!(refused.wait, Some(Duration::from_millis(1500)));
        assert_eq!(told(refused).1, "\"calls\";r=0;t=2", "as long as it has to wait");
        assert_eq!(told(limits.look(POLICY, 1)).1, "\"calls\";r=0;t=2");
        assert_eq!(limits.take(POLICY, 2).wait, None, "somebody else");
        assert_eq!(limits.take(Policy { name: "others", ..POLICY }, 1).wait, None, "something else");
        hand.0.fetch_add(1_499_999, Ordering::Relaxed);
        assert!(limits.take(POLICY, 1).wait.is_some());
        hand.0.fetch_add(1, Ordering::Relaxed);
        assert_eq!(limits.take(POLICY, 1).wait, None, "waiting as long as was said is enough");
        assert!(limits.take(POLICY, 1).wait.is_some());
        assert_eq!(told(limits.look(POLICY, 3)).1, "\"calls\";r=3;t=0", "looking takes nothing");
        // A clock that is set back keeps nobody out for longer than an empty bucket does.
        hand.0.fetch_sub(900_000_000, Ordering::Relaxed);
        assert!(limits.take(POLICY, 1).wait.is_some_and(|wait| wait <= Duration::from_millis(1500)));
    }

    #[test]
    fn a_flood_of_callers_takes_no_more_room_and_opens_nothing() {
        let (limits, hand) = limits();
        let caller = |n: usize| u128::try_from(n).unwrap();
        for n in 0..MAX_BUCKETS {
            assert_eq!(limits.take(POLICY, caller(n)).wait, None);
        }
        let strangers = MAX_BUCKETS..MAX_BUCKETS + 10;
        let let_in = strangers.clone().filter(|n| limits.take(POLICY, caller(*n)).wait.is_none());
        assert_eq!(let_in.count(), 3, "those who find no room share one bucket");
        assert!(limits.take(POLICY, 0).wait.is_none(), "who was there keeps theirs");
        let held = || limits.buckets().full_at.len();
        assert!(held() <= MAX_BUCKETS + 1);
        hand.0.fetch_add(60_000_000, Ordering::Relaxed);
        assert_eq!(limits.take(POLICY, caller(MAX_BUCKETS)).wait, None);
        assert!(held() <= 2, "what is full again makes room");
    }
}
