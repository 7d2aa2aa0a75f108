//! A reply is a job of the server: it outlives connections, ends when it should, and is settled whatever happens.

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::until;
use crate::support::{
    app::{Person, TestApp, message},
    stream::Stream,
    upstream::{Step, Upstream, delta, finish, gate, stream_head},
};

async fn resume(t: &TestApp, person: &Person, conversation: &str) -> Option<Stream> {
    let response = person.get(t, &format!("/v1/chat/{conversation}/stream")).send().await;
    match response.status().as_u16() {
        200 => Some(Stream::new(response)),
        204 => None,
        status => panic!("{status}"),
    }
}

#[tokio::test]
async fn a_reply_is_kept_even_if_the_client_leaves() {
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
    let mut stream = ann.stream(&t, "c", "m1", "hello").await;
    stream.first_word().await;
    drop(stream); // The client hangs up.
    go.add_permits(1);
    until("the reply is stored", async || ann.texts(&t, "c").await == ["hello", "Good evening."]).await;
    assert_eq!(ann.statuses(&t, "c").await, ["complete", "complete"]);
}

#[tokio::test]
async fn a_client_that_leaves_before_it_read_anything_changes_nothing() {
    let go = gate();
    let upstream =
        Upstream::start(vec![Step::Wait(go.clone()), stream_head(), delta("here"), finish()]).await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    drop(ann.post(&t, "/v1/chat", message("c", "m1", "hello")).send().await);
    go.add_permits(1);
    until("the reply is stored", async || ann.texts(&t, "c").await == ["hello", "here"]).await;
}

/// As in open-webui#29596: after a reload only the words that came later were shown.
#[tokio::test]
async fn a_running_reply_is_resumed_from_its_first_word_by_as_many_as_like() {
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
    let (ann, bob) = (t.sign_up("ann@example.com").await, t.sign_up("bob@example.com").await);
    assert!(resume(&t, &ann, "c").await.is_none(), "nothing was sent yet");
    let mut first = ann.stream(&t, "c", "m1", "hello").await;
    let start = first.start().await;
    first.first_word().await;
    drop(first);

    let mut readers = Vec::new();
    for _ in 0..3 {
        let mut reader = resume(&t, &ann, "c").await.expect("it runs");
        assert_eq!(reader.start().await, start);
        assert_eq!(reader.first_word().await, "Good ");
        readers.push(reader);
    }
    assert!(resume(&t, &bob, "c").await.is_none(), "somebody else's");
    go.add_permits(1);
    for reader in readers {
        let chunks = reader.rest().await;
        assert_eq!(chunks.text(), "evening.");
        assert_eq!(chunks.types().last(), Some(&"[DONE]"));
    }
    assert!(resume(&t, &ann, "c").await.is_none(), "it is over");
    assert!(resume(&t, &ann, "never-used").await.is_none());
}

/// As in open-webui#16251 and vercel/ai#6502: a stop that ended one page's reading and nothing else.
#[tokio::test]
async fn a_stop_keeps_what_was_said_and_ends_every_reader() {
    let upstream = Upstream::start(vec![stream_head(), delta("Good eve"), Step::Hang]).await;
    let t = TestApp::with(&upstream.settings()).await;
    let (ann, bob) = (t.sign_up("ann@example.com").await, t.sign_up("bob@example.com").await);
    let mut stream = ann.stream(&t, "c", "m1", "hello").await;
    let (generation, _) = stream.start().await;
    stream.first_word().await;
    let waiting = {
        let (client, base, token) = (t.client.clone(), t.base.clone(), ann.access_token.clone());
        tokio::spawn(async move {
            let call = client.post(format!("{base}/v1/chat")).json(&message("c", "m1", "hello"));
            let answer = call.bearer_auth(token).header("accept", "application/json").send().await.unwrap();
            answer.json::<serde_json::Value>().await.unwrap()
        })
    };

    let stop = |person: &Person, body| person.post(&t, "/v1/chat/c/stop", body);
    stop(&bob, json!({})).await.status(204);
    stop(&ann, json!({"generation_id": "01999999-9999-7999-8999-999999999999"})).await.status(204);
    stop(&ann, json!({"generation_id": "not an id"})).await.status(204);
    assert!(resume(&t, &ann, "c").await.is_some(), "another generation's id stops nothing");
    stop(&ann, json!({"generation_id": generation})).await.status(204);
    assert_eq!(stream.rest().await.types(), ["text-end", "abort", "[DONE]"]);
    let answer = waiting.await.unwrap();
    assert_eq!(answer["message"]["metadata"]["status"], "stopped");
    assert_eq!(answer["message"]["parts"][0]["text"], "Good eve");

    stop(&ann, json!({})).await.status(204);
    assert_eq!(ann.texts(&t, "c").await, ["hello", "Good eve"]);
    assert_eq!(ann.statuses(&t, "c").await, ["complete", "stopped"]);
    assert_eq!(ann.used(&t).await, 1);
}

#[tokio::test]
async fn stop_takes_no_body_at_all_too() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let stop = t.request("POST", "/v1/chat/c/stop").bearer_auth(&ann.access_token).send().await.unwrap();
    assert_eq!(stop.status(), 204);
    ann.post(&t, "/v1/chat/c/stop", json!({"more": 1})).await.invalid("/more", "unknown_field");
}

#[tokio::test]
async fn with_nobody_listening_a_reply_ends_after_the_grace_time() {
    let upstream = Upstream::start(vec![stream_head(), delta("half a "), Step::Hang]).await;
    let settings = [upstream.settings(), vec![("DM__CHAT__DETACHED_GRACE", "200ms")]].concat();
    let t = TestApp::with(&settings).await;
    let ann = t.sign_up("ann@example.com").await;
    let mut stream = ann.stream(&t, "c", "m1", "hello").await;
    stream.first_word().await;
    drop(stream);
    until("it is settled", async || ann.statuses(&t, "c").await == ["complete", "interrupted"]).await;
    assert_eq!(ann.texts(&t, "c").await, ["hello", "half a "]);
    assert_eq!(ann.used(&t).await, 1);
    ann.stream(&t, "c", "m2", "again").await.first_word().await; // The conversation is free again.
}

#[tokio::test]
async fn silence_has_its_limits() {
    let never = Upstream::start(vec![stream_head(), Step::Hang]).await;
    let settings = [never.settings(), vec![("DM__CHAT__FIRST_TOKEN_TIMEOUT", "200ms")]].concat();
    let t = TestApp::with(&settings).await;
    let ann = t.sign_up("ann@example.com").await;
    ann.say(&t, "c", "m1", "hello").await.problem(504, "provider_timeout");
    assert_eq!(ann.used(&t).await, 0);

    let stalls = Upstream::start(vec![stream_head(), delta("and then"), Step::Hang]).await;
    for limit in ["DM__CHAT__IDLE_TIMEOUT", "DM__CHAT__TOTAL_TIMEOUT"] {
        let t = TestApp::with(&[stalls.settings(), vec![(limit, "300ms")]].concat()).await;
        let ann = t.sign_up("ann@example.com").await;
        let chunks = ann.stream(&t, "c", "m1", "hello").await.rest().await;
        assert_eq!(
            (chunks.text().as_str(), &chunks.problem()["code"]),
            ("and then", &json!("provider_timeout"))
        );
        assert_eq!(ann.statuses(&t, "c").await[1], "interrupted");
    }

    let mute = Upstream::start(vec![Step::Hang]).await;
    let t = TestApp::with(&[mute.settings(), vec![("DM__CHAT__HEADERS_TIMEOUT", "200ms")]].concat()).await;
    let ann = t.sign_up("ann@example.com").await;
    ann.say(&t, "c", "m1", "hello").await.problem(504, "provider_timeout");
}

#[tokio::test]
async fn ending_the_program_tells_readers_and_keeps_what_was_said() {
    let upstream = Upstream::start(vec![stream_head(), delta("half a "), Step::Hang]).await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    let mut stream = ann.stream(&t, "c", "m1", "hello").await;
    stream.first_word().await;
    let (_, chunks) = tokio::join!(t.shut_down(), stream.rest());
    assert_eq!(chunks.problem()["code"], "unavailable");
    let t = t.restart().await;
    assert_eq!(ann.texts(&t, "c").await, ["hello", "half a "]);
    assert_eq!(ann.statuses(&t, "c").await, ["complete", "interrupted"]);

    // Told while it happened, a wait may help; told again later, it does not.
    assert_eq!(chunks.problem()["retry_after_s"], 1);
    let again = ann.stream(&t, "c", "m1", "hello").await.rest().await.problem();
    assert_eq!((&again["code"], again.get("retry_after_s")), (&json!("unavailable"), None));
}

#[tokio::test]
async fn before_the_end_running_replies_finish_and_nothing_new_is_begun() {
    let go = gate();
    let upstream = Upstream::start(vec![
        stream_head(),
        delta("Good "),
        Step::Wait(go.clone()),
        delta("night."),
        finish(),
    ])
    .await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    let mut stream = ann.stream(&t, "c", "m1", "hello").await;
    stream.first_word().await;

    // A request whose head has arrived and whose body has not: the connection is not idle and stays.
    let body = message("d", "m1", "too late").to_string();
    let mut late = TcpStream::connect(t.base.trim_start_matches("http://")).await.unwrap();
    let head = format!(
        "POST /v1/chat HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nexpect: 100-continue\r\n\r\n",
        ann.access_token,
        body.len()
    );
    late.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 256];
    let read = late.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 100"), "the body is waited for");

    t.begin_to_end();
    late.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    late.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("\"code\":\"overloaded\""), "{answer}");
    go.add_permits(1);
    let chunks = stream.rest().await;
    assert_eq!((chunks.text().as_str(), chunks.types().last()), ("night.", Some(&"[DONE]")));
    assert_eq!(chunks.last_but_mark()["type"], "finish");
}

#[tokio::test]
async fn a_stop_reaches_the_instance_that_makes_the_reply_through_its_row() {
    digitalmistress::queries! {
        fn ask(id: uuid::Uuid) = "UPDATE generation SET stop_requested = TRUE WHERE id = $1";
    }
    let upstream = Upstream::start(vec![stream_head(), delta("Good eve"), Step::Hang]).await;
    let t = TestApp::with(&[upstream.settings(), vec![("DM__CHAT__LEASE", "300ms")]].concat()).await;
    let ann = t.sign_up("ann@example.com").await;
    let mut stream = ann.stream(&t, "c", "m1", "hello").await;
    let generation: uuid::Uuid = stream.start().await.0.parse().unwrap();
    stream.first_word().await;
    let asked: Result<u64, digitalmistress::platform::db::Error> =
        t.db().write(async move |c| ask(generation).exec(&c).await).await;
    assert_eq!(asked.unwrap(), 1);
    assert_eq!(stream.rest().await.types(), ["text-end", "abort", "[DONE]"]);
}
