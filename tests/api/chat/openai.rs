//! Providers that misbehave: what the client sees, what is stored, what is charged.

use serde_json::json;

use crate::support::{
    app::TestApp,
    logs::Logs,
    upstream::{Step, Upstream, bytes, delta, finish, json_answer, reply, stream_head},
};

/// What a client sees and what is left behind.
async fn outcome(steps: Vec<Step>) -> (u16, String, String, i64) {
    let upstream = Upstream::start(steps).await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    let answer = ann.say(&t, "c", "m1", "hello").await;
    let code = answer.json()["code"].as_str().unwrap_or("").to_owned();
    assert!(!answer.text.contains("sk-test-key") && !answer.text.contains("127.0.0.1"), "{}", answer.text);
    let status = ann.statuses(&t, "c").await.pop().unwrap();
    (answer.code, code, status, ann.used(&t).await)
}

fn error(code: &str) -> serde_json::Value {
    json!({"error": {"message": "key sk-test-key at 127.0.0.1", "type": "t", "param": null, "code": code}})
}

#[tokio::test]
async fn each_refusal_of_a_provider_has_its_code_and_costs_nothing() {
    let answer = |status: &str, headers: &str, code: &str| vec![json_answer(status, headers, &error(code))];
    for (steps, status, code) in [
        (answer("401 Unauthorized", "", "invalid_api_key"), 502, "provider_failed"),
        (answer("404 Not Found", "", "model_not_found"), 502, "provider_failed"),
        (answer("400 Bad Request", "", "context_length_exceeded"), 502, "provider_failed"),
        (answer("400 Bad Request", "", "content_policy_violation"), 502, "provider_failed"),
        (answer("429 Too Many Requests", "", "rate_limit_exceeded"), 503, "provider_unavailable"),
        (answer("429 Too Many Requests", "", "insufficient_quota"), 503, "provider_unavailable"),
        (answer("500 Internal Server Error", "", "server_error"), 502, "provider_failed"),
        (answer("503 Service Unavailable", "", "overloaded"), 503, "provider_unavailable"),
        (answer("529 Overloaded", "", "overloaded"), 503, "provider_unavailable"),
        (answer("302 Found", "location: http://127.0.0.1:1/\r\n", ""), 502, "provider_failed"),
        (answer("200 OK", "", "server_error"), 502, "provider_failed"),
        (answer("200 OK", "content-encoding: gzip\r\n", ""), 502, "provider_failed"),
        (
            vec![bytes("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n<html>")],
            502,
            "provider_failed",
        ),
        (
            vec![bytes(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\nnot json",
            )],
            502,
            "provider_failed",
        ),
        (vec![bytes("not http\r\n\r\n")], 502, "provider_failed"),
        (vec![Step::Reset], 502, "provider_failed"),
        (vec![stream_head()], 502, "provider_failed"),
        (vec![stream_head(), finish()], 502, "provider_failed"),
        (vec![stream_head(), bytes("data: {broken\n\n")], 502, "provider_failed"),
        (vec![stream_head(), bytes(format!("data: {}\n\n", error("server_error")))], 502, "provider_failed"),
        (vec![stream_head(), bytes(format!("data: {}\n\n", error("429")))], 503, "provider_unavailable"),
        (
            vec![
                stream_head(),
                bytes("data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"content_filter\"}]}\n\n"),
            ],
            502,
            "provider_failed",
        ),
    ] {
        let text = format!(
            "{code} after {}",
            match &steps[0] {
                Step::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                _ => "a reset".into(),
            }
        );
        assert_eq!(outcome(steps).await, (status, code.into(), "failed".into(), 0), "{text}");
    }
}

/// As in opencode#40061: the end of a connection was taken for the end of a reply.
#[tokio::test]
async fn what_was_said_before_a_failure_is_kept_and_charged() {
    for last in [
        Step::Reset,
        bytes(""),
        bytes("data: {broken\n\n"),
        bytes(format!("data: {}\n\n", error("server_error"))),
        bytes("data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"error\"}]}\n\n"),
        bytes(format!("data: {}", "x".repeat(1024 * 1024 + 1))),
    ] {
        let seen = outcome(vec![stream_head(), delta("half a "), last]).await;
        assert_eq!(seen, (502, "provider_failed".into(), "interrupted".into(), 1));
    }
}

#[tokio::test]
async fn odd_but_whole_replies_are_whole() {
    let body = json!({"choices": [{"message": {"role": "assistant", "content": "whole"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2}});
    for steps in [
        vec![json_answer("200 OK", "", &body)],
        vec![stream_head(), delta("whole"), bytes("data: [DONE]")],
        vec![
            stream_head(),
            delta("whole"),
            bytes("data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"),
            Step::Reset,
        ],
        vec![
            stream_head(),
            bytes(": hello\r\n\r\n"),
            delta("who"),
            bytes("event: x\nid: 1\n"),
            delta("le"),
            finish(),
            delta("late"),
        ],
        vec![bytes("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"), delta("whole"), finish()],
    ] {
        let upstream = Upstream::start(steps).await;
        let t = TestApp::with(&upstream.settings()).await;
        let ann = t.sign_up("ann@example.com").await;
        let answer = ann.say(&t, "c", "m1", "hello").await.ok();
        assert_eq!(answer["message"]["parts"][0]["text"], "whole");
        assert_eq!(ann.statuses(&t, "c").await, ["complete", "complete"]);
    }
}

#[tokio::test]
async fn a_character_cut_in_two_arrives_whole() {
    let text = "data: {\"choices\":[{\"delta\":{\"content\":\"😀é\"}}]}\n\n";
    let pieces = text.as_bytes().chunks(1).map(bytes);
    let steps = std::iter::once(stream_head()).chain(pieces).chain([finish()]).collect();
    let upstream = Upstream::start(steps).await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    assert_eq!(ann.say(&t, "c", "m1", "hello").await.ok()["message"]["parts"][0]["text"], "😀é");
}

#[tokio::test]
async fn an_endless_reply_is_cut_at_its_bound() {
    let chunk = "x".repeat(8 * 1024);
    let steps =
        std::iter::once(stream_head()).chain((0..20).map(|_| delta(&chunk))).chain([finish()]).collect();
    let upstream = Upstream::start(steps).await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    let chunks = ann.stream(&t, "c", "m1", "hello").await.rest().await;
    assert_eq!(chunks.text().len(), 64 * 1024);
    assert_eq!(chunks.last_but_mark()["finishReason"], "length");
}

#[tokio::test]
async fn usage_is_the_providers_own_count() {
    let upstream = Upstream::start(reply("counted")).await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    let usage = &ann.say(&t, "c", "m1", "hello").await.ok()["usage"];
    assert_eq!(*usage, json!({"input_tokens": 9, "output_tokens": 2, "estimated": false}));

    let silent = Upstream::start(vec![stream_head(), delta("not counted"), bytes("data: [DONE]\n\n")]).await;
    let t = TestApp::with(&silent.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    let usage = &ann.say(&t, "c", "m1", "hello").await.ok()["usage"];
    assert_eq!((&usage["estimated"], &usage["output_tokens"]), (&json!(true), &json!(8)));
}

#[tokio::test]
async fn the_next_provider_is_tried_until_a_word_was_said_and_never_after() {
    let broken = Upstream::start(vec![json_answer("500 Oops", "", &error("x"))]).await;
    let half = Upstream::start(vec![stream_head(), delta("half a "), Step::Reset]).await;
    let good = Upstream::start(reply("from the second")).await;
    let second = |second: &Upstream| {
        vec![
            ("DM__CHAT__ROUTE".to_owned(), "upstream, second".to_owned()),
            ("DM__CHAT__PROVIDERS__SECOND__KIND".into(), "openai".into()),
            ("DM__CHAT__PROVIDERS__SECOND__BASE_URL".into(), second.url.clone()),
            ("DM__CHAT__PROVIDERS__SECOND__MODEL".into(), "second-model".into()),
            ("DM__CHAT__PROVIDERS__SECOND__CONTEXT_TOKENS".into(), "8192".into()),
            ("DM__CHAT__PROVIDERS__SECOND__MAX_OUTPUT_TOKENS".into(), "500".into()),
        ]
    };
    let more = second(&good);
    let more: Vec<(&str, &str)> = more.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();

    let t = TestApp::with(&[broken.settings(), more.clone()].concat()).await;
    let ann = t.sign_up("ann@example.com").await;
    let answer = ann.say(&t, "c", "m1", "hello").await.ok();
    assert_eq!(answer["message"]["parts"][0]["text"], "from the second");
    assert_eq!(answer["message"]["metadata"]["model"], "second-model");

    let t = TestApp::with(&[half.settings(), more].concat()).await;
    let ann = t.sign_up("ann@example.com").await;
    let chunks = ann.stream(&t, "c", "m1", "hello").await.rest().await;
    assert_eq!((chunks.text().as_str(), &chunks.problem()["code"]), ("half a ", &json!("provider_failed")));
}

#[tokio::test]
async fn a_failure_before_the_first_word_is_logged_once() {
    let broken = Upstream::start(vec![json_answer("500 Oops", "", &error("x"))]).await;
    let logs = Logs::listen();
    let t = TestApp::with(&broken.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    ann.say(&t, "c", "m1", "hello").await.problem(502, "provider_failed");
    let lines = logs.lines_with("the provider failed: HTTP 500");
    assert_eq!(lines.len(), 1, "{lines:#?}");
}

/// The limit on the first token is one on silence: a model that thinks is limited like one that speaks.
#[tokio::test]
async fn thinking_counts_as_the_first_token() {
    let thought = "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n";
    let thinks = Upstream::start(vec![stream_head(), bytes(thought), Step::Hang]).await;
    let limits = vec![("DM__CHAT__FIRST_TOKEN_TIMEOUT", "1s"), ("DM__CHAT__IDLE_TIMEOUT", "2s")];
    let logs = Logs::listen();
    let t = TestApp::with(&[thinks.settings(), limits].concat()).await;
    let ann = t.sign_up("ann@example.com").await;
    ann.say(&t, "c", "m1", "hello").await.problem(504, "provider_timeout");
    assert_eq!(logs.lines_with("too slow: silence in the middle").len(), 1);
    assert_eq!(ann.used(&t).await, 0, "but it is no word");
}

#[tokio::test]
async fn white_space_is_no_word() {
    let blank = Upstream::start(vec![stream_head(), delta("\n"), delta(" \n"), Step::Reset]).await;
    let t = TestApp::with(&blank.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    let chunks = ann.stream(&t, "c", "m1", "hello").await.rest().await;
    assert_eq!(chunks.types(), ["start", "start-step", "error", "[DONE]"]);
    assert_eq!(ann.statuses(&t, "c").await, ["complete", "failed"]);
    assert_eq!(ann.used(&t).await, 0);

    let late =
        Upstream::start(vec![stream_head(), delta("\n\n"), delta(" here\n"), delta("it is"), finish()]).await;
    let t = TestApp::with(&late.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    let answer = ann.say(&t, "c", "m1", "hello").await.ok();
    assert_eq!(answer["message"]["parts"][0]["text"], "here\nit is");
}

#[tokio::test]
async fn a_server_that_does_not_hang_up_after_its_last_word_has_finished() {
    let stop = bytes("data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n");
    let lingers = Upstream::start(vec![stream_head(), delta("all of it"), stop, Step::Hang]).await;
    let t = TestApp::with(
        &[lingers.settings(), vec![("DM__CHAT__IDLE_TIMEOUT", "1m"), ("DM__CHAT__TOTAL_TIMEOUT", "8s")]]
            .concat(),
    )
    .await;
    let ann = t.sign_up("ann@example.com").await;
    let answer = ann.say(&t, "c", "m1", "hello").await.ok();
    assert_eq!(answer["message"]["metadata"]["status"], "complete");
    assert_eq!(answer["usage"]["estimated"], true);
}

#[tokio::test]
async fn a_stream_is_known_by_what_it_says_more_than_by_its_name() {
    for content_type in ["Text/Event-Stream; charset=UTF-8", "text/plain", ""] {
        let header =
            if content_type.is_empty() { String::new() } else { format!("content-type: {content_type}\r\n") };
        let head = bytes(format!("HTTP/1.1 200 OK\r\n{header}connection: close\r\n\r\n"));
        let (status, ..) = outcome(vec![head, delta("hi"), finish()]).await;
        assert_eq!(status, 200, "{content_type}");
    }
    let refusal = "HTTP/1.1 503 Oops\r\nretry-after: 7\r\ncontent-length: 100\r\n\r\n";
    let stalls = Upstream::start(vec![bytes(refusal), Step::Hang]).await;
    let t = TestApp::with(&stalls.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    let answer = ann.say(&t, "c", "m1", "hello").await;
    assert_eq!(answer.header("retry-after"), "7");
    answer.problem(503, "provider_unavailable");
}
