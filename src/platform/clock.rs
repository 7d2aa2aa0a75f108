//! The time of day, injected.

use std::sync::Arc;

use jiff::Timestamp;

/// Tells the time. Durations and time-outs use tokio's timer instead; this is for what is stored and compared.
pub trait Clock: Send + Sync {
    /// Now, in whole microseconds: what can be stored without loss.
    fn now(&self) -> Timestamp;
}

/// A shared clock.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the machine")]
    fn now(&self) -> Timestamp {
        let now = Timestamp::now();
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }
}
