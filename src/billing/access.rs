//! The judge of access: a pure function of what is stored, what the operator decided, and the time.
//!
//! Every interval is half-open: access lasts until just before its end.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    BillingSettings, Reason, Source, Wall,
    plans::{Companions, Plan},
    row::{GrantedRow, HoldKind, Mode, OpenHold, State, StoredSubscription},
};
use crate::platform::time;

/// What is stored about one user.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// Subscriptions, of every provider, ended ones too.
    pub subscriptions: Vec<StoredSubscription>,
    /// Grants that were not revoked.
    pub grants: Vec<GrantedRow>,
    /// Holds that were not released.
    pub holds: Vec<OpenHold>,
}

/// What a user may use at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Why.
    pub reason: Reason,
    /// The plan that is paid for or granted.
    pub plan: Option<String>,
    /// Messages a day; 0 means that nothing is included.
    pub messages_per_day: i64,
    /// Who can be talked to.
    pub companions: Companions,
    /// Replies that may be made at once; `None`: as many as for everybody.
    pub generations: Option<i64>,
    /// Until when, if nothing new is heard.
    pub until: Option<Timestamp>,
    /// Whether money will be taken again if nothing is done, also where nothing is given for it.
    pub renews: bool,
    /// Where access comes from.
    pub source: Option<Source>,
    /// The provider of the subscription that decided.
    pub provider: Option<String>,
}

impl Access {
    /// What stands between the user and a companion, whatever is left of the day.
    pub fn wall_before(&self, companion: &str) -> Option<Wall> {
        let is_open = self.messages_per_day > 0 && self.companions.include(companion);
        (!is_open).then(|| self.wall(Wall::SubscriptionRequired))
    }

    /// What a user meets whose day is used up.
    pub fn wall_at_the_end(&self) -> Wall {
        self.wall(Wall::QuotaExhausted)
    }

    /// A payment that failed, or was taken back, is what has to be mended first.
    fn wall(&self, otherwise: Wall) -> Wall {
        match (self.reason, self.source) {
            (Reason::OnHold, _) => Wall::PaymentOnHold,
            (Reason::PastDue, None) => Wall::PaymentPastDue,
            _ => otherwise,
        }
    }
}

/// What one row means at a moment.
enum Standing<'a> {
    /// It gives this.
    Live(Entitlement<'a>),
    /// It gives nothing, for this reason; `None`: for none that its owner should hear of.
    Not(Option<Reason>),
}

struct Entitlement<'a> {
    plan: &'a Plan,
    until: Timestamp,
    reason: Reason,
    provider: Option<&'a str>,
}

/// Decides access.
pub fn decide(settings: &BillingSettings, rows: &Rows, now: Timestamp) -> Access {
    if rows.holds.iter().any(|hold| holds_everything(settings, hold)) {
        let nothing = free(settings, rows, Reason::OnHold, now);
        return Access { messages_per_day: 0, ..nothing };
    }
    let subscriptions = rows.subscriptions.iter().map(|row| subscription(settings, rows, row, now));
    let grants = rows.grants.iter().map(|row| grant(settings, row, now));
    let (mut best, mut why): (Option<Entitlement<'_>>, Option<Reason>) = (None, None);
    for standing in grants.chain(subscriptions) {
        match standing {
            Standing::Live(one) => {
                let is_better = |best: &Entitlement<'_>| order(&one) > order(best);
                if best.as_ref().is_none_or(is_better) {
                    best = Some(one);
                }
            }
            Standing::Not(reason) => why = why.max_by_urgency(reason),
        }
    }
    match best {
        Some(best) => Access {
            reason: best.reason,
            plan: Some(best.plan.id.clone()),
            messages_per_day: best.plan.messages_per_day,
            companions: best.plan.companions.clone(),
            generations: best.plan.generations,
            until: Some(best.until),
            renews: rows.subscriptions.iter().any(|row| renews(settings, row, now)),
            source: Some(if best.provider.is_some() { Source::Provider } else { Source::Grant }),
            provider: best.provider.map(str::to_owned),
        },
        None => {
            let is_free = settings.free_messages_per_day > 0;
            let why = why.unwrap_or(if is_free { Reason::Free } else { Reason::None });
            free(settings, rows, why, now)
        }
    }
}

/// Until when a row gives access, whatever the time is; `None`: never.
pub fn allowed_until(
    state: State,
    period: (Option<Timestamp>, Option<Timestamp>),
    cancel_at: Option<Timestamp>,
    (slack, grace): (Duration, Duration),
) -> Option<Timestamp> {
    let (start, end) = period;
    let bound = match state {
        State::Trialing | State::Active => time::after(end?, slack),
        // Not the period's end: it moves before the renewal is paid.
        State::PastDue => time::after(start?, grace),
        State::Pending | State::Paused | State::Unpaid | State::Ended | State::Unknown => return None,
    };
    Some(cancel_at.map_or(bound, |cancel_at| bound.min(cancel_at)))
}

/// Whether a subscription costs money again if nothing is done. What a provider that can be asked has not ended is not over,
/// however long we have not reached it.
pub fn renews(settings: &BillingSettings, row: &StoredSubscription, now: Timestamp) -> bool {
    let is_asked = settings.asked.contains(&row.provider);
    if settings.modes.get(&row.provider) != Some(&row.mode) || row.cancel_at.is_some() {
        return false;
    }
    match row.state {
        State::Trialing | State::Active if is_asked => true,
        State::Trialing | State::Active => {
            let period = (row.period_start, row.period_end);
            let until = allowed_until(row.state, period, None, (settings.slack, settings.grace));
            until.is_some_and(|until| now < until)
        }
        State::PastDue | State::Paused | State::Unpaid => true,
        State::Unknown => is_asked,
        State::Pending | State::Ended => false,
    }
}

fn subscription<'a>(
    settings: &'a BillingSettings,
    rows: &Rows,
    row: &'a StoredSubscription,
    now: Timestamp,
) -> Standing<'a> {
    if settings.modes.get(&row.provider) != Some(&row.mode) {
        return Standing::Not(None);
    }
    let period = (row.period_start, row.period_end);
    let until = allowed_until(row.state, period, row.cancel_at, (settings.slack, settings.grace));
    let reason = match row.state {
        State::Pending => Some(Reason::Pending),
        State::PastDue => Some(Reason::PastDue),
        State::Paused => Some(Reason::Paused),
        State::Unpaid => Some(Reason::Unpaid),
        State::Trialing | State::Active | State::Ended => Some(Reason::Ended),
        State::Unknown => None,
    };
    let Some(until) = until.filter(|until| now < *until) else { return Standing::Not(reason) };
    if rows.holds.iter().any(|hold| takes_back(hold, row)) {
        return Standing::Not(Some(Reason::Ended));
    }
    let price = row.price.as_deref();
    let Some(plan) = price.and_then(|price| settings.plan_of_price(&row.provider, price)) else {
        return Standing::Not(None);
    };
    let reason = if row.state == State::PastDue { Reason::PastDue } else { Reason::Subscription };
    Standing::Live(Entitlement { plan, until, reason, provider: Some(&row.provider) })
}

fn grant<'a>(settings: &'a BillingSettings, row: &GrantedRow, now: Timestamp) -> Standing<'a> {
    let Some(plan) = settings.plan(&row.plan) else { return Standing::Not(None) };
    if now < row.starts_at || now >= row.ends_at {
        return Standing::Not(None);
    }
    let (until, reason) = (row.ends_at, Reason::Grant);
    Standing::Live(Entitlement { plan, until, reason, provider: None })
}

/// Whether a hold is on the user, not on one subscription.
fn holds_everything(settings: &BillingSettings, hold: &OpenHold) -> bool {
    match hold.kind {
        HoldKind::Manual => true,
        // Real money that was taken back counts whatever has become of the provider in the settings.
        HoldKind::Chargeback => {
            hold.mode == Mode::Live || settings.modes.get(&hold.provider) == Some(&hold.mode)
        }
        HoldKind::Refund => false,
    }
}

/// Whether a hold means that the money for the current period was given back.
fn takes_back(hold: &OpenHold, row: &StoredSubscription) -> bool {
    hold.kind == HoldKind::Refund
        && (&hold.provider, hold.mode) == (&row.provider, row.mode)
        && hold.subscription.as_ref() == Some(&row.reference)
        && row.period_start.is_none_or(|start| start <= hold.opened_at)
}

/// The highest plan first, then what lasts longest.
fn order<'a>(one: &'a Entitlement<'_>) -> impl Ord + use<'a> {
    (one.plan.rank(), &one.plan.id, one.until, one.provider)
}

fn free(settings: &BillingSettings, rows: &Rows, reason: Reason, now: Timestamp) -> Access {
    Access {
        reason,
        plan: None,
        messages_per_day: settings.free_messages_per_day.max(0),
        companions: settings.free_companions.clone(),
        generations: None,
        until: None,
        // Who pays for nothing has to be able to end it.
        renews: rows.subscriptions.iter().any(|row| renews(settings, row, now)),
        source: None,
        provider: None,
    }
}

/// Of several reasons for having nothing, the one that the user can do most about.
trait MostUrgent {
    fn max_by_urgency(self, other: Self) -> Self;
}

impl MostUrgent for Option<Reason> {
    fn max_by_urgency(self, other: Self) -> Self {
        let urgency = |reason: &Option<Reason>| match reason {
            Some(Reason::PastDue) => 5,
            Some(Reason::Unpaid) => 4,
            Some(Reason::Paused) => 3,
            Some(Reason::Pending) => 2,
            Some(_) => 1,
            None => 0,
        };
        if urgency(&other) > urgency(&self) { other } else { self }
    }
}

#[cfg(test)]
mod tests;
