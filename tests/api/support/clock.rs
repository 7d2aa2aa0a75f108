//! A clock that tests can set forward.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Instant,
};

use digitalmistress::platform::clock::Clock;
use jiff::{SignedDuration, Timestamp};

/// Noon of a day that is the same whenever the tests run: 2027-03-10T12:00:00Z. So midnight comes only to tests that
/// ask for it.
const NOON: i64 = 1_804_680_000;

/// Starts at noon of a fixed day, goes on by itself, and further when a test says so. It can be stopped: then only the test moves
/// it.
pub struct TestClock {
    started: Instant,
    ahead_us: AtomicI64,
    stopped_at_us: AtomicI64,
}

impl Default for TestClock {
    fn default() -> Self {
        TestClock { started: Instant::now(), ahead_us: AtomicI64::new(0), stopped_at_us: AtomicI64::new(0) }
    }
}

impl TestClock {
    pub fn advance(&self, by: SignedDuration) {
        self.ahead_us.fetch_add(i64::try_from(by.as_micros()).unwrap(), Ordering::SeqCst);
    }

    /// Stops the clock, for tests in which a moment more would be another story.
    pub fn stop(&self) {
        let passed = i64::try_from(self.started.elapsed().as_micros()).unwrap();
        self.stopped_at_us.store(NOON * 1_000_000 + passed, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let ahead = self.ahead_us.load(Ordering::SeqCst);
        let us = match self.stopped_at_us.load(Ordering::SeqCst) {
            0 => NOON * 1_000_000 + i64::try_from(self.started.elapsed().as_micros()).unwrap(),
            stopped => stopped,
        };
        Timestamp::from_microsecond(us + ahead).unwrap()
    }
}

#[test]
fn a_test_begins_at_noon() {
    let begun = TestClock::default().now().to_string();
    assert!(begun.starts_with("2027-03-10T12:00:0"), "{begun}");
}
