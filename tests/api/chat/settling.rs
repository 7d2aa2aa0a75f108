//! How a reply is settled while others touch the same rows.

use digitalmistress::platform::db::Error;
use secrecy::ExposeSecret as _;

use super::until;
use crate::support::{
    app::TestApp,
    upstream::{Step, Upstream, delta, finish, gate, stream_head},
};

digitalmistress::queries! {
    scan fn generation_states() -> String = "SELECT status FROM generation ORDER BY id";
    fn settle_elsewhere(status: str, finish_reason: Option<String>, failure: Option<String>, model: str) =
        "UPDATE generation SET status = $1, finish_reason = $2, failure = $3, model = $4, ended_at = 1";
    fn hide_days() = "ALTER TABLE quota_day RENAME TO hidden";
    fn forget_the_reply(conversation: str) = "UPDATE conversation SET generation_id = NULL WHERE id = $1";
}

async fn states(t: &TestApp) -> Vec<String> {
    t.db().read(async |c| generation_states().all(&c).await).await.map_err(|error: Error| error).unwrap()
}

/// Whoever holds the conversation can go on to the reply: settling waits for the conversation first.
#[tokio::test]
async fn settling_takes_the_conversation_before_the_reply() {
    let go = gate();
    let upstream =
        Upstream::start(vec![stream_head(), delta("Good "), Step::Wait(go.clone()), finish()]).await;
    let t = TestApp::with(&upstream.settings()).await;
    if t.database.is_sqlite() {
        return; // One transaction at a time: there is no order.
    }
    let ann = t.sign_up("ann@example.com").await;
    let mut stream = ann.stream(&t, "c", "m1", "hello").await;
    stream.first_word().await;

    let connect = async || {
        let url = t.database.settings.url.expose_secret();
        let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    };
    let (holder, observer) = (connect().await, connect().await);
    holder.batch_execute("BEGIN; UPDATE conversation SET title = title WHERE id = 'c'").await.unwrap();
    go.add_permits(1);
    until("the settling transaction waits for the conversation", async || {
        let waiting = "SELECT 1 FROM pg_stat_activity
                        WHERE datname = current_database() AND wait_event_type = 'Lock'
                          AND query LIKE '%conversation SET generation_id = NULL%'";
        !observer.query(waiting, &[]).await.unwrap().is_empty()
    })
    .await;
    let locked = holder.batch_execute("SELECT 1 FROM generation FOR UPDATE NOWAIT").await;
    assert!(locked.is_ok(), "{locked:?}");
    holder.batch_execute("COMMIT").await.unwrap();
    assert_eq!(stream.rest().await.types(), ["text-end", "finish-step", "finish", "[DONE]"]);
}

#[tokio::test]
async fn a_reply_in_a_conversation_that_is_deleted_is_ended_and_given_back() {
    let upstream = Upstream::start(vec![Step::Hang]).await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    let stream = ann.stream(&t, "c", "m1", "hello").await;
    ann.delete(&t, "/v1/conversations/c").await.status(204);
    assert_eq!(stream.rest().await.types(), ["start", "start-step", "data-quota", "abort", "[DONE]"]);
    assert_eq!(states(&t).await, ["stopped"]);
    assert_eq!(ann.used(&t).await, 0);
}

/// As when a reply is begun between the moment in which a deletion looks and the one in which it writes.
#[tokio::test]
async fn deleting_stops_what_the_conversation_did_not_seem_to_make() {
    let upstream = Upstream::start(vec![stream_head(), delta("Good "), Step::Hang]).await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    let mut stream = ann.stream(&t, "c", "m1", "hello").await;
    stream.first_word().await;
    let forgotten: Result<u64, Error> = t.db().write(async |c| forget_the_reply("c").exec(&c).await).await;
    assert_eq!(forgotten.unwrap(), 1);
    ann.delete(&t, "/v1/conversations/c").await.status(204);
    assert_eq!(stream.rest().await.types(), ["text-end", "abort", "[DONE]"]);
}

async fn settled_elsewhere(
    t: &TestApp,
    status: &'static str,
    finish: Option<&'static str>,
    failure: Option<&'static str>,
) {
    let settled: Result<u64, Error> = t
        .db()
        .write(async move |c| settle_elsewhere(status, finish, failure, "stored-model").exec(&c).await)
        .await;
    assert_eq!(settled.unwrap(), 1);
}

/// As when the connection is lost at the commit: the second try finds nothing to settle.
#[tokio::test]
async fn a_reply_that_is_settled_already_ends_as_it_is_stored() {
    let go = gate();
    let upstream =
        Upstream::start(vec![stream_head(), delta("word"), Step::Wait(go.clone()), finish()]).await;
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let counted = recorder.handle();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    let mut stream = ann.stream(&t, "c", "m1", "hello").await;
    stream.first_word().await;
    settled_elsewhere(&t, "complete", Some("length"), None).await;
    go.add_permits(1);
    let chunks = stream.rest().await;
    assert_eq!(chunks.types(), ["text-end", "finish-step", "finish", "[DONE]"]);
    assert_eq!(chunks.last_but_mark()["finishReason"], "length");
    assert_eq!(chunks.last_but_mark()["messageMetadata"]["model"], "stored-model");
    assert!(!counted.render().contains("chat_replies_total"), "counted by whoever settled it");

    let mut own = ann.stream(&t, "d", "m1", "hello").await;
    own.first_word().await;
    go.add_permits(1);
    own.rest().await;
    assert!(counted.render().contains("chat_replies_total"));
}

#[tokio::test]
async fn an_instance_that_lost_its_lease_stops_and_tells_what_the_other_stored() {
    let upstream = Upstream::start(vec![stream_head(), delta("half a "), Step::Hang]).await;
    let t = TestApp::with(&[upstream.settings(), vec![("DM__CHAT__LEASE", "300ms")]].concat()).await;
    let ann = t.sign_up("ann@example.com").await;
    let mut stream = ann.stream(&t, "c", "m1", "hello").await;
    stream.first_word().await;
    settled_elsewhere(&t, "interrupted", None, Some("broken_off")).await;
    let chunks = stream.rest().await;
    assert_eq!(chunks.types(), ["text-end", "error", "[DONE]"]);
    assert_eq!(chunks.problem()["code"], "unavailable");
    assert_eq!(ann.used(&t).await, 1);
}

#[tokio::test]
async fn what_was_said_is_stored_even_if_its_price_cannot_be() {
    let go = gate();
    let upstream =
        Upstream::start(vec![stream_head(), delta("Good "), Step::Wait(go.clone()), finish()]).await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    let mut stream = ann.stream(&t, "c", "m1", "hello").await;
    stream.first_word().await;
    let hidden: Result<u64, Error> = t.db().write(async |c| hide_days().exec(&c).await).await;
    hidden.unwrap();
    go.add_permits(1);
    assert_eq!(stream.rest().await.types(), ["text-end", "finish-step", "finish", "[DONE]"]);
    assert_eq!(ann.texts(&t, "c").await, ["hello", "Good "]);
    assert_eq!(states(&t).await, ["complete"]);
}

/// As when another instance deletes it: the stop has not arrived here when the provider is done.
#[tokio::test]
async fn a_reply_whose_conversation_is_gone_is_never_told_as_whole() {
    let go = gate();
    let upstream =
        Upstream::start(vec![stream_head(), delta("Good "), Step::Wait(go.clone()), finish()]).await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    let mut stream = ann.stream(&t, "c", "m1", "hello").await;
    stream.first_word().await;
    let forgotten: Result<u64, Error> = t.db().write(async |c| forget_the_reply("c").exec(&c).await).await;
    assert_eq!(forgotten.unwrap(), 1);
    go.add_permits(1);
    assert_eq!(stream.rest().await.types(), ["text-end", "abort", "[DONE]"]);
    assert_eq!(states(&t).await, ["stopped"]);
}
