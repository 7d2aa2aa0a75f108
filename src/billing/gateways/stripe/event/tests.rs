use super::*;
use proptest::prelude::*;
use serde_json::json;

use crate::billing::gateways::stripe::changes::{any_changes, reordered, with_unknown_fields};

const CREATED: i64 = 1_760_000_000;

fn now() -> Timestamp {
    Timestamp::from_second(CREATED + 7).unwrap()
}

fn event(kind: &str, object: Value) -> Value {
    json!({
        "id": "evt_1", "object": "event", "api_version": "2026-10-28.endive", "created": CREATED, "livemode": false,
        "pending_webhooks": 1, "request": {"id": null, "idempotency_key": null}, "type": kind,
        "data": {"object": object, "previous_attributes": {"status": "incomplete"}},
    })
}

fn thin(kind: &str, id: &str) -> Value {
    json!({
        "id": "evt_1", "object": "v2.core.event", "type": kind, "livemode": false, "created": "2025-10-09T08:53:20.000Z",
        "context": null, "related_object": {"id": id, "type": "a_kind", "url": format!("/v1/kinds/{id}")},
    })
}

fn touched(kind: &str, subject: Option<Subject>) -> Touched {
    Touched { key: "evt_1".into(), kind: kind.into(), subject, at: Timestamp::from_second(CREATED).unwrap() }
}

fn customer() -> Option<Subject> {
    Some(Subject::Customer("cus_1".into()))
}

#[test]
fn every_kind_says_what_to_ask_about() {
    for kind in KINDS {
        let object = json!({"id": "xx_1", "customer": "cus_1", "charge": "ch_1"});
        let subject = match kind {
            "customer.deleted" => Subject::Customer("xx_1".into()),
            "charge.refunded" => Subject::Charge("xx_1".into()),
            "charge.refund.updated" | "refund.failed" => Subject::Charge("ch_1".into()),
            kind if kind.starts_with("charge.dispute") => Subject::Dispute("xx_1".into()),
            _ => Subject::Customer("cus_1".into()),
        };
        let expected = Signal::Touched(touched(kind, Some(subject)));
        assert_eq!(read(&event(kind, object), Mode::Test, now()), Some(expected), "{kind}");
    }
}

#[test]
fn what_is_expanded_says_the_same_as_its_id() {
    let kind = "invoice.paid";
    let object =
        json!({"id": "in_1", "customer": {"id": "cus_1", "object": "customer", "email": "a@example.com"}});
    assert_eq!(
        read(&event(kind, object), Mode::Test, now()),
        Some(Signal::Touched(touched(kind, customer())))
    );
}

#[test]
fn other_kinds_and_things_of_nobody_are_ignored() {
    let paid = json!({"id": "in_1", "customer": "cus_1"});
    for (kind, object) in [
        ("invoice.created", paid.clone()),
        ("charge.dispute.invented", paid.clone()),
        ("v1.v1.invoice.paid", paid),
        ("invoice.paid", json!({"id": "in_1"})),
        ("invoice.paid", json!({"id": "in_1", "customer": null})),
        ("invoice.paid", json!({"id": "in_1", "customer": "cus 1"})),
        ("invoice.paid", json!(null)),
        ("invoice.paid", json!("in_1")),
        ("charge.refunded", json!({"customer": "cus_1"})),
        ("charge.refund.updated", json!({"id": "re_1", "charge": null})),
    ] {
        let event = event(kind, object);
        assert_eq!(read(&event, Mode::Test, now()), Some(Signal::Ignored(touched(kind, None))), "{event}");
    }
}

#[test]
fn the_other_modes_events_are_ignored() {
    let kind = "invoice.paid";
    let event = |livemode| {
        let mut event = event(kind, json!({"id": "in_1", "customer": "cus_1"}));
        event["livemode"] = livemode;
        event
    };
    let (taken, ignored) = (Signal::Touched(touched(kind, customer())), Signal::Ignored(touched(kind, None)));
    for (livemode, mode, expected) in [
        (json!(true), Mode::Live, &taken),
        (json!(false), Mode::Live, &ignored),
        (json!(null), Mode::Live, &ignored),
        (json!(true), Mode::Test, &ignored),
        (json!(false), Mode::Test, &taken),
        (json!(null), Mode::Test, &taken),
    ] {
        assert_eq!(
            read(&event(livemode.clone()), mode, now()).as_ref(),
            Some(expected),
            "{livemode} {mode:?}"
        );
    }
}

#[test]
fn thin_events_are_understood_where_the_id_is_enough() {
    for (kind, subject) in [
        ("v1.customer.deleted", Some(Subject::Customer("xx_1".into()))),
        ("v1.charge.refunded", Some(Subject::Charge("xx_1".into()))),
        ("v1.charge.dispute.created", Some(Subject::Dispute("xx_1".into()))),
        ("v1.customer.subscription.updated", None),
        ("v1.invoice.paid", None),
        ("v2.core.event_destination.ping", None),
    ] {
        let touched = touched(kind, subject);
        let expected =
            if touched.subject.is_some() { Signal::Touched(touched) } else { Signal::Ignored(touched) };
        assert_eq!(read(&thin(kind, "xx_1"), Mode::Test, now()), Some(expected), "{kind}");
    }
}

#[test]
fn what_is_no_event_is_none() {
    let good = event("invoice.paid", json!({"customer": "cus_1"}));
    for (field, value) in [
        ("object", json!("customer")),
        ("object", json!(null)),
        ("id", json!(null)),
        ("id", json!("evt 1")),
        ("id", json!("")),
        ("id", json!("x".repeat(256))),
        ("type", json!(null)),
        ("type", json!(1)),
    ] {
        let mut event = good.clone();
        event[field] = value;
        assert_eq!(read(&event, Mode::Test, now()), None, "{event}");
    }
    for none in [json!(null), json!([]), json!("event"), json!({})] {
        assert_eq!(read(&none, Mode::Test, now()), None);
    }
}

#[test]
fn what_is_missing_in_old_envelopes_is_not_missed() {
    let old = json!({"id": "evt_1", "object": "event", "type": "invoice.paid", "created": null,
        "data": {"object": {"customer": "cus_1"}}});
    let expected = Touched { at: now(), ..touched("invoice.paid", customer()) };
    assert_eq!(read(&old, Mode::Test, now()), Some(Signal::Touched(expected)));
    let mut long = event(&"é".repeat(100), json!({}));
    long["created"] = json!(i64::MAX);
    let expected = Touched { at: now(), ..touched(&"é".repeat(64), None) };
    assert_eq!(read(&long, Mode::Test, now()), Some(Signal::Ignored(expected)));
}

proptest! {
    #[test]
    fn no_event_is_too_strange(changes in any_changes(), kind in prop::sample::select(&KINDS[..]), is_thin: bool) {
        let mut event =
            if is_thin { thin(kind, "xx_1") } else { event(kind, json!({"id": "xx_1", "customer": "cus_1"})) };
        for change in &changes {
            change.apply(&mut event);
        }
        if let Some(Signal::Touched(found) | Signal::Ignored(found)) = read(&event, Mode::Test, now()) {
            prop_assert!(reading::is_reference(&found.key));
            prop_assert!(found.kind.chars().count() <= 64);
            if let Some(Subject::Customer(id) | Subject::Dispute(id) | Subject::Charge(id)) = found.subject {
                prop_assert!(reading::is_reference(&id));
            }
        }
    }

    #[test]
    fn what_is_added_or_moved_changes_nothing(seed: u64, kind in prop::sample::select(&KINDS[..])) {
        let event = event(kind, json!({"id": "xx_1", "customer": "cus_1", "charge": "ch_1"}));
        let changed = reordered(&with_unknown_fields(&event), seed);
        prop_assert_eq!(read(&changed, Mode::Test, now()), read(&event, Mode::Test, now()));
    }
}
