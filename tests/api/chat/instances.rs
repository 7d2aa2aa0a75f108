//! Several instances over one database: each makes its own replies, and settles another's only when that one is dead.
//!
//! An instance dies here with its runtime: its tasks stop where they are, and nothing is wrapped up.

use std::{sync::Arc, time::Duration};

use digitalmistress::{chat::Intervals, platform::db::Error};
use jiff::SignedDuration;
use serde_json::json;
use tokio::{
    runtime::{Builder, Runtime},
    sync::Semaphore,
};

use super::until;
use crate::support::{
    app::{Person, TestApp},
    stream::Stream,
    upstream::{Step, Upstream, delta, finish, gate, stream_head},
};

digitalmistress::queries! {
    scan fn partials() -> i64 = "SELECT COUNT(*) FROM generation WHERE partial AND status = 'generating'";
}

/// Long enough that nothing is renewed while a test runs, and shorter than a token lives.
const LEASE: &str = "5m";
const PAST_THE_LEASE: SignedDuration = SignedDuration::from_secs(301);

/// A provider that says half of something and waits, or nothing at all.
async fn speaker(go: Arc<Semaphore>) -> Upstream {
    Upstream::answering(move |request| match request.question() {
        "be silent" => vec![stream_head(), Step::Hang],
        "be quick" => vec![stream_head(), delta("Done."), finish()],
        _ => vec![stream_head(), delta("half a "), Step::Wait(go.clone()), delta("reply"), finish()],
    })
    .await
}

/// What keeps an instance alive. Whoever drops it kills the instance.
struct Life(Option<Runtime>);

impl Drop for Life {
    fn drop(&mut self) {
        self.0.take().unwrap().shutdown_background();
    }
}

/// An instance that can be killed.
async fn mortal(upstream: &Upstream) -> (TestApp, Life) {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let settings = [upstream.settings(), vec![("DM__CHAT__LEASE", LEASE)]].concat();
    let settings: Vec<(String, String)> =
        settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let start = async move {
        let settings: Vec<(&str, &str)> =
            settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let intervals = Intervals { partial: Duration::from_millis(20), ..Intervals::default() };
        TestApp::hurried(&settings, intervals).await
    };
    (runtime.spawn(start).await.unwrap(), Life(Some(runtime)))
}

async fn partial_is_stored(t: &TestApp) {
    until("a partial is stored", async || {
        let found: Result<i64, Error> = t.db().read_slow(async |c| partials().one(&c).await).await;
        found.unwrap() == 1
    })
    .await;
}

async fn resume(t: &TestApp, person: &Person, conversation: &str) -> Option<Stream> {
    let response = person.get(t, &format!("/v1/chat/{conversation}/stream")).send().await;
    (response.status() == 200).then(|| Stream::new(response))
}

/// Two replies that one instance is making: one that has said something, and one that has not.
async fn two_replies(t: &TestApp, ann: &Person) -> [Stream; 2] {
    let mut told = ann.stream(t, "told", "m1", "tell me").await;
    told.first_word().await;
    partial_is_stored(t).await;
    let mut silent = ann.stream(t, "silent", "m1", "be silent").await;
    silent.start().await;
    assert_eq!(ann.used(t).await, 2);
    [told, silent]
}

async fn assert_running(t: &TestApp, ann: &Person) {
    for conversation in ["told", "silent"] {
        assert_eq!(ann.statuses(t, conversation).await, ["complete"], "what is being made is not shown");
    }
    assert_eq!(ann.used(t).await, 2);
}

async fn assert_settled(t: &TestApp, ann: &Person) {
    assert_eq!(ann.statuses(t, "told").await, ["complete", "interrupted"]);
    assert_eq!(ann.texts(t, "told").await, ["tell me", "half a "]);
    assert_eq!(ann.statuses(t, "silent").await, ["complete", "failed"]);
    assert_eq!(ann.used(t).await, 1, "the silent one was given back, once");
    for conversation in ["told", "silent"] {
        let seen = ann.get(t, &format!("/v1/conversations/{conversation}")).await.ok();
        assert_eq!(seen["message_count"], 2);
    }
}

#[tokio::test]
async fn an_instance_leaves_the_running_replies_of_another_alone() {
    let go = gate();
    let upstream = speaker(go.clone()).await;
    let (t, _life) = mortal(&upstream).await;
    let ann = t.sign_up("ann@example.com").await;
    let [told, silent] = two_replies(&t, &ann).await;

    // Another one starts, recovers and sweeps. It neither has the replies nor takes their places.
    let other = t.beside().await;
    other.background.chat.recover().await.unwrap();
    other.background.chat.sweep().await.unwrap();
    assert_running(&other, &ann).await;
    assert!(resume(&other, &ann, "told").await.is_none(), "it is made elsewhere");
    for id in ["m1", "m2"] {
        let text = if id == "m1" { "tell me" } else { "and?" };
        ann.say(&other, "told", id, text).await.problem(409, "generation_in_progress");
    }
    assert_eq!(resume(&t, &ann, "told").await.expect("it runs").first_word().await, "half a ");

    go.add_permits(1);
    assert_eq!(told.rest().await.last_but_mark()["type"], "finish");
    assert_eq!(ann.texts(&other, "told").await, ["tell me", "half a reply"]);
    ann.post(&t, "/v1/chat/silent/stop", json!({})).await.status(204);
    assert_eq!(silent.rest().await.types().last(), Some(&"[DONE]"));
}

/// As in bayes-platform#673: a message that said "streaming" for ever after a crash.
#[tokio::test]
async fn a_dead_instance_settles_its_own_at_its_next_start_and_not_the_others() {
    let go = gate();
    let upstream = speaker(go.clone()).await;
    let (t, life) = mortal(&upstream).await;
    let other = t.beside().await;
    let (ann, bob) = (t.sign_up("ann@example.com").await, t.sign_up("bob@example.com").await);
    two_replies(&t, &ann).await;
    let mut there = bob.stream(&other, "there", "m1", "tell me").await;
    there.first_word().await;

    drop(life);
    assert_running(&other, &ann).await;
    let t = t.restart().await;
    assert_settled(&t, &ann).await;
    assert_eq!(bob.statuses(&t, "there").await, ["complete"], "another's, and it lives");
    assert!(resume(&other, &bob, "there").await.is_some());
    go.add_permits(10);
    let chunks = there.rest().await;
    assert_eq!((chunks.text().as_str(), &chunks.last_but_mark()["type"]), ("reply", &json!("finish")));
    assert_eq!(bob.statuses(&t, "there").await, ["complete", "complete"]);
    assert_eq!(bob.used(&t).await, 1);
}

#[tokio::test]
async fn the_replies_of_a_dead_instance_are_settled_by_another_when_their_lease_has_run_out() {
    let upstream = speaker(gate()).await;
    let (t, life) = mortal(&upstream).await;
    let other = t.beside().await;
    let ann = t.sign_up("ann@example.com").await;
    two_replies(&t, &ann).await;

    drop(life);
    other.background.chat.sweep().await.unwrap();
    assert_running(&other, &ann).await;
    t.clock.advance(PAST_THE_LEASE);
    other.background.chat.sweep().await.unwrap();
    assert_settled(&other, &ann).await;
    other.background.chat.sweep().await.unwrap();
    // The dead one comes back and finds nothing to do.
    let t = t.restart().await;
    assert_settled(&t, &ann).await;

    ann.say(&other, "told", "m2", "be quick").await.ok();
    ann.say(&t, "silent", "m2", "be quick").await.ok();
    assert_eq!(ann.used(&t).await, 3);
}

/// An instance that was stopped for longer than its lease, as by a debugger or a machine that slept, and wakes up.
#[tokio::test]
async fn an_instance_that_outslept_its_lease_tells_its_readers_what_the_other_has_stored() {
    let go = gate();
    let upstream = speaker(go.clone()).await;
    let (t, _life) = mortal(&upstream).await;
    let other = t.beside().await;
    let ann = t.sign_up("ann@example.com").await;
    let [told, silent] = two_replies(&t, &ann).await;
    t.clock.advance(PAST_THE_LEASE);
    t.background.chat.sweep().await.unwrap();
    assert_running(&t, &ann).await; // It knows that it makes them itself.
    other.background.chat.sweep().await.unwrap();
    assert_settled(&other, &ann).await;

    go.add_permits(1);
    let problem = told.rest().await.problem();
    assert_eq!(problem["code"], "unavailable", "it is not told as whole");
    let (_, chunks) = tokio::join!(t.shut_down(), silent.rest());
    assert_eq!(chunks.problem()["code"], "unavailable");
    assert_settled(&other, &ann).await;
}
