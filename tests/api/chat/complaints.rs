//! What users of other chat programs complain of, where no other file has the story. Each test names the complaint.

use serde_json::{Value, json};

use super::until;
use crate::support::{
    app::{TestApp, message},
    stream::Stream,
    upstream::{Received, Step, Upstream, bytes, delta, finish, gate, stream_head},
};

/// What a provider was told after the persona.
fn told(request: &Received) -> Vec<String> {
    let messages = request.body["messages"].as_array().unwrap();
    messages[1..].iter().map(|message| message["content"].as_str().unwrap().to_owned()).collect()
}

/// As in open-webui#1567 and #2684, vercel/ai#6502: the stop button stopped what was shown, and the model went on.
#[tokio::test]
async fn a_stop_hangs_up_on_the_provider() {
    let upstream = Upstream::start(vec![stream_head(), delta("Good eve"), Step::Hang]).await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    let mut stream = ann.stream(&t, "c", "m1", "hello").await;
    stream.first_word().await;
    ann.post(&t, "/v1/chat/c/stop", json!({})).await.status(204);
    until("the provider is hung up on", async || upstream.hung_up() == 1).await;
    assert_eq!(stream.rest().await.types(), ["text-end", "abort", "[DONE]"]);
    assert_eq!(upstream.received().len(), 1, "and not asked again");
}

/// As in litellm#30244 and #9178: the provider went on after the client had left, also before the first token. A lost
/// connection is no stop here, so the reply has its time of grace.
#[tokio::test]
async fn with_nobody_listening_the_provider_is_hung_up_on_after_the_grace_time() {
    for (n, steps) in
        [vec![stream_head(), delta("half a "), Step::Hang], vec![Step::Hang]].into_iter().enumerate()
    {
        let upstream = Upstream::start(steps).await;
        let settings = [upstream.settings(), vec![("DM__CHAT__DETACHED_GRACE", "100ms")]].concat();
        let t = TestApp::with(&settings).await;
        let ann = t.sign_up("ann@example.com").await;
        let mut stream = ann.stream(&t, "c", "m1", "hello").await;
        stream.start().await;
        if n == 0 {
            stream.first_word().await;
        }
        until("the provider was asked", async || !upstream.received().is_empty()).await;
        assert_eq!(upstream.hung_up(), 0, "somebody listens");
        drop(stream);
        until("the provider is hung up on", async || upstream.hung_up() == 1).await;
        until("it is settled", async || ann.statuses(&t, "c").await.len() == 2).await;
    }
}

/// As in open-webui#2876: the reply hung, the stop did nothing, and what had been said was gone after a reload.
#[tokio::test]
async fn a_reply_that_hangs_can_be_stopped_and_is_there_after_a_reload() {
    let upstream = Upstream::answering(|request| match request.question() {
        "hang" => vec![stream_head(), delta("half a "), Step::Hang],
        _ => vec![Step::Hang],
    })
    .await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    for (conversation, text) in [("c", "hang"), ("d", "not a word")] {
        let mut page = ann.stream(&t, conversation, "m1", text).await;
        page.start().await;
        if text == "hang" {
            page.first_word().await;
        }
        drop(page); // The page is loaded again: it finds the reply running, and stops it.
        let resumed = ann.get(&t, &format!("/v1/chat/{conversation}/stream")).send().await;
        assert_eq!(resumed.status(), 200);
        ann.post(&t, &format!("/v1/chat/{conversation}/stop"), json!({})).await.status(204);
        let stored = async || ann.statuses(&t, conversation).await == ["complete", "stopped"];
        until("it is stored", stored).await;
        ann.get(&t, &format!("/v1/chat/{conversation}/stream")).await.status(204);
    }
    assert_eq!(ann.texts(&t, "c").await, ["hang", "half a "]);
    assert_eq!(ann.texts(&t, "d").await, ["not a word", ""]);
}

/// As in LibreChat#1548 and #1507: after a restart, or a message sent quickly after a stop, the model had forgotten what
/// was said, or the conversation had two branches.
#[tokio::test]
async fn after_a_stop_and_after_a_restart_the_context_is_whole() {
    let upstream = Upstream::answering(|request| match request.question() {
        "second" => vec![stream_head(), delta("half of the second"), Step::Hang],
        text => vec![stream_head(), delta(&format!("reply to the {text}")), finish()],
    })
    .await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    ann.say(&t, "c", "m1", "first").await.ok();
    let mut stream = ann.stream(&t, "c", "m2", "second").await;
    stream.first_word().await;
    ann.post(&t, "/v1/chat/c/stop", json!({})).await.status(204);
    // At once: whoever is too quick is refused and may send it again.
    let sent = async || match ann.say(&t, "c", "m3", "third").await {
        answer if answer.code == 200 => true,
        answer => answer.problem(409, "generation_in_progress").is_null(),
    };
    until("it is let in", sent).await;
    let t = t.restart().await;
    ann.say(&t, "c", "m4", "fourth").await.ok();

    let said = [
        "first",
        "reply to the first",
        "second",
        "half of the second",
        "third",
        "reply to the third",
        "fourth",
        "reply to the fourth",
    ];
    assert_eq!(ann.texts(&t, "c").await, said);
    assert_eq!(told(upstream.received().last().unwrap()), said[..7]);
}

/// As in LibreChat#3982: a long reply was cut in the middle of its JSON, and the chat froze. rig#811: a character cut in
/// two ended the stream. Codewhale#1309: events that end with CRLF were never seen.
#[tokio::test]
async fn a_long_reply_arrives_whole_however_it_is_cut_and_whatever_ends_its_lines() {
    let words: Vec<String> = (0..2000).map(|n| format!("{n} “é😀\"\\\n” ")).collect();
    let whole: String = words.concat();
    for line_end in ["\n", "\r\n", "\r"] {
        let event = |data: String| format!("data: {data}{line_end}{line_end}");
        let chunk = |text: &String| event(json!({"choices": [{"delta": {"content": text}}]}).to_string());
        let ending = json!({"choices": [{"delta": {}, "finish_reason": "stop"}]}).to_string();
        let said: String = words.iter().map(chunk).chain([event(ending), event("[DONE]".into())]).collect();
        // 251 is prime, so that cuts fall everywhere: in characters, in escapes, between CR and LF.
        let pieces = said.as_bytes().chunks(251).map(bytes);
        let upstream = Upstream::start(std::iter::once(stream_head()).chain(pieces).collect()).await;
        let t = TestApp::with(&upstream.settings()).await;
        let ann = t.sign_up("ann@example.com").await;
        let chunks = ann.stream(&t, "c", "m1", "hello").await.rest().await;
        assert_eq!(chunks.text(), whole);
        assert_eq!(chunks.last_but_mark()["type"], "finish");
        assert_eq!(ann.texts(&t, "c").await[1], whole);
    }
}

/// As in litellm#37923 and #15740: streams that were cancelled were not billed, and others were counted twice.
#[tokio::test]
async fn every_reply_has_its_usage_once_however_it_ended() {
    digitalmistress::record! {
        struct Counted {
            status: String,
            input_tokens: i64,
            output_tokens: i64,
            tokens_estimated: bool,
        }
    }
    digitalmistress::queries! {
        scan fn counted() -> Counted =
            "SELECT status, input_tokens, output_tokens, tokens_estimated FROM generation ORDER BY status";
    }
    let upstream = Upstream::answering(|request| match request.question() {
        "whole" => vec![stream_head(), delta("all of it"), finish()],
        "broken" => vec![stream_head(), delta("half of it"), Step::Reset],
        _ => vec![stream_head(), delta("half of it"), Step::Hang],
    })
    .await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    for _ in 0..2 {
        ann.say(&t, "whole", "m1", "whole").await.ok(); // Sent again, it is not counted again.
    }
    let _ = ann.say(&t, "broken", "m1", "broken").await;
    let mut stream = ann.stream(&t, "stopped", "m1", "stopped").await;
    stream.first_word().await;
    for _ in 0..2 {
        ann.post(&t, "/v1/chat/stopped/stop", json!({})).await.status(204);
    }
    stream.rest().await;

    let read = async |c| counted().all(&c).await;
    let found: Result<Vec<Counted>, digitalmistress::platform::db::Error> = t.db().read_slow(read).await;
    let found = found.unwrap();
    let statuses: Vec<&str> = found.iter().map(|row| row.status.as_str()).collect();
    assert_eq!(statuses, ["complete", "interrupted", "stopped"]);
    assert_eq!((found[0].input_tokens, found[0].output_tokens, found[0].tokens_estimated), (9, 2, false));
    for row in &found[1..] {
        assert!(row.input_tokens > 0 && row.output_tokens > 0 && row.tokens_estimated, "{}", row.status);
    }
    assert_eq!(ann.used(&t).await, 3);
}

/// As in vercel/ai#18457 and #14688: a client that joined after the end was told the whole reply a second time. As in
/// open-webui#29596: one that joined in the middle heard only the rest, and another persona from then on.
#[tokio::test]
async fn a_page_that_is_loaded_again_shows_everything_once() {
    let go = gate();
    let steps = vec![stream_head(), delta("Good "), Step::Wait(go.clone()), delta("evening."), finish()];
    let upstream = Upstream::start(steps).await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    let mut body = message("c", "m1", "hello");
    body["companion_id"] = json!("roz");
    drop(ann.post(&t, "/v1/chat", body).send().await);

    // The page asks for the history and for what is running; together they are each message once.
    let history = ann.texts(&t, "c").await;
    let running = ann.get(&t, "/v1/chat/c/stream").send().await;
    let running = Stream::new(running);
    go.add_permits(1);
    let chunks = running.rest().await;
    assert_eq!((history, chunks.text()), (vec!["hello".to_owned()], "Good evening.".to_owned()));

    ann.get(&t, "/v1/chat/c/stream").await.status(204);
    assert_eq!(ann.texts(&t, "c").await, ["hello", "Good evening."]);
    let stored: Value = ann.get(&t, "/v1/conversations/c/messages").await.ok();
    assert_eq!(stored["data"][1]["id"], chunks.0[0]["messageId"]);
    assert_eq!(ann.get(&t, "/v1/conversations/c").await.ok()["companion_id"], "roz");
}
