//! Servers that speak Chat Completions each in their own way. Those that misbehave are in `faults.rs`.

use serde_json::json;

use crate::support::{
    app::TestApp,
    upstream::{Step, Upstream, bytes, delta, finish, json_answer, reply, stream_head},
};

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
async fn white_space_is_no_word() {
    let blank = Upstream::start(vec![stream_head(), delta("\n"), delta(" \n"), Step::Reset]).await;
    let t = TestApp::with(&blank.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    let chunks = ann.stream(&t, "c", "m1", "hello").await.rest().await;
    assert_eq!(chunks.types(), ["start", "start-step", "data-quota", "error", "[DONE]"]);
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
        let upstream = Upstream::start(vec![head, delta("hi"), finish()]).await;
        let t = TestApp::with(&upstream.settings()).await;
        let ann = t.sign_up("ann@example.com").await;
        assert_eq!(ann.say(&t, "c", "m1", "hello").await.code, 200, "{content_type}");
    }
    let refusal = "HTTP/1.1 503 Oops\r\nretry-after: 70\r\ncontent-length: 100\r\n\r\n";
    let stalls = Upstream::start(vec![bytes(refusal), Step::Hang]).await;
    let t = TestApp::with(&stalls.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    let answer = ann.say(&t, "c", "m1", "hello").await;
    assert_eq!(answer.header("retry-after"), "70");
    answer.problem(503, "provider_unavailable");
}
