//! Randomness, injected.

use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

/// A source of unpredictable bytes.
pub trait Random: Send + Sync {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// A shared source.
pub type SharedRandom = Arc<dyn Random>;

/// The operating system's generator.
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        if aws_lc_rs::rand::fill(bytes).is_err() {
            // Every secret from here on would be guessable. There is no way to go on.
            std::process::abort();
        }
    }
}

impl dyn Random + '_ {
    /// An array of random bytes.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// A UUIDv7 (RFC 9562): time first, so that neighbours in time are neighbours in an index.
    pub fn uuid(&self, now: Timestamp) -> Uuid {
        let milliseconds = u64::try_from(now.as_millisecond()).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(milliseconds, &self.bytes()).into_uuid()
    }

    /// Eight decimal digits, each code equally likely.
    pub fn eight_digits(&self) -> String {
        const CODES: u32 = 100_000_000;
        // Values above the last whole multiple would make small codes likelier; draw again.
        let limit = u32::MAX.saturating_sub(u32::MAX.wrapping_rem(CODES));
        loop {
            let drawn = u32::from_le_bytes(self.bytes());
            if drawn < limit {
                return format!("{:08}", drawn.wrapping_rem(CODES));
            }
        }
    }
}
