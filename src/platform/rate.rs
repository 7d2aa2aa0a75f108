//! The arithmetic of token buckets, without a clock or a database.
//!
//! A bucket is one number, the time at which it will be full again (GCRA, ITU-T I.371). Taking a token moves that time one
//! interval on; a token is left while it lies at most all intervals but one ahead.

use std::time::Duration;

use jiff::Timestamp;

/// How often something may be done: `burst` times at once, then once more each time `every` has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens in a full bucket.
    pub burst: u32,
    /// How long one token takes to come back.
    pub every: Duration,
}

/// The numbers with which the database decides, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Take {
    /// Now.
    pub now: i64,
    /// What one token is worth.
    pub interval: i64,
    /// When a bucket that was full until now will be full again.
    pub first: i64,
    /// The latest time of being full at which a token is left.
    pub latest: i64,
}

impl Rate {
    /// The numbers for taking a token at `now`.
    pub fn take(self, now: Timestamp) -> Take {
        let now = now.as_microsecond();
        let interval = i64::try_from(self.every.as_micros()).unwrap_or(i64::MAX);
        let behind = i64::from(self.burst.max(1)).saturating_sub(1);
        Take {
            now,
            interval,
            first: now.saturating_add(interval),
            latest: now.saturating_add(interval.saturating_mul(behind)),
        }
    }
}

impl Take {
    /// How long until a bucket that is full at `full_at` has a token; zero if it has one.
    pub fn wait(self, full_at: i64) -> Duration {
        Duration::from_micros(u64::try_from(full_at.saturating_sub(self.latest)).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the statement in the database does.
    fn take(bucket: &mut Option<i64>, rate: Rate, now: Timestamp) -> Result<(), Duration> {
        let take = rate.take(now);
        match *bucket {
            None => *bucket = Some(take.first),
            Some(full_at) if full_at <= take.latest => *bucket = Some(full_at.max(take.now) + take.interval),
            Some(full_at) => return Err(take.wait(full_at)),
        }
        Ok(())
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_763_800_000 + second).unwrap()
    }

    const fn rate(burst: u32, seconds: u64) -> Rate {
        Rate { burst, every: Duration::from_secs(seconds) }
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_one_at_a_time() {
        // (second, whether it is admitted or how long to wait)
        let ok = Ok(());
        let wait = |seconds| Err(Duration::from_secs(seconds));
        for (rate, calls) in [
            (
                rate(3, 60),
                vec![(0, ok), (0, ok), (0, ok), (0, wait(60)), (59, wait(1)), (60, ok), (60, wait(60))],
            ),
            (
                rate(3, 60),
                vec![
                    (0, ok),
                    (30, ok),
                    (30, ok),
                    (30, wait(30)),
                    (60, ok),
                    (3600, ok),
                    (3600, ok),
                    (3600, ok),
                    (3600, wait(60)),
                ],
            ),
            (rate(1, 10), vec![(0, ok), (9, wait(1)), (10, ok), (10, wait(10))]),
            // No bucket is closed for ever, and a clock that goes back only makes the wait longer.
            (rate(0, 10), vec![(0, ok), (0, wait(10)), (10, ok)]),
            (rate(2, 10), vec![(100, ok), (100, ok), (90, wait(20)), (110, ok)]),
        ] {
            let mut bucket = None;
            for (second, expected) in calls {
                assert_eq!(take(&mut bucket, rate, at(second)), expected, "{rate:?} at {second}");
            }
        }
    }

    #[test]
    fn extremes_do_not_overflow() {
        for rate in [Rate { burst: u32::MAX, every: Duration::MAX }, Rate { burst: 1, every: Duration::MAX }]
        {
            let take = rate.take(Timestamp::MAX);
            assert!(take.first >= take.now && take.latest >= take.now);
            assert_eq!(rate.take(Timestamp::MIN).wait(i64::MIN), Duration::ZERO);
            rate.take(Timestamp::MIN).wait(i64::MAX);
        }
    }

    proptest! {
        /// In any stretch of time no more is admitted than the burst and what has come back, and waiting as long as was
        /// said is enough.
        #[test]
        fn never_more_than_promised_and_the_wait_is_true(
            burst in 1u32..20, every in 1u64..100, pauses in prop::collection::vec(0i64..50, 1..200),
        ) {
            let rate = rate(burst, every);
            let (mut bucket, mut now, mut admitted) = (None, 0, 0u64);
            for pause in pauses {
                now += pause;
                match take(&mut bucket, rate, at(now)) {
                    Ok(()) => admitted += 1,
                    Err(wait) => {
                        prop_assert!(wait > Duration::ZERO);
                        let mut later = bucket;
                        let then = now + i64::try_from(wait.as_secs()).unwrap();
                        prop_assert_eq!(take(&mut later, rate, at(then)), Ok(()));
                    }
                }
                let allowed = u64::from(burst) + u64::try_from(now).unwrap() / every;
                prop_assert!(admitted <= allowed, "{} of {}", admitted, allowed);
            }
        }
    }
}
