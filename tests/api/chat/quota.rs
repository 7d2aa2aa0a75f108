//! The free tier's daily messages: charged once, given back for what was not delivered.

use jiff::SignedDuration;
use serde_json::json;

use super::until;
use crate::support::{
    app::{Person, TestApp},
    upstream::{Step, Upstream, delta, finish, gate, json_answer, route, stream_head},
};

#[tokio::test]
async fn the_day_ends_with_a_paywall_and_begins_again_at_midnight() {
    let t = TestApp::with(&[("DM__CHAT__FREE_MESSAGES_PER_DAY", "2")]).await;
    let ann = t.sign_up("ann@example.com").await;
    ann.say(&t, "c", "m1", "one").await.ok();
    ann.say(&t, "c", "m2", "two").await.ok();
    let problem = ann.say(&t, "c", "m3", "three").await.problem(402, "quota_exhausted");
    assert_eq!((&problem["used"], &problem["limit"], &problem["plan"]), (&json!(2), &json!(2), &json!(null)));
    assert_eq!(problem["upgrade_url"], "http://localhost:5173/subscribe");
    assert_eq!(ann.texts(&t, "c").await.len(), 4, "nothing was stored");
    ann.say(&t, "c", "m1", "one").await.ok(); // A repeat is not a new message.

    let resets_at: jiff::Timestamp = problem["resets_at"].as_str().unwrap().parse().unwrap();
    t.clock.advance(resets_at.duration_since(t.now()));
    let ann = t.log_in("ann@example.com").await;
    assert_eq!(ann.used(&t).await, 0);
    ann.say(&t, "c", "m3", "three").await.ok();
}

#[tokio::test]
async fn a_closed_free_tier_asks_for_a_subscription() {
    let t = TestApp::with(&[("DM__CHAT__FREE_MESSAGES_PER_DAY", "0")]).await;
    let ann = t.sign_up("ann@example.com").await;
    ann.say(&t, "c", "m1", "hello").await.problem(402, "subscription_required");
    assert_eq!(ann.get(&t, "/v1/session").await.ok()["subscription"]["reason"], "none");
}

#[tokio::test]
async fn the_free_tier_may_name_its_companions() {
    let t = TestApp::with(&[("DM__CHAT__FREE_COMPANIONS", "roz, tamsin")]).await;
    let ann = t.sign_up("ann@example.com").await;
    ann.say(&t, "c", "m1", "hello").await.problem(402, "subscription_required"); // The default companion.
    ann.get(&t, "/v1/conversations/c").await.problem(404, "not_found");
    let mut body = crate::support::app::message("c", "m1", "hello");
    body["companion_id"] = json!("roz");
    ann.post(&t, "/v1/chat", body).accept_json().await.ok();
}

#[tokio::test]
async fn what_was_not_delivered_is_given_back_to_the_day_it_was_taken_from() {
    let go = gate();
    let upstream = Upstream::start(vec![Step::Wait(go.clone()), Step::Reset]).await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    let stream = ann.stream(&t, "c", "m1", "just before midnight").await;
    assert_eq!(ann.used(&t).await, 1);
    let yesterday = t.now();

    t.clock.advance(SignedDuration::from_hours(24));
    go.add_permits(1);
    stream.rest().await.problem();
    assert_eq!(used_on(&t, &ann, yesterday).await, 0);
    assert_eq!(used_on(&t, &ann, t.now()).await, 0);
}

#[tokio::test]
async fn what_was_delivered_is_not_given_back() {
    let upstream = Upstream::start(vec![stream_head(), delta("a word"), Step::Reset]).await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    ann.stream(&t, "c", "m1", "hello").await.rest().await.problem();
    assert_eq!(ann.used(&t).await, 1);
}

#[tokio::test]
async fn a_stop_before_the_first_word_is_free_five_times_a_day() {
    let upstream = Upstream::start(vec![Step::Hang]).await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    for (n, used) in [0, 0, 0, 0, 0, 1, 2].into_iter().enumerate() {
        let mut stream = ann.stream(&t, "c", &format!("m{n}"), "hello").await;
        stream.start().await;
        ann.post(&t, "/v1/chat/c/stop", json!({})).await.status(204);
        let chunks = stream.rest().await;
        assert_eq!(chunks.types(), ["start-step", "data-quota", "abort", "[DONE]"]);
        assert_eq!(ann.used(&t).await, used, "stop {n}");
    }
}

async fn used_on(t: &TestApp, person: &Person, time: jiff::Timestamp) -> i64 {
    digitalmistress::queries! {
        fn used(user: uuid::Uuid, day: i64) -> i64 = "SELECT used FROM quota_day WHERE user_id = $1 AND day = $2";
    }
    let (user, day) = (person.id.parse().unwrap(), time.as_second().div_euclid(86_400));
    let found: Result<_, digitalmistress::platform::db::Error> =
        t.db().read(async |c| used(user, day).opt(&c).await).await;
    found.unwrap().unwrap_or(0)
}

/// A reply of nothing but white space is a failure, and was paid for at the vendor.
#[tokio::test]
async fn a_reply_without_a_word_is_free_twenty_times_a_day() {
    let upstream = Upstream::start(vec![stream_head(), delta("  "), finish()]).await;
    let t = TestApp::with(&[&upstream.settings()[..], &[("DM__CHAT__FREE_MESSAGES_PER_DAY", "2")]].concat())
        .await;
    t.clock.stop();
    let ann = t.sign_up("ann@example.com").await;
    for n in 0..20 {
        ann.say(&t, "c", "m", "say nothing").await.problem(502, "provider_failed");
        assert_eq!(ann.used(&t).await, 0, "time {n}");
    }
    for used in [1, 2] {
        ann.say(&t, "c", "m", "say nothing").await.problem(502, "provider_failed");
        assert_eq!(ann.used(&t).await, used);
    }
    ann.say(&t, "c", "m", "say nothing").await.problem(402, "quota_exhausted");
    assert_eq!(upstream.asked(), 22);
}

/// Whoever was asked last, one before it was paid for nothing.
#[tokio::test]
async fn a_reply_without_a_word_is_counted_also_where_another_provider_failed_after_it() {
    let empty = Upstream::start(vec![stream_head(), delta("  "), finish()]).await;
    let error = json!({"error": {"code": "invalid_api_key"}});
    let closed = Upstream::start(vec![json_answer("401 Unauthorized", "", &error)]).await;
    let t = TestApp::routed(&route(&[("empty", &empty), ("closed", &closed)]), &[]).await;
    t.clock.stop();
    let ann = t.sign_up("ann@example.com").await;
    for (n, used) in [0; 20].into_iter().chain([1]).enumerate() {
        ann.say(&t, "c", "m", "say nothing").await.problem(502, "provider_failed");
        assert_eq!(ann.used(&t).await, used, "time {n}");
    }
    assert_eq!((empty.asked(), closed.asked()), (21, 21));

    // Alone it costs nobody anything.
    let t = TestApp::routed(&route(&[("closed", &closed)]), &[]).await;
    t.clock.stop();
    let bob = t.sign_up("bob@example.com").await;
    for n in 0..21 {
        bob.say(&t, "c", "m", "say something").await.problem(502, "provider_failed");
        assert_eq!(bob.used(&t).await, 0, "time {n}");
    }
}

#[tokio::test]
async fn leaving_before_the_first_word_is_a_stop_like_any_other() {
    let upstream = Upstream::start(vec![Step::Hang]).await;
    let settings = [upstream.settings(), vec![("DM__CHAT__DETACHED_GRACE", "20ms")]].concat();
    let t = TestApp::with(&settings).await;
    let ann = t.sign_up("ann@example.com").await;
    for (n, used) in [0, 0, 0, 0, 0, 1].into_iter().enumerate() {
        drop(ann.stream(&t, &format!("c{n}"), "m1", "hello").await);
        until("it is given up", async || {
            ann.statuses(&t, &format!("c{n}")).await.last().unwrap() == "failed"
        })
        .await;
        assert_eq!(ann.used(&t).await, used, "leaving {n}");
    }
}

#[tokio::test]
async fn a_reply_that_ends_after_midnight_tells_the_new_day() {
    let go = gate();
    let upstream =
        Upstream::start(vec![stream_head(), delta("a word"), Step::Wait(go.clone()), finish()]).await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    let mut stream = ann.stream(&t, "c", "m1", "just before midnight").await;
    stream.first_word().await;
    t.clock.advance(SignedDuration::from_hours(24));
    go.add_permits(1);
    let chunks = stream.rest().await;
    let quota = &chunks.last_but_mark()["messageMetadata"]["quota"];
    assert_eq!(quota["used"], 0);
    let resets_at: jiff::Timestamp = quota["resets_at"].as_str().unwrap().parse().unwrap();
    assert!(resets_at > t.now());
}
