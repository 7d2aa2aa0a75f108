//! What we send, byte by byte, and what we make of failures.

use std::time::Duration;

use digitalmistress::billing::{
    gateway::{Capabilities, Gateway as _, GatewayError, Subject},
    gateways::stripe::Stripe,
    row::Mode,
};
use secrecy::ExposeSecret as _;
use tokio::time::Instant;
use uuid::Uuid;

use super::{NONCE, NOW, USER, at, buyer, order};
use crate::support::stripe::{CHECKOUT_LIFE, Fault, KEY, StripeFake};

async fn started() -> (StripeFake, Stripe) {
    let fake = StripeFake::start(NOW).await;
    let gateway = fake.gateway();
    (fake, gateway)
}

fn lines(fake: &StripeFake) -> Vec<String> {
    fake.take_requests().iter().map(|request| request.line()).collect()
}

#[tokio::test]
async fn requests_are_those_that_were_captured_from_the_sdk() {
    let (fake, gateway) = started().await;
    let (customer, subscription) = buyer(&fake, &gateway, 1).await;
    gateway.portal(&customer, "https://app.example/account").await.unwrap();
    gateway.cancel(&subscription, at(NOW)).await.unwrap();
    gateway.fetch(&Subject::Customer(customer)).await.unwrap();

    let user = USER;
    assert_eq!(
        lines(&fake),
        [
            format!("POST /v1/customers metadata[user_id]={user}"),
            format!(
                "POST /v1/checkout/sessions mode=subscription&customer=cus_000001&client_reference_id={user}\
                 &line_items[0][price]=price_pro&line_items[0][quantity]=1\
                 &success_url=https%3A%2F%2Fapp.example%2Fpaid%3Fsession%3D%7BCHECKOUT_SESSION_ID%7D%26a%3Db%20c\
                 &cancel_url=https%3A%2F%2Fapp.example%2Fplans\
                 &subscription_data[metadata][user_id]={user}&metadata[user_id]={user}"
            ),
            "POST /v1/billing_portal/sessions customer=cus_000001\
             &return_url=https%3A%2F%2Fapp.example%2Faccount"
                .into(),
            "POST /v1/subscriptions/sub_000001 cancel_at_period_end=true".into(),
            "GET /v1/customers/cus_000001".into(),
            "GET /v1/subscriptions?customer=cus_000001&status=all&limit=100".into(),
        ]
    );
}

#[tokio::test]
async fn every_request_names_key_and_version_and_every_change_a_key_of_its_own() {
    let (fake, gateway) = started().await;
    let (customer, subscription) = buyer(&fake, &gateway, 1).await;
    for _ in 0..2 {
        gateway.portal(&customer, "https://app.example/").await.unwrap();
        gateway.cancel(&subscription, at(NOW)).await.unwrap();
    }
    gateway.fetch(&Subject::Customer(customer)).await.unwrap();

    let requests = fake.take_requests();
    for request in &requests {
        assert_eq!(request.header("authorization"), format!("Bearer {KEY}"));
        assert_eq!(request.header("stripe-version"), "2026-10-28.endive");
        assert_eq!(request.header("idempotency-key").is_empty(), request.method == "GET");
        assert!(request.header("user-agent").starts_with("digitalmistress/"));
    }
    let mut keys: Vec<&str> = requests
        .iter()
        .filter(|request| request.method == "POST")
        .map(|request| request.header("idempotency-key"))
        .collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 6);
}

#[tokio::test]
async fn the_same_nonce_makes_the_same_customer_and_the_same_checkout() {
    let (fake, gateway) = started().await;
    let customer = gateway.create_customer(USER, NONCE).await.unwrap();
    assert_eq!(gateway.create_customer(USER, NONCE).await.unwrap(), customer);
    // One nonce may serve both calls.
    let first = gateway.start_checkout(&order(&customer, NONCE)).await.unwrap();
    let again = gateway.start_checkout(&order(&customer, NONCE)).await.unwrap();
    assert_eq!(first.reference, again.reference);
    assert_eq!(first.url.expose_secret(), again.url.expose_secret());
    assert_eq!(first.expires_at, at(NOW + CHECKOUT_LIFE));
    assert_eq!((fake.objects("customer").len(), fake.objects("checkout.session").len()), (1, 1));

    let mut other = order(&customer, NONCE);
    other.price = "price_basic".into();
    let refused = gateway.start_checkout(&other).await.unwrap_err();
    assert_eq!(refused, GatewayError::Refused("HTTP 400 idempotency_error req_000005".into()));
    assert_ne!(gateway.create_customer(USER, USER).await.unwrap(), customer);
}

#[tokio::test]
async fn a_checkout_ends_however_often_it_is_asked_to_and_not_when_it_was_paid() {
    let (fake, gateway) = started().await;
    let customer = gateway.create_customer(USER, NONCE).await.unwrap();
    let mut sessions = Vec::new();
    for number in 0..4 {
        let checkout = gateway.start_checkout(&order(&customer, Uuid::from_u128(number))).await.unwrap();
        sessions.push(checkout.reference.unwrap());
    }
    let [expired, paid, late, unpaid] = <[String; 4]>::try_from(sessions).unwrap();
    assert!(fake.pay(&paid).is_some());
    fake.take_requests();

    assert_eq!(gateway.expire_checkout(&expired).await, Ok(true));
    assert_eq!(lines(&fake), [format!("POST /v1/checkout/sessions/{expired}/expire")]);
    assert_eq!(gateway.expire_checkout(&expired).await, Ok(true));
    assert_eq!(gateway.expire_checkout(&paid).await, Ok(false));
    assert_eq!(gateway.expire_checkout("cs_test_unknown").await, Ok(true));
    fake.advance(CHECKOUT_LIFE);
    assert_eq!(gateway.expire_checkout(&late).await, Ok(true));
    for session in [expired, late, unpaid] {
        assert_eq!(fake.pay(&session), None);
    }
}

#[tokio::test]
async fn what_fails_for_a_moment_is_tried_again_with_the_same_key() {
    let (fake, gateway) = started().await;
    for fault in [
        Fault::Drop,
        Fault::LoseAnswer,
        Fault::Answer(409, vec![], vec![]),
        Fault::Answer(503, vec![], vec![]),
    ] {
        fake.fail([fault.clone(), fault.clone()]);
        let nonce = Uuid::from_u128(u128::from(fake.objects("customer").len() as u64));
        let customer = gateway.create_customer(USER, nonce).await.unwrap();
        let requests = fake.take_requests();
        assert_eq!(requests.len(), 3, "{fault:?}");
        let key = format!("customer-{nonce}");
        assert!(requests.iter().all(|request| request.header("idempotency-key") == key));
        assert_eq!(fake.objects("customer")[0]["id"], customer);
    }
    assert_eq!(fake.objects("customer").len(), 4, "a lost answer made somebody twice");
}

#[tokio::test]
async fn stripe_says_what_is_tried_again() {
    let (fake, gateway) = started().await;
    let answer = |status, again| Fault::Answer(status, vec![("stripe-should-retry", again)], vec![]);
    for (faults, requests, error) in [
        (vec![answer(500, "false")], 1, Some("the provider did not answer: HTTP 500")),
        (vec![answer(409, "false")], 1, Some("the provider did not answer: HTTP 409")),
        (vec![answer(429, "true")], 2, None),
        (vec![answer(429, "")], 1, Some("the provider did not answer: HTTP 429")),
        (vec![answer(400, "true")], 2, None),
        (vec![answer(400, "")], 1, Some("the provider refused: HTTP 400")),
        (vec![answer(424, "")], 1, Some("the provider did not answer: HTTP 424")),
        (vec![answer(500, ""); 3], 3, Some("the provider did not answer: HTTP 500")),
    ] {
        fake.fail(faults.clone());
        let answer = gateway.undelivered(at(NOW)).await;
        assert_eq!(answer.err().map(|error| error.to_string()).as_deref(), error, "{faults:?}");
        assert_eq!(fake.take_requests().len(), requests, "{faults:?}");
    }
}

#[tokio::test]
async fn errors_say_what_an_operator_needs_and_nothing_else() {
    let (fake, gateway) = started().await;
    let refused = gateway.start_checkout(&order("cus_secret", NONCE)).await.unwrap_err();
    let expected = "HTTP 400 invalid_request_error resource_missing req_000001";
    assert_eq!(refused, GatewayError::Refused(expected.into()));
    let refused = fake.gateway_with("sk_test_wrong", Mode::Test).fetch(&Subject::Charge("ch_1".into())).await;
    let expected = "HTTP 401 invalid_request_error req_000002";
    assert_eq!(refused, Err(GatewayError::Misconfigured(expected.into())));
    let unsendable = fake.gateway_with("sk\n", Mode::Test).undelivered(at(NOW)).await.unwrap_err();
    assert_eq!(
        unsendable.to_string(),
        "the provider cannot be asked as it is configured: it holds characters that no header may hold"
    );

    fake.fail_next(3, 500);
    let failed = gateway.undelivered(at(NOW)).await.unwrap_err();
    assert_eq!(failed, GatewayError::Unavailable("HTTP 500 api_error".into()));
}

#[tokio::test]
async fn answers_that_make_no_sense_are_told_apart() {
    let (fake, gateway) = started().await;
    let long = vec![b' '; 2 * 1024 * 1024 + 1];
    for (fault, error) in [
        (Fault::Answer(200, vec![], b"<html>".to_vec()), "a body that is no object"),
        (Fault::Answer(200, vec![], b"[]".to_vec()), "a body that is no object"),
        (Fault::Answer(200, vec![], b"{}".to_vec()), "a list without data"),
        (
            Fault::Answer(200, vec![], b"{\"data\":[],\"has_more\":true}".to_vec()),
            "an empty page with more behind it",
        ),
        (Fault::Answer(200, vec![], b"{\"data\":[{}],\"has_more\":true}".to_vec()), "an entry without an id"),
        (Fault::Answer(200, vec![], long), "a body that is too long"),
        (
            Fault::Answer(200, vec![("content-encoding", "gzip")], vec![]),
            "a compressed answer, which was not asked for",
        ),
        (Fault::Answer(302, vec![("location", "/v1/elsewhere")], vec![]), "a redirect"),
    ] {
        fake.fail([fault]);
        assert_eq!(gateway.undelivered(at(NOW)).await, Err(GatewayError::Protocol(error.into())));
        assert_eq!(fake.take_requests().len(), 1, "{error}");
    }
    for body in [
        "{\"id\":\"cs_1\"}",
        "{\"id\":\"cs_1\",\"url\":null,\"expires_at\":1}",
        "{\"url\":\"https://a.example\"}",
    ] {
        fake.fail([Fault::Answer(200, vec![], body.into())]);
        let answer = gateway.start_checkout(&order("cus_1", NONCE)).await;
        assert!(matches!(answer, Err(GatewayError::Protocol(_))), "{body}");
    }
}

/// Else whatever answers at a wrong address would end everybody's subscriptions.
#[tokio::test]
async fn only_stripe_itself_says_that_somebody_is_gone() {
    let (fake, gateway) = started().await;
    let (customer, _) = buyer(&fake, &gateway, 1).await;
    for body in ["", "not found", "{\"error\":{\"type\":\"invalid_request_error\"}}"] {
        fake.fail([Fault::Answer(404, vec![], body.into())]);
        let answer = gateway.fetch(&Subject::Customer(customer.clone())).await;
        assert!(matches!(answer, Err(GatewayError::Refused(_))), "{answer:?}");
    }
}

#[tokio::test]
async fn a_key_of_the_other_mode_changes_nothing_of_ours() {
    let (fake, gateway) = started().await;
    let (customer, _) = buyer(&fake, &gateway, 1).await;
    let live = fake.gateway_with(KEY, Mode::Live);
    let answer = live.fetch(&Subject::Customer(customer)).await;
    assert_eq!(answer, Err(GatewayError::Misconfigured("it is for the other mode".into())));

    fake.go_live();
    assert!(live.create_customer(USER, NONCE).await.is_ok());
    let answer = gateway.create_customer(USER, USER).await;
    assert!(matches!(answer, Err(GatewayError::Misconfigured(_))), "{answer:?}");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_in_time() {
    let (fake, gateway) = started().await;
    fake.fail([Fault::Hang, Fault::Hang, Fault::Hang]);
    let started = Instant::now();
    let answer = gateway.undelivered(at(NOW)).await;
    assert_eq!(answer, Err(GatewayError::Unavailable("it was too slow".into())));
    let took = started.elapsed();
    assert!(took > Duration::from_secs(14) && took < Duration::from_secs(16), "{took:?}");
    assert_eq!(fake.take_requests().len(), 2);
}

#[test]
fn it_can_be_asked_and_has_no_page_for_everybody() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_fake, gateway) = runtime.block_on(started());
    assert_eq!(gateway.capabilities(), Capabilities { queryable: true, portal: true, cancel: true });
    assert_eq!((gateway.manage_url(), gateway.mode()), (None, Mode::Test));
}
