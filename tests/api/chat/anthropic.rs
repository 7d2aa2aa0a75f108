//! Anthropic's wire, from the setting to the stored reply.

use serde_json::{Value, json};

use crate::support::{
    app::{Person, TestApp},
    logs::Logs,
    upstream::{
        Step, Upstream,
        anthropic::{begin, delta, error, event, finish, reply, stop_reason, thinking},
        bytes, json_answer,
    },
};

async fn talking_to(upstream: &Upstream) -> (TestApp, Person) {
    let t = TestApp::with(&upstream.settings_as("anthropic")).await;
    let ann = t.sign_up("ann@example.com").await;
    (t, ann)
}

/// What a client sees and what is left behind: status, code, how the reply is stored, what is charged.
async fn outcome(steps: Vec<Step>) -> (u16, String, String, i64) {
    let upstream = Upstream::start(steps).await;
    let logs = Logs::listen_to(tracing::Level::TRACE);
    let (t, ann) = talking_to(&upstream).await;
    let answer = ann.say(&t, "c", "m1", "hello").await;
    let code = answer.json()["code"].as_str().unwrap_or("").to_owned();
    assert!(!answer.text.contains("sk-test-key") && !answer.text.contains("127.0.0.1"), "{}", answer.text);
    assert_eq!(logs.lines_with("sk-test-key"), Vec::<String>::new());
    let status = ann.statuses(&t, "c").await.pop().unwrap();
    (answer.code, code, status, ann.used(&t).await)
}

fn refusal(status: &str, headers: &str, name: &str, message: &str) -> Vec<Step> {
    let error = json!({"type": name, "message": format!("{message} key sk-test-key at 127.0.0.1")});
    vec![json_answer(status, headers, &json!({"type": "error", "error": error, "request_id": "req_1"}))]
}

#[tokio::test]
async fn a_whole_reply_arrives_with_the_vendors_own_count() {
    let upstream = Upstream::start(reply("Good evening", "end_turn")).await;
    let (t, ann) = talking_to(&upstream).await;
    let answer = ann.say(&t, "c", "m1", "hello").await.ok();
    assert_eq!(answer["message"]["parts"][0]["text"], "Good evening");
    assert_eq!(answer["message"]["metadata"]["status"], "complete");
    assert_eq!(answer["message"]["metadata"]["model"], "test-model");
    assert_eq!(answer["usage"], json!({"input_tokens": 9, "output_tokens": 2, "estimated": false}));
    ann.say(&t, "c", "m2", "and now?").await.ok();

    let received = upstream.received();
    let head = received[0].head.to_ascii_lowercase();
    assert!(head.starts_with("post /v1/messages http/1.1"), "{head}");
    assert!(
        head.contains("x-api-key: sk-test-key") && head.contains("anthropic-version: 2023-06-01"),
        "{head}"
    );
    let body = &received[1].body;
    assert_eq!((&body["max_tokens"], &body["stream"]), (&json!(500), &json!(true)));
    assert!(body["system"].as_str().is_some_and(|system| !system.is_empty()), "the persona stands above");
    let said: Vec<(&str, &str)> = body["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|turn| (turn["role"].as_str().unwrap(), turn["content"].as_str().unwrap()))
        .collect();
    assert_eq!(said, [("user", "hello"), ("assistant", "Good evening"), ("user", "and now?")]);
}

#[tokio::test]
async fn thinking_is_a_sign_of_life_and_shown_to_nobody() {
    let think = [thinking("a secret thought"), event("ping", &json!({})), thinking("another")];
    let steps = [begin(), think.to_vec(), vec![delta("Yes.")], finish("end_turn")].concat();
    let upstream = Upstream::start(steps).await;
    let (t, ann) = talking_to(&upstream).await;
    let chunks = ann.stream(&t, "c", "m1", "hello").await.rest().await;
    assert_eq!(chunks.text(), "Yes.");
    assert!(!chunks.types().iter().any(|kind| kind.starts_with("reasoning")), "{:?}", chunks.types());
    assert_eq!(ann.texts(&t, "c").await, ["hello", "Yes."]);
}

#[tokio::test]
async fn a_reply_ends_for_the_reason_that_the_vendor_names() {
    for (reason, finish_reason) in [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content-filter"),
        ("pause_turn", "other"),
        ("something_new", "other"),
    ] {
        let upstream = Upstream::start(reply("some words", reason)).await;
        let (t, ann) = talking_to(&upstream).await;
        let chunks = ann.stream(&t, "c", "m1", "hello").await.rest().await;
        assert_eq!(chunks.last_but_mark()["finishReason"], finish_reason, "{reason}");
        assert_eq!(ann.statuses(&t, "c").await, ["complete", "complete"], "{reason}");
    }
}

#[tokio::test]
async fn a_refusal_without_a_word_is_declined_and_costs_nothing() {
    let upstream = Upstream::start([begin(), finish("refusal")].concat()).await;
    let (t, ann) = talking_to(&upstream).await;
    let problem = ann.say(&t, "c", "m1", "hello").await.problem(502, "provider_failed");
    assert_eq!(problem["detail"], "The companion declined to answer this.");
    assert_eq!(ann.statuses(&t, "c").await, ["complete", "failed"]);
    assert_eq!(ann.used(&t).await, 0);
}

#[tokio::test]
async fn each_refusal_of_the_vendor_has_its_code_and_costs_nothing() {
    for (steps, status, code) in [
        (refusal("400 Bad Request", "", "invalid_request_error", "x"), 502, "provider_failed"),
        (
            refusal("400 Bad Request", "", "invalid_request_error", "prompt is too long: 9 > 8"),
            502,
            "provider_failed",
        ),
        (
            refusal("400 Bad Request", "", "invalid_request_error", "Your credit balance is too low"),
            503,
            "provider_unavailable",
        ),
        (refusal("401 Unauthorized", "", "authentication_error", "x"), 502, "provider_failed"),
        (refusal("402 Payment Required", "", "billing_error", "x"), 503, "provider_unavailable"),
        (refusal("429 Too Many Requests", "", "rate_limit_error", "x"), 503, "provider_unavailable"),
        (refusal("500 Oops", "", "api_error", "x"), 502, "provider_failed"),
        (refusal("529 Overloaded", "", "overloaded_error", "x"), 503, "provider_unavailable"),
        (
            vec![bytes(
                "HTTP/1.1 413 Too Large\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n<html>sk-test-key",
            )],
            502,
            "provider_failed",
        ),
        (refusal("302 Found", "location: http://127.0.0.1:1/\r\n", "x", "x"), 502, "provider_failed"),
        (refusal("200 OK", "", "overloaded_error", "x"), 503, "provider_unavailable"),
        ([begin(), vec![error("overloaded_error")]].concat(), 503, "provider_unavailable"),
        ([begin(), vec![error("api_error")]].concat(), 502, "provider_failed"),
        (begin(), 502, "provider_failed"),
        ([begin(), finish("end_turn")].concat(), 502, "provider_failed"),
    ] {
        let what = format!("{:?}", steps.iter().map(shown).collect::<Vec<_>>());
        assert_eq!(outcome(steps).await, (status, code.into(), "failed".into(), 0), "{what}");
    }
}

fn shown(step: &Step) -> String {
    if let Step::Bytes(bytes) = step { String::from_utf8_lossy(bytes).into_owned() } else { "…".into() }
}

#[tokio::test]
async fn an_overloaded_vendor_says_when_to_come_back() {
    let headers = "retry-after: 12\r\n";
    let upstream = Upstream::start(refusal("529 Overloaded", headers, "overloaded_error", "x")).await;
    let (t, ann) = talking_to(&upstream).await;
    let answer = ann.say(&t, "c", "m1", "hello").await;
    assert_eq!(answer.header("retry-after"), "12");
    answer.problem(503, "provider_unavailable");
}

#[tokio::test]
async fn what_was_said_before_a_failure_is_kept_and_charged() {
    for (last, status, code) in [
        (Step::Reset, 502, "provider_failed"),
        (bytes(""), 502, "provider_failed"),
        (error("api_error"), 502, "provider_failed"),
        (error("overloaded_error"), 503, "provider_unavailable"),
        (bytes("event: content_block_delta\ndata: {broken\n\n"), 502, "provider_failed"),
    ] {
        let seen = outcome([begin(), vec![delta("half a "), last]].concat()).await;
        assert_eq!(seen, (status, code.into(), "interrupted".into(), 1));
    }
}

#[tokio::test]
async fn a_reply_whose_end_mark_is_missing_is_whole_if_it_says_why_it_ended() {
    let steps = [begin(), vec![delta("all of it"), stop_reason("end_turn"), Step::Reset]].concat();
    let upstream = Upstream::start(steps).await;
    let (t, ann) = talking_to(&upstream).await;
    let answer = ann.say(&t, "c", "m1", "hello").await.ok();
    assert_eq!(answer["message"]["metadata"]["status"], "complete");
    assert_eq!(answer["usage"]["output_tokens"], 2);
}

#[tokio::test]
async fn a_reply_that_was_cut_is_estimated_not_counted() {
    let upstream = Upstream::start([begin(), vec![delta("half a "), Step::Reset]].concat()).await;
    let (t, ann) = talking_to(&upstream).await;
    ann.say(&t, "c", "m1", "hello").await.problem(502, "provider_failed");
    let read = async |c| usage().one(&c).await;
    let row: Result<Counted, digitalmistress::platform::db::Error> = t.db().read(read).await;
    let row = row.unwrap();
    assert!(row.tokens_estimated && row.output_tokens > 1, "the first event's count of the reply is none");
}

digitalmistress::queries! {
    fn usage() -> Counted =
        "SELECT output_tokens, tokens_estimated FROM generation LIMIT 1";
}
digitalmistress::record! {
    struct Counted {
        output_tokens: i64,
        tokens_estimated: bool,
    }
}

#[tokio::test]
async fn an_answer_that_is_no_stream_is_read_all_the_same() {
    let body = json!({"id": "msg_1", "type": "message", "role": "assistant",
        "content": [{"type": "thinking", "thinking": "hm", "signature": "x"}, {"type": "text", "text": "whole"}],
        "stop_reason": "end_turn", "usage": {"input_tokens": 3, "output_tokens": 4}});
    let upstream = Upstream::start(vec![json_answer("200 OK", "", &body)]).await;
    let (t, ann) = talking_to(&upstream).await;
    let answer: Value = ann.say(&t, "c", "m1", "hello").await.ok();
    assert_eq!(answer["message"]["parts"][0]["text"], "whole");
    assert_eq!(answer["usage"], json!({"input_tokens": 3, "output_tokens": 4, "estimated": false}));
}
