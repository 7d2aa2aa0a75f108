//! A processor that cannot be asked: its notices in every order, and what is no notice of its.

use jiff::SignedDuration;
use serde_json::json;

use super::{checkout, is, standing, subscription};
use crate::support::{
    app::TestApp,
    http::{Call, all},
    logs::Logs,
    postback::{SECRET, SETTINGS, Sale, of_checkout, parameters, signature, signed, tell},
};

const DAY: i64 = 86_400;

#[tokio::test]
async fn a_checkout_leads_to_the_processor_with_a_signed_reference() {
    let t = TestApp::with(SETTINGS).await;
    let ann = t.sign_up("ann@example.com").await;
    let opened = checkout(&t, &ann, "plus").await;
    assert!(opened["url"].as_str().unwrap().starts_with("https://pay.example.com/join?site=7&"));
    let said = of_checkout(&opened);
    let ours = parameters([("price", said["price"].clone()), ("reference", said["reference"].clone())]);
    assert_eq!((said["price"].as_str(), said["signature"].clone()), ("9.99", signature(SECRET, &ours)));
}

#[tokio::test]
async fn notices_make_a_subscription_in_any_order_and_however_often() {
    let t = TestApp::with(SETTINGS).await;
    let now = t.now().as_second();
    let mut ends = Vec::new();
    for (name, order) in [("ann", [0, 1, 2, 3]), ("bob", [3, 2, 1, 0]), ("cleo", [1, 3, 0, 2])] {
        let person = t.sign_up(&format!("{name}@example.com")).await;
        let sale = Sale::of(&checkout(&t, &person, "plus").await, name);
        // The sale's reference comes with the first notice alone.
        let later = Sale { id: sale.id.clone(), reference: None, price: sale.price.clone() };
        let notices = [
            sale.says("initial", &format!("{name}1"), now - 40 * DAY),
            later.says("cancel", &format!("{name}2"), now - 35 * DAY),
            later.says("uncancel", &format!("{name}3"), now - 34 * DAY),
            later.says("rebill", &format!("{name}4"), now - 10 * DAY),
        ];
        for index in order.into_iter().chain(order) {
            let answer = tell(&t, &notices[index]).await;
            assert_eq!((answer.code, answer.text.as_str()), (200, "OK"));
        }
        let shown = subscription(&t, &person).await;
        assert_eq!(
            (&shown["state"], &shown["plan"], &shown["will_renew"]),
            (&json!("active"), &json!("plus"), &json!(true))
        );
        ends.push(shown["access_until"].clone());
    }
    assert!(ends.iter().all(|end| *end == ends[0]), "{ends:?}");
}

#[tokio::test]
async fn what_is_paid_lasts_until_it_ends_and_a_refund_or_chargeback_takes_it() {
    let t = TestApp::with(SETTINGS).await;
    let ann = t.sign_up("ann@example.com").await;
    let sale = Sale::of(&checkout(&t, &ann, "pro").await, "s1");
    let now = t.now().as_second();
    tell(&t, &sale.says("initial", "t1", now)).await.answers("OK");
    assert_eq!(standing(&t, &ann).await, is("active", "subscription", Some("pro")));
    tell(&t, &sale.says("credit", "t2", now + 1)).await.answers("OK");
    assert_eq!(standing(&t, &ann).await, is("inactive", "ended", None));
    tell(&t, &sale.says("rebill", "t3", now + 2)).await.answers("OK");
    assert_eq!(standing(&t, &ann).await, is("active", "subscription", Some("pro")), "paid again");
    tell(&t, &sale.says("chargeback", "t4", now + 3)).await.answers("OK");
    assert_eq!(standing(&t, &ann).await, is("inactive", "on_hold", None));
    ann.say(&t, "c", "m", "hello").await.problem(402, "payment_on_hold");
}

#[tokio::test]
async fn a_refund_that_is_told_before_its_sale_counts_all_the_same() {
    let t = TestApp::with(SETTINGS).await;
    let ann = t.sign_up("ann@example.com").await;
    let sale = Sale::of(&checkout(&t, &ann, "plus").await, "s1");
    let nameless = Sale { id: "s1".into(), reference: None, price: "9.99".into() };
    let now = t.now().as_second();
    tell(&t, &nameless.says("credit", "t2", now)).await.answers("OK");
    tell(&t, &sale.says("initial", "t1", now - DAY)).await.answers("OK");
    assert_eq!(standing(&t, &ann).await, is("inactive", "ended", None));
}

#[tokio::test]
async fn an_unknown_price_gives_nothing_and_calls_for_the_operator() {
    let t = TestApp::with(SETTINGS).await;
    let ann = t.sign_up("ann@example.com").await;
    let sale = Sale { price: "0.01".into(), ..Sale::of(&checkout(&t, &ann, "plus").await, "s1") };
    let logs = Logs::listen();
    tell(&t, &sale.says("initial", "t1", t.now().as_second())).await.answers("OK");
    assert_eq!(standing(&t, &ann).await, is("inactive", "free", None));
    assert_eq!(logs.lines_with("unknown_price").len(), 1);
}

#[tokio::test]
async fn a_sale_stays_whose_it_was() {
    let t = TestApp::with(SETTINGS).await;
    let (ann, bob) = (t.sign_up("ann@example.com").await, t.sign_up("bob@example.com").await);
    let hers = Sale::of(&checkout(&t, &ann, "plus").await, "s1");
    let his = Sale::of(&checkout(&t, &bob, "plus").await, "s1");
    let now = t.now().as_second();
    tell(&t, &hers.says("initial", "t1", now - 10)).await.answers("OK");
    let logs = Logs::listen();
    tell(&t, &his.says("rebill", "t2", now)).await.answers("OK");
    assert_eq!(logs.lines_with("foreign_owner").len(), 1);
    assert_eq!(standing(&t, &ann).await.0, "active");
    assert_eq!(standing(&t, &bob).await, is("inactive", "free", None));
}

#[tokio::test]
async fn what_is_no_notice_changes_nothing() {
    let t = TestApp::with(SETTINGS).await;
    let ann = t.sign_up("ann@example.com").await;
    let sale = Sale::of(&checkout(&t, &ann, "plus").await, "s1");
    let good = sale.says("initial", "t1", t.now().as_second());
    let path = |query: &str| format!("/v1/webhooks/pay?{query}");
    let unsigned = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&good).finish();
    let mut dearer = good.clone();
    dearer.insert("price".into(), "19.99".into());
    let mut forged = good.clone();
    let reference = forged["reference"].clone();
    let flipped = if reference.ends_with('0') { "1" } else { "0" };
    forged.insert("reference".into(), format!("{}{flipped}", &reference[..reference.len() - 1]));
    let future = sale.says("initial", "t1", t.now().as_second() + 3600);
    for (query, what) in [
        (unsigned.clone(), "unsigned"),
        (signed("another secret of nobody", &good), "another secret"),
        (signed(SECRET, &good).replace("price=9.99", "price=1.99"), "altered"),
        (format!("{unsigned}&signature={}", signature(SECRET, &dearer)), "another one's signature"),
        (format!("{}&price=19.99", signed(SECRET, &good)), "a name that comes twice"),
        (signed(SECRET, &forged), "a reference that is not ours"),
        (signed(SECRET, &future), "from the future"),
        (String::new(), "nothing"),
    ] {
        let answer = t.get(&path(&query)).await;
        assert_eq!((answer.code, answer.problem_code().as_deref()), (400, Some("bad_request")), "{what}");
    }
    t.get("/v1/webhooks/nobody?a=b").await.problem(404, "not_found");
    t.get(&format!("/v1/webhooks/pay/secret?{}", signed(SECRET, &good))).await.problem(404, "not_found");
    assert_eq!(standing(&t, &ann).await, is("inactive", "free", None));
    // The same by form.
    let form =
        t.request("POST", "/v1/webhooks/pay").header("content-type", "application/x-www-form-urlencoded");
    Call::new(form.body(signed(SECRET, &good))).await.answers("OK");
    assert_eq!(standing(&t, &ann).await, is("active", "subscription", Some("plus")));
}

#[tokio::test]
async fn a_path_that_only_the_processor_knows_and_addresses_that_may_send() {
    const PATH: &str = "only-the-processor-knows";
    let more = [
        ("DM__BILLING__PROVIDERS__PAY__PATH_SECRET", PATH),
        ("DM__BILLING__PROVIDERS__PAY__ALLOWED_PEERS", "198.51.100.0/24"),
        ("DM__BILLING__PROVIDERS__PAY__REPLY", "GOOD"),
        ("DM__SERVER__TRUSTED_PROXIES", "127.0.0.1"),
    ];
    let t = TestApp::with(&[SETTINGS, &more].concat()).await;
    let ann = t.sign_up("ann@example.com").await;
    let sale = Sale::of(&checkout(&t, &ann, "plus").await, "s1");
    let query = signed(SECRET, &sale.says("initial", "t1", t.now().as_second()));
    let from = |path: &str, address: &str| {
        t.get(&format!("/v1/webhooks/pay{path}?{query}")).header("x-forwarded-for", address)
    };
    from("", "198.51.100.7").await.problem(404, "not_found");
    from("/only-the-processor-know", "198.51.100.7").await.problem(404, "not_found");
    from(&format!("/{PATH}"), "203.0.113.7").await.problem(403, "forbidden");
    assert_eq!(standing(&t, &ann).await, is("inactive", "free", None));
    from(&format!("/{PATH}"), "198.51.100.7").await.answers("GOOD");
    assert_eq!(standing(&t, &ann).await.0, "active");
}

#[tokio::test]
async fn a_hundred_at_once_are_one() {
    let t = TestApp::with(SETTINGS).await;
    let ann = t.sign_up("ann@example.com").await;
    let sale = Sale::of(&checkout(&t, &ann, "plus").await, "s1");
    let now = t.now().as_second();
    let notices: Vec<_> = (0..10).map(|n| sale.says("rebill", &format!("t{n}"), now - n * 60)).collect();
    let calls = (0..100).map(|n| tell(&t, &notices[n % 10]));
    for answer in all(calls).await {
        answer.answers("OK");
    }
    let until = jiff::Timestamp::from_second(now + 33 * DAY).unwrap();
    assert_eq!(subscription(&t, &ann).await["access_until"], format!("{until:.3}"));
}

#[tokio::test]
async fn a_subscription_that_is_not_renewed_lasts_as_long_as_slack_and_no_more() {
    let t = TestApp::with(SETTINGS).await;
    let ann = t.sign_up("ann@example.com").await;
    let sale = Sale::of(&checkout(&t, &ann, "plus").await, "s1");
    tell(&t, &sale.says("initial", "t1", t.now().as_second())).await.answers("OK");
    t.clock.advance(SignedDuration::from_hours(32 * 24));
    let ann = t.log_in("ann@example.com").await;
    assert_eq!(standing(&t, &ann).await.0, "active");
    t.clock.advance(SignedDuration::from_hours(25));
    let ann = t.log_in("ann@example.com").await;
    assert_eq!(standing(&t, &ann).await, is("inactive", "ended", None));
    // Who lost it that way can buy again.
    checkout(&t, &ann, "plus").await;
}

#[tokio::test]
async fn no_log_repeats_what_a_notice_or_a_checkout_said() {
    let logs = Logs::listen_to(tracing::Level::TRACE);
    let t = TestApp::with(
        &[SETTINGS, &[("DM__BILLING__PROVIDERS__PAY__PATH_SECRET", "only-the-processor-knows")]].concat(),
    )
    .await;
    let ann = t.sign_up("ann@example.com").await;
    let opened = checkout(&t, &ann, "plus").await;
    let sale = Sale::of(&opened, "canary-sale");
    let good = signed(SECRET, &sale.says("initial", "canary-transaction", t.now().as_second()));
    t.get(&format!("/v1/webhooks/pay/only-the-processor-knows?{good}&x=canary-query"))
        .await
        .problem(400, "bad_request");
    t.get(&format!("/v1/webhooks/pay/only-the-processor-knows?{good}")).await.answers("OK");
    assert!(!logs.lines_with("/v1/webhooks/{provider}/{secret}").is_empty(), "the log listens");
    let reference = sale.reference.clone().unwrap();
    for canary in [
        "canary-transaction",
        "canary-query",
        "only-the-processor-knows",
        "pay.example.com",
        SECRET,
        &reference,
    ] {
        assert_eq!(logs.lines_with(canary), [""; 0], "{canary}");
    }
}
