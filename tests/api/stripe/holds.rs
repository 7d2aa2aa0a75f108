//! What disputes and refunds mean.

use digitalmistress::billing::{
    gateway::{Customer, Gateway as _, HoldState, SnapshotState, Subject},
    gateways::stripe::Stripe,
    row::HoldKind,
};
use serde_json::{Value, json};

use super::{DAY, NOW, USER, at, buyer, fetched};
use crate::support::stripe::{AMOUNT, StripeFake};

async fn hold(gateway: &Stripe, subject: Subject) -> (Option<Customer>, HoldState) {
    let snapshot = fetched(gateway, subject).await;
    match snapshot.state {
        SnapshotState::Hold(hold) => (snapshot.customer, hold),
        other => panic!("{other:?}"),
    }
}

fn refund(subscription: Option<&str>, since: Option<i64>) -> HoldState {
    let subscription = subscription.map(str::to_owned);
    HoldState { kind: HoldKind::Refund, subscription, held_since: since.map(at) }
}

#[tokio::test]
async fn only_a_charge_that_was_given_back_whole_holds_its_subscription_up() {
    let fake = StripeFake::start(NOW).await;
    let gateway = fake.gateway();
    let (customer, subscription) = buyer(&fake, &gateway, 1).await;
    let ann = Some(Customer { reference: customer, user: Some(USER) });
    let charge = fake.charge_of(&subscription);
    let of_charge = || Subject::Charge(charge.clone());
    assert_eq!(hold(&gateway, of_charge()).await, (ann.clone(), refund(None, None)));

    fake.advance(DAY);
    fake.refund(&charge, Some(AMOUNT - 1));
    assert_eq!(hold(&gateway, of_charge()).await, (ann.clone(), refund(None, None)));

    fake.advance(DAY);
    let rest = fake.refund(&charge, None);
    fake.take_requests();
    // Since the period began that it had paid for, whenever the money was given back.
    let held = refund(Some(&subscription), Some(NOW));
    assert_eq!(hold(&gateway, of_charge()).await, (ann.clone(), held));
    let lines: Vec<String> = fake.take_requests().iter().map(|request| request.line()).collect();
    assert_eq!(
        lines,
        [
            "GET /v1/charges/ch_000001?expand[0]=customer&expand[1]=refunds",
            "GET /v1/invoice_payments?payment[type]=payment_intent&payment[payment_intent]=pi_000001&limit=100",
            "GET /v1/invoices/in_000001",
        ]
    );

    fake.fail_refund(&rest);
    assert_eq!(hold(&gateway, of_charge()).await, (ann, refund(None, None)));
}

#[tokio::test]
async fn a_refund_of_something_else_holds_nothing_up() {
    let fake = StripeFake::start(NOW).await;
    let gateway = fake.gateway();
    let (customer, _) = buyer(&fake, &gateway, 1).await;
    let charge = fake.charge(&customer);
    fake.refund(&charge, None);
    assert_eq!(hold(&gateway, Subject::Charge(charge)).await.1, refund(None, None));
}

#[tokio::test]
async fn old_shapes_of_charges_and_invoices_say_the_same() {
    let fake = StripeFake::start(NOW).await;
    let gateway = fake.gateway();
    let (_, subscription) = buyer(&fake, &gateway, 1).await;
    let charge = fake.charge_of(&subscription);
    fake.advance(DAY);
    fake.refund(&charge, None);
    let held = refund(Some(&subscription), Some(NOW));
    let of_charge = || Subject::Charge(charge.clone());

    fake.set("invoice", "in_000001", &json!({"parent": null, "subscription": subscription}));
    assert_eq!(hold(&gateway, of_charge()).await.1, held);
    fake.set(
        "invoice",
        "in_000001",
        &json!({"subscription": {"id": subscription, "object": "subscription"}}),
    );
    fake.set("charge", &charge, &json!({"payment_intent": null, "invoice": "in_000001"}));
    assert_eq!(hold(&gateway, of_charge()).await.1, held);
    // An invoice that tells no period: since the money was given back.
    for lines in [Value::Null, json!({"data": []}), json!({"data": [{"period": null}]})] {
        fake.set("invoice", "in_000001", &json!({"lines": lines}));
        assert_eq!(hold(&gateway, of_charge()).await.1, refund(Some(&subscription), Some(NOW + DAY)));
    }

    for (invoice, subscription) in [("in_000001", Value::Null), ("in_unknown", json!(subscription))] {
        fake.set("invoice", "in_000001", &json!({"subscription": subscription}));
        fake.set("charge", &charge, &json!({"invoice": invoice}));
        assert_eq!(hold(&gateway, of_charge()).await.1, refund(None, None));
    }
}

#[tokio::test]
async fn a_dispute_holds_everything_up_until_it_is_won() {
    let fake = StripeFake::start(NOW).await;
    let gateway = fake.gateway();
    let (customer, subscription) = buyer(&fake, &gateway, 1).await;
    fake.advance(DAY);
    let dispute = fake.dispute(&fake.charge_of(&subscription), "warning_needs_response");
    for (status, is_held) in [
        ("warning_needs_response", false),
        ("warning_under_review", false),
        ("needs_response", true),
        ("under_review", true),
        ("appeal_needs_response", true),
        ("appeal_under_review", true),
        ("lost", true),
        ("prevented", true),
        ("a_new_status", true),
        ("won", false),
        ("warning_closed", false),
    ] {
        fake.judge_dispute(&dispute, status);
        let (whose, found) = hold(&gateway, Subject::Dispute(dispute.clone())).await;
        let held_since = is_held.then(|| at(NOW + DAY));
        assert_eq!(
            found,
            HoldState { kind: HoldKind::Chargeback, subscription: None, held_since },
            "{status}"
        );
        assert_eq!(whose, Some(Customer { reference: customer.clone(), user: Some(USER) }));
    }
}

#[tokio::test]
async fn nobodys_charge_is_nobodys() {
    let fake = StripeFake::start(NOW).await;
    let gateway = fake.gateway();
    let (customer, subscription) = buyer(&fake, &gateway, 1).await;
    let charge = fake.charge_of(&subscription);
    let dispute = fake.dispute(&charge, "needs_response");
    let whose = async |subject: Subject| gateway.fetch(&subject).await.unwrap().customer;

    fake.delete_customer(&customer);
    let deleted = Some(Customer { reference: customer, user: None });
    assert_eq!(whose(Subject::Charge(charge.clone())).await, deleted);
    assert_eq!(whose(Subject::Dispute(dispute.clone())).await, deleted);
    fake.set("charge", &charge, &json!({"customer": null}));
    assert_eq!(whose(Subject::Dispute(dispute.clone())).await, None);
    // The charge is not there: the dispute is.
    fake.set("dispute", &dispute, &json!({"charge": "ch_unknown"}));
    assert!(hold(&gateway, Subject::Dispute(dispute)).await.1.held_since.is_some());
}
