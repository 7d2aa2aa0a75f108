//! Sending a message: once, however often it is sent.

use serde_json::json;

use crate::support::{
    app::{TestApp, message},
    http::all,
    upstream::{Step, Upstream, delta, finish, gate, reply, stream_head},
};

#[tokio::test]
async fn a_message_sent_again_gets_the_stored_reply_and_pays_once() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let first = ann.say(&t, "c", "m1", "Good evening!").await.ok();
    let again = ann.say(&t, "c", "m1", "Good evening!").await.ok();
    assert_eq!(first, again);
    let chunks = ann.stream(&t, "c", "m1", "Good evening!").await.rest().await;
    assert_eq!(chunks.text(), first["message"]["parts"][0]["text"].as_str().unwrap());
    assert_eq!(
        chunks.types(),
        ["start", "start-step", "text-start", "text-delta", "text-end", "finish-step", "finish", "[DONE]"]
    );
    assert_eq!(ann.used(&t).await, 1);
    assert_eq!(ann.texts(&t, "c").await.len(), 2);
}

#[tokio::test]
async fn the_same_id_with_another_text_is_refused() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let reply = ann.say(&t, "c", "m1", "Good evening!").await.ok();
    ann.say(&t, "c", "m1", "Good morning!").await.problem(409, "idempotency_mismatch");
    // A reply's own id is no message of the caller's.
    let reply_id = reply["message"]["id"].as_str().unwrap();
    ann.say(&t, "c", reply_id, "mine now").await.problem(409, "idempotency_mismatch");
    assert_eq!(ann.used(&t).await, 1);
    ann.say(&t, "other", "m1", "Good morning!").await.ok(); // Ids are unique per conversation.
}

/// As in LibreChat#14339 and eliza#15394: a request that was sent again was answered, and paid for, twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sent_many_times_at_once_it_is_answered_once() {
    let upstream = Upstream::start(reply("only once")).await;
    let t =
        TestApp::with(&[upstream.settings(), vec![("DM__CHAT__FREE_MESSAGES_PER_DAY", "1")]].concat()).await;
    let ann = t.sign_up("ann@example.com").await;
    // The first message of a conversation, the last of the day: everything that can collide does.
    let answers = all((0..16).map(|_| ann.say(&t, "c", "m1", "hello"))).await;
    for answer in answers {
        assert_eq!(answer.ok()["message"]["parts"][0]["text"], "only once");
    }
    assert_eq!(upstream.received().len(), 1);
    assert_eq!(ann.used(&t).await, 1);
    assert_eq!(ann.texts(&t, "c").await, ["hello", "only once"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn different_messages_at_once_are_answered_one_at_a_time() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let ids: Vec<String> = (0..12).map(|n| format!("m{n}")).collect();
    let answers = all(ids.iter().map(|id| ann.say(&t, "c", id, "hello"))).await;
    let mut answered = 0;
    for answer in answers {
        match answer.code {
            200 => answered += 1,
            409 => drop(answer.problem(409, "generation_in_progress")),
            _ => drop(answer.problem(429, "rate_limited")),
        }
    }
    assert!(answered >= 1);
    assert_eq!(ann.texts(&t, "c").await.len(), 2 * answered);
    assert_eq!(ann.used(&t).await, answered as i64);
}

#[tokio::test]
async fn while_a_reply_is_made_the_same_message_joins_it_and_another_waits() {
    let go = gate();
    let upstream = Upstream::start(vec![
        stream_head(),
        delta("Good "),
        Step::Wait(go.clone()),
        delta("evening."),
        finish(),
    ])
    .await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    let mut first = ann.stream(&t, "c", "m1", "hello").await;
    let started = first.start().await;
    first.first_word().await;

    let mut joined = ann.stream(&t, "c", "m1", "hello").await;
    assert_eq!(joined.start().await, started);
    assert_eq!(joined.first_word().await, "Good ", "from the first word");
    ann.say(&t, "c", "m2", "another").await.problem(409, "generation_in_progress");
    ann.say(&t, "c", "m1", "other text").await.problem(409, "idempotency_mismatch");

    go.add_permits(1);
    assert_eq!(first.rest().await.text(), "evening.");
    assert_eq!(joined.rest().await.text(), "evening.");
    assert_eq!((upstream.received().len(), ann.used(&t).await), (1, 1));
}

#[tokio::test]
async fn a_user_has_two_replies_at_once_and_others_are_not_disturbed() {
    let go = gate();
    let upstream =
        Upstream::start(vec![stream_head(), delta("word"), Step::Wait(go.clone()), finish()]).await;
    let t = TestApp::with(&upstream.settings()).await;
    let (ann, bob) = (t.sign_up("ann@example.com").await, t.sign_up("bob@example.com").await);
    let mut streams = vec![];
    for conversation in ["c1", "c2"] {
        let mut stream = ann.stream(&t, conversation, "m1", "hello").await;
        stream.first_word().await;
        streams.push(stream);
    }
    let refused = ann.say(&t, "c3", "m1", "hello").await;
    assert_eq!(refused.header("retry-after"), "1");
    refused.problem(429, "rate_limited");
    ann.get(&t, "/v1/conversations/c3").await.problem(404, "not_found");
    ann.say(&t, "c1", "m2", "and?").await.problem(409, "generation_in_progress"); // What is in the way first.
    assert_eq!(ann.used(&t).await, 2, "a refused message costs nothing");
    let mut other = bob.stream(&t, "c1", "m1", "hello").await;
    other.first_word().await;

    go.add_permits(10);
    for stream in streams {
        stream.rest().await;
    }
    ann.say(&t, "c3", "m1", "hello").await.ok();
}

#[tokio::test]
async fn a_message_that_failed_without_a_word_is_tried_again_and_charged_anew() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let upstream =
        Upstream::answering(move |_| match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => vec![Step::Reset],
            _ => reply("at last"),
        })
        .await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    ann.say(&t, "c", "m1", "hello").await.problem(502, "provider_failed");
    assert_eq!(ann.used(&t).await, 0, "given back");
    assert_eq!(ann.statuses(&t, "c").await, ["complete", "failed"]);

    ann.say(&t, "c", "m1", "hello").await.ok();
    assert_eq!(ann.used(&t).await, 1);
    assert_eq!(ann.texts(&t, "c").await, ["hello", "at last"]);
    assert_eq!(ann.get(&t, "/v1/conversations/c").await.ok()["message_count"], 2);
}

#[tokio::test]
async fn an_old_failure_is_not_tried_again_behind_newer_messages() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    ann.say(&t, "c", "m1", "!busy").await.problem(503, "provider_unavailable");
    ann.say(&t, "c", "m2", "hello").await.ok();
    ann.say(&t, "c", "m1", "!busy").await.problem(409, "conflict");
    assert_eq!(ann.used(&t).await, 1);
}

#[tokio::test]
async fn a_stored_reply_is_had_again_however_it_ended() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let broken = ann.stream(&t, "c", "m1", "!error").await.rest().await;
    let again = ann.stream(&t, "c", "m1", "!error").await.rest().await;
    assert_eq!(again.text(), broken.text());
    assert_eq!(again.problem()["code"], "provider_failed");
    assert_eq!(broken.problem().get("retry_after_s"), None);
    let as_json = ann.say(&t, "c", "m1", "!error").await.ok();
    assert_eq!(as_json["message"]["metadata"]["status"], "interrupted");
    assert_eq!(ann.used(&t).await, 1, "words were delivered");
}

#[tokio::test]
async fn what_cannot_be_sent_changes_nothing() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let send = |body| ann.post(&t, "/v1/chat", body).accept_json();
    send(json!({"id": "c"})).await.invalid("/message", "missing");
    send(json!({"message": {}})).await.invalid("/message/id", "missing");
    send(message("../c", "m", "a")).await.invalid("/id", "invalid_format");
    send(message("c", "m m", "a")).await.invalid("/message/id", "invalid_format");
    send(message("c", "m", "")).await.invalid("/message/parts", "too_short");
    send(message("c", "m", &"x".repeat(8001))).await.invalid("/message/parts", "too_long");
    let mut body = message("c", "m", "hello");
    body["companion_id"] = json!("nobody");
    send(body.clone()).await.invalid("/companion_id", "unknown_value");
    body["companion_id"] = json!(7);
    send(body.clone()).await.invalid("/companion_id", "wrong_type");
    body["companion_id"] = json!(null);
    body["trigger"] = json!("resume-stream");
    send(body).await.invalid("/trigger", "unknown_value");
    assert_eq!(ann.get(&t, "/v1/conversations").await.ok()["data"], json!([]));
    assert_eq!(ann.used(&t).await, 0);
}

#[tokio::test]
async fn an_instance_makes_as_many_replies_as_it_may() {
    let go = gate();
    let upstream =
        Upstream::start(vec![stream_head(), delta("word"), Step::Wait(go.clone()), finish()]).await;
    let t = TestApp::with(&[upstream.settings(), vec![("DM__CHAT__MAX_GENERATIONS", "1")]].concat()).await;
    let (ann, bob) = (t.sign_up("ann@example.com").await, t.sign_up("bob@example.com").await);
    let mut stream = ann.stream(&t, "c", "m1", "hello").await;
    stream.first_word().await;
    let refused = bob.say(&t, "c", "m1", "hello").await;
    assert_eq!(refused.header("retry-after"), "1");
    refused.problem(503, "overloaded");
    assert_eq!(bob.used(&t).await, 0);
    go.add_permits(2);
    stream.rest().await;
    bob.say(&t, "c", "m1", "hello").await.ok();
}

#[tokio::test]
async fn consents_come_before_the_companion() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let mut body = message("c", "m1", "hello");
    body["companion_id"] = json!("roz");
    ann.post(&t, "/v1/chat", body).accept_json().await.ok();
    let withdrawn = ("DM__CHAT__COMPANIONS__ROZ__AVAILABLE", "false");
    let t = t.restart_with(&[("DM__AUTH__POLICIES__TERMS__VERSION", "2027-01-01"), withdrawn]).await;
    ann.say(&t, "c", "m2", "hello?").await.problem(403, "consent_required");
    let mut body = message("new", "m1", "hello");
    body["companion_id"] = json!("nobody");
    ann.post(&t, "/v1/chat", body).await.problem(403, "consent_required");
    let consents = json!({"consents": t.consents().await});
    ann.post(&t, "/v1/me/consents", consents).await.ok();
    ann.say(&t, "c", "m2", "hello?").await.problem(409, "conflict");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doubles_of_a_message_that_fails_fail_like_it() {
    let upstream = Upstream::start(vec![Step::Reset]).await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    for _ in 0..3 {
        for answer in all((0..4).map(|_| ann.say(&t, "c", "m1", "hello"))).await {
            answer.problem(502, "provider_failed");
        }
    }
    assert_eq!(ann.used(&t).await, 0);
    assert_eq!(ann.statuses(&t, "c").await, ["complete", "failed"]);
}

#[tokio::test]
async fn a_message_that_fits_no_model_is_refused_before_it_costs_anything() {
    let upstream = Upstream::start(reply("fits")).await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    let long = "語".repeat(8_000);
    ann.say(&t, "c", "m1", &long).await.invalid("/message/parts", "too_long");
    let sdk = json!({"id": "c", "messages": [
        {"id": "m0", "role": "user", "parts": [{"type": "text", "text": "before"}]},
        {"id": "m1", "role": "user", "parts": [{"type": "text", "text": long}]},
    ]});
    ann.post(&t, "/v1/chat", sdk).await.invalid("/messages/1/parts", "too_long");
    assert_eq!(ann.used(&t).await, 0);
    ann.say(&t, "c", "m1", &"a".repeat(8_000)).await.ok();
}
