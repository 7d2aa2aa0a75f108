//! Calls whose callers go away after any number of steps: whatever was under way belongs to one person alone, is whole or
//! absent, and the next calls find the program as it should be.

use std::{net::SocketAddr, pin::pin, task::Poll};

use axum::{
    body::{Body, to_bytes},
    http::Request,
};
use digitalmistress::platform::{db::Error, server::PeerAddress};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::until;
use crate::support::{
    app::{Person, TestApp, message},
    upstream::{Upstream, delta, finish, stream_head},
};

const NAMES: [&str; 4] = ["ann", "bob", "cyd", "dee"];
/// More steps than any call takes. The test ends when each has come to its end with fewer.
const MOST: usize = 400;
/// Everything runs at once, so no two passes are the same.
const PASSES: usize = 4;

digitalmistress::record! {
    struct Account {
        used: i64,
        charged: i64,
    }
}

digitalmistress::queries! {
    scan fn generating() -> i64 =
        "SELECT (SELECT COUNT(*) FROM generation WHERE status = 'generating')
              + (SELECT COUNT(*) FROM message WHERE status = 'generating')
              + (SELECT COUNT(*) FROM conversation WHERE generation_id IS NOT NULL)
              + (SELECT COUNT(*) FROM conversation c WHERE deleted_at IS NULL AND message_count
                   <> (SELECT COUNT(*) FROM message m WHERE m.conversation_key = c.key))";
    scan fn accounts() -> Account =
        "SELECT (SELECT CAST(COALESCE(SUM(q.used), 0) AS BIGINT) FROM quota_day q WHERE q.user_id = u.id) AS used,
                (SELECT COUNT(*) FROM generation g WHERE g.owner_id = u.id AND NOT g.quota_returned) AS charged
           FROM app_user u";
}

/// Polls a call at most so often, then drops it.
async fn polled<F: Future>(times: usize, call: F) -> Option<F::Output> {
    let (mut call, mut left) = (pin!(call), times);
    std::future::poll_fn(move |cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match call.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// A call without a socket: its status and its whole body.
async fn call(router: axum::Router, token: String, method: &str, path: String, body: Value) -> (u16, String) {
    let is_json = path.ends_with("#json");
    let mut request = Request::builder()
        .method(method)
        .uri(path.trim_end_matches("#json"))
        .header("host", "localhost")
        .header("authorization", format!("Bearer {token}"))
        .extension(PeerAddress(SocketAddr::from(([127, 0, 0, 1], 1))));
    if is_json {
        request = request.header("accept", "application/json");
    }
    let body = if body.is_null() {
        Body::empty()
    } else {
        request = request.header("content-type", "application/json");
        Body::from(body.to_string())
    };
    let response = router.oneshot(request.body(body).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// Every operation of the chat once, each with its owner's canary where a text can be.
fn operations(name: &str, n: usize) -> Vec<(&'static str, String, Value)> {
    let canary = format!("canary-{name} {n}");
    let before = n.saturating_sub(1);
    let title = json!({"title": canary});
    vec![
        ("POST", "/v1/chat".into(), message(&format!("s{n}"), "m1", &canary)),
        ("POST", "/v1/chat#json".into(), message(&format!("j{n}"), "m1", &canary)),
        ("POST", "/v1/chat".into(), message("home", &format!("m{n}"), &canary)),
        ("GET", format!("/v1/chat/s{n}/stream"), Value::Null),
        ("POST", format!("/v1/chat/j{n}/stop"), json!({})),
        ("GET", "/v1/conversations/home/messages?limit=100".into(), Value::Null),
        ("GET", "/v1/conversations?limit=100".into(), Value::Null),
        ("GET", "/v1/conversations/home".into(), Value::Null),
        ("PATCH", "/v1/conversations/home".into(), title.clone()),
        ("POST", "/v1/conversations".into(), json!({"id": format!("k{n}"), "title": canary})),
        ("DELETE", format!("/v1/conversations/k{before}"), Value::Null),
        ("DELETE", format!("/v1/conversations/j{before}"), Value::Null),
    ]
}

/// Nobody's canary but the owner's is in a text.
fn assert_own(name: &str, where_: &str, text: &str) {
    for other in NAMES.iter().filter(|other| **other != name) {
        assert!(!text.contains(&format!("canary-{other}")), "{other}'s in {name}'s {where_}: {text}");
    }
}

async fn left_over(t: &TestApp) -> i64 {
    let found: Result<i64, Error> = t.db().read_slow(async |c| generating().one(&c).await).await;
    found.unwrap()
}

/// Begins every operation for everybody at once and drops each after some steps. Returns how many had not ended.
async fn drop_calls(t: &TestApp, people: &[(&str, Person)], round: usize, steps: usize) -> usize {
    let mut calls = Vec::new();
    for (name, person) in people {
        for (method, path, body) in operations(name, round) {
            let what = format!("{method} {path}");
            let call = call(t.router.clone(), person.access_token.clone(), method, path, body);
            calls.push((*name, what, tokio::spawn(polled(steps, call))));
        }
    }
    let mut unfinished = 0;
    for (name, what, call) in calls {
        match call.await.unwrap() {
            None => unfinished += 1,
            Some((status, body)) => {
                assert!(status < 500, "{what} after {steps} steps: {status} {body}");
                assert_own(name, &what, &body);
            }
        }
    }
    unfinished
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_dropped_after_any_step_mix_nothing_and_leave_nothing() {
    // It repeats what it was told last.
    let upstream = Upstream::answering(|request| {
        vec![stream_head(), delta("You said: "), delta(request.question()), finish()]
    })
    .await;
    let settings = [
        upstream.settings(),
        vec![
            ("DM__CHAT__FREE_MESSAGES_PER_DAY", "100000"),
            ("DM__CHAT__GENERATIONS_PER_USER", "30"),
            ("DM__CHAT__DETACHED_GRACE", "5s"),
        ],
    ]
    .concat();
    let t = TestApp::with(&settings).await;
    let mut people: Vec<(&str, Person)> = Vec::new();
    for name in NAMES {
        let person = t.sign_up(&format!("{name}@example.com")).await;
        person.say(&t, "home", "first", &format!("canary-{name} at home")).await.ok();
        people.push((name, person));
    }

    let (mut round, mut longest) = (0, 0);
    for _ in 0..PASSES {
        let mut steps = 0;
        while drop_calls(&t, &people, round, steps).await > 0 {
            until("what was begun has ended", async || left_over(&t).await == 0).await;
            assert!(steps < MOST, "some calls take more than {MOST} steps");
            (round, steps) = (round + 1, steps + 1);
        }
        longest = longest.max(steps);
    }
    until("what was begun has ended", async || left_over(&t).await == 0).await;
    eprintln!(
        "{} calls; the longest took {longest} steps",
        (round + PASSES) * NAMES.len() * operations("", 0).len()
    );

    for received in upstream.received() {
        let told = received.body.to_string();
        let whose = NAMES.iter().filter(|name| told.contains(&format!("canary-{name}"))).count();
        assert_eq!(whose, 1, "a provider was told of several people at once: {told}");
    }
    let accounts: Result<Vec<Account>, Error> = t.db().read_slow(async |c| accounts().all(&c).await).await;
    for Account { used, charged } in accounts.unwrap() {
        assert_eq!(used, charged, "quota and replies disagree");
    }
    for (name, person) in &people {
        assert_histories(&t, name, person).await;
    }
    for n in 0..25 {
        for (_, person) in &people {
            person.say(&t, "home", &format!("after{n}"), "and now?").await.ok();
        }
    }
}

/// Every conversation of a person has messages of its own alone, each with one reply to it.
async fn assert_histories(t: &TestApp, name: &str, person: &Person) {
    let mut cursor = String::new();
    loop {
        let page = person.get(t, &format!("/v1/conversations?limit=100{cursor}")).await.ok();
        for conversation in page["data"].as_array().unwrap() {
            let id = conversation["id"].as_str().unwrap();
            assert_own(name, id, &conversation.to_string());
            let messages = person.get(t, &format!("/v1/conversations/{id}/messages?limit=100")).await.ok();
            assert_own(name, id, &messages.to_string());
            for turn in messages["data"].as_array().unwrap().rchunks(2) {
                let [question, reply] = turn else { panic!("{name}'s {id} has half a turn: {turn:?}") };
                let text = |message: &Value| message["parts"][0]["text"].as_str().unwrap().to_owned();
                assert!(text(question).starts_with(&format!("canary-{name}")), "{name}'s {id}: {question}");
                match reply["metadata"]["status"].as_str().unwrap() {
                    "complete" => assert_eq!(text(reply), format!("You said: {}", text(question))),
                    "stopped" => assert!(format!("You said: {}", text(question)).starts_with(&text(reply))),
                    status => panic!("{name}'s {id}: {status}"),
                }
            }
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return,
        }
    }
}
