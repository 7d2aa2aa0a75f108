//! Notices as Stripe sends them: in any order, twice, late, lost and forged.

use std::collections::HashSet;

use axum::http::{HeaderMap, Method};
use digitalmistress::billing::{
    gateway::{Gateway as _, Notice, Received, Rejection, Signal, Subject, Touched, Undelivered},
    gateways::stripe::Stripe,
    row::Mode,
};
use serde_json::json;

use super::{DAY, NOW, at, buyer};
use crate::support::stripe::{Delivery, KEY, MONTH, SECRET, StripeFake, sign};

pub fn receive(gateway: &Stripe, delivery: &Delivery, now: i64) -> Result<Received, Rejection> {
    let mut headers = HeaderMap::new();
    headers.insert("stripe-signature", delivery.signature.parse().unwrap());
    let body = &delivery.body;
    let notice =
        Notice { method: &Method::POST, path_secret: None, query: "", headers: &headers, peer: None, body };
    gateway.receive(&notice, at(now))
}

/// Everything that happens to one customer, with a chargeback and a refund.
async fn history(fake: &StripeFake, gateway: &Stripe) -> (String, String, String) {
    let (customer, subscription) = buyer(fake, gateway, 1).await;
    let charge = fake.charge_of(&subscription);
    let dispute = fake.dispute(&charge, "needs_response");
    fake.judge_dispute(&dispute, "won");
    fake.advance(MONTH);
    let refunded = fake.charge_of(&subscription);
    let refund = fake.refund(&refunded, None);
    fake.fail_refund(&refund);
    fake.cancel_in_portal(&subscription);
    fake.advance(MONTH);
    fake.delete_customer(&customer);
    (customer, dispute, refunded)
}

#[tokio::test]
async fn a_whole_history_is_understood() {
    let fake = StripeFake::start(NOW).await;
    let gateway = fake.gateway();
    let (customer, dispute, charge) = history(&fake, &gateway).await;
    let subjects = [Subject::Customer(customer), Subject::Dispute(dispute), Subject::Charge(charge)];
    let mut touched = HashSet::new();
    for (notice, event) in fake.notices().iter().zip(fake.events()) {
        let received = receive(&gateway, notice, fake.now()).unwrap();
        assert_eq!(received.reply, "");
        match received.signal {
            Signal::Touched(found) => {
                assert_eq!((&*found.key, &*found.kind), (&*notice.id, event["type"].as_str().unwrap()));
                assert_eq!(found.at.as_second(), event["created"]);
                touched.insert(found.subject.unwrap());
            }
            Signal::Ignored(found) => {
                assert!(["customer.created", "charge.succeeded"].contains(&&*found.kind), "{}", found.kind);
            }
            Signal::Fact(fact) => panic!("{fact:?}"),
        }
    }
    assert_eq!(touched, HashSet::from(subjects));
}

#[tokio::test]
async fn forged_and_stale_notices_are_refused() {
    let fake = StripeFake::start(NOW).await;
    let gateway = fake.gateway();
    buyer(&fake, &gateway, 1).await;
    let event = &fake.events()[1];
    for (secret, time, is_genuine) in [
        (SECRET, NOW, true),
        (SECRET, NOW - 300, true),
        (SECRET, NOW - 301, false),
        (SECRET, NOW + 301, false),
        ("whsec_other", NOW, false),
    ] {
        let answer = receive(&gateway, &Delivery::signed(event, secret, time), NOW);
        assert_eq!(answer.is_ok(), is_genuine, "{secret} {time}");
    }
    let other = Delivery { body: b"{}".to_vec(), ..Delivery::signed(event, SECRET, NOW) };
    assert!(receive(&gateway, &other, NOW).is_err());
}

#[tokio::test]
async fn real_money_and_play_money_do_not_meet() {
    let fake = StripeFake::start(NOW).await;
    let (test, live) = (fake.gateway(), fake.gateway_with(KEY, Mode::Live));
    buyer(&fake, &test, 1).await;
    let tested = fake.notices().pop().unwrap();
    fake.go_live();
    buyer(&fake, &live, 2).await;
    let lived = fake.notices().pop().unwrap();
    let is_taken =
        |gateway, notice| matches!(receive(gateway, notice, NOW).unwrap().signal, Signal::Touched(_));
    assert!(is_taken(&test, &tested) && is_taken(&live, &lived));
    assert!(!is_taken(&test, &lived) && !is_taken(&live, &tested));
}

#[tokio::test]
async fn thin_notices_name_the_thing_itself() {
    let fake = StripeFake::start(NOW).await;
    let gateway = fake.gateway();
    let (customer, dispute, charge) = history(&fake, &gateway).await;
    let mut touched = HashSet::new();
    for notice in fake.thin_notices() {
        if let Signal::Touched(found) = receive(&gateway, &notice, fake.now()).unwrap().signal {
            touched.insert(found.subject.unwrap());
        }
    }
    let subjects = [Subject::Customer(customer), Subject::Dispute(dispute), Subject::Charge(charge)];
    assert_eq!(touched, HashSet::from(subjects));
}

#[tokio::test]
async fn what_was_not_delivered_is_told_later_oldest_first() {
    let fake = StripeFake::start(NOW).await;
    let gateway = fake.gateway();
    history(&fake, &gateway).await;
    let delivered = fake.notices()[3].id.clone();
    fake.mark_delivered(&delivered);
    fake.take_requests();

    let undelivered = gateway.undelivered(at(NOW)).await.unwrap().touched;
    let received = fake.notices().into_iter().filter_map(|notice| {
        match receive(&gateway, &notice, fake.now()).unwrap().signal {
            Signal::Touched(touched) => Some(touched),
            _ => None,
        }
    });
    let received: Vec<Touched> = received.collect();
    assert_eq!(undelivered, received);
    assert!(undelivered.iter().all(|touched| touched.key != delivered));

    let later = gateway.undelivered(at(NOW + DAY)).await.unwrap().touched;
    assert!(!later.is_empty() && later.len() < undelivered.len());
    assert!(later.iter().all(|touched| touched.at >= at(NOW + DAY)));
    assert_eq!(gateway.undelivered(at(NOW + 3 * MONTH)).await, Ok(Undelivered::default()));

    let query = &fake.take_requests()[0].query;
    let rest = query
        .strip_prefix("delivery_success=false&types[0]=customer.subscription.created&types[1]=")
        .unwrap();
    assert!(
        rest.ends_with(&format!("&types[17]=charge.dispute.closed&created[gte]={NOW}&limit=100")),
        "{rest}"
    );
}

#[tokio::test]
async fn undelivered_notices_come_in_pages() {
    let fake = StripeFake::start(NOW).await;
    let gateway = fake.gateway();
    let (_, subscription) = buyer(&fake, &gateway, 1).await;
    for second in 0..250 {
        fake.advance(second % 2);
        fake.change(&subscription, "customer.subscription.updated", &json!({}));
    }
    fake.take_requests();
    let undelivered = gateway.undelivered(at(NOW)).await.unwrap().touched;
    assert_eq!(undelivered.len(), 253);
    assert!(undelivered.is_sorted_by_key(|touched| (touched.at, touched.key.clone())));
    assert_eq!(fake.take_requests().len(), 3);
}

/// The fake delivers to whoever listens, and takes an answer of 2xx for a delivery.
#[tokio::test]
async fn a_delivery_counts_when_it_is_accepted() {
    let fake = StripeFake::start(NOW).await;
    let gateway = std::sync::Arc::new(fake.gateway());
    buyer(&fake, &gateway, 1).await;
    let receiver = gateway.clone();
    let handler = move |headers: HeaderMap, body: bytes::Bytes| async move {
        let signature = headers["stripe-signature"].to_str().unwrap().to_owned();
        let delivery = Delivery { id: String::new(), body: body.to_vec(), signature };
        let is_genuine = receive(&receiver, &delivery, NOW).is_ok();
        if is_genuine { axum::http::StatusCode::OK } else { axum::http::StatusCode::BAD_REQUEST }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let router = axum::Router::new().route("/", axum::routing::post(handler));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });

    let client = reqwest::Client::new();
    let waiting = fake.notices();
    let forged = Delivery { signature: sign("whsec_other", NOW, &waiting[0].body), ..waiting[0].clone() };
    assert_eq!(fake.deliver(&client, &url, &forged).await, 400);
    assert_eq!(fake.notices().len(), waiting.len());
    for notice in waiting.iter().rev().chain(&waiting) {
        assert_eq!(fake.deliver(&client, &url, notice).await, 200);
    }
    assert_eq!(fake.notices().len(), 0);
    assert_eq!(gateway.undelivered(at(NOW)).await, Ok(Undelivered::default()));
}
