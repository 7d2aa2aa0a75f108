use super::*;
use proptest::prelude::*;
use serde_json::json;

use crate::billing::gateways::stripe::changes::{Change, any_changes, reordered, with_unknown_fields};

/// The smallest subscription of today's shape.
fn subscription() -> Value {
    json!({
        "id": "sub_1", "object": "subscription", "customer": "cus_1", "status": "active", "livemode": false,
        "created": 1_760_000_000, "cancel_at": null, "cancel_at_period_end": false, "canceled_at": null,
        "ended_at": null, "trial_end": null, "pause_collection": null, "latest_invoice": "in_1",
        "metadata": {"user_id": "u_1"},
        "items": {"object": "list", "has_more": false, "data": [{
            "id": "si_1", "object": "subscription_item", "quantity": 1, "current_period_start": 1_760_000_000,
            "current_period_end": 1_762_592_000,
            "price": {"id": "price_pro", "object": "price", "lookup_key": "pro_monthly", "product": "prod_1"},
        }]},
    })
}

/// The same, as it was before 2025-03-31.basil and before there were prices.
fn old_subscription() -> Value {
    json!({
        "id": "sub_1", "object": "subscription", "customer": "cus_1", "status": "active",
        "current_period_start": 1_760_000_000, "current_period_end": 1_762_592_000, "plan": {"id": "price_pro"},
        "items": {"data": [{"id": "si_1", "plan": {"id": "price_pro"}}]},
    })
}

fn with(fields: Value) -> Value {
    let mut subscription = subscription();
    subscription.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    subscription
}

fn at(second: i64) -> Option<Timestamp> {
    Some(Timestamp::from_second(second).unwrap())
}

fn paid() -> Bill {
    Bill {
        reference: "sub_1".into(),
        state: State::Active,
        raw_state: "active".into(),
        price: Some("price_pro".into()),
        period_start: at(1_760_000_000),
        period_end: at(1_762_592_000),
        cancel_at: None,
        ended_at: None,
    }
}

#[test]
fn todays_shape_and_the_old_one_say_the_same() {
    assert_eq!(bill(&subscription()), Ok(paid()));
    assert_eq!(bill(&old_subscription()), Ok(paid()));
    let mut bare = old_subscription();
    bare["items"] = Value::Null;
    assert_eq!(bill(&bare), Ok(paid()));
    // What a merchant does to the invoices is no matter of access.
    assert_eq!(bill(&with(json!({"pause_collection": {"behavior": "void"}}))), Ok(paid()));
}

#[test]
fn every_status_has_a_state() {
    for (status, state) in [
        ("incomplete", State::Pending),
        ("trialing", State::Trialing),
        ("active", State::Active),
        ("past_due", State::PastDue),
        ("paused", State::Paused),
        ("unpaid", State::Unpaid),
        ("canceled", State::Ended),
        ("incomplete_expired", State::Ended),
        ("ended", State::Unknown),
        ("Active", State::Unknown),
        ("", State::Unknown),
    ] {
        let found = bill(&with(json!({"status": status}))).unwrap();
        assert_eq!((found.state, found.raw_state.as_str()), (state, status));
    }
    assert_eq!(bill(&with(json!({"status": null}))).unwrap().state, State::Unknown);
    assert_eq!(bill(&with(json!({"status": "é".repeat(100)}))).unwrap().raw_state, "é".repeat(64));
}

#[test]
fn of_several_items_the_first_bound_counts() {
    let items = json!({"items": {"data": [
        {"current_period_start": 20, "current_period_end": 200, "price": {"id": "price_a"}},
        {"current_period_start": 10, "current_period_end": 300, "price": {"id": "price_b"}},
        {"current_period_start": null, "current_period_end": "soon", "price": null},
    ]}, "current_period_start": 1, "current_period_end": 2});
    let found = bill(&with(items)).unwrap();
    assert_eq!((found.period_start, found.period_end), (at(10), at(200)));
    assert_eq!(found.price.as_deref(), Some("price_a"));
}

#[test]
fn without_a_period_nobody_is_let_in() {
    for (status, start, end, state) in [
        ("active", Some(1), None, State::Unknown),
        ("trialing", Some(1), None, State::Unknown),
        ("active", None, Some(2), State::Active),
        ("past_due", None, Some(2), State::Unknown),
        ("past_due", Some(1), None, State::PastDue),
        ("canceled", None, None, State::Ended),
        ("incomplete", None, None, State::Pending),
        ("active", Some(1), Some(i64::MAX), State::Unknown),
    ] {
        let item = json!({"current_period_start": start, "current_period_end": end});
        let found = bill(&with(json!({"status": status, "items": {"data": [item]}}))).unwrap();
        assert_eq!(found.state, state, "{status} {start:?} {end:?}");
        assert_eq!(found.raw_state, status);
    }
}

#[test]
fn both_ways_of_ending_later_are_seen() {
    let cancel_at = |fields| bill(&with(fields)).unwrap().cancel_at;
    assert_eq!(cancel_at(json!({"cancel_at_period_end": true})), at(1_762_592_000));
    assert_eq!(cancel_at(json!({"cancel_at": 1_761_000_000})), at(1_761_000_000));
    assert_eq!(
        cancel_at(json!({"cancel_at": 1_761_000_000, "cancel_at_period_end": true})),
        at(1_761_000_000)
    );
    assert_eq!(cancel_at(json!({"cancel_at": null, "cancel_at_period_end": null})), None);
    let ended = bill(&with(json!({"status": "canceled", "ended_at": 1_761_000_000}))).unwrap();
    assert_eq!((ended.state, ended.ended_at), (State::Ended, at(1_761_000_000)));
}

#[test]
fn references_are_ids_or_objects_and_nothing_that_could_be_a_path() {
    assert_eq!(reference(&json!("cus_1")), Some("cus_1"));
    assert_eq!(reference(&json!({"id": "cus_1", "deleted": true})), Some("cus_1"));
    let long = "x".repeat(256);
    for none in [json!(null), json!(1), json!([]), json!({}), json!({"id": null}), json!({"id": {"id": "a"}})]
    {
        assert_eq!(reference(&none), None, "{none}");
    }
    for none in ["", "..", "a/b", "a?b", "a%2fb", "a b", "é", "a-b", &long] {
        assert!(!is_reference(none), "{none}");
    }
    assert!(is_reference(&long[1..]));
    assert!(bill(&with(json!({"id": "../customers"}))).is_err());
    assert!(bill(&json!({})).is_err());
}

proptest! {
    #[test]
    fn no_subscription_is_too_strange(changes in any_changes(), old: bool) {
        let mut subscription = if old { old_subscription() } else { subscription() };
        for change in &changes {
            change.apply(&mut subscription);
        }
        match bill(&subscription) {
            Ok(found) => {
                prop_assert!(is_reference(&found.reference));
                prop_assert!(found.raw_state.chars().count() <= 64);
                prop_assert!(found.period_end.is_some() || !matches!(found.state, State::Active | State::Trialing));
            }
            Err(_) => prop_assert!(id(&subscription).is_none()),
        }
    }

    #[test]
    fn what_is_added_or_moved_changes_nothing(seed: u64, old: bool) {
        let subscription = if old { old_subscription() } else { subscription() };
        let changed = reordered(&with_unknown_fields(&subscription), seed);
        prop_assert_eq!(bill(&changed), Ok(paid()));
    }
}

#[test]
fn a_change_reaches_what_lies_deep() {
    let mut changed = subscription();
    let change = Change { at: usize::MAX, to: json!("x") };
    change.apply(&mut changed);
    assert_ne!(changed, subscription());
}
