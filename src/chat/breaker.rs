//! When a provider is left alone for a while: a circuit breaker.
//!
//! [`Breaker`] is the rule, pure and told the time; [`SharedBreaker`] is one in use, by every reply of this process. It counts
//! the newest outcomes, not time: a quiet service opens it as a busy one does. What a message is refused for counts neither way,
//! else one customer could close a provider for all, or hide that it is out of order. Failures that can be a message's doing as
//! well as the provider's are doubtful: one user's count for no more than half of what opens it. All others count fully.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use uuid::Uuid;

/// What the operator decides about breakers.
#[derive(Clone, Copy, Debug)]
pub struct BreakerSettings {
    /// So many failures among the newest outcomes open it, at least 2; 0 never does.
    pub failures: u32,
    /// How many of the newest outcomes are looked at, from 1 to [`MAX_WINDOW`].
    pub window: u32,
    /// How long it stays open before one attempt is let through as a probe.
    pub pause: Duration,
}

/// The most outcomes that a breaker remembers.
pub const MAX_WINDOW: u32 = 64;

/// What an attempt says about a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answered.
    Good,
    /// It refused what was asked, which a message can bring about. It lives, and more is not known.
    Alive,
    /// It failed, which a message can bring about, too.
    Doubtful,
    /// It failed, whatever was asked.
    Bad,
    /// Nothing: we broke off.
    Unknown,
}

/// The rule.
///
/// Closed, it lets everything through and counts. Open, it lets nothing through until the pause is over. Then one attempt is
/// let through, the probe: the first sign of life closes it with nothing counted, a failure opens it again, and a probe
/// that is given up makes room for the next. Whoever's probe has come to nothing does not get the next one at once.
#[derive(Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    state: State,
    /// The newest outcomes that counted since it was closed, the newest last. A user's doubtful failures beyond their share do
    /// not stand here.
    outcomes: VecDeque<Counted>,
    /// Counts the changes of state: what was let through before the last one says nothing any more.
    epoch: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    Good,
    Bad,
    /// And whose reply it was.
    Doubtful(Uuid),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open {
        until: Instant,
        /// Whose probe has failed or was given up.
        failed: Option<Uuid>,
    },
    Probing,
}

/// Leave to ask a provider once.
#[derive(Debug)]
pub struct Permit {
    epoch: u64,
    is_probe: bool,
    owner: Uuid,
}

/// The breaker is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IsOpen {
    /// How long until a probe is let through; zero while one is under way.
    pub wait: Duration,
}

impl Breaker {
    /// A closed one.
    pub fn new(settings: BreakerSettings) -> Breaker {
        Breaker { settings, state: State::Closed, outcomes: VecDeque::new(), epoch: 0 }
    }

    /// Asks for leave to ask the provider for a reply of `owner`'s. Whoever gets it must give it to [`Breaker::record`].
    pub fn admit(&mut self, owner: Uuid, now: Instant) -> Result<Permit, IsOpen> {
        match self.state {
            State::Closed => Ok(Permit { epoch: self.epoch, is_probe: false, owner }),
            State::Open { until, failed } => {
                let due = if failed == Some(owner) { self.after_pause(until) } else { until };
                if now < due {
                    return Err(IsOpen { wait: due.duration_since(now) });
                }
                self.change(State::Probing);
                Ok(Permit { epoch: self.epoch, is_probe: true, owner })
            }
            State::Probing => Err(IsOpen { wait: Duration::ZERO }),
        }
    }

    /// Whether everything is let through.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// The provider has begun to answer. A probe has succeeded with that: a reply may go on for minutes, and how it ends counts
    /// like any other's.
    pub fn has_answered(&mut self, permit: &mut Permit) {
        if permit.is_probe && permit.epoch == self.epoch {
            self.change(State::Closed);
            *permit = Permit { epoch: self.epoch, is_probe: false, owner: permit.owner };
        }
    }

    /// Counts how an attempt ended.
    pub fn record(&mut self, permit: &Permit, health: Health, now: Instant) {
        if permit.epoch != self.epoch {
            return;
        }
        match (self.state, health) {
            (State::Closed, Health::Unknown | Health::Alive) | (State::Open { .. }, _) => {}
            (State::Closed, Health::Good) => self.note(Counted::Good, now),
            (State::Closed, Health::Bad) => self.note(Counted::Bad, now),
            (State::Closed, Health::Doubtful) => {
                let doubtful = Counted::Doubtful(permit.owner);
                if self.count(|counted| counted == doubtful) < self.most_of_one() {
                    self.note(doubtful, now);
                }
            }
            (State::Probing, Health::Good | Health::Alive) => self.change(State::Closed),
            (State::Probing, Health::Bad | Health::Doubtful) => {
                self.change(State::Open { until: self.after_pause(now), failed: Some(permit.owner) });
            }
            (State::Probing, Health::Unknown) => {
                self.change(State::Open { until: now, failed: Some(permit.owner) });
            }
        }
    }

    fn note(&mut self, outcome: Counted, now: Instant) {
        self.outcomes.push_back(outcome);
        while self.count(|_| true) > self.settings.window {
            self.outcomes.pop_front();
        }
        let failures = self.count(|counted| counted != Counted::Good);
        if self.settings.failures > 0 && failures >= self.settings.failures {
            self.change(State::Open { until: self.after_pause(now), failed: None });
        }
    }

    fn count(&self, which: impl Fn(Counted) -> bool) -> u32 {
        let count = self.outcomes.iter().filter(|counted| which(**counted)).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// How many doubtful failures of one user count.
    fn most_of_one(&self) -> u32 {
        self.settings.failures.div_euclid(2)
    }

    fn after_pause(&self, from: Instant) -> Instant {
        from.checked_add(self.settings.pause).unwrap_or(from)
    }

    fn change(&mut self, state: State) {
        self.epoch = self.epoch.wrapping_add(1);
        self.state = state;
        self.outcomes.clear();
    }
}

/// The breaker of one provider.
pub struct SharedBreaker {
    provider: String,
    breaker: Mutex<Breaker>,
}

impl SharedBreaker {
    /// A closed one.
    pub fn new(provider: &str, settings: BreakerSettings) -> SharedBreaker {
        let shared =
            SharedBreaker { provider: provider.to_owned(), breaker: Mutex::new(Breaker::new(settings)) };
        shared.report(&State::Closed);
        shared
    }

    /// Asks for leave to ask the provider for a reply of `owner`'s.
    pub fn admit(&self, owner: Uuid) -> Result<Pass<'_>, IsOpen> {
        match self.with(|breaker| breaker.admit(owner, Instant::now())) {
            Ok(permit) => Ok(Pass { shared: self, permit, outcome: ("dropped", Health::Unknown) }),
            Err(open) => {
                self.count("skipped");
                Err(open)
            }
        }
    }

    /// Whether everything is let through. It may be otherwise when leave is asked for.
    pub fn is_closed(&self) -> bool {
        self.with(|breaker| breaker.is_closed())
    }

    /// Does something to the breaker, and tells of the change of state where that made one.
    fn with<T>(&self, act: impl FnOnce(&mut Breaker) -> T) -> T {
        let mut breaker = self.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        let before = breaker.epoch;
        let done = act(&mut breaker);
        if breaker.epoch != before {
            self.report(&breaker.state);
            let provider = &self.provider;
            match breaker.state {
                State::Closed => tracing::info!(provider, "a provider answers again"),
                State::Open { .. } => tracing::warn!(provider, "a provider is left alone for a while"),
                State::Probing => {}
            }
        }
        done
    }

    fn report(&self, state: &State) {
        let value = match state {
            State::Closed => 0.0,
            State::Probing => 1.0,
            State::Open { .. } => 2.0,
        };
        metrics::gauge!("chat_breaker_state", "provider" => self.provider.clone()).set(value);
    }

    fn count(&self, outcome: &'static str) {
        let provider = self.provider.clone();
        metrics::counter!("chat_attempts_total", "provider" => provider, "outcome" => outcome).increment(1);
    }
}

/// Leave to ask a provider once. However it ends, also by being dropped, it is counted.
pub struct Pass<'b> {
    shared: &'b SharedBreaker,
    permit: Permit,
    outcome: (&'static str, Health),
}

impl Pass<'_> {
    /// The provider has begun to answer.
    pub fn has_answered(&mut self) {
        if self.permit.is_probe {
            self.shared.with(|breaker| breaker.has_answered(&mut self.permit));
        }
    }

    /// How it ended, by a name for the metrics.
    pub fn end(mut self, outcome: &'static str, health: Health) {
        self.outcome = (outcome, health);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let (outcome, health) = self.outcome;
        self.shared.with(|breaker| breaker.record(&self.permit, health, Instant::now()));
        self.shared.count(outcome);
    }
}

#[cfg(test)]
mod tests;
