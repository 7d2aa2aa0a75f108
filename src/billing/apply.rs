//! What a change of a subscription means to its owner and to the operator. Pure.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    BillingSettings,
    row::{Bill, State},
};
use crate::platform::time;

/// What its owner is written about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// It was paid for the first time, or again after a pause.
    Started,
    /// It was paid again.
    Renewed,
    /// A renewal failed.
    Failed,
    /// It will not renew.
    Cancelled {
        /// The first moment without it.
        at: Timestamp,
    },
    /// It is over.
    Ended,
}

/// What an operator has to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alert {
    /// It is paid, and no plan has its price: its owner has nothing of it.
    UnknownPrice,
    /// The provider says something about it that we do not know.
    UnknownState,
    /// Its owner has another one that renews, too.
    SecondSubscription,
    /// The provider has another customer for a user. What that one pays for is not seen.
    SecondCustomer,
    /// A notice says that it belongs to somebody else than before. Nothing was changed.
    ForeignOwner,
}

impl Alert {
    /// Its name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Alert::UnknownPrice => "unknown_price",
            Alert::UnknownState => "unknown_state",
            Alert::SecondSubscription => "second_subscription",
            Alert::SecondCustomer => "second_customer",
            Alert::ForeignOwner => "foreign_owner",
        }
    }

    /// Tells the operator.
    pub fn raise(self, provider: &str, subscription: &str) {
        let alert = self.as_str();
        metrics::counter!("billing_alerts_total", "alert" => alert, "provider" => provider.to_owned())
            .increment(1);
        tracing::error!(alert, provider, subscription, "a subscription needs an operator");
    }
}

/// A difference between what was stored and what is.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What its owner is written about, if anything.
    pub occasion: Option<Occasion>,
    /// What an operator has to look at.
    pub alert: Option<Alert>,
    /// What the audit says: before and after.
    pub details: Vec<(&'static str, Value)>,
}

/// Compares; `None` if nothing changed.
pub fn compare(settings: &BillingSettings, provider: &str, old: Option<&Bill>, new: &Bill) -> Option<Change> {
    if old == Some(new) {
        return None;
    }
    let before = old.map(|old| old.state);
    Some(Change {
        occasion: occasion(old, new),
        alert: alert(settings, provider, new),
        details: vec![
            ("from", before.map(State::as_str).into()),
            ("to", new.state.as_str().into()),
            ("price", json!(new.price)),
            ("period_end", new.period_end.map(time::rfc3339).into()),
            ("cancel_at", new.cancel_at.map(time::rfc3339).into()),
        ],
    })
}

fn occasion(old: Option<&Bill>, new: &Bill) -> Option<Occasion> {
    let before = old.map(|old| old.state);
    let was_running = matches!(before, Some(State::Trialing | State::Active | State::PastDue));
    match new.state {
        State::Trialing | State::Active => {
            if !was_running {
                return Some(Occasion::Started);
            }
            let at = new.cancel_at.filter(|_| old.is_some_and(|old| old.cancel_at.is_none()));
            let has_moved = new.period_start > old.and_then(|old| old.period_start);
            at.map(|at| Occasion::Cancelled { at }).or(has_moved.then_some(Occasion::Renewed))
        }
        State::PastDue => (before != Some(State::PastDue)).then_some(Occasion::Failed),
        State::Ended => {
            let was_something = !matches!(before, None | Some(State::Pending | State::Ended));
            was_something.then_some(Occasion::Ended)
        }
        State::Pending | State::Paused | State::Unpaid | State::Unknown => None,
    }
}

fn alert(settings: &BillingSettings, provider: &str, new: &Bill) -> Option<Alert> {
    match new.state {
        State::Unknown => Some(Alert::UnknownState),
        State::Trialing | State::Active | State::PastDue => {
            let price = new.price.as_deref();
            let is_known = price.is_some_and(|price| settings.plan_of_price(provider, price).is_some());
            (!is_known).then_some(Alert::UnknownPrice)
        }
        State::Pending | State::Paused | State::Unpaid | State::Ended => None,
    }
}
