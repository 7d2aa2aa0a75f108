//! The wire, as a provider speaks it and as somebody who is none tries to.

use std::{net::IpAddr, sync::Arc};

use reqwest::{
    Method,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
};

use super::*;
use crate::platform::{clock::Clock, digest::sha256, random::SystemRandom};

const NOW: i64 = 1_790_000_000;

struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        at(NOW)
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn settings() -> PostbackSettings {
    PostbackSettings {
        base_url: "https://pay.example/join?shop=7&lang=de#top".parse().unwrap(),
        manage_url: None,
        webhook_secrets: vec!["first-secret".into(), "second-secret".into()],
        allowed_peers: Vec::new(),
        path_secret: None,
        reply: "OK".into(),
        mode: Mode::Test,
    }
}

fn gateway(settings: PostbackSettings) -> Postback {
    let key = DataKey::derive("test", &"a key that stays".into());
    Postback::new(settings, key, Arc::new(Stopped))
}

fn order(price: &str) -> Order {
    Order {
        user: Uuid::nil(),
        customer: "c1".into(),
        price: price.into(),
        success_url: "https://app.example/paid".into(),
        cancel_url: "https://app.example/".into(),
        nonce: Uuid::nil(),
    }
}

/// A notice as a provider signs it.
fn signed(secret: &str, pairs: &[(&str, &str)]) -> String {
    let mut parameters = Parameters::default();
    for (name, value) in pairs {
        parameters.add((*name).to_owned(), (*value).to_owned()).unwrap();
    }
    parameters.signed_form(&secret.into())
}

/// Something that was sent.
struct Sent<'a> {
    method: Method,
    path_secret: Option<&'a str>,
    query: &'a str,
    content_type: &'static str,
    peer: Option<&'a str>,
    body: &'a str,
}

fn get(query: &str) -> Sent<'_> {
    Sent { method: Method::GET, path_secret: None, query, content_type: "", peer: None, body: "" }
}

fn post(body: &str) -> Sent<'_> {
    let content_type = "application/x-www-form-urlencoded; charset=utf-8";
    Sent { method: Method::POST, path_secret: None, query: "", content_type, peer: None, body }
}

impl Sent<'_> {
    fn to(&self, gateway: &impl Gateway) -> Result<Received, Rejection> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        let notice = Notice {
            method: &self.method,
            path_secret: self.path_secret,
            query: self.query,
            headers: &headers,
            peer: self.peer.map(|peer| peer.parse::<IpAddr>().unwrap()),
            body: self.body.as_bytes(),
        };
        gateway.receive(&notice, at(NOW))
    }
}

fn fact(gateway: &Postback, pairs: &[(&str, &str)]) -> Fact {
    match get(&signed("first-secret", pairs)).to(gateway).map(|received| received.signal) {
        Ok(Signal::Fact(fact)) => fact,
        other => panic!("{other:?}"),
    }
}

fn refusal(gateway: &Postback, pairs: &[(&str, &str)]) -> &'static str {
    match get(&signed("first-secret", pairs)).to(gateway) {
        Err(Rejection::NotGenuine(why)) => why,
        other => panic!("{pairs:?}: {other:?}"),
    }
}

const SALE: &[(&str, &str)] = &[
    ("event", "initial"),
    ("sale_id", "s-1"),
    ("transaction_id", "t_1"),
    ("price", "gold.monthly"),
    ("paid_through", "1792592000"),
    ("at", "1790000000"),
];

/// The sale, with some of it replaced, or left out where the new value is empty.
fn sale_but(changes: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let changed = |name: &str| changes.iter().any(|(other, _)| *other == name);
    let kept = SALE.iter().filter(|(name, _)| !changed(name)).chain(changes);
    kept.filter(|(_, value)| !value.is_empty()).copied().collect()
}

#[tokio::test]
async fn a_checkout_is_the_page_with_a_signed_order() {
    let gateway = gateway(settings());
    let checkout = gateway.start_checkout(&order("gold")).await.unwrap();
    let url = Url::parse(checkout.url.expose_secret()).unwrap();
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let names: Vec<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["shop", "lang", "price", "reference", "signature"]);

    let (price, reference) = (&pairs[2].1, &pairs[3].1);
    let text = format!("first-secret:price={price}:reference={reference}");
    assert_eq!(pairs[4].1, hex(&sha256(text.as_bytes())), "the first secret signs");
    assert_eq!((price.as_str(), gateway.customer_of(reference)), ("gold", Some("c1")));
    assert_eq!((checkout.reference, checkout.expires_at), (None, at(NOW + 86_400)));
    let again = gateway.start_checkout(&order("gold")).await.unwrap();
    assert_eq!(again.url.expose_secret(), url.as_str());

    for price in ["", "a b", "a:b", "gold/monthly", &"p".repeat(65)] {
        let refused = gateway.start_checkout(&order(price)).await;
        assert!(matches!(refused, Err(GatewayError::Refused(_))), "{price}");
    }
}

#[tokio::test]
async fn a_checkout_needs_a_secret_and_names_of_its_own() {
    let begin = async |settings| gateway(settings).start_checkout(&order("gold")).await.map(drop);
    for url in [
        "https://pay.example/?price=1",
        "https://pay.example/?signature=",
        "https://pay.example/?%72eference",
    ] {
        let refused = begin(PostbackSettings { base_url: url.parse().unwrap(), ..settings() }).await;
        assert!(matches!(refused, Err(GatewayError::Misconfigured(_))), "{url}");
    }
    for webhook_secrets in [vec![], vec!["".into()]] {
        let refused = begin(PostbackSettings { webhook_secrets, ..settings() }).await;
        assert!(matches!(refused, Err(GatewayError::Misconfigured(_))));
    }
}

#[test]
fn an_empty_secret_signs_nothing() {
    let gateway = gateway(PostbackSettings { webhook_secrets: vec!["".into()], ..settings() });
    let refused = get(&signed("", SALE)).to(&gateway).unwrap_err();
    assert!(refused.to_string().contains("signature"), "{refused}");
}

#[tokio::test]
async fn it_can_do_nothing_else() {
    let gateway = gateway(settings());
    let unsupported = Err(GatewayError::Unsupported);
    assert_eq!(gateway.mode(), Mode::Test);
    let none = Capabilities { queryable: false, portal: false, cancel: false };
    assert_eq!(gateway.capabilities(), none);
    assert_eq!(gateway.portal("c1", "https://app.example/").await.map(drop), unsupported);
    assert_eq!(gateway.fetch(&Subject::Customer("c1".into())).await.map(drop), unsupported);
    assert_eq!(gateway.undelivered(at(0)).await.map(drop), unsupported);
    assert_eq!(gateway.cancel("s1", at(0)).await.map(drop), unsupported);
    assert_eq!(gateway.expire_checkout("x").await, Ok(false));

    let nonce = Uuid::from_u128(7);
    assert_eq!(
        gateway.create_customer(Uuid::nil(), nonce).await,
        gateway.create_customer(nonce, nonce).await
    );
    assert_eq!(
        gateway.create_customer(Uuid::nil(), nonce).await.unwrap(),
        "00000000000000000000000000000007"
    );
    assert_eq!(gateway.manage_url().as_deref(), Some("https://pay.example/join"));
}

#[test]
fn the_page_to_manage_is_the_one_that_is_set() {
    let manage_url = Some("https://pay.example/help?shop=7".parse().unwrap());
    let gateway = gateway(PostbackSettings { manage_url, ..settings() });
    assert_eq!(gateway.manage_url().as_deref(), Some("https://pay.example/help?shop=7"));
}

#[test]
fn each_event_is_a_fact() {
    let gateway = gateway(settings());
    let through = at(1_792_592_000);
    let held = |kind| FactEvent::Held { kind, transaction: "t_1".into() };
    let paid = |price: Option<&str>| FactEvent::Paid { price: price.map(str::to_owned), through };
    for (changes, event) in [
        (vec![], paid(Some("gold.monthly"))),
        (vec![("event", "rebill")], paid(Some("gold.monthly"))),
        (vec![("event", "rebill"), ("price", ""), ("transaction_id", "")], paid(None)),
        (vec![("event", "cancel")], FactEvent::Cancelled),
        (vec![("event", "cancel"), ("paid_through", ""), ("price", "")], FactEvent::Cancelled),
        (vec![("event", "uncancel")], FactEvent::Uncancelled),
        (vec![("event", "expiry")], FactEvent::Expired),
        (vec![("event", "credit")], held(HoldKind::Refund)),
        (vec![("event", "chargeback")], held(HoldKind::Chargeback)),
    ] {
        let fact = fact(&gateway, &sale_but(&changes));
        assert_eq!((fact.event, fact.subscription.as_str(), fact.at), (event, "s-1", at(NOW)));
        assert_eq!(fact.customer, None);
    }
    // A template that was filled with nothing.
    let mut empty = sale_but(&[("event", "rebill"), ("price", "")]);
    empty.extend([("price", ""), ("reference", "")]);
    assert_eq!(fact(&gateway, &empty).event, paid(None));
}

#[test]
fn a_notice_comes_as_query_or_form_under_any_of_the_secrets() {
    let gateway = gateway(settings());
    let mut keys = Vec::new();
    for secret in ["first-secret", "second-secret"] {
        let text = signed(secret, SALE);
        for sent in [get(&text), post(&text)] {
            let received = sent.to(&gateway).unwrap();
            assert_eq!(received.reply, "OK");
            let Signal::Fact(fact) = received.signal else { panic!() };
            assert_eq!(fact.kind, "initial");
            keys.push(fact.key);
        }
    }
    keys.dedup();
    assert_eq!(keys.len(), 1, "one notice, however it was sent and signed");
    assert_ne!(fact(&gateway, &sale_but(&[("at", "1789999999")])).key, keys[0]);

    for secret in ["third-secret", ""] {
        assert!(matches!(get(&signed(secret, SALE)).to(&gateway), Err(Rejection::NotGenuine(_))));
    }
}

#[test]
fn a_sale_finds_its_customer_by_our_reference_alone() {
    let here = gateway(settings());
    let live = gateway(PostbackSettings { mode: Mode::Live, ..settings() });
    let key = DataKey::generate("other".into(), Uuid::nil(), &SystemRandom);
    let elsewhere = Postback::new(settings(), key, Arc::new(Stopped));
    let with = |reference: &str| {
        let pairs = [SALE, &[("reference", reference)]].concat();
        get(&signed("first-secret", &pairs)).to(&here).map(|received| received.signal)
    };

    let reference = here.reference("c1");
    assert!(reference.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.'), "{reference}");
    assert!(matches!(with(&reference), Ok(Signal::Fact(Fact { customer: Some(c), .. })) if c == "c1"));

    let mac = reference.strip_prefix("c1").unwrap();
    let forged = [
        "c1".to_owned(),
        "c1.".to_owned(),
        format!("c2{mac}"),
        format!("C1{mac}"),
        mac.to_owned(),
        reference.to_uppercase(),
        format!("{reference}0"),
        live.reference("c1"),
        elsewhere.reference("c1"),
    ];
    for forged in forged {
        let refused = with(&forged);
        assert!(
            matches!(refused, Err(Rejection::NotGenuine(why)) if why.contains("reference")),
            "{forged}: {refused:?}"
        );
    }
}

#[test]
fn what_is_missing_or_malformed_is_refused_though_signed() {
    let gateway = gateway(settings());
    for (changes, complaint) in [
        (vec![("event", "")], "no event"),
        (vec![("sale_id", "")], "no sale"),
        (vec![("sale_id", "s.1")], "no reference"),
        (vec![("at", "")], "no time"),
        (vec![("at", "1790000301")], "future"),
        (vec![("at", "1790000000000")], "too far"),
        (vec![("at", "+1790000000")], "too far"),
        (vec![("at", "-1")], "too far"),
        (vec![("at", "12")], "too far"),
        (vec![("at", "1790000000.5")], "too far"),
        (vec![("paid_through", "")], "until when"),
        (vec![("paid_through", "4102444800")], "too far"),
        (vec![("paid_through", "99999999999999999999")], "too far"),
        (vec![("price", "")], "without a price"),
        (vec![("price", "a b")], "no reference"),
        (vec![("transaction_id", "t/1")], "no reference"),
        (vec![("event", "rebill"), ("paid_through", "")], "until when"),
        (vec![("event", "credit"), ("transaction_id", "")], "no transaction"),
        (vec![("event", "chargeback"), ("transaction_id", "")], "no transaction"),
    ] {
        let why = refusal(&gateway, &sale_but(&changes));
        assert!(why.contains(complaint), "{changes:?}: {why}");
    }
    assert_eq!(fact(&gateway, &sale_but(&[("at", "1790000300")])).at, at(NOW + 300));
    assert_eq!(fact(&gateway, &sale_but(&[("at", "946684800")])).at, at(946_684_800), "however late");
}

#[test]
fn an_event_that_is_new_to_us_is_noted_and_answered() {
    let gateway = gateway(settings());
    let long = "e".repeat(100);
    for (pairs, kind, when) in [
        (vec![("event", "declined"), ("at", "1789999000")], "declined", NOW - 1000),
        (vec![("event", "Initial"), ("reference", "anything")], "Initial", NOW),
        (vec![("event", long.as_str())], &long[..64], NOW),
    ] {
        let received = get(&signed("first-secret", &pairs)).to(&gateway).unwrap();
        let Signal::Ignored(noted) = received.signal else { panic!("{:?}", received.signal) };
        assert_eq!((noted.kind.as_str(), noted.subject, noted.at), (kind, None, at(when)));
        assert_eq!((noted.key.len(), received.reply.as_str()), (64, "OK"));
    }
}

#[test]
fn the_path_is_judged_first_then_the_peer_then_the_notice() {
    let guarded = gateway(PostbackSettings {
        path_secret: Some("hidden".into()),
        allowed_peers: vec!["64.38.212.0/24".parse().unwrap()],
        ..settings()
    });
    let text = signed("first-secret", SALE);
    let sent = |method: Method, path_secret, peer| Sent { method, path_secret, peer, ..get(&text) };
    let (known, stranger) = (Some("64.38.212.9"), Some("64.38.213.9"));
    for (path_secret, peer, expected) in [
        (Some("hidden"), known, None),
        (Some("hidden"), Some("::ffff:64.38.212.9"), None),
        (Some("hidden"), stranger, Some(Rejection::ForeignPeer)),
        (Some("hidden"), None, Some(Rejection::ForeignPeer)),
        (Some("wrong"), known, Some(Rejection::NotHere)),
        (Some(""), known, Some(Rejection::NotHere)),
        (None, known, Some(Rejection::NotHere)),
        (None, stranger, Some(Rejection::NotHere)),
    ] {
        let answer = sent(Method::GET, path_secret, peer).to(&guarded);
        assert_eq!(answer.err(), expected, "{path_secret:?} {peer:?}");
    }
    for method in [Method::HEAD, Method::PUT, Method::DELETE] {
        let answer = sent(method, Some("hidden"), stranger).to(&guarded);
        assert_eq!(answer.err(), Some(Rejection::NotHere));
    }
    let unsigned = Sent { query: "event=initial", ..sent(Method::GET, Some("hidden"), stranger) };
    assert_eq!(unsigned.to(&guarded).err(), Some(Rejection::ForeignPeer));

    let open = gateway(settings());
    assert!(sent(Method::GET, None, None).to(&open).is_ok());
    assert_eq!(sent(Method::GET, Some("hidden"), None).to(&open).err(), Some(Rejection::NotHere));
}

#[test]
fn a_body_has_to_be_a_form() {
    let (gateway, text) = (gateway(settings()), signed("first-secret", SALE));
    for content_type in ["", "application/json", "multipart/form-data; boundary=x"] {
        let answer = Sent { content_type, ..post(&text) }.to(&gateway);
        assert!(matches!(answer, Err(Rejection::NotGenuine(_))), "{content_type}");
    }
    let content_type = "Application/X-WWW-Form-Urlencoded";
    assert!(Sent { content_type, query: "a=1&a=2", ..post(&text) }.to(&gateway).is_ok());
    assert!(Sent { query: &text, ..post("") }.to(&gateway).is_err(), "a form's query is not looked at");
}

#[test]
fn every_changed_byte_is_noticed() {
    let (gateway, text) = (gateway(settings()), signed("first-secret", SALE));
    for at in 0..text.len() {
        let mut changed = text.clone().into_bytes();
        changed[at] ^= 1;
        let changed = String::from_utf8(changed).unwrap();
        assert!(matches!(get(&changed).to(&gateway), Err(Rejection::NotGenuine(_))), "{changed}");
    }
}

#[tokio::test]
async fn the_signature_of_a_checkout_is_no_notice_and_cannot_be_continued_to_one() {
    let gateway = gateway(settings());
    let checkout = gateway.start_checkout(&order("gold")).await.unwrap();
    let url = Url::parse(checkout.url.expose_secret()).unwrap();
    let ours: Vec<(String, String)> =
        url.query_pairs().into_owned().filter(|(name, _)| name != "shop" && name != "lang").collect();
    let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&ours).finish();
    assert_eq!(get(&form).to(&gateway), Err(Rejection::NotGenuine("it names no event")));

    // What continuing the hash gives: the hash of the text, its padding and more, to one who knows the length of the secret.
    let text = format!("first-secret:price={}:reference={}", ours[0].1, ours[1].1);
    let mut padded = text.clone().into_bytes();
    padded.push(0x80);
    padded.resize((padded.len() + 8).next_multiple_of(64) - 8, 0);
    padded.extend((u64::try_from(text.len()).unwrap() * 8).to_be_bytes());
    let padding = &padded[text.len()..];
    let continued = hex(&sha256(&[&padded[..], b":sale_id=s-1"].concat()));
    let padding = percent_encoding::percent_encode(padding, percent_encoding::NON_ALPHANUMERIC);
    let forged =
        format!("price={}&reference={}{padding}&sale_id=s-1&signature={continued}", ours[0].1, ours[1].1);
    assert_eq!(get(&forged).to(&gateway), Err(Rejection::NotGenuine("it is not UTF-8")));
    assert_eq!(post(&forged).to(&gateway), Err(Rejection::NotGenuine("it is not UTF-8")));
}
