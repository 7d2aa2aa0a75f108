//! Pauses between tries.

use std::time::Duration;

use super::super::random::SharedRandom;

/// Pauses that double up to a longest one.
///
/// Each is drawn between half of it and all of it: those who collided, or waited for the same end of an outage, come
/// back one after the other.
pub(super) struct Pauses {
    random: SharedRandom,
    next: Duration,
    longest: Duration,
}

impl Pauses {
    pub(super) fn new(first: Duration, longest: Duration, random: SharedRandom) -> Pauses {
        Pauses { random, next: first, longest }
    }

    /// Sleeps for the next pause.
    pub(super) async fn pause(&mut self) {
        tokio::time::sleep(self.draw()).await;
    }

    fn draw(&mut self) -> Duration {
        let most = self.next;
        self.next = most.saturating_mul(2).min(self.longest);
        let drawn = f64::from(u32::from_le_bytes(self.random.bytes())) / f64::from(u32::MAX);
        most.mul_f64(drawn.midpoint(1.0))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::platform::random::{Random, SystemRandom};

    struct Always(u8);

    impl Random for Always {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    fn drawn(random: impl Random + 'static) -> Vec<u128> {
        let (first, longest) = (Duration::from_millis(2), Duration::from_millis(20));
        let mut pauses = Pauses::new(first, longest, Arc::new(random));
        (0..6).map(|_| pauses.draw().as_micros()).collect()
    }

    #[test]
    fn pauses_double_and_are_drawn_from_the_upper_half() {
        let (shortest, longest) = (drawn(Always(0)), drawn(Always(255)));
        assert_eq!(shortest, [1000, 2000, 4000, 8000, 10_000, 10_000]);
        assert_eq!(longest, [2000, 4000, 8000, 16_000, 20_000, 20_000]);
        let (one, other) = (drawn(SystemRandom), drawn(SystemRandom));
        assert_ne!(one, other, "two who collided would collide again");
        for (n, pause) in one.iter().enumerate() {
            assert!((shortest[n]..=longest[n]).contains(pause), "{one:?}");
        }
    }
}
