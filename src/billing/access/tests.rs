//! The rules of access as tables and properties.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const DAY: i64 = 86_400;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn plan(id: &str, messages_per_day: i64) -> Plan {
    Plan {
        id: id.into(),
        name: id.into(),
        messages_per_day,
        companions: Companions::All,
        generations: None,
        prices: BTreeMap::from([("pay".into(), format!("price_{id}")), ("other".into(), format!("o_{id}"))]),
    }
}

fn settings() -> BillingSettings {
    BillingSettings {
        free_messages_per_day: 20,
        free_companions: Companions::Only(vec!["roz".into()]),
        upgrade_url: String::new(),
        plans: vec![plan("plus", 200), plan("pro", 500)],
        modes: BTreeMap::from([("pay".into(), Mode::Live), ("other".into(), Mode::Live)]),
        asked: BTreeSet::from(["pay".into()]),
        checkout: None,
        grace: Duration::from_hours(7 * 24),
        slack: Duration::from_hours(72),
        sweep_interval: Duration::from_mins(10),
        retry_min: Duration::from_secs(5),
        retry_max: Duration::from_hours(1),
    }
}

fn row(reference: &str, state: State, start: i64, end: i64) -> StoredSubscription {
    StoredSubscription {
        state,
        price: Some("price_plus".into()),
        period_start: Some(at(start)),
        period_end: Some(at(end)),
        ..StoredSubscription::new("pay", Mode::Live, reference)
    }
}

fn with(subscriptions: Vec<StoredSubscription>) -> Rows {
    Rows { subscriptions, ..Rows::default() }
}

fn hold(kind: HoldKind, subscription: Option<&str>, opened_at: i64) -> OpenHold {
    OpenHold {
        provider: "pay".into(),
        mode: Mode::Live,
        kind,
        subscription: subscription.map(str::to_owned),
        opened_at: at(opened_at),
    }
}

/// Access with one subscription of a state, from the beginning of its period of 30 days.
fn after(state: State, days: i64) -> Access {
    decide(&settings(), &with(vec![row("a", state, 0, 30 * DAY)]), at(days * DAY))
}

#[test]
fn each_state_gives_access_until_its_bound() {
    for (state, day, plan, reason) in [
        (State::Active, 0, Some("plus"), Reason::Subscription),
        (State::Active, 32, Some("plus"), Reason::Subscription),
        (State::Active, 33, None, Reason::Ended),
        (State::Trialing, 1, Some("plus"), Reason::Subscription),
        (State::PastDue, 6, Some("plus"), Reason::PastDue),
        (State::PastDue, 7, None, Reason::PastDue),
        (State::Pending, 1, None, Reason::Pending),
        (State::Paused, 1, None, Reason::Paused),
        (State::Unpaid, 1, None, Reason::Unpaid),
        (State::Ended, 1, None, Reason::Ended),
        (State::Unknown, 1, None, Reason::Free),
    ] {
        let access = after(state, day);
        assert_eq!((access.plan.as_deref(), access.reason), (plan, reason), "{state:?} on day {day}");
    }
}

#[test]
fn who_has_nothing_is_on_the_free_tier_or_on_none() {
    let free = decide(&settings(), &Rows::default(), at(0));
    assert_eq!((free.reason, free.messages_per_day, free.source), (Reason::Free, 20, None));
    assert_eq!(
        (free.wall_before("roz"), free.wall_before("octavia")),
        (None, Some(Wall::SubscriptionRequired))
    );
    assert_eq!(free.wall_at_the_end(), Wall::QuotaExhausted);

    let closed = BillingSettings { free_messages_per_day: 0, ..settings() };
    let none = decide(&closed, &Rows::default(), at(0));
    assert_eq!((none.reason, none.wall_before("roz")), (Reason::None, Some(Wall::SubscriptionRequired)));
}

#[test]
fn a_period_that_moved_before_it_was_paid_gives_no_more_than_grace() {
    // Stripe moves the period at the renewal, long before it gives up collecting.
    let moved = row("a", State::PastDue, 30 * DAY, 60 * DAY);
    let on = |day: i64| decide(&settings(), &with(vec![moved.clone()]), at(day * DAY));
    assert_eq!((on(36).source, on(36).until), (Some(Source::Provider), Some(at(37 * DAY))));
    assert_eq!((on(37).source, on(37).wall_at_the_end()), (None, Wall::PaymentPastDue));
    assert_eq!(on(37).wall_before("octavia"), Some(Wall::PaymentPastDue));
    assert_eq!(on(37).wall_before("roz"), None, "the free tier is left");
}

#[test]
fn a_cancelled_subscription_ends_at_its_moment_and_not_later() {
    let cancelled =
        StoredSubscription { cancel_at: Some(at(30 * DAY)), ..row("a", State::Active, 0, 30 * DAY) };
    let rows = with(vec![cancelled]);
    let last = decide(&settings(), &rows, at(30 * DAY - 1));
    assert_eq!((last.until, last.renews), (Some(at(30 * DAY)), false));
    assert_eq!(decide(&settings(), &rows, at(30 * DAY)).reason, Reason::Ended);
}

#[test]
fn an_unknown_price_or_the_other_mode_gives_nothing() {
    let odd = StoredSubscription { price: Some("price_of_nobody".into()), ..row("a", State::Active, 0, DAY) };
    let test = StoredSubscription { mode: Mode::Test, ..row("a", State::Active, 0, DAY) };
    let gone = StoredSubscription { provider: "gone".into(), ..row("a", State::Active, 0, DAY) };
    for row in [odd, test, gone] {
        assert_eq!(decide(&settings(), &with(vec![row]), at(0)).reason, Reason::Free);
    }
}

#[test]
fn of_two_the_higher_plan_counts_and_the_reason_of_the_other_is_not_told() {
    let pro = StoredSubscription { price: Some("price_pro".into()), ..row("b", State::Active, 0, 10 * DAY) };
    let rows = with(vec![row("a", State::Active, 0, 30 * DAY), pro, row("c", State::Ended, 0, DAY)]);
    let access = decide(&settings(), &rows, at(DAY));
    assert_eq!((access.plan.as_deref(), access.reason), (Some("pro"), Reason::Subscription));
    assert_eq!(decide(&settings(), &rows, at(14 * DAY)).plan.as_deref(), Some("plus"));
}

#[test]
fn a_grant_counts_between_its_moments() {
    let grant = GrantedRow { plan: "pro".into(), starts_at: at(DAY), ends_at: at(2 * DAY) };
    let rows = Rows { grants: vec![grant], ..Rows::default() };
    let reason = |seconds: i64| decide(&settings(), &rows, at(seconds)).reason;
    assert_eq!((reason(DAY - 1), reason(DAY)), (Reason::Free, Reason::Grant));
    assert_eq!((reason(2 * DAY - 1), reason(2 * DAY)), (Reason::Grant, Reason::Free));
}

#[test]
fn what_will_be_charged_again_is_told_whatever_it_gives() {
    let renews = |rows: &Rows, day: i64| decide(&settings(), rows, at(day * DAY)).renews;
    for state in [State::PastDue, State::Paused, State::Unpaid, State::Unknown] {
        assert!(renews(&with(vec![row("a", state, 0, 30 * DAY)]), 60), "{state:?}");
    }
    for state in [State::Pending, State::Ended] {
        assert!(!renews(&with(vec![row("a", state, 0, 30 * DAY)]), 1), "{state:?}");
    }
    let active = with(vec![row("a", State::Active, 0, 30 * DAY)]);
    assert!(renews(&active, 60), "not reached for long, and never ended");
    let told = StoredSubscription { provider: "other".into(), ..row("a", State::Active, 0, 30 * DAY) };
    assert!(renews(&with(vec![told.clone()]), 32) && !renews(&with(vec![told]), 33), "nobody to ask");
    let grant = GrantedRow { plan: "pro".into(), starts_at: at(0), ends_at: at(90 * DAY) };
    assert!(renews(&Rows { grants: vec![grant], ..active.clone() }, 1), "beside a grant");
    assert!(renews(&Rows { holds: vec![hold(HoldKind::Manual, None, 0)], ..active }, 1), "on hold");
}

#[test]
fn a_refund_takes_one_subscription_until_it_is_paid_again() {
    let mut rows = with(vec![row("a", State::Active, 0, 30 * DAY)]);
    rows.holds = vec![hold(HoldKind::Refund, Some("a"), DAY)];
    assert_eq!(decide(&settings(), &rows, at(2 * DAY)).reason, Reason::Ended);
    rows.subscriptions.push(row("b", State::Active, 0, 30 * DAY));
    assert_eq!(decide(&settings(), &rows, at(2 * DAY)).reason, Reason::Subscription, "another one stays");
    rows.subscriptions = vec![row("a", State::Active, 30 * DAY, 60 * DAY)];
    assert_eq!(decide(&settings(), &rows, at(31 * DAY)).reason, Reason::Subscription, "paid again");
}

fn any_state() -> impl Strategy<Value = State> {
    prop::sample::select(vec![
        State::Pending,
        State::Trialing,
        State::Active,
        State::PastDue,
        State::Paused,
        State::Unpaid,
        State::Ended,
        State::Unknown,
    ])
}

prop_compose! {
    fn any_row()(
        reference in "[abc]",
        state in any_state(),
        price in prop::sample::select(vec!["price_plus", "price_pro", "price_of_nobody"]),
        mode in prop::sample::select(vec![Mode::Live, Mode::Test]),
        start in prop::option::of(0i64..90),
        length in prop::option::of(0i64..40),
        cancel in prop::option::of(0i64..120),
    ) -> StoredSubscription {
        StoredSubscription {
            mode,
            price: Some(price.into()),
            period_start: start.map(|day| at(day * DAY)),
            period_end: length.map(|days| at((start.unwrap_or(0) + days) * DAY)),
            cancel_at: cancel.map(|day| at(day * DAY)),
            ..row(&reference, state, 0, 0)
        }
    }
}

prop_compose! {
    fn any_rows()(
        subscriptions in prop::collection::vec(any_row(), 0..4),
        grants in prop::collection::vec(("plus|pro", 0i64..90, 0i64..40), 0..3),
        refunds in prop::collection::vec(("[abc]", 0i64..90), 0..2),
    ) -> Rows {
        let grant = |(plan, start, days): (String, i64, i64)| {
            GrantedRow { plan, starts_at: at(start * DAY), ends_at: at((start + days) * DAY) }
        };
        Rows {
            subscriptions,
            grants: grants.into_iter().map(grant).collect(),
            holds: refunds.iter().map(|(id, day)| hold(HoldKind::Refund, Some(id), day * DAY)).collect(),
        }
    }
}

/// Every moment at which access may change, whatever it is.
fn moments(rows: &Rows) -> Vec<Timestamp> {
    let bounds = rows.subscriptions.iter().flat_map(|row| {
        let period = (row.period_start, row.period_end);
        let bounds = (settings().slack, settings().grace);
        [allowed_until(row.state, period, row.cancel_at, bounds), row.cancel_at]
    });
    let grants = rows.grants.iter().flat_map(|grant| [Some(grant.starts_at), Some(grant.ends_at)]);
    let mut moments: Vec<Timestamp> = bounds.chain(grants).flatten().collect();
    moments.sort();
    moments
}

/// How much access is: a plan beats the free tier, the free tier beats nothing.
fn amount(access: &Access) -> (bool, i64) {
    (access.source.is_some(), access.messages_per_day)
}

proptest! {
    #[test]
    fn access_changes_only_at_moments_that_the_rows_name(rows in any_rows(), from in 0i64..130, to in 0i64..130) {
        let (from, to) = (at(from.min(to) * DAY), at(from.max(to) * DAY));
        // Half-open: the moment itself belongs to what comes after it.
        let passes_one = moments(&rows).iter().any(|moment| from < *moment && *moment <= to);
        if !passes_one {
            prop_assert_eq!(decide(&settings(), &rows, from), decide(&settings(), &rows, to));
        }
    }

    #[test]
    fn a_row_in_a_state_without_access_gives_none_at_any_time(row in any_row(), day in 0i64..130) {
        let gives = matches!(row.state, State::Trialing | State::Active | State::PastDue);
        let access = decide(&settings(), &with(vec![row.clone()]), at(day * DAY));
        prop_assert!(gives || access.source.is_none());
        // Whatever the period's end says, a renewal that failed has no more than its grace.
        if let (State::PastDue, Some(start), Some(until)) = (row.state, row.period_start, access.until) {
            prop_assert!(until <= time::after(start, settings().grace));
        }
    }

    #[test]
    fn a_hold_on_everything_takes_everything_and_gives_it_back(
        rows in any_rows(), day in 0i64..130, kind in prop::sample::select(vec![HoldKind::Chargeback, HoldKind::Manual]),
    ) {
        let before = decide(&settings(), &rows, at(day * DAY));
        let mut held = rows.clone();
        held.holds.push(hold(kind, None, 0));
        let during = decide(&settings(), &held, at(day * DAY));
        prop_assert_eq!((during.reason, amount(&during)), (Reason::OnHold, (false, 0)));
        prop_assert_eq!(during.wall_before("roz"), Some(Wall::PaymentOnHold));
        held.holds.pop();
        prop_assert_eq!(decide(&settings(), &held, at(day * DAY)), before);
    }

    #[test]
    fn the_end_of_one_takes_nothing_from_the_others(rows in any_rows(), ended in any_row(), day in 0i64..130) {
        let without = decide(&settings(), &rows, at(day * DAY));
        let mut and_one = rows.clone();
        and_one.subscriptions.push(StoredSubscription { state: State::Ended, ..ended.clone() });
        let with = decide(&settings(), &and_one, at(day * DAY));
        prop_assert_eq!(amount(&with), amount(&without));
        // And one more that lives never gives less.
        and_one.subscriptions.push(ended);
        prop_assert!(amount(&decide(&settings(), &and_one, at(day * DAY))) >= amount(&without));
    }

    #[test]
    fn a_provider_that_takes_over_leaves_no_gap(start in 0i64..30, overlap in 0i64..10, day in 0i64..53) {
        let old = row("a", State::Active, 0, 30 * DAY);
        let old = StoredSubscription { cancel_at: Some(at(30 * DAY)), ..old };
        let begin = (30 - overlap).max(start);
        let new = StoredSubscription {
            provider: "other".into(),
            price: Some("o_pro".into()),
            ..row("x", State::Active, begin * DAY, (begin + 30) * DAY)
        };
        let now = at(day * DAY);
        // Before the new one begins it is not there yet.
        let rows = if day < begin { vec![old] } else { vec![old, new] };
        prop_assert!(decide(&settings(), &with(rows), now).source.is_some());
    }

    #[test]
    fn what_is_allowed_at_once_and_what_is_shown_agree(rows in any_rows(), day in 0i64..130) {
        let access = decide(&settings(), &rows, at(day * DAY));
        prop_assert_eq!(access.source.is_some(), access.plan.is_some());
        prop_assert_eq!(access.source.is_some(), access.until.is_some());
        prop_assert!(access.until.is_none_or(|until| at(day * DAY) < until));
        prop_assert!(access.provider.is_some() == (access.source == Some(Source::Provider)));
    }
}
