//! A message that gets another text, and with it everything that came after it goes.

use digitalmistress::platform::db::Error;
use serde_json::{Value, json};

use crate::support::{
    app::{Person, TestApp, message},
    http::{Call, all},
    stream::Stream,
    upstream::{Step, Upstream, delta, finish, gate, reply, stream_head},
};

digitalmistress::queries! {
    scan fn rows(conversation: str) -> i64 =
        "SELECT COUNT(*) FROM message WHERE conversation_key = (SELECT key FROM conversation WHERE id = $1)";
    scan fn usage() -> i64 = "SELECT COUNT(*) FROM generation WHERE output_tokens > 0";
    scan fn pending() -> i64 = "SELECT COUNT(*) FROM generation WHERE drops";
}

/// What the SDK posts when a message is replaced in its list.
fn edit(conversation: &str, id: &str, text: &str) -> Value {
    let mut body = message(conversation, id, text);
    body["messageId"] = json!(id);
    body["trigger"] = json!("submit-message");
    body
}

impl Person {
    fn edit(&self, t: &TestApp, conversation: &str, id: &str, text: &str) -> Call {
        self.post(t, "/v1/chat", edit(conversation, id, text)).accept_json()
    }

    /// The texts of a conversation, after a look at whether they are counted right and paged as they are listed.
    async fn said(&self, t: &TestApp, conversation: &str) -> Vec<String> {
        let texts = self.texts(t, conversation).await;
        let count =
            self.get(t, &format!("/v1/conversations/{conversation}")).await.ok()["message_count"].clone();
        assert_eq!(count, texts.len(), "the count and the history disagree");
        let page = self.get(t, &format!("/v1/conversations/{conversation}/messages?limit=1")).await.ok();
        assert_eq!(page["data"][0]["parts"][0]["text"], *texts.last().unwrap());
        texts
    }
}

async fn count(t: &TestApp, of: &'static str) -> i64 {
    let found: Result<i64, Error> = match of {
        "pending" => t.db().read_slow(async |c| pending().one(&c).await).await,
        "usage" => t.db().read_slow(async |c| usage().one(&c).await).await,
        conversation => t.db().read_slow(async move |c| rows(conversation).one(&c).await).await,
    };
    found.unwrap()
}

/// A provider that says back what it was told last.
async fn echo() -> Upstream {
    Upstream::answering(|request| {
        let last = request.body["messages"].as_array().unwrap().last().unwrap();
        reply(&format!("re: {}", last["content"].as_str().unwrap()))
    })
    .await
}

#[tokio::test]
async fn an_edited_message_is_answered_anew_and_what_came_after_is_gone() {
    let upstream = echo().await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    for n in 1..=3 {
        ann.say(&t, "c", &format!("m{n}"), &format!("text {n}")).await.ok();
    }
    let answer = ann.edit(&t, "c", "m2", "other text").await.ok();
    assert_eq!(answer["quota"]["used"], 4, "charged like a message");
    // Gone at once, before the job has removed anything.
    assert_eq!(count(&t, "c").await, 7);
    let left = ["text 1", "re: text 1", "other text", "re: other text"];
    assert_eq!(ann.said(&t, "c").await, left);
    t.background.run_due().await.unwrap();
    assert_eq!((count(&t, "c").await, count(&t, "pending").await), (4, 0));
    assert_eq!(ann.said(&t, "c").await, left);
    assert_eq!(count(&t, "usage").await, 4, "what was used stays recorded");

    // The model is told what is left, and the conversation goes on.
    ann.say(&t, "c", "m4", "text 4").await.ok();
    let told = upstream.received().last().unwrap().body["messages"].clone();
    let told: Vec<_> = told.as_array().unwrap().iter().skip(1).map(|m| m["content"].clone()).collect();
    assert_eq!(told, ["text 1", "re: text 1", "other text", "re: other text", "text 4"]);
    assert_eq!(ann.said(&t, "c").await.len(), 6);
}

#[tokio::test]
async fn the_same_edit_again_joins_or_gets_the_stored_reply() {
    let go = gate();
    let count = std::sync::atomic::AtomicUsize::new(0);
    let slow = vec![stream_head(), delta("new "), Step::Wait(go.clone()), delta("words"), finish()];
    let upstream =
        Upstream::answering(move |_| match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => reply("old"),
            _ => slow.clone(),
        })
        .await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    ann.say(&t, "c", "m1", "hello").await.ok();
    ann.say(&t, "c", "m1", "hullo").await.problem(409, "idempotency_mismatch"); // No edit without `messageId`.
    let mut stream = Stream::new(ann.post(&t, "/v1/chat", edit("c", "m1", "hullo")).send().await);
    let started = stream.start().await;
    stream.first_word().await;
    assert_eq!(ann.said(&t, "c").await, ["hullo"], "the old reply answers nothing any more");

    for body in [edit("c", "m1", "hullo"), message("c", "m1", "hullo")] {
        let mut joined = Stream::new(ann.post(&t, "/v1/chat", body).send().await);
        assert_eq!(joined.start().await, started);
    }
    ann.edit(&t, "c", "m1", "third").await.problem(409, "generation_in_progress");
    go.add_permits(1);
    stream.rest().await;
    let again = ann.edit(&t, "c", "m1", "hullo").await.ok();
    assert_eq!(again["message"]["id"], started.1);
    ann.say(&t, "c", "m1", "hello").await.problem(409, "idempotency_mismatch");
    assert_eq!(ann.said(&t, "c").await, ["hullo", "new words"]);
    assert_eq!((upstream.received().len(), ann.used(&t).await), (2, 2));
}

#[tokio::test]
async fn an_edit_that_changes_nothing_drops_nothing() {
    let upstream = echo().await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    let first = ann.say(&t, "c", "m1", "one").await.ok();
    ann.say(&t, "c", "m2", "two").await.ok();
    assert_eq!(ann.edit(&t, "c", "m1", "one").await.ok()["message"], first["message"]);
    assert_eq!(ann.said(&t, "c").await.len(), 4);
    assert_eq!(ann.used(&t).await, 2);
}

#[tokio::test]
async fn an_edit_of_a_message_that_never_arrived_sends_it() {
    let upstream = echo().await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    ann.edit(&t, "c", "m1", "one").await.ok();
    ann.edit(&t, "c", "m2", "two").await.ok();
    assert_eq!(ann.said(&t, "c").await, ["one", "re: one", "two", "re: two"]);
    let reply_id = ann.edit(&t, "c", "m2", "two").await.ok()["message"]["id"].as_str().unwrap().to_owned();
    ann.edit(&t, "c", &reply_id, "mine now").await.problem(409, "idempotency_mismatch");
    let mut other = edit("c", "m2", "two");
    other["messageId"] = json!("m1");
    ann.post(&t, "/v1/chat", other).await.invalid("/messageId", "conflict");
}

#[tokio::test]
async fn edits_upon_edits_leave_one_thread() {
    let upstream = echo().await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    for n in 1..=4 {
        ann.say(&t, "c", &format!("m{n}"), &format!("{n}")).await.ok();
    }
    // No job runs in between: what is dropped lies in several pieces.
    ann.edit(&t, "c", "m3", "3b").await.ok();
    ann.edit(&t, "c", "m3", "3c").await.ok();
    ann.say(&t, "c", "m5", "5").await.ok();
    ann.edit(&t, "c", "m5", "5b").await.ok();
    let regenerated = json!({"id": "c", "trigger": "regenerate-message"});
    ann.post(&t, "/v1/chat", regenerated).accept_json().await.ok();
    let thread = ["1", "re: 1", "2", "re: 2", "3c", "re: 3c", "5b", "re: 5b"];
    assert_eq!(ann.said(&t, "c").await, thread);

    // A dropped message is forgotten: its id is free, removed or not.
    ann.say(&t, "c", "m4", "4 again").await.ok();
    t.background.run_due().await.unwrap();
    let thread = [&thread[..], &["4 again", "re: 4 again"]].concat();
    assert_eq!(ann.said(&t, "c").await, thread);
    assert_eq!((count(&t, "c").await, count(&t, "pending").await), (10, 0));

    ann.edit(&t, "c", "m1", "1b").await.ok();
    assert_eq!(ann.said(&t, "c").await, ["1b", "re: 1b"]);
    ann.say(&t, "c", "m2", "2 again").await.ok();
    t.background.run_due().await.unwrap();
    assert_eq!(ann.said(&t, "c").await, ["1b", "re: 1b", "2 again", "re: 2 again"]);
    assert_eq!((count(&t, "c").await, count(&t, "pending").await), (4, 0));
    assert_eq!((count(&t, "usage").await, ann.used(&t).await), (12, 12));
}

#[tokio::test]
async fn an_edit_whose_reply_fails_is_an_edit_all_the_same() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    ann.say(&t, "c", "m1", "hello").await.ok();
    ann.say(&t, "c", "m2", "and now?").await.ok();
    ann.edit(&t, "c", "m1", "!busy").await.problem(503, "provider_unavailable");
    assert_eq!(ann.said(&t, "c").await, ["!busy", ""]);
    assert_eq!(ann.statuses(&t, "c").await, ["complete", "failed"]);
    assert_eq!(ann.used(&t).await, 2, "given back");
    ann.edit(&t, "c", "m1", "hello again").await.ok();
    assert_eq!(ann.said(&t, "c").await.len(), 2);
    assert_eq!(ann.statuses(&t, "c").await, ["complete", "complete"]);
}

#[tokio::test]
async fn what_is_refused_drops_nothing() {
    let t = TestApp::with(&[("DM__CHAT__FREE_MESSAGES_PER_DAY", "2")]).await;
    let (ann, bob) = (t.sign_up("ann@example.com").await, t.sign_up("bob@example.com").await);
    ann.say(&t, "c", "m1", "hello").await.ok();
    ann.say(&t, "c", "m2", "and now?").await.ok();
    ann.edit(&t, "c", "m1", "hullo").await.problem(402, "quota_exhausted");
    ann.edit(&t, "c", "m1", "").await.invalid("/message/parts", "too_short");
    bob.edit(&t, "c", "m1", "mine").await.ok(); // A conversation of his own.
    assert_eq!(ann.said(&t, "c").await.len(), 4);
    let t = t.restart_with(&[("DM__AUTH__POLICIES__TERMS__VERSION", "2027-01-01")]).await;
    ann.edit(&t, "c", "m1", "hullo").await.problem(403, "consent_required");
    assert_eq!(ann.said(&t, "c").await.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_edits_at_once_each_is_whole_or_refused() {
    let upstream = echo().await;
    let settings = [upstream.settings(), vec![("DM__CHAT__FREE_MESSAGES_PER_DAY", "100")]].concat();
    let t = TestApp::with(&settings).await;
    let ann = t.sign_up("ann@example.com").await;
    ann.say(&t, "c", "m1", "0").await.ok();
    ann.say(&t, "c", "m2", "0").await.ok();
    let mut paid = 2;
    for round in 1..=4 {
        let texts: Vec<String> = (0..4).map(|n| format!("{round}-{n}")).collect();
        for answer in all(texts.iter().map(|text| ann.edit(&t, "c", "m1", text))).await {
            match answer.code {
                200 => paid += 1,
                _ => drop(answer.problem(409, "generation_in_progress")),
            }
        }
        let said = ann.said(&t, "c").await;
        assert_eq!((said.len(), format!("re: {}", said[0])), (2, said[1].clone()));
        assert_eq!(ann.used(&t).await, paid);

        // The same one at once is one.
        let same = format!("{round}-same");
        for answer in all((0..6).map(|_| ann.edit(&t, "c", "m1", &same))).await {
            assert_eq!(answer.ok()["message"]["parts"][0]["text"], format!("re: {same}"));
        }
        paid += 1;
        assert_eq!(ann.used(&t).await, paid);
        assert_eq!(upstream.received().len() as i64, paid);
    }
    t.background.run_due().await.unwrap();
    assert_eq!((count(&t, "c").await, count(&t, "pending").await), (2, 0));
}

/// More than one transaction removes.
#[tokio::test]
async fn a_long_conversation_is_dropped_in_pieces_and_hidden_at_once() {
    digitalmistress::queries! {
        fn lengthen(conversation: str, role: str, seq: i64, id: str) =
            "INSERT INTO message (conversation_key, seq, id, role, status, body, created_at)
             SELECT c.key, $3, $4, $2, 'complete', m.body, m.created_at
               FROM conversation c JOIN message m ON m.conversation_key = c.key AND m.seq = 1 WHERE c.id = $1";
        fn counted(conversation: str, messages: i64) =
            "UPDATE conversation SET last_seq = $2, message_count = $2 WHERE id = $1";
    }
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    ann.say(&t, "c", "m1", "hello").await.ok();
    ann.say(&t, "c", "m2", "hello").await.ok();
    for batch in 0..3 {
        let added: Result<(), Error> = t
            .db()
            .write(async move |c| {
                for n in 0..200 {
                    let seq = 5 + batch * 400 + 2 * n;
                    lengthen("c", "user", seq, &format!("q{seq}")).exec(&c).await?;
                    lengthen("c", "assistant", seq + 1, &format!("r{seq}")).exec(&c).await?;
                }
                counted("c", 4 + (batch + 1) * 400).exec(&c).await?;
                Ok(())
            })
            .await;
        added.unwrap();
    }
    ann.edit(&t, "c", "m2", "hello again").await.ok();
    assert_eq!(count(&t, "c").await, 1205);
    assert_eq!(ann.said(&t, "c").await.len(), 4);
    t.background.run_due().await.unwrap();
    assert_eq!((count(&t, "c").await, count(&t, "pending").await), (4, 0));
    assert_eq!(ann.said(&t, "c").await.len(), 4);
}
