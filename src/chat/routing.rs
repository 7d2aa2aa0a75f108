//! Which provider is asked, how often, and when: one loop above the codecs, and only until the first visible word.
//!
//! After a word nobody else is asked: two models' halves are no reply. Before it, what may be done depends on whether the
//! provider may already have worked, because a request that is sent again is billed again: neither vendor documents idempotency
//! keys for chat. So the *same* provider is asked again only where nothing was sent or where it said itself that it did not
//! answer, and once with half of a prompt that it called too long. Where the answer was lost on the way or did not come in time,
//! only the *next* provider is asked. A message is thereby paid for at most once at each provider of the route. The decision is
//! docs/adr/0020; docs/faults.md lists what comes of it.

use std::{sync::Mutex, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    Chat, NamedProvider,
    breaker::{Health, IsOpen, Pass},
    pinning,
    provider::{Cause, FinishReason, ProviderError},
    relay::Tally,
    supervisor::{Ending, Task},
};
use crate::platform::random::Random;

/// What the operator decides about asking a provider again.
#[derive(Clone, Copy, Debug)]
pub struct RetrySettings {
    /// How often one provider is asked for one reply, at least 1.
    pub attempts: u32,
    /// The first wait is a random time up to this; each further one may be twice as long.
    pub base: Duration,
    /// The longest such wait.
    pub most: Duration,
    /// The longest wait that a provider may ask for. For a longer one the next provider is asked.
    pub longest_retry_after: Duration,
}

/// The part of the time for a first token that another attempt needs at least. One that is bound to fail costs the provider's
/// standing, and hides what it said before.
const LEAST_PART: u32 = 10;

impl RetrySettings {
    /// How long to wait before the same provider is asked again. `None` where that does not help, may cost twice, or does not
    /// fit what is `left` of the time for a first token.
    ///
    /// `attempt` is the one that failed, counted from 1.
    fn pause(
        &self,
        error: &ProviderError,
        attempt: u32,
        left: Duration,
        random: &dyn Random,
    ) -> Option<Duration> {
        if attempt >= self.attempts || !may_be_repeated(error) {
            return None;
        }
        let asked_for = match error {
            ProviderError::Busy { retry_after, .. } => retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        };
        // Also on top of what was asked for: everybody was told the same.
        let wait = asked_for.saturating_add(self.backoff(attempt, random));
        (asked_for <= self.longest_retry_after && wait < left).then_some(wait)
    }

    /// Exponential with full jitter: any time between nothing and the bound is equally likely, so that those who failed together
    /// do not come back together (AWS Architecture Blog, "Exponential Backoff And Jitter").
    fn backoff(&self, attempt: u32, random: &dyn Random) -> Duration {
        let doubled = 2_u32.saturating_pow(attempt.saturating_sub(1));
        let bound = self.base.saturating_mul(doubled).min(self.most);
        bound.mul_f64(f64::from(u32::from_le_bytes(random.bytes())) / f64::from(u32::MAX))
    }
}

/// Whether the same provider may be asked again: nothing was sent, or it said itself that it did not answer. Another question
/// than [`ProviderError::cause`]: a refused account is the provider's doing, and is refused again.
fn may_be_repeated(error: &ProviderError) -> bool {
    use super::provider::TimeLimit::Connect;

    match error {
        ProviderError::Busy { .. }
        | ProviderError::Failed(_)
        | ProviderError::Unreachable(_)
        | ProviderError::TimedOut(Connect) => true,
        ProviderError::TimedOut(_)
        | ProviderError::Misconfigured(_)
        | ProviderError::Forbidden(_)
        | ProviderError::OutOfCredit(_)
        | ProviderError::Rejected(_)
        | ProviderError::PromptTooLong
        | ProviderError::Declined
        | ProviderError::Truncated
        | ProviderError::Lost(_)
        | ProviderError::Protocol(_) => false,
    }
}

/// What the breaker learns, and the metrics' name of it.
fn judge(ending: &Ending, has_text: bool) -> (&'static str, Health) {
    use Health::{Alive, Bad, Doubtful, Good, Unknown};

    match ending {
        Ending::Finished(_) if has_text => ("ok", Good),
        Ending::Finished(FinishReason::ContentFilter) => ("declined", Good),
        Ending::Finished(_) => ("empty", Good),
        Ending::Failed(error) => {
            let health = match error.cause() {
                Cause::Message => Alive,
                Cause::Either => Doubtful,
                Cause::Provider => Bad,
            };
            (name_of(error), health)
        }
        Ending::Refused => ("refused", Good),
        Ending::Fault | Ending::Stopped | Ending::Deserted | Ending::Drained | Ending::Lost => {
            ("dropped", Unknown)
        }
    }
}

/// What the metrics call an error.
fn name_of(error: &ProviderError) -> &'static str {
    match error {
        ProviderError::Busy { .. } => "busy",
        ProviderError::OutOfCredit(_) => "out_of_credit",
        ProviderError::TimedOut(_) => "timed_out",
        ProviderError::Failed(_) => "failed",
        ProviderError::Unreachable(_) => "unreachable",
        ProviderError::Lost(_) => "lost",
        ProviderError::Truncated => "truncated",
        ProviderError::Protocol(_) => "protocol",
        ProviderError::Misconfigured(_) => "misconfigured",
        ProviderError::Forbidden(_) => "forbidden",
        ProviderError::Rejected(_) => "rejected",
        ProviderError::PromptTooLong => "prompt_too_long",
        ProviderError::Declined => "declined",
    }
}

/// Whether another provider may answer what this one did not. Not what it would not.
fn may_be_answered_elsewhere(ending: &Ending) -> bool {
    match ending {
        Ending::Finished(reason) => *reason != FinishReason::ContentFilter,
        Ending::Failed(error) => *error != ProviderError::Declined,
        Ending::Refused
        | Ending::Fault
        | Ending::Stopped
        | Ending::Deserted
        | Ending::Drained
        | Ending::Lost => false,
    }
}

impl Chat {
    /// Tries the providers in their order until one has said a word. One whose breaker is open is passed over; when all are, the
    /// reply fails as busy, until the first of them may be asked again.
    pub(super) async fn read_route(&self, task: &Task, tally: &Mutex<Tally>) -> Ending {
        let mut last: Option<(&str, Ending)> = None;
        let mut open_for: Option<Duration> = None;
        for candidate in pinning::route_for(&self.parts().route, &task.model) {
            let pass = match candidate.breaker.admit(task.owner) {
                Ok(pass) => pass,
                Err(IsOpen { wait }) => {
                    open_for = Some(open_for.map_or(wait, |other| other.min(wait)));
                    continue;
                }
            };
            if let Some((provider, Ending::Failed(error))) = &last {
                let next = &candidate.name;
                tracing::warn!(provider, next, %error, "a provider failed before its first word");
            }
            let ending = self.ask(task, candidate, pass, tally).await;
            if task.generation.len() > 0 || !may_be_answered_elsewhere(&ending) {
                return ending;
            }
            last = Some((&candidate.name, ending));
        }
        let retry_after = open_for.filter(|wait| !wait.is_zero());
        let detail = "left alone after too many failures".to_owned();
        // What is final is logged by whoever settles it.
        last.map_or(Ending::Failed(ProviderError::Busy { detail, retry_after }), |(_, ending)| ending)
    }

    /// Asks one provider, and again where that is of use, until it has said a word or its time for one is over.
    async fn ask(
        &self,
        task: &Task,
        candidate: &NamedProvider,
        mut pass: Pass<'_>,
        tally: &Mutex<Tally>,
    ) -> Ending {
        let settings = &self.parts().settings;
        let started = Instant::now();
        let first_word_by = started.checked_add(settings.first_token_timeout).unwrap_or(started);
        let (mut attempt, mut room) = (1, None);
        loop {
            let (ending, less) =
                self.read_provider(task, candidate, tally, first_word_by, &mut pass, room).await;
            let has_text = task.generation.len() > 0;
            let (outcome, health) = judge(&ending, has_text);
            pass.end(outcome, health);
            let Ending::Failed(error) = &ending else { return ending };
            if has_text {
                return ending;
            }
            let least = settings.first_token_timeout.checked_div(LEAST_PART).unwrap_or_default();
            let left = first_word_by.saturating_duration_since(Instant::now()).saturating_sub(least);
            let is_too_long = *error == ProviderError::PromptTooLong && !left.is_zero();
            if let Some(less) = less.filter(|_| room.is_none() && is_too_long) {
                room = Some(less);
            } else {
                let Some(pause) = settings.retry.pause(error, attempt, left, &*self.parts().random) else {
                    return ending;
                };
                if !candidate.breaker.is_closed() {
                    return ending; // There is nothing to wait for.
                }
                sleep(pause).await;
                attempt = attempt.saturating_add(1);
            }
            let Ok(again) = candidate.breaker.admit(task.owner) else { return ending };
            tracing::warn!(provider = candidate.name, %error, attempt, "a provider is asked again");
            pass = again;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::provider::TimeLimit;
    use proptest::prelude::*;

    const SETTINGS: RetrySettings = RetrySettings {
        attempts: 4,
        base: Duration::from_millis(250),
        most: Duration::from_millis(800),
        longest_retry_after: Duration::from_secs(10),
    };
    const LEFT: Duration = Duration::from_secs(30);

    /// Always the same bytes.
    struct Fixed(u8);

    impl Random for Fixed {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    fn failed() -> ProviderError {
        ProviderError::Failed("HTTP 500".into())
    }

    fn busy(retry_after: Option<f64>) -> ProviderError {
        ProviderError::Busy { detail: String::new(), retry_after: retry_after.map(Duration::from_secs_f64) }
    }

    #[test]
    fn waits_double_up_to_a_bound_and_have_full_jitter() {
        for (attempt, bound) in [(1, 250), (2, 500), (3, 800), (9, 800), (u32::MAX, 800)] {
            assert_eq!(SETTINGS.backoff(attempt, &Fixed(0)), Duration::ZERO);
            assert_eq!(SETTINGS.backoff(attempt, &Fixed(0xff)), Duration::from_millis(bound));
            let half = SETTINGS.backoff(attempt, &Fixed(0x7f)).as_secs_f64() / (bound as f64 / 1000.0);
            assert!((0.49..0.51).contains(&half), "{half}");
        }
    }

    #[test]
    fn a_wait_that_was_asked_for_is_kept_where_it_is_sane() {
        let pause = |error, left| SETTINGS.pause(&error, 1, left, &Fixed(0xff));
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(pause(busy(None), LEFT), ms(250));
        assert_eq!(pause(busy(Some(2.0)), LEFT), ms(2250), "not before it");
        assert_eq!(pause(busy(Some(10.0)), LEFT), ms(10_250));
        assert_eq!(pause(busy(Some(10.1)), LEFT), None, "absurd");
        assert_eq!(pause(busy(Some(2.0)), Duration::from_millis(2250)), None, "the time is over by then");
        assert_eq!(pause(failed(), Duration::ZERO), None);
    }

    #[test]
    fn only_what_cannot_be_billed_twice_is_asked_of_the_same_provider_again() {
        let text = String::new;
        for (error, again) in [
            (busy(None), true),
            (failed(), true),
            (ProviderError::Unreachable(text()), true),
            (ProviderError::TimedOut(TimeLimit::Connect), true),
            (ProviderError::TimedOut(TimeLimit::Headers), false),
            (ProviderError::TimedOut(TimeLimit::FirstToken), false),
            (ProviderError::TimedOut(TimeLimit::Idle), false),
            (ProviderError::Lost(text()), false),
            (ProviderError::Truncated, false),
            (ProviderError::Protocol(text()), false),
            (ProviderError::Misconfigured(text()), false),
            (ProviderError::Forbidden(text()), false),
            (ProviderError::OutOfCredit(text()), false),
            (ProviderError::Rejected(text()), false),
            (ProviderError::PromptTooLong, false),
            (ProviderError::Declined, false),
        ] {
            assert_eq!(SETTINGS.pause(&error, 1, LEFT, &Fixed(0)).is_some(), again, "{error}");
        }
    }

    #[test]
    fn attempts_are_bounded() {
        let again = |attempt| SETTINGS.pause(&failed(), attempt, LEFT, &Fixed(0)).is_some();
        assert_eq!([1, 2, 3, 4, 5, u32::MAX].map(again), [true, true, true, false, false, false]);
    }

    /// Else one customer could close a provider for all, or keep one open that is out of order.
    #[test]
    fn what_a_message_can_provoke_says_less_of_a_provider() {
        use Health::{Alive, Bad, Doubtful, Good, Unknown};

        let text = String::new;
        for (error, health) in [
            (ProviderError::Declined, Alive),
            (ProviderError::PromptTooLong, Alive),
            (ProviderError::Rejected(text()), Alive),
            (ProviderError::Forbidden(text()), Alive),
            (ProviderError::TimedOut(TimeLimit::Headers), Doubtful),
            (ProviderError::TimedOut(TimeLimit::FirstToken), Doubtful),
            (ProviderError::TimedOut(TimeLimit::Idle), Doubtful),
            (ProviderError::TimedOut(TimeLimit::Total), Doubtful),
            (ProviderError::Truncated, Doubtful),
            (ProviderError::Protocol(text()), Doubtful),
            (ProviderError::Lost(text()), Doubtful),
            (ProviderError::TimedOut(TimeLimit::Connect), Bad),
            (ProviderError::Unreachable(text()), Bad),
            (ProviderError::Failed(text()), Bad),
            (ProviderError::Misconfigured(text()), Bad),
            (ProviderError::OutOfCredit(text()), Bad),
            (busy(None), Bad),
        ] {
            assert_eq!(judge(&Ending::Failed(error.clone()), false).1, health, "{error}");
        }
        assert_eq!(judge(&Ending::Finished(FinishReason::ContentFilter), false), ("declined", Good));
        assert_eq!(judge(&Ending::Failed(ProviderError::Truncated), true), ("truncated", Doubtful));
        assert_eq!(judge(&Ending::Fault, false).1, Unknown, "ours");
    }

    proptest! {
        #[test]
        fn a_pause_is_within_its_bounds(
            attempt in 1_u32..10, byte: u8, asked in prop::option::of(0.0..20.0), left in 0_u64..20_000,
        ) {
            let left = Duration::from_millis(left);
            if let Some(pause) = SETTINGS.pause(&busy(asked), attempt, left, &Fixed(byte)) {
                let asked = Duration::from_secs_f64(asked.unwrap_or(0.0));
                prop_assert!(attempt < SETTINGS.attempts && pause < left);
                prop_assert!(asked <= pause && pause <= asked + SETTINGS.most);
            }
        }
    }
}
