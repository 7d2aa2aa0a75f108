use super::*;
use proptest::prelude::*;
use reqwest::{Method, header::HeaderMap};
use serde_json::json;

use crate::platform::http_client;

const SECRET: &str = "whsec_test_secret";
const OLD_SECRET: &str = "whsec_old_secret";
const TIME: i64 = 1_760_000_000;

fn stripe() -> Stripe {
    let second = std::time::Duration::from_secs(1);
    let settings = StripeSettings {
        base_url: Url::parse("http://127.0.0.1:1").unwrap(),
        secret_key: SecretString::from("sk_test_secret"),
        webhook_secrets: vec![SecretString::from(SECRET), SecretString::from(OLD_SECRET)],
        mode: Mode::Test,
    };
    Stripe::new(settings, http_client::build(second, second).unwrap())
}

fn event() -> Vec<u8> {
    let object = json!({"id": "sub_1", "object": "subscription", "customer": "cus_1", "status": "active"});
    let event = json!({"id": "evt_1", "object": "event", "created": TIME, "livemode": false,
        "type": "customer.subscription.updated", "data": {"object": object}});
    event.to_string().into_bytes()
}

/// What is made of a notice that was sent by `POST` to the right path, with these values of the signature's header.
fn received(stripe: &Stripe, body: &[u8], signatures: &[Vec<u8>]) -> Result<Received, Rejection> {
    let mut headers = HeaderMap::new();
    for signature in signatures {
        let Ok(value) = signature.as_slice().try_into() else { return Err(Rejection::NotHere) };
        headers.append("stripe-signature", value);
    }
    notice(stripe, &Method::POST, None, &headers, body)
}

fn notice(
    stripe: &Stripe,
    method: &Method,
    path_secret: Option<&str>,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Received, Rejection> {
    let notice = Notice { method, path_secret, query: "", headers, peer: None, body };
    stripe.receive(&notice, Timestamp::from_second(TIME).unwrap())
}

fn signed(secret: &str, body: &[u8]) -> Vec<u8> {
    signature::header(secret, TIME, body).into_bytes()
}

#[test]
fn a_signed_event_says_whom_to_ask_about() {
    for secret in [SECRET, OLD_SECRET] {
        let received = received(&stripe(), &event(), &[signed(secret, &event())]).unwrap();
        let touched = crate::billing::gateway::Touched {
            key: "evt_1".into(),
            kind: "customer.subscription.updated".into(),
            subject: Some(Subject::Customer("cus_1".into())),
            at: Timestamp::from_second(TIME).unwrap(),
        };
        assert_eq!(received, Received { signal: Signal::Touched(touched), reply: String::new() });
    }
}

#[test]
fn nothing_is_served_elsewhere() {
    let mut headers = HeaderMap::new();
    headers.insert("stripe-signature", signed(SECRET, &event()).as_slice().try_into().unwrap());
    assert!(notice(&stripe(), &Method::POST, None, &headers, &event()).is_ok());
    for (method, secret) in [
        (Method::GET, None),
        (Method::PUT, None),
        (Method::HEAD, None),
        (Method::POST, Some("secret")),
        (Method::POST, Some("")),
    ] {
        let answer = notice(&stripe(), &method, secret, &headers, &event());
        assert_eq!(answer, Err(Rejection::NotHere), "{method} {secret:?}");
    }
}

#[test]
fn what_is_not_signed_is_not_read() {
    let good = signed(SECRET, &event());
    for signatures in [vec![], vec![vec![]], vec![good.clone(), good], vec![signed("whsec_other", &event())]]
    {
        let answer = received(&stripe(), &event(), &signatures);
        assert!(matches!(answer, Err(Rejection::NotGenuine(_))), "{signatures:?}");
    }
}

#[test]
fn what_is_signed_must_be_an_event_and_not_too_long() {
    let padding = |length: usize| {
        let event = String::from_utf8(event()).unwrap();
        format!("{event}{}", " ".repeat(length - event.len())).into_bytes()
    };
    let genuine = |body: &[u8]| received(&stripe(), body, &[signed(SECRET, body)]).is_ok();
    assert!(genuine(&padding(MAX_NOTICE)));
    assert!(!genuine(&padding(MAX_NOTICE + 1)));
    for body in [&b""[..], b"null", b"[]", b"{}", b"\xff", b"{\"object\":\"event\"}", &event()[1..]] {
        assert!(!genuine(body), "{}", String::from_utf8_lossy(body));
    }
    assert!(!genuine("[".repeat(200_000).as_bytes()), "nested deeply");
}

#[test]
fn a_link_leads_somewhere() {
    for url in [json!(null), json!(""), json!("/relative"), json!("javascript:alert(1)"), json!(7)] {
        assert!(link(&json!({"url": url})).is_err(), "{url}");
    }
    assert!(link(&json!({})).is_err());
    assert!(link(&json!({"url": "https://checkout.stripe.com/c/pay/cs_1#fid"})).is_ok());
}

#[tokio::test]
async fn what_cannot_be_a_reference_is_never_asked_for() {
    let stripe = stripe();
    for reference in ["", "..", "a/../b", "cus_1?expand[]=x", "cus_1#", "cus 1", "%2e%2e"] {
        for subject in
            [Subject::Customer, Subject::Dispute, Subject::Charge].map(|kind| kind(reference.into()))
        {
            let answer = stripe.fetch(&subject).await;
            assert!(matches!(answer, Err(GatewayError::Refused(_))), "{subject:?}");
        }
        assert!(matches!(stripe.expire_checkout(reference).await, Err(GatewayError::Refused(_))));
        let now = Timestamp::from_second(TIME).unwrap();
        assert!(matches!(stripe.cancel(reference, now).await, Err(GatewayError::Refused(_))));
    }
}

proptest! {
    #[test]
    fn no_changed_byte_of_body_or_header_is_let_through(in_body: bool, at: prop::sample::Index, flip in 1u8..) {
        let stripe = stripe();
        let (mut body, mut header) = (event(), signed(SECRET, &event()));
        let changed = if in_body { &mut body } else { &mut header };
        let at = at.index(changed.len());
        changed[at] ^= flip;
        prop_assert!(received(&stripe, &body, &[header]).is_err());
    }

    #[test]
    fn no_other_secret_is_let_through(secret in "(whsec_)?[a-z_0-9]{0,40}") {
        prop_assume!(secret != SECRET && secret != OLD_SECRET);
        prop_assert!(received(&stripe(), &event(), &[signed(&secret, &event())]).is_err());
    }
}
