//! How often anybody may call: what is told, what is refused, and whom it leaves alone.

use jiff::SignedDuration;
use serde_json::json;

use crate::support::{app::TestApp, http::all, postback};

/// Small limits, behind a proxy that names the client.
const SMALL: &[(&str, &str)] = &[
    ("DM__LIMITS__ADDRESS__BURST", "40"),
    ("DM__LIMITS__ADDRESS__EVERY", "1s"),
    ("DM__LIMITS__USER__BURST", "5"),
    ("DM__LIMITS__USER__EVERY", "2s"),
    ("DM__LIMITS__MESSAGE__BURST", "2"),
    ("DM__LIMITS__MESSAGE__EVERY", "3s"),
    ("DM__LIMITS__WEBHOOK__BURST", "3"),
    ("DM__LIMITS__WEBHOOK__EVERY", "1s"),
    ("DM__SERVER__TRUSTED_PROXIES", "127.0.0.1"),
];

#[tokio::test]
async fn an_address_has_so_many_calls_and_is_told_how_many_are_left() {
    let t = TestApp::with(SMALL).await;
    t.clock.stop();
    let call = |address: &str| t.get("/v1/companions").header("x-forwarded-for", address);
    let first = call("203.0.113.7").await;
    assert_eq!(first.header("ratelimit-policy"), "\"address\";q=40;w=40");
    assert_eq!(first.header("ratelimit"), "\"address\";r=39;t=1");
    let answers = all((0..60).map(|_| call("203.0.113.7"))).await;
    assert_eq!(answers.iter().filter(|answer| answer.code == 200).count(), 39);
    let refused = answers.into_iter().find(|answer| answer.code == 429).unwrap();
    assert_eq!((refused.header("retry-after"), refused.header("ratelimit")), ("1", "\"address\";r=0;t=1"));
    refused.problem(429, "rate_limited");
    // All of an IPv6 /64 is one; somebody else is not, and nobody can hide behind a method or a path that is not there.
    call("2001:db8:1:2::1").await.ok();
    assert_eq!(call("2001:db8:1:2:ffff::9").await.header("ratelimit"), "\"address\";r=38;t=2");
    t.get("/nothing").header("x-forwarded-for", "203.0.113.7").await.problem(429, "rate_limited");
    t.clock.advance(SignedDuration::from_secs(1));
    call("203.0.113.7").await.ok();
    call("203.0.113.7").await.problem(429, "rate_limited");
    // What supervisors ask is not limited.
    for _ in 0..50 {
        t.get("/livez").header("x-forwarded-for", "203.0.113.7").await.answers("ok");
    }
}

#[tokio::test]
async fn a_user_has_so_many_calls_and_messages_wherever_from() {
    let t = TestApp::with(SMALL).await;
    let (ann, bob) = (t.sign_up("ann@example.com").await, t.sign_up("bob@example.com").await);
    t.clock.stop();
    let say = |n: usize| {
        let call = ann.say(&t, &format!("c{n}"), "m", "hello");
        call.header("x-forwarded-for", &format!("203.0.113.{n}"))
    };
    assert_eq!(say(1).await.header("ratelimit-policy"), "\"message\";q=2;w=6");
    say(2).await.ok();
    let refused = say(3).await;
    assert_eq!(refused.header("retry-after"), "3");
    refused.problem(429, "rate_limited");
    // One that was sent before is had again, however fast.
    say(1).await.ok();
    // A message that was refused is none, and everything else is counted apart.
    assert_eq!(ann.get(&t, "/v1/session").await.ok()["quota"]["used"], 2);
    for _ in 0..4 {
        ann.get(&t, "/v1/me").await.ok();
    }
    ann.get(&t, "/v1/me").await.problem(429, "rate_limited");
    bob.get(&t, "/v1/me").await.ok();
    t.clock.advance(SignedDuration::from_secs(3));
    say(3).await.ok();
}

#[tokio::test]
async fn notices_are_counted_apart() {
    let t = TestApp::with(&[SMALL, postback::SETTINGS].concat()).await;
    t.clock.stop();
    let forged = || t.get("/v1/webhooks/pay?a=b");
    for _ in 0..3 {
        forged().await.problem(400, "bad_request");
    }
    let refused = forged().await;
    assert_eq!(refused.header("ratelimit-policy"), "\"webhook\";q=3;w=3");
    refused.problem(429, "rate_limited");
    t.get("/v1/plans").await.ok();
}

#[tokio::test]
async fn a_page_of_the_frontend_can_read_what_is_left() {
    let t = TestApp::with(SMALL).await;
    let answer = t.get("/v1/companions").header("origin", "http://localhost:3000").await;
    let exposed = answer.header("access-control-expose-headers").to_ascii_lowercase();
    for name in ["ratelimit", "ratelimit-policy", "retry-after"] {
        assert!(exposed.split(',').any(|header| header.trim() == name), "{name} in {exposed}");
    }
    let wrong = t.post("/v1/auth/login", json!({})).header("origin", "http://localhost:3000").await;
    assert_ne!(wrong.header("ratelimit"), "");
}
