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

/// Starts at noon of a fixed day, goes on by itself, and further when a test says so.
pub struct TestClock {
    started: Instant,
    ahead_us: AtomicI64,
}

impl Default for TestClock {
    fn default() -> Self {
        TestClock { started: Instant::now(), ahead_us: AtomicI64::new(0) }
    }
}

impl TestClock {
    pub fn advance(&self, by: SignedDuration) {
        self.ahead_us.fetch_add(i64::try_from(by.as_micros()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let passed = i64::try_from(self.started.elapsed().as_micros()).unwrap();
        let us = NOON * 1_000_000 + passed + self.ahead_us.load(Ordering::SeqCst);
        Timestamp::from_microsecond(us).unwrap()
    }
}

#[test]
fn a_test_begins_at_noon() {
    let begun = TestClock::default().now().to_string();
    assert!(begun.starts_with("2027-03-10T12:00:0"), "{begun}");
}
