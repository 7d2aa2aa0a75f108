//! What we read from Stripe about customers and their subscriptions.

use digitalmistress::billing::{
    gateway::{Customer, Gateway as _, GatewayError, Snapshot, SnapshotState, Subject},
    row::{Bill, State},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{DAY, NONCE, NOW, USER, at, bill, bills, buyer, fetched, order};
use crate::support::stripe::{Fault, MONTH, StripeFake};

#[tokio::test]
async fn a_purchase_is_seen_whole() {
    let fake = StripeFake::start(NOW).await;
    let gateway = fake.gateway();
    let customer = gateway.create_customer(USER, NONCE).await.unwrap();
    let nobody = Snapshot {
        customer: Some(Customer { reference: customer.clone(), user: Some(USER) }),
        state: SnapshotState::Subscriptions(vec![]),
    };
    assert_eq!(fetched(&gateway, Subject::Customer(customer.clone())).await, nobody);

    let checkout = gateway.start_checkout(&order(&customer, NONCE)).await.unwrap();
    fake.advance(60);
    let subscription = fake.pay(&checkout.reference.unwrap()).unwrap();
    let expected = Bill {
        reference: subscription,
        state: State::Active,
        raw_state: "active".into(),
        price: Some("price_pro".into()),
        period_start: Some(at(NOW + 60)),
        period_end: Some(at(NOW + 60 + MONTH)),
        cancel_at: None,
        ended_at: None,
    };
    let bought = Snapshot { state: SnapshotState::Subscriptions(vec![expected]), ..nobody };
    assert_eq!(fetched(&gateway, Subject::Customer(customer)).await, bought);
}

#[tokio::test]
async fn a_life_is_followed_to_its_end() {
    let fake = StripeFake::start(NOW).await;
    let gateway = fake.gateway();
    let (customer, subscription) = buyer(&fake, &gateway, 1).await;

    fake.advance(MONTH);
    let renewed = bill(&gateway, &customer).await;
    assert_eq!((renewed.state, renewed.period_start), (State::Active, Some(at(NOW + MONTH))));

    fake.decline(&customer, true);
    fake.advance(MONTH);
    let failed = bill(&gateway, &customer).await;
    assert_eq!((failed.state, failed.period_start), (State::PastDue, Some(at(NOW + 2 * MONTH))));
    fake.advance(3 * DAY);
    fake.retry_payment(&subscription);
    assert_eq!(bill(&gateway, &customer).await.state, State::PastDue);
    fake.decline(&customer, false);
    fake.retry_payment(&subscription);
    let mended = bill(&gateway, &customer).await;
    assert_eq!((mended.state, mended.period_end), (State::Active, Some(at(NOW + 3 * MONTH))));

    assert_eq!(gateway.cancel(&subscription, at(fake.now())).await, Ok(None));
    let cancelled = bill(&gateway, &customer).await;
    assert_eq!((cancelled.state, cancelled.cancel_at), (State::Active, Some(at(NOW + 3 * MONTH))));
    fake.advance(MONTH);
    let ended = bill(&gateway, &customer).await;
    assert_eq!((ended.state, ended.ended_at), (State::Ended, Some(at(NOW + 3 * MONTH))));
    assert_eq!(ended.raw_state, "canceled");
    assert!(gateway.cancel(&subscription, at(fake.now())).await.is_err(), "there is nothing to cancel");
}

#[tokio::test]
async fn trials_portals_and_merchants_are_seen() {
    let fake = StripeFake::start(NOW).await;
    let gateway = fake.gateway();
    let customer = gateway.create_customer(USER, NONCE).await.unwrap();
    let checkout = gateway.start_checkout(&order(&customer, NONCE)).await.unwrap();
    let subscription = fake.begin_trial(&checkout.reference.unwrap(), 7).unwrap();
    let trial = bill(&gateway, &customer).await;
    assert_eq!((trial.state, trial.period_end), (State::Trialing, Some(at(NOW + 7 * DAY))));
    fake.advance(7 * DAY);
    assert_eq!(bill(&gateway, &customer).await.state, State::Active);

    fake.cancel_in_portal(&subscription);
    let cancelled = bill(&gateway, &customer).await;
    assert_eq!((cancelled.state, cancelled.cancel_at), (State::Active, Some(at(NOW + 7 * DAY + MONTH))));
    fake.change(&subscription, "customer.subscription.updated", &json!({"cancel_at": null}));
    assert_eq!(bill(&gateway, &customer).await.cancel_at, None);

    let updated = "customer.subscription.updated";
    for (status, state) in [
        ("paused", State::Paused),
        ("unpaid", State::Unpaid),
        ("incomplete", State::Pending),
        ("a_new_status", State::Unknown),
    ] {
        fake.change(&subscription, updated, &json!({"status": status}));
        let found = bill(&gateway, &customer).await;
        assert_eq!((found.state, found.raw_state.as_str()), (state, status));
    }
    fake.end(&subscription);
    assert_eq!(bill(&gateway, &customer).await.state, State::Ended);
}

#[tokio::test]
async fn all_pages_are_read_and_ended_subscriptions_too() {
    let fake = StripeFake::start(NOW).await;
    let gateway = fake.gateway();
    let customer = gateway.create_customer(USER, NONCE).await.unwrap();
    let (other, _) = buyer(&fake, &gateway, 1).await;
    let mut bought = Vec::new();
    for number in 0..250 {
        let checkout = gateway.start_checkout(&order(&customer, Uuid::from_u128(number))).await.unwrap();
        bought.push(fake.pay(&checkout.reference.unwrap()).unwrap());
    }
    fake.end(&bought[0]);
    fake.take_requests();

    let found = bills(&gateway, &customer).await;
    let references: Vec<&str> = found.iter().map(|bill| bill.reference.as_str()).collect();
    bought.reverse();
    assert_eq!(references, bought);
    assert_eq!(found.last().unwrap().state, State::Ended);
    let queries: Vec<String> =
        fake.take_requests().into_iter().skip(1).map(|request| request.query).collect();
    let first = format!("customer={customer}&status=all&limit=100");
    let after = |place: usize| format!("{first}&starting_after={}", bought[place]);
    assert_eq!(queries, [first.clone(), after(99), after(199)]);
    assert_eq!(bills(&gateway, &other).await.len(), 1);
}

#[tokio::test]
async fn customers_that_are_not_there_are_told_from_those_that_were_deleted() {
    let fake = StripeFake::start(NOW).await;
    let gateway = fake.gateway();
    let gone = Snapshot { customer: None, state: SnapshotState::Gone };
    for subject in [Subject::Dispute, Subject::Charge].map(|kind| kind("xx_unknown".into())) {
        assert_eq!(fetched(&gateway, subject).await, gone);
    }
    // Nobody loses a customer: with the key of another account everybody's would be missing.
    let missing = gateway.fetch(&Subject::Customer("cus_unknown".into())).await;
    assert!(matches!(missing, Err(GatewayError::Misconfigured(_))), "{missing:?}");
    let (customer, subscription) = buyer(&fake, &gateway, 1).await;
    fake.delete_customer(&customer);
    assert_eq!(fake.object("subscription", &subscription)["status"], "canceled");
    let deleted = fetched(&gateway, Subject::Customer(customer.clone())).await;
    assert_eq!(deleted.customer, Some(Customer { reference: customer, user: None }));
    assert_eq!(deleted.state, SnapshotState::Gone);
}

#[tokio::test]
async fn who_has_subscriptions_is_there_though_the_customer_cannot_be_read() {
    let fake = StripeFake::start(NOW).await;
    let gateway = fake.gateway();
    let (customer, subscription) = buyer(&fake, &gateway, 1).await;
    let missing = br#"{"error":{"type":"invalid_request_error","code":"resource_missing"}}"#;
    fake.fail([Fault::Answer(404, Vec::new(), missing.to_vec())]);
    let found = fetched(&gateway, Subject::Customer(customer.clone())).await;
    assert_eq!(found.customer, Some(Customer { reference: customer, user: None }));
    let SnapshotState::Subscriptions(bills) = found.state else { panic!("{found:?}") };
    assert_eq!(bills.iter().map(|bill| &bill.reference).collect::<Vec<_>>(), [&subscription]);
}

#[tokio::test]
async fn a_customer_that_somebody_else_made_is_nobodys() {
    let fake = StripeFake::start(NOW).await;
    let gateway = fake.gateway();
    let customer = gateway.create_customer(USER, NONCE).await.unwrap();
    for metadata in [json!({}), json!({"user_id": "ann"}), json!({"user_id": null}), Value::Null] {
        fake.set("customer", &customer, &json!({"metadata": metadata}));
        let found = fetched(&gateway, Subject::Customer(customer.clone())).await.customer.unwrap();
        assert_eq!((found.reference.as_str(), found.user), (customer.as_str(), None));
    }
}
