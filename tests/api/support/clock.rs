//! A clock that tests can set forward.

use std::sync::atomic::{AtomicI64, Ordering};

use digitalmistress::platform::clock::{Clock, SystemClock};
use jiff::{SignedDuration, Timestamp};

/// The machine's clock plus what the test has added. It can be stopped: then only the test moves it.
#[derive(Default)]
pub struct TestClock {
    ahead_us: AtomicI64,
    stopped_at_us: AtomicI64,
}

impl TestClock {
    pub fn advance(&self, by: SignedDuration) {
        self.ahead_us.fetch_add(i64::try_from(by.as_micros()).unwrap(), Ordering::SeqCst);
    }

    /// Stops the clock, for tests in which a moment more would be another story.
    pub fn stop(&self) {
        self.stopped_at_us.store(SystemClock.now().as_microsecond(), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let ahead = SignedDuration::from_micros(self.ahead_us.load(Ordering::SeqCst));
        match self.stopped_at_us.load(Ordering::SeqCst) {
            0 => SystemClock.now() + ahead,
            stopped => Timestamp::from_microsecond(stopped).unwrap() + ahead,
        }
    }
}
