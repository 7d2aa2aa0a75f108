//! Whoever listens to a reply: heard as long as their session lives, noticed when they leave.

use std::time::Duration;

use digitalmistress::{chat::Intervals, platform::db::Error};
use serde_json::json;

use super::until;
use crate::support::{
    app::{Person, TestApp, message},
    logs::Logs,
    stream::Stream,
    upstream::{Step, Upstream, delta, finish, gate, stream_head},
};

digitalmistress::queries! {
    scan fn partials() -> i64 = "SELECT COUNT(*) FROM generation WHERE partial AND status = 'generating'";
    scan fn tokens_so_far() -> i64 =
        "SELECT output_tokens FROM generation WHERE tokens_estimated AND input_tokens > 0";
    fn hide_messages() = "ALTER TABLE message RENAME TO hidden";
    fn show_messages() = "ALTER TABLE hidden RENAME TO message";
}

async fn partial_is_stored(t: &TestApp) -> bool {
    t.db().read(async |c| partials().one(&c).await).await.map_err(|error: Error| error).unwrap() == 1
}

fn session_checks() -> Intervals {
    Intervals { session_check: Duration::from_millis(50), ..Intervals::default() }
}

async fn log_out(t: &TestApp, person: &Person) {
    person.post(t, "/v1/auth/logout", json!({"refresh_token": person.refresh_token})).await.status(204);
}

#[tokio::test]
async fn a_stream_ends_when_its_session_does_and_the_reply_goes_on() {
    let go = gate();
    let upstream = Upstream::start(vec![
        stream_head(),
        delta("Good "),
        Step::Wait(go.clone()),
        delta("evening."),
        finish(),
    ])
    .await;
    let t = TestApp::hurried(&upstream.settings(), session_checks()).await;
    let ann = t.sign_up("ann@example.com").await;
    let other_device = t.log_in("ann@example.com").await;
    let mut sender = ann.stream(&t, "c", "m1", "hello").await;
    sender.first_word().await;
    let resumed = Stream::new(ann.get(&t, "/v1/chat/c/stream").send().await);
    let mut stays = Stream::new(other_device.get(&t, "/v1/chat/c/stream").send().await);
    stays.first_word().await;

    log_out(&t, &ann).await;
    for stream in [sender, resumed] {
        let chunks = stream.rest().await;
        let problem = chunks.problem();
        assert_eq!((&problem["code"], &problem["status"]), (&json!("unauthenticated"), &json!(401)));
    }
    go.add_permits(1);
    assert_eq!(stays.rest().await.text(), "evening.");
    assert_eq!(other_device.texts(&t, "c").await, ["hello", "Good evening."]);
}

#[tokio::test]
async fn a_stream_ends_with_its_session_however_much_is_said() {
    let words = [vec![stream_head()], vec![delta("on and "); 50], vec![Step::Hang]].concat();
    let upstream = Upstream::start(words).await;
    let t = TestApp::hurried(&upstream.settings(), session_checks()).await;
    let ann = t.sign_up("ann@example.com").await;
    let mut stream = ann.stream(&t, "c", "m1", "hello").await;
    stream.first_word().await;
    t.clock.advance(jiff::SignedDuration::from_hours(24 * 365)); // The session is too old.
    assert_eq!(stream.rest().await.problem()["code"], "unauthenticated");
}

#[tokio::test]
async fn who_waits_for_json_is_told_that_the_session_has_ended() {
    let upstream = Upstream::start(vec![stream_head(), delta("Good "), Step::Hang]).await;
    let t = TestApp::hurried(&upstream.settings(), session_checks()).await;
    let ann = t.sign_up("ann@example.com").await;
    let waiting = ann.say(&t, "c", "m1", "hello").into_future();
    let (answer, ()) = tokio::join!(waiting, async {
        until("the message was sent", async || !upstream.received().is_empty()).await;
        log_out(&t, &ann).await;
    });
    answer.problem(401, "unauthenticated");
}

/// As in bifrost#5212, CopilotKit#6980 and lobehub#1718: proxies cut a stream that was quiet, or had not begun.
#[tokio::test]
async fn a_quiet_stream_is_kept_open_by_comments() {
    let go = gate();
    let upstream =
        Upstream::start(vec![Step::Wait(go.clone()), stream_head(), delta("here"), finish()]).await;
    let intervals = Intervals { keep_alive: Duration::from_millis(20), ..Intervals::default() };
    let t = TestApp::hurried(&upstream.settings(), intervals).await;
    let ann = t.sign_up("ann@example.com").await;
    let mut response = ann.post(&t, "/v1/chat", message("c", "m1", "hello")).send().await;
    let mut text = String::new();
    while text.matches(": keep-alive\n\n").count() < 3 {
        text.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
    }
    go.add_permits(1);
    while let Some(piece) = response.chunk().await.unwrap() {
        text.push_str(std::str::from_utf8(&piece).unwrap());
    }
    assert!(text.contains("\"delta\":\"here\"") && text.ends_with("data: [DONE]\n\n"), "{text}");
}

#[tokio::test]
async fn the_text_so_far_is_stored_when_the_last_reader_leaves() {
    let upstream = Upstream::start(vec![stream_head(), delta("half a "), Step::Hang]).await;
    let intervals = Intervals { partial: Duration::from_hours(1), ..Intervals::default() };
    let t = TestApp::hurried(&upstream.settings(), intervals).await;
    let ann = t.sign_up("ann@example.com").await;
    let mut stream = ann.stream(&t, "c", "m1", "hello").await;
    stream.first_word().await;
    drop(stream);
    until("a partial is stored", async || partial_is_stored(&t).await).await;
    assert_eq!(ann.texts(&t, "c").await, ["hello"], "it is not shown while it runs");
}

#[tokio::test]
async fn the_text_so_far_is_stored_now_and_then_and_again_if_it_could_not_be() {
    let go = gate();
    let upstream =
        Upstream::start(vec![Step::Wait(go.clone()), stream_head(), delta("half a "), Step::Hang]).await;
    let intervals = Intervals { partial: Duration::from_millis(50), ..Intervals::default() };
    let logs = Logs::listen();
    let t = TestApp::hurried(&upstream.settings(), intervals).await;
    let ann = t.sign_up("ann@example.com").await;
    let mut stream = ann.stream(&t, "c", "m1", "hello").await;
    stream.start().await;
    until("the context was read", async || !upstream.received().is_empty()).await;
    let hidden: Result<u64, Error> = t.db().write(async |c| hide_messages().exec(&c).await).await;
    hidden.unwrap();
    go.add_permits(1);
    until("storing fails", async || !logs.lines_with("could not be renewed").is_empty()).await;
    let shown: Result<u64, Error> = t.db().write(async |c| show_messages().exec(&c).await).await;
    shown.unwrap();
    until("a partial is stored", async || partial_is_stored(&t).await).await;
    assert_eq!(stream.first_word().await, "half a ", "and somebody listens all the time");
}

#[tokio::test]
async fn the_text_so_far_is_stored_when_the_program_begins_to_end() {
    let upstream = Upstream::start(vec![stream_head(), delta("half a "), Step::Hang]).await;
    let intervals = Intervals { partial: Duration::from_hours(1), ..Intervals::default() };
    let t = TestApp::hurried(&upstream.settings(), intervals).await;
    let ann = t.sign_up("ann@example.com").await;
    let mut stream = ann.stream(&t, "c", "m1", "hello").await;
    stream.first_word().await;
    t.begin_to_end();
    until("a partial is stored", async || partial_is_stored(&t).await).await;
    let tokens: Result<i64, Error> = t.db().read(async |c| tokens_so_far().one(&c).await).await;
    assert!(tokens.unwrap() > 0, "and what it used is known");
}
