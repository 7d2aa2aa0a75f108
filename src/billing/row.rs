//! What is stored about who pays: the rows that access is decided from, and how facts come together in them. Pure.

use jiff::Timestamp;
use uuid::Uuid;

use super::gateway::FactEvent;
use crate::{record, text_column};

/// Whether real money moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// None.
    Test,
    /// Real money.
    Live,
}

text_column!(Mode { Test = "test", Live = "live" });

/// The state of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Begun and not paid.
    Pending,
    /// In its trial.
    Trialing,
    /// Paid.
    Active,
    /// A renewal failed; the provider tries again.
    PastDue,
    /// Not billed, not served.
    Paused,
    /// The provider has given up trying and keeps it open.
    Unpaid,
    /// Over, for ever.
    Ended,
    /// A state of the provider's that we do not know.
    Unknown,
}

text_column!(State {
    Pending = "pending",
    Trialing = "trialing",
    Active = "active",
    PastDue = "past_due",
    Paused = "paused",
    Unpaid = "unpaid",
    Ended = "ended",
    Unknown = "unknown",
});

/// Why access is held up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HoldKind {
    /// The bank took money back, or may. Holds up everything.
    Chargeback,
    /// Money was given back. Holds up the subscription that it was paid for, until it is paid for again.
    Refund,
    /// An operator decided so. Holds up everything.
    Manual,
}

text_column!(HoldKind { Chargeback = "chargeback", Refund = "refund", Manual = "manual" });

record! {
    /// A subscription's row.
    #[derive(Clone, Debug)]
    pub struct StoredSubscription {
        /// The provider's name in the settings.
        pub provider: String,
        /// Whether real money moves.
        pub mode: Mode,
        /// The provider's reference.
        pub reference: String,
        /// Whose it is; `None` as long as nobody has said so.
        pub user_id: Option<Uuid>,
        /// The provider's reference of the customer.
        pub customer: Option<String>,
        /// What we take its state for.
        pub state: State,
        /// The provider's word for it.
        pub raw_state: String,
        /// The provider's reference of the price.
        pub price: Option<String>,
        /// When the current period began.
        pub period_start: Option<Timestamp>,
        /// When the current period ends.
        pub period_end: Option<Timestamp>,
        /// When it ends by itself.
        pub cancel_at: Option<Timestamp>,
        /// When it ended.
        pub ended_at: Option<Timestamp>,
        /// When the price was told, where it was told.
        pub price_at: Option<Timestamp>,
        /// Whether it was told that it does not renew.
        pub cancelled: bool,
        /// When that was told.
        pub renewal_at: Option<Timestamp>,
        /// Grows with every change.
        pub version: i64,
        /// When it was heard of last.
        pub observed_at: Timestamp,
    }
}

record! {
    /// A grant, as far as access depends on it.
    #[derive(Clone, Debug)]
    pub struct GrantedRow {
        /// The plan's id.
        pub plan: String,
        /// Since when.
        pub starts_at: Timestamp,
        /// Until when.
        pub ends_at: Timestamp,
    }
}

record! {
    /// A hold that was not released, as far as access depends on it.
    #[derive(Clone, Debug)]
    pub struct OpenHold {
        /// The provider's name in the settings.
        pub provider: String,
        /// Whether real money moves.
        pub mode: Mode,
        /// Its kind.
        pub kind: HoldKind,
        /// What it holds up, where it is one subscription.
        pub subscription: Option<String>,
        /// Since when.
        pub opened_at: Timestamp,
    }
}

impl StoredSubscription {
    /// The row of a subscription that nothing is known of.
    pub fn new(provider: &str, mode: Mode, reference: &str) -> StoredSubscription {
        StoredSubscription {
            provider: provider.to_owned(),
            mode,
            reference: reference.to_owned(),
            user_id: None,
            customer: None,
            state: State::Pending,
            raw_state: String::new(),
            price: None,
            period_start: None,
            period_end: None,
            cancel_at: None,
            ended_at: None,
            price_at: None,
            cancelled: false,
            renewal_at: None,
            version: 0,
            observed_at: Timestamp::UNIX_EPOCH,
        }
    }
}

/// A subscription as a provider has it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bill {
    /// The provider's reference.
    pub reference: String,
    /// What we take its state for.
    pub state: State,
    /// The provider's word for it, at most 64 characters.
    pub raw_state: String,
    /// The provider's reference of the price.
    pub price: Option<String>,
    /// When the current period began.
    pub period_start: Option<Timestamp>,
    /// When the current period ends.
    pub period_end: Option<Timestamp>,
    /// When it ends by itself, if it does not renew.
    pub cancel_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// What has been told about a subscription of a provider who cannot be asked.
///
/// Facts arrive in any order and more than once, so each field is a maximum, of a time or of a value with its time: any
/// history, shuffled and repeated, gives the same. Holds are not part of it; they are a set of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// When it was last paid.
    pub paid_at: Option<Timestamp>,
    /// Until when it is paid.
    pub paid_through: Option<Timestamp>,
    /// What was last paid for: the price's reference.
    pub price: Option<String>,
    /// When that was.
    pub price_at: Option<Timestamp>,
    /// Whether it will not renew.
    pub cancelled: bool,
    /// When that was last decided.
    pub renewal_at: Option<Timestamp>,
    /// When it last ended.
    pub expired_at: Option<Timestamp>,
}

impl Told {
    /// What one fact tells by itself.
    fn of(event: &FactEvent, at: Timestamp) -> Told {
        let at = Some(at);
        match event {
            FactEvent::Paid { price, through } => Told {
                paid_at: at,
                paid_through: Some(*through),
                price_at: price.as_ref().and(at),
                price: price.clone(),
                ..Told::default()
            },
            FactEvent::Cancelled => Told { cancelled: true, renewal_at: at, ..Told::default() },
            FactEvent::Uncancelled => Told { renewal_at: at, ..Told::default() },
            FactEvent::Expired => Told { expired_at: at, ..Told::default() },
            FactEvent::Held { .. } => Told::default(),
        }
    }

    /// Both together. Of two prices of one time the greater text counts, so that the order does not; of two decisions about
    /// renewal the cancellation, so that nobody is thought to pay who said no.
    fn merge(self, other: Told) -> Told {
        let (price_at, price) = (self.price_at, self.price).max((other.price_at, other.price));
        let (renewal_at, cancelled) =
            (self.renewal_at, self.cancelled).max((other.renewal_at, other.cancelled));
        Told {
            paid_at: self.paid_at.max(other.paid_at),
            paid_through: self.paid_through.max(other.paid_through),
            price,
            price_at,
            cancelled,
            renewal_at,
            expired_at: self.expired_at.max(other.expired_at),
        }
    }

    /// Takes in a fact that happened at `at`, by the provider's clock. What is known already changes nothing.
    pub fn merge_event(self, event: &FactEvent, at: Timestamp) -> Told {
        self.merge(Told::of(event, at))
    }

    /// The state: what was paid after it ended lives again.
    fn state(&self) -> State {
        match (self.paid_at, self.expired_at) {
            (None, _) => State::Pending,
            (Some(paid), Some(expired)) if expired > paid => State::Ended,
            (Some(_), _) => State::Active,
        }
    }

    /// The subscription that it amounts to, under the provider's reference.
    pub fn bill(&self, reference: String) -> Bill {
        let state = self.state();
        Bill {
            reference,
            state,
            raw_state: state.as_str().to_owned(),
            price: self.price.clone(),
            period_start: self.paid_at,
            period_end: self.paid_through,
            cancel_at: self.paid_through.filter(|_| self.cancelled),
            ended_at: self.expired_at.filter(|_| state == State::Ended),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn paid(price: Option<&str>, through: i64) -> FactEvent {
        FactEvent::Paid { price: price.map(str::to_owned), through: at(through) }
    }

    type History = Vec<(FactEvent, i64)>;

    fn told(history: &[(FactEvent, i64)]) -> Told {
        history.iter().fold(Told::default(), |told, (event, second)| told.merge_event(event, at(*second)))
    }

    /// Few times and prices, so that ties are common.
    fn fact() -> impl Strategy<Value = (FactEvent, i64)> {
        let event = prop_oneof![
            (prop::option::of(prop::sample::select(vec!["gold", "silver"])), 0i64..8)
                .prop_map(|(price, through)| paid(price, through)),
            Just(FactEvent::Cancelled),
            Just(FactEvent::Uncancelled),
            Just(FactEvent::Expired),
            Just(FactEvent::Held { kind: HoldKind::Refund, transaction: "t".into() }),
        ];
        (event, 0i64..5)
    }

    /// A history, and the same one shuffled, with some of it repeated.
    fn two_orders() -> impl Strategy<Value = (History, History)> {
        prop::collection::vec(fact(), 0..8).prop_flat_map(|history| {
            let again = prop::sample::subsequence(history.clone(), 0..=history.len());
            let other = again.prop_flat_map({
                let history = history.clone();
                move |again| Just([history.clone(), again].concat()).prop_shuffle()
            });
            (Just(history), other)
        })
    }

    proptest! {
        #[test]
        fn any_order_and_repetition_of_a_history_tells_the_same((history, other) in two_orders()) {
            prop_assert_eq!(told(&history), told(&other));
        }

        #[test]
        fn histories_can_be_joined_in_any_grouping(
            a in prop::collection::vec(fact(), 0..5),
            b in prop::collection::vec(fact(), 0..5),
            c in prop::collection::vec(fact(), 0..5),
        ) {
            let (a, b, c) = (told(&a), told(&b), told(&c));
            let left = a.clone().merge(b.clone()).merge(c.clone());
            prop_assert_eq!(&left, &a.clone().merge(b.clone().merge(c)));
            prop_assert_eq!(a.clone().merge(b.clone()), b.merge(a));
            prop_assert_eq!(&left, &left.clone().merge(left.clone()));
        }

        #[test]
        fn what_is_paid_stays_paid(history in prop::collection::vec(fact(), 0..8), next in fact()) {
            let before = told(&history);
            let after = before.clone().merge_event(&next.0, at(next.1));
            prop_assert!(after.paid_through >= before.paid_through && after.paid_at >= before.paid_at);
        }

        #[test]
        fn a_hold_changes_nothing_here(history in prop::collection::vec(fact(), 0..8), second in 0i64..5) {
            let before = told(&history);
            let hold = FactEvent::Held { kind: HoldKind::Chargeback, transaction: "t".into() };
            prop_assert_eq!(before.clone().merge_event(&hold, at(second)), before);
        }
    }

    #[test]
    fn what_was_told_amounts_to_a_subscription() {
        let bill = |history: &[(FactEvent, i64)]| told(history).bill("s1".into());
        let (gold, cancel, back, end) =
            (paid(Some("gold"), 100), FactEvent::Cancelled, FactEvent::Uncancelled, FactEvent::Expired);

        let nothing = bill(&[(cancel.clone(), 5), (end.clone(), 6)]);
        assert_eq!((nothing.state, nothing.cancel_at, nothing.ended_at), (State::Pending, None, None));

        let active = bill(&[(gold.clone(), 1)]);
        assert_eq!((active.reference.as_str(), active.state), ("s1", State::Active));
        assert_eq!((active.price.as_deref(), active.raw_state.as_str()), (Some("gold"), "active"));
        assert_eq!((active.period_start, active.period_end), (Some(at(1)), Some(at(100))));
        assert_eq!((active.cancel_at, active.ended_at), (None, None));

        // A renewal that names no price is one of the same price.
        let renewed = bill(&[(gold.clone(), 1), (paid(None, 200), 100)]);
        assert_eq!((renewed.price.as_deref(), renewed.period_end), (Some("gold"), Some(at(200))));
        let changed = bill(&[(paid(Some("basic"), 200), 100), (gold.clone(), 1)]);
        assert_eq!(changed.price.as_deref(), Some("basic"));

        let cancelled = bill(&[(gold.clone(), 1), (cancel.clone(), 2)]);
        assert_eq!((cancelled.state, cancelled.cancel_at), (State::Active, Some(at(100))));
        assert_eq!(bill(&[(gold.clone(), 1), (cancel.clone(), 2), (back.clone(), 3)]).cancel_at, None);
        let tie = bill(&[(gold.clone(), 1), (cancel, 2), (back, 2)]);
        assert_eq!(tie.cancel_at, Some(at(100)), "at one time the cancellation counts");

        let ended = bill(&[(gold.clone(), 1), (end.clone(), 9)]);
        assert_eq!((ended.state, ended.ended_at), (State::Ended, Some(at(9))));
        let revived = bill(&[(gold, 1), (end, 9), (paid(None, 200), 10)]);
        assert_eq!((revived.state, revived.ended_at), (State::Active, None));
    }
}
