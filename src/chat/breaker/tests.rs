use super::*;
use proptest::prelude::*;

use Health::{Alive, Bad, Doubtful, Good, Unknown};

const SETTINGS: BreakerSettings = BreakerSettings { failures: 3, window: 5, pause: Duration::from_secs(15) };

/// A breaker, and the time that it is told.
struct Clocked {
    breaker: Breaker,
    now: Instant,
    /// How many have asked: each is somebody else.
    asked: u128,
}

impl Clocked {
    fn new(settings: BreakerSettings) -> Clocked {
        Clocked { breaker: Breaker::new(settings), now: Instant::now(), asked: 0 }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn admit(&mut self) -> Result<Permit, IsOpen> {
        self.asked += 1;
        self.breaker.admit(Uuid::from_u128(self.asked), self.now)
    }

    /// One attempt that is let through.
    fn attempt(&mut self, health: Health) {
        let permit = self.admit().expect("it is not open");
        self.breaker.record(&permit, health, self.now);
    }

    fn wait(&mut self) -> Option<Duration> {
        self.admit().err().map(|open| open.wait)
    }

    /// One that has failed often enough.
    fn opened() -> Clocked {
        let mut clocked = Clocked::new(SETTINGS);
        for _ in 0..3 {
            clocked.attempt(Bad);
        }
        clocked
    }
}

#[test]
fn so_many_failures_among_the_newest_open_it() {
    for (outcomes, opens) in [
        (&[Bad, Bad][..], false),
        (&[Bad, Bad, Bad], true),
        (&[Good, Good, Bad, Bad, Bad], true),
        (&[Bad, Good, Bad, Good, Bad], true),
        (&[Bad, Good, Good, Bad, Good, Bad], false),
        (&[Bad, Bad, Good, Good, Good, Bad], false),
        (&[Bad, Unknown, Bad, Unknown, Unknown, Unknown, Unknown, Bad], true),
        (&[Unknown, Unknown, Unknown, Unknown], false),
        (&[Bad, Alive, Bad, Alive, Alive, Alive, Alive, Bad], true),
        (&[Alive, Alive, Alive, Alive], false),
        (&[Doubtful, Bad, Doubtful], true),
        (&[Doubtful, Good, Good, Bad, Good, Bad], false),
    ] {
        let mut clocked = Clocked::new(SETTINGS);
        for outcome in outcomes {
            clocked.attempt(*outcome);
        }
        assert_eq!(clocked.wait(), opens.then_some(SETTINGS.pause), "{outcomes:?}");
    }
}

#[test]
fn the_widest_and_the_narrowest_window() {
    let mut narrow = Clocked::new(BreakerSettings { failures: 2, window: 2, ..SETTINGS });
    narrow.attempt(Good);
    narrow.attempt(Bad);
    narrow.attempt(Bad);
    assert!(narrow.wait().is_some());

    let mut wide = Clocked::new(BreakerSettings { failures: MAX_WINDOW, window: MAX_WINDOW, ..SETTINGS });
    for _ in 0..MAX_WINDOW - 1 {
        wide.attempt(Bad);
    }
    wide.attempt(Good);
    for _ in 0..MAX_WINDOW - 1 {
        wide.attempt(Bad);
    }
    assert!(wide.wait().is_none(), "one of sixty-four was good");
    wide.attempt(Bad);
    assert!(wide.wait().is_some());
}

#[test]
fn none_opens_where_that_is_switched_off() {
    let mut clocked = Clocked::new(BreakerSettings { failures: 0, ..SETTINGS });
    for _ in 0..100 {
        clocked.attempt(Bad);
    }
    assert!(clocked.wait().is_none());
}

/// Failures that look like the provider's and that a message can bring about would else let one user close it for all.
#[test]
fn one_user_opens_none_and_keeps_none_open() {
    let settings = BreakerSettings { failures: 5, window: 10, ..SETTINGS };
    let (ann, bob, carl) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
    let (mut breaker, now) = (Breaker::new(settings), Instant::now());
    let fail = |breaker: &mut Breaker, owner: Uuid, now: Instant| {
        let permit = breaker.admit(owner, now).expect("it lets them through");
        breaker.record(&permit, Doubtful, now);
    };
    for _ in 0..100 {
        fail(&mut breaker, ann, now);
    }
    for owner in [bob, bob, bob] {
        fail(&mut breaker, owner, now);
    }
    assert!(breaker.is_closed());
    fail(&mut breaker, carl, now);
    assert!(!breaker.is_closed(), "three people's failures are the provider's");

    let due = now + settings.pause;
    fail(&mut breaker, ann, due);
    let due = due + settings.pause;
    assert_eq!(breaker.admit(ann, due).unwrap_err().wait, settings.pause, "others go first");
    let probe = breaker.admit(bob, due).unwrap();
    breaker.record(&probe, Unknown, due);
    assert_eq!(breaker.admit(bob, due).unwrap_err().wait, settings.pause, "also after one that is given up");
    let probe = breaker.admit(carl, due).unwrap();
    breaker.record(&probe, Alive, due);
    assert!(breaker.is_closed());
}

/// Where one person writes, nobody else finds out.
#[test]
fn failures_that_no_message_can_bring_about_count_whoever_met_them() {
    let (mut breaker, now) = (Breaker::new(SETTINGS), Instant::now());
    for health in [Doubtful, Doubtful, Doubtful, Bad, Bad] {
        assert!(breaker.is_closed());
        let permit = breaker.admit(Uuid::nil(), now).unwrap();
        breaker.record(&permit, health, now);
    }
    assert!(!breaker.is_closed());
}

#[test]
fn after_the_pause_one_probe_is_let_through() {
    let mut clocked = Clocked::opened();
    clocked.pass(Duration::from_secs(5));
    assert_eq!(clocked.wait(), Some(Duration::from_secs(10)));
    clocked.pass(Duration::from_secs(10));
    let probe = clocked.admit().unwrap();
    assert_eq!(clocked.wait(), Some(Duration::ZERO), "one is under way");

    clocked.breaker.record(&probe, Bad, clocked.now);
    assert_eq!(clocked.wait(), Some(SETTINGS.pause), "open again");
}

#[test]
fn a_probe_that_is_given_up_makes_room_for_another() {
    let mut clocked = Clocked::opened();
    clocked.pass(SETTINGS.pause);
    let given_up = clocked.admit().unwrap();
    clocked.breaker.record(&given_up, Unknown, clocked.now);
    let probe = clocked.admit().unwrap();
    assert!(probe.is_probe);
    clocked.breaker.record(&probe, Good, clocked.now);
    clocked.attempt(Bad);
    clocked.attempt(Bad);
    assert!(clocked.wait().is_none(), "nothing from before is counted");
}

#[test]
fn the_first_sign_of_life_of_a_probe_closes_it_and_its_end_counts() {
    let mut clocked = Clocked::opened();
    clocked.pass(SETTINGS.pause);
    let mut probe = clocked.admit().unwrap();
    clocked.breaker.has_answered(&mut probe);
    clocked.attempt(Bad);
    clocked.attempt(Bad);
    assert!(clocked.wait().is_none(), "closed");
    clocked.breaker.record(&probe, Bad, clocked.now);
    assert_eq!(clocked.wait(), Some(SETTINGS.pause), "it broke in the middle, as the third");
}

#[test]
fn what_was_let_through_before_it_opened_says_nothing_any_more() {
    let mut clocked = Clocked::new(SETTINGS);
    let mut slow = clocked.admit().unwrap();
    let bad = clocked.admit().unwrap();
    for _ in 0..3 {
        clocked.attempt(Bad);
    }
    clocked.breaker.has_answered(&mut slow);
    clocked.breaker.record(&slow, Good, clocked.now);
    assert!(clocked.wait().is_some(), "does not close it");
    clocked.pass(SETTINGS.pause);
    let probe = clocked.admit().unwrap();
    clocked.breaker.record(&bad, Bad, clocked.now);
    clocked.breaker.record(&probe, Good, clocked.now);
    assert!(clocked.wait().is_none(), "does not end a probe");
}

#[tokio::test]
async fn a_pass_is_counted_however_it_ends() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let counted = recorder.handle();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let settings = BreakerSettings { failures: 2, window: 2, pause: Duration::ZERO };
    let breaker = SharedBreaker::new("p", settings);
    let is_counted = |what: &str| counted.render().lines().any(|line| line == what);
    assert!(is_counted(r#"chat_breaker_state{provider="p"} 0"#));

    breaker.admit(Uuid::nil()).unwrap().end("busy", Bad);
    breaker.admit(Uuid::nil()).unwrap().end("busy", Bad);
    assert!(is_counted(r#"chat_breaker_state{provider="p"} 2"#));
    let probe = breaker.admit(Uuid::nil()).unwrap();
    assert!(is_counted(r#"chat_breaker_state{provider="p"} 1"#));
    assert!(breaker.admit(Uuid::nil()).is_err());
    drop(probe);
    let mut probe = breaker.admit(Uuid::max()).expect("dropped is given up");
    probe.has_answered();
    assert!(is_counted(r#"chat_breaker_state{provider="p"} 0"#));
    probe.end("ok", Good);
    for (outcome, times) in [("busy", 2), ("skipped", 1), ("dropped", 1), ("ok", 1)] {
        let line = format!(r#"chat_attempts_total{{provider="p",outcome="{outcome}"}} {times}"#);
        assert!(is_counted(&line), "{line}\n{}", counted.render());
    }
}

#[derive(Clone, Debug)]
enum Act {
    Admit,
    Answer(prop::sample::Index),
    End(prop::sample::Index, Health),
    Wait(u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let index = any::<prop::sample::Index>;
    let health = prop_oneof![
        1 => Just(Good), 1 => Just(Alive), 2 => Just(Bad), 2 => Just(Doubtful), 1 => Just(Unknown)
    ];
    let act = prop_oneof![
        4 => Just(Act::Admit),
        1 => index().prop_map(Act::Answer),
        4 => (index(), health).prop_map(|(at, health)| Act::End(at, health)),
        1 => (0_u64..20).prop_map(Act::Wait),
    ];
    prop::collection::vec(act, 0..200)
}

proptest! {
    #[test]
    fn there_is_never_more_than_one_probe_and_none_before_the_pause(acts in acts()) {
        let mut clocked = Clocked::new(SETTINGS);
        let mut under_way: Vec<Permit> = Vec::new();
        for act in acts {
            let before = clocked.breaker.state;
            match act {
                Act::Admit => match clocked.admit() {
                    Ok(permit) => {
                        let is_due = matches!(before, State::Open { until, .. } if until <= clocked.now);
                        prop_assert_eq!(permit.is_probe, is_due);
                        prop_assert!(is_due || matches!(before, State::Closed));
                        under_way.push(permit);
                    }
                    Err(open) => prop_assert!(open.wait <= SETTINGS.pause),
                },
                Act::Answer(at) if !under_way.is_empty() => {
                    let at = at.index(under_way.len());
                    clocked.breaker.has_answered(&mut under_way[at]);
                }
                Act::End(at, health) if !under_way.is_empty() => {
                    let permit = under_way.swap_remove(at.index(under_way.len()));
                    let is_probe = permit.is_probe;
                    clocked.breaker.record(&permit, health, clocked.now);
                    let now_closed = matches!(clocked.breaker.state, State::Closed);
                    if is_probe {
                        prop_assert_eq!(now_closed, matches!(health, Good | Alive), "a probe decides");
                    } else if !matches!(before, State::Closed) {
                        prop_assert_eq!(clocked.breaker.state, before, "nobody else does");
                    }
                }
                Act::Wait(seconds) => clocked.pass(Duration::from_secs(seconds)),
                Act::Answer(_) | Act::End(..) => {}
            }
            let probes = under_way.iter().filter(|permit| permit.is_probe).count();
            prop_assert_eq!(probes, usize::from(clocked.breaker.state == State::Probing));
        }
    }

    #[test]
    fn failures_in_a_row_open_it_whatever_was_before(before in prop::collection::vec(any::<bool>(), 0..100)) {
        let mut clocked = Clocked::new(SETTINGS);
        for is_good in before {
            match clocked.admit() {
                Ok(permit) => clocked.breaker.record(&permit, if is_good { Good } else { Bad }, clocked.now),
                Err(open) => clocked.pass(open.wait),
            }
        }
        for _ in 0..SETTINGS.failures {
            if let Ok(permit) = clocked.admit() {
                clocked.breaker.record(&permit, Bad, clocked.now);
            }
        }
        prop_assert!(clocked.wait().is_some());
    }
}
