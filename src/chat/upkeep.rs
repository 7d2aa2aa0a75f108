//! When the lease of a reply in the making is prolonged, and when its text so far is stored. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// How soon a write that failed is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The two deadlines of a reply in the making.
pub struct Upkeep {
    renew_every: Duration,
    store_every: Duration,
    renew_at: Instant,
    store_at: Instant,
    /// Bytes of text that are stored.
    stored: usize,
}

impl Upkeep {
    /// From the moment in which a reply is begun, with a fresh lease and no text.
    pub fn new(now: Instant, lease: Duration, store_every: Duration) -> Upkeep {
        let renew_every = lease.checked_div(3).unwrap_or(lease);
        Upkeep {
            renew_every,
            store_every,
            renew_at: later(now, renew_every),
            store_at: later(now, store_every),
            stored: 0,
        }
    }

    /// When something is due next.
    pub fn next(&self) -> Instant {
        self.renew_at.min(self.store_at)
    }

    /// What was said is to be stored without waiting.
    pub fn store_now(&mut self, now: Instant) {
        self.store_at = self.store_at.min(now);
    }

    /// Whether the rows are to be written now, and if so whether with the text, of which there are `len` bytes.
    pub fn due(&mut self, now: Instant, len: usize) -> Option<bool> {
        let store = now >= self.store_at && len > self.stored;
        if now >= self.store_at && !store {
            self.store_at = later(now, self.store_every);
        }
        (store || now >= self.renew_at).then_some(store)
    }

    /// The rows were written; with the text if `stored` says how much.
    pub fn done(&mut self, now: Instant, stored: Option<usize>) {
        self.renew_at = later(now, self.renew_every);
        if let Some(len) = stored {
            self.stored = len;
            self.store_at = later(now, self.store_every);
        }
    }

    /// The rows could not be written; what was due stays due.
    pub fn failed(&mut self, now: Instant) {
        let again = later(now, AGAIN_AFTER.min(self.renew_every));
        self.renew_at = again;
        self.store_at = self.store_at.max(again);
    }
}

fn later(now: Instant, by: Duration) -> Instant {
    now.checked_add(by).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upkeep() -> (Upkeep, impl Fn(u64) -> Instant) {
        let start = Instant::now();
        let upkeep = Upkeep::new(start, Duration::from_secs(30), Duration::from_secs(15));
        (upkeep, move |seconds| start + Duration::from_secs(seconds))
    }

    #[test]
    fn the_lease_and_the_text_have_deadlines_of_their_own() {
        let (mut upkeep, at) = upkeep();
        assert_eq!((upkeep.next(), upkeep.due(at(9), 5)), (at(10), None));
        assert_eq!(upkeep.due(at(10), 5), Some(false));
        upkeep.done(at(10), None);
        assert_eq!(upkeep.next(), at(15), "not only when the lease is due");
        assert_eq!(upkeep.due(at(15), 5), Some(true));
        upkeep.done(at(15), Some(5));
        assert_eq!(upkeep.next(), at(25), "the text took the lease along");
    }

    #[test]
    fn text_that_is_stored_already_is_not_stored_again() {
        let (mut upkeep, at) = upkeep();
        upkeep.store_now(at(1));
        assert_eq!(upkeep.due(at(1), 5), Some(true));
        upkeep.done(at(1), Some(5));
        upkeep.store_now(at(2));
        assert_eq!((upkeep.due(at(2), 5), upkeep.next()), (None, at(11)));
    }

    #[test]
    fn with_nobody_listening_the_lease_is_prolonged_as_often() {
        let (mut upkeep, at) = upkeep();
        upkeep.store_now(at(0));
        for renewal in 1..4 {
            while upkeep.due(upkeep.next(), 0).is_none() {}
            assert_eq!(upkeep.next(), at(10 * renewal));
            upkeep.done(at(10 * renewal), None);
        }
    }

    #[test]
    fn what_could_not_be_stored_is_still_due() {
        let (mut upkeep, at) = upkeep();
        upkeep.store_now(at(3));
        assert_eq!(upkeep.due(at(3), 5), Some(true));
        upkeep.failed(at(3));
        assert_eq!((upkeep.next(), upkeep.due(at(4), 5)), (at(4), Some(true)));
    }
}
