//! The settings of the relay: limits, attempts, breakers.

use super::{ProviderLimits, reader::Reader};
use crate::chat::{
    ChatSettings, Intervals,
    breaker::{BreakerSettings, MAX_WINDOW},
    routing::RetrySettings,
};

pub fn read(r: &mut Reader, limits: Option<ProviderLimits>) -> Option<ChatSettings> {
    let first_token_timeout = r.duration("chat.first_token_timeout");
    let total_timeout = r.duration("chat.total_timeout");
    let retry = retry(r);
    let breaker = breaker(r);
    let detached_grace = r.duration("chat.detached_grace");
    let lease = r.duration("chat.lease");
    let generations_per_user = r.number("chat.generations_per_user", 1, 100);
    let max_generations = r.number("chat.max_generations", 1, 1_000_000);
    Some(ChatSettings {
        first_token_timeout: first_token_timeout?,
        idle_timeout: limits?.idle,
        total_timeout: total_timeout?,
        retry: retry?,
        breaker: breaker?,
        detached_grace: detached_grace?,
        lease: lease?,
        generations_per_user: generations_per_user?,
        max_generations: max_generations?,
        intervals: Intervals::default(),
    })
}

fn retry(r: &mut Reader) -> Option<RetrySettings> {
    let attempts = r.number("chat.attempts", 1, 10);
    let base = r.duration("chat.retry_base");
    let most = r.duration("chat.retry_max");
    let longest_retry_after = r.pause("chat.retry_after_max");
    Some(RetrySettings {
        attempts: attempts?,
        base: base?,
        most: most?,
        longest_retry_after: longest_retry_after?,
    })
}

fn breaker(r: &mut Reader) -> Option<BreakerSettings> {
    let failures = r.number("chat.breaker_failures", 0, MAX_WINDOW);
    let window = r.number("chat.breaker_window", 1, MAX_WINDOW);
    let pause = r.duration("chat.breaker_pause");
    let (failures, window) = (failures?, window?);
    if failures == 1 {
        // One user's doubtful failures count for at most half of what opens it.
        r.fault("chat.breaker_failures", "is 1; it must be 0, which is never, or at least 2");
        return None;
    }
    if failures > window {
        r.fault("chat.breaker_failures", "is more than chat.breaker_window");
        return None;
    }
    Some(BreakerSettings { failures, window, pause: pause? })
}
