//! What a plan includes, enforced where messages are sent.

use jiff::SignedDuration;
use serde_json::json;

use super::{is, standing};
use crate::support::{
    app::{Person, TestApp},
    http::all,
};

async fn grant(t: &TestApp, person: &Person, plan: &str) {
    let boss = t.administrator(&format!("boss-{plan}@example.com")).await;
    let body = json!({"plan": plan, "ends_at": "2100-01-01T00:00:00Z", "reason": "a test"});
    boss.post(t, &format!("/v1/admin/users/{}/grants", person.id), body).await.status(201);
}

#[tokio::test]
async fn a_companion_outside_the_free_tier_needs_a_plan_that_has_it() {
    let t = TestApp::with(&[
        ("DM__CHAT__FREE_COMPANIONS", "octavia"),
        ("DM__BILLING__PLANS__PLUS__COMPANIONS", "roz"),
    ])
    .await;
    let ann = t.sign_up("ann@example.com").await;
    let with = |companion: &str, id: &str| {
        let mut body = crate::support::app::message(companion, id, "hello");
        body["companion_id"] = json!(companion);
        ann.post(&t, "/v1/chat", body).accept_json()
    };
    let wall = with("roz", "m1").await.problem(402, "subscription_required");
    assert_eq!(wall["limit"], 20);
    with("octavia", "m2").await.ok();
    grant(&t, &ann, "plus").await;
    with("roz", "m1").await.ok();
    with("octavia", "m3").await.problem(402, "subscription_required");
}

#[tokio::test]
async fn with_no_free_tier_nothing_is_free() {
    let t = TestApp::with(&[("DM__CHAT__FREE_MESSAGES_PER_DAY", "0")]).await;
    let ann = t.sign_up("ann@example.com").await;
    assert_eq!(standing(&t, &ann).await, is("inactive", "none", None));
    ann.say(&t, "c", "m1", "hello").await.problem(402, "subscription_required");
    grant(&t, &ann, "plus").await;
    ann.say(&t, "c", "m1", "hello").await.ok();
}

#[tokio::test]
async fn messages_at_once_are_admitted_exactly_as_far_as_the_plan_goes() {
    let t = TestApp::with(&[
        ("DM__BILLING__PLANS__PLUS__MESSAGES_PER_DAY", "5"),
        ("DM__BILLING__PLANS__PLUS__GENERATIONS", "20"),
    ])
    .await;
    let ann = t.sign_up("ann@example.com").await;
    grant(&t, &ann, "plus").await;
    let calls = (0..9).map(|n| ann.say(&t, &format!("c{n}"), "m", "hello"));
    let answers = all(calls).await;
    assert_eq!(answers.iter().filter(|answer| answer.code == 200).count(), 5);
    for refused in answers.into_iter().filter(|answer| answer.code != 200) {
        let wall = refused.problem(402, "quota_exhausted");
        assert_eq!((&wall["plan"], &wall["limit"]), (&json!("plus"), &json!(5)));
    }
}

#[tokio::test]
async fn a_plan_may_have_more_replies_at_once() {
    let t = TestApp::with(&[("DM__CHAT__PROVIDERS__DEMO__PACE", "30s")]).await;
    let ann = t.sign_up("ann@example.com").await;
    grant(&t, &ann, "plus").await;
    let mut running = Vec::new();
    for conversation in ["a", "b", "c"] {
        running.push(ann.stream(&t, conversation, "m", "Tell me a long story").await);
    }
    ann.say(&t, "d", "m", "One more").await.problem(429, "rate_limited");
    t.shut_down().await;
}

#[tokio::test]
async fn what_is_left_of_the_day_goes_with_the_plan() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    ann.say(&t, "c", "m1", "hello").await.ok();
    grant(&t, &ann, "plus").await;
    let session = ann.get(&t, "/v1/session").await.ok();
    assert_eq!((&session["quota"]["used"], &session["quota"]["limit"]), (&json!(1), &json!(200)));
    assert_eq!(session["subscription"]["quota"], session["quota"]);
    t.clock.advance(SignedDuration::from_hours(24));
    let ann = t.log_in("ann@example.com").await;
    assert_eq!(ann.get(&t, "/v1/session").await.ok()["quota"]["used"], 0);
}
