//! Another reply in place of the last one, which stays until the new one has words.

use digitalmistress::platform::db::Error;
use serde_json::{Value, json};

use super::until;
use crate::support::{
    app::{Person, TestApp},
    http::{Call, all},
    stream::Stream,
    upstream::{Received, Step, Upstream, delta, finish, gate, reply, stream_head},
};

/// What the SDK posts: the history up to the message that is to be answered again, and the reply's id if it was given.
fn anew(conversation: &str, question: (&str, &str), named: Option<&str>) -> Value {
    let parts = json!([{"type": "text", "text": question.1}]);
    let mut body = json!({
        "id": conversation,
        "trigger": "regenerate-message",
        "messages": [{"id": question.0, "role": "user", "parts": parts}],
    });
    if let Some(named) = named {
        body["messageId"] = json!(named);
    }
    body
}

/// The shortest form: the last reply, whatever it is.
fn bare(conversation: &str) -> Value {
    json!({"id": conversation, "trigger": "regenerate-message"})
}

const HELLO: (&str, &str) = ("m1", "hello");

impl Person {
    fn ask(&self, t: &TestApp, body: Value) -> Call {
        self.post(t, "/v1/chat", body).accept_json()
    }

    async fn listen(&self, t: &TestApp, body: Value) -> Stream {
        let response = self.post(t, "/v1/chat", body).send().await;
        assert_eq!(response.status(), 200);
        Stream::new(response)
    }

    /// The ids of a conversation's messages, after a look at whether they are counted right.
    async fn ids(&self, t: &TestApp, conversation: &str) -> Vec<String> {
        let page = self.get(t, &format!("/v1/conversations/{conversation}/messages?limit=100")).await.ok();
        let ids: Vec<String> =
            page["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap().to_owned()).collect();
        let count =
            self.get(t, &format!("/v1/conversations/{conversation}")).await.ok()["message_count"].clone();
        assert_eq!(count, ids.len(), "the count and the history disagree");
        ids
    }
}

fn id_of(answer: &Value) -> String {
    answer["message"]["id"].as_str().unwrap().to_owned()
}

fn text_of(answer: &Value) -> &str {
    answer["message"]["parts"][0]["text"].as_str().unwrap()
}

/// Answers the first request with `first`, the second with `second` and so on; the last for all that follow.
async fn answers(answers: Vec<Vec<Step>>) -> Upstream {
    let count = std::sync::atomic::AtomicUsize::new(0);
    Upstream::answering(move |_| {
        let n = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        answers[n.min(answers.len() - 1)].clone()
    })
    .await
}

/// What the provider was told, without the persona.
fn told(received: &Received) -> Vec<&str> {
    let messages = received.body["messages"].as_array().unwrap();
    messages.iter().skip(1).map(|message| message["content"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn another_reply_takes_the_place_of_the_last_one_and_is_charged() {
    let upstream = answers(vec![reply("first"), reply("second"), reply("third"), reply("fourth")]).await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    let first = ann.say(&t, "c", "m1", "hello").await.ok();
    let second = ann.ask(&t, anew("c", HELLO, None)).await.ok();
    assert_eq!(text_of(&second), "second");
    assert_ne!(id_of(&first), id_of(&second));
    assert_eq!(second["quota"]["used"], 2);
    assert_eq!(ann.texts(&t, "c").await, ["hello", "second"]);
    assert_eq!(ann.ids(&t, "c").await, ["m1".to_owned(), id_of(&second)]);
    assert_eq!(told(&upstream.received()[1]), ["hello"], "the model is not told what is to be replaced");

    // By the reply's id, by the message's, and with nothing but the conversation.
    ann.ask(&t, anew("c", HELLO, Some(&id_of(&second)))).await.ok();
    ann.ask(&t, json!({"id": "c", "trigger": "regenerate-message", "messageId": "m1"})).await.ok();
    let last = ann.ask(&t, bare("c")).await.ok();
    assert_eq!(ann.texts(&t, "c").await, ["hello", "fourth"]);
    assert_eq!(ann.used(&t).await, 5);

    // The message that was answered anew has the newest reply, and the conversation goes on from it.
    assert_eq!(ann.say(&t, "c", "m1", "hello").await.ok()["message"], last["message"]);
    ann.say(&t, "c", "m2", "and you?").await.ok();
    assert_eq!(told(upstream.received().last().unwrap()), ["hello", "fourth", "and you?"]);
    assert_eq!(ann.ids(&t, "c").await.len(), 4);
}

#[tokio::test]
async fn the_last_reply_stays_until_the_new_one_is_there_and_who_asks_meanwhile_joins() {
    let go = gate();
    let slow = vec![stream_head(), delta("new "), Step::Wait(go.clone()), delta("words"), finish()];
    let upstream = answers(vec![reply("old"), slow]).await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    let old = id_of(&ann.say(&t, "c", "m1", "hello").await.ok());
    let mut stream = ann.listen(&t, anew("c", HELLO, Some(&old))).await;
    let started = stream.start().await;
    stream.first_word().await;
    assert_eq!(ann.texts(&t, "c").await, ["hello", "old"]);
    assert_eq!(ann.ids(&t, "c").await[1], old);

    for body in [
        anew("c", HELLO, Some(&old)),
        anew("c", HELLO, None),
        anew("c", HELLO, Some(&started.1)),
        anew("c", HELLO, Some("m1")),
        bare("c"),
    ] {
        let mut joined = ann.listen(&t, body).await;
        assert_eq!(joined.start().await, started);
        assert_eq!(joined.first_word().await, "new ", "from the first word");
    }
    let mut same = ann.stream(&t, "c", "m1", "hello").await;
    assert_eq!(same.start().await, started);
    ann.say(&t, "c", "m2", "another").await.problem(409, "generation_in_progress");
    ann.ask(&t, anew("c", HELLO, Some("unknown"))).await.problem(409, "generation_in_progress");
    ann.ask(&t, anew("c", ("m1", "hullo"), None)).await.problem(409, "idempotency_mismatch");

    go.add_permits(1);
    assert_eq!(stream.rest().await.text(), "words");
    assert_eq!(ann.texts(&t, "c").await, ["hello", "new words"]);
    assert_eq!(ann.ids(&t, "c").await[1], started.1);
    assert_eq!((upstream.received().len(), ann.used(&t).await), (2, 2));
}

#[tokio::test]
async fn a_new_reply_without_a_word_leaves_the_old_one_and_costs_nothing() {
    let go = gate();
    let hangs = vec![Step::Wait(go.clone()), Step::Reset];
    let upstream = answers(vec![reply("old"), vec![Step::Reset], hangs, reply("new")]).await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    let first = ann.say(&t, "c", "m1", "hello").await.ok();
    let stream = ann.listen(&t, anew("c", HELLO, None)).await;
    let failed = stream.rest().await;
    assert_eq!(failed.problem()["code"], "provider_failed");
    assert_eq!(ann.used(&t).await, 1, "given back");

    // Stopped before the first word: also as if nothing had been asked.
    let mut stream = ann.listen(&t, anew("c", HELLO, None)).await;
    stream.start().await;
    until("the provider was asked", async || upstream.received().len() == 3).await;
    ann.post(&t, "/v1/chat/c/stop", json!({})).await.status(204);
    assert_eq!(stream.rest().await.types(), ["start-step", "data-quota", "abort", "[DONE]"]);
    assert_eq!(ann.used(&t).await, 1);
    assert_eq!(ann.texts(&t, "c").await, ["hello", "old"]);
    assert_eq!(ann.ids(&t, "c").await, ["m1".to_owned(), id_of(&first)]);
    assert_eq!(ann.say(&t, "c", "m1", "hello").await.ok()["message"], first["message"]);

    // The client shows the reply that came to nothing, and asks for another in its place.
    let nothing = failed.0[0]["messageId"].as_str().unwrap();
    let new = ann.ask(&t, anew("c", HELLO, Some(nothing))).await.ok();
    assert_eq!(ann.ids(&t, "c").await, ["m1".to_owned(), id_of(&new)]);
}

#[tokio::test]
async fn a_new_reply_that_breaks_off_or_is_stopped_with_words_replaces_the_old_one() {
    let breaks = vec![stream_head(), delta("half "), Step::Reset];
    let hangs = vec![stream_head(), delta("less "), Step::Hang];
    let upstream = answers(vec![reply("old"), breaks, hangs]).await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    ann.say(&t, "c", "m1", "hello").await.ok();
    ann.listen(&t, bare("c")).await.rest().await.problem();
    assert_eq!(ann.texts(&t, "c").await, ["hello", "half "]);
    assert_eq!(ann.statuses(&t, "c").await, ["complete", "interrupted"]);
    let mut stream = ann.listen(&t, bare("c")).await;
    stream.first_word().await;
    ann.post(&t, "/v1/chat/c/stop", json!({})).await.status(204);
    stream.rest().await;
    assert_eq!(ann.texts(&t, "c").await, ["hello", "less "]);
    assert_eq!(ann.statuses(&t, "c").await, ["complete", "stopped"]);
    assert_eq!((ann.ids(&t, "c").await.len(), ann.used(&t).await), (2, 3));
}

#[tokio::test]
async fn a_message_without_a_reply_is_tried_again_and_one_that_never_arrived_is_sent() {
    let upstream = answers(vec![vec![Step::Reset], vec![Step::Reset], reply("at last")]).await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    // The client had no network when it sent it, and its "try again" regenerates.
    let failed = ann.listen(&t, anew("c", HELLO, None)).await.rest().await;
    failed.problem();
    let failed = failed.0[0]["messageId"].as_str().unwrap();
    assert_eq!(ann.ids(&t, "c").await, ["m1", failed]);
    ann.ask(&t, bare("c")).await.problem(502, "provider_failed");
    assert_eq!(ann.statuses(&t, "c").await, ["complete", "failed"]);
    assert_eq!(ann.used(&t).await, 0);

    let newest = ann.ids(&t, "c").await[1].clone();
    ann.ask(&t, anew("c", HELLO, Some(failed))).await.problem(409, "conflict"); // The one before.
    ann.ask(&t, anew("c", HELLO, Some(&newest))).await.ok();
    assert_eq!(ann.texts(&t, "c").await, ["hello", "at last"]);
    assert_eq!((ann.ids(&t, "c").await.len(), ann.used(&t).await), (2, 1));
}

#[tokio::test]
async fn only_the_last_reply_can_be_replaced() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let bob = t.sign_up("bob@example.com").await;
    let first = id_of(&ann.say(&t, "c", "m1", "hello").await.ok());
    let second = id_of(&ann.say(&t, "c", "m2", "and now?").await.ok());
    ann.ask(&t, anew("c", HELLO, None)).await.problem(409, "conflict");
    ann.ask(&t, anew("c", ("m2", "and now?"), Some(&first))).await.problem(409, "conflict");
    ann.ask(&t, anew("c", ("m2", "and now?"), Some("nothing"))).await.problem(409, "conflict");
    ann.ask(&t, anew("c", ("m3", "unknown"), Some(&second))).await.problem(409, "conflict");
    ann.ask(&t, anew("c", ("m2", "and then?"), None)).await.problem(409, "idempotency_mismatch");
    ann.ask(&t, bare("never-used")).await.problem(404, "not_found");
    ann.ask(&t, anew("never-used", HELLO, Some(&first))).await.problem(404, "not_found");
    bob.ask(&t, bare("c")).await.problem(404, "not_found");
    ann.post(&t, "/v1/conversations", json!({"id": "empty"})).await.status(201);
    ann.ask(&t, bare("empty")).await.problem(409, "conflict");
    assert_eq!(ann.used(&t).await, 2);

    // Once it is replaced, its id names nothing any more: a repeat does not pay again.
    ann.ask(&t, anew("c", ("m2", "and now?"), Some(&second))).await.ok();
    ann.ask(&t, anew("c", ("m2", "and now?"), Some(&second))).await.problem(409, "conflict");
    assert_eq!(ann.used(&t).await, 3);
    ann.delete(&t, "/v1/conversations/c").await.status(204);
    ann.ask(&t, bare("c")).await.problem(404, "not_found");
}

#[tokio::test]
async fn the_checks_are_those_of_a_message() {
    let t = TestApp::with(&[("DM__CHAT__FREE_MESSAGES_PER_DAY", "1")]).await;
    let ann = t.sign_up("ann@example.com").await;
    let first = ann.say(&t, "c", "m1", "hello").await.ok();
    ann.ask(&t, bare("c")).await.problem(402, "quota_exhausted");
    assert_eq!(ann.ids(&t, "c").await[1], id_of(&first));
    let t = t.restart_with(&[("DM__AUTH__POLICIES__TERMS__VERSION", "2027-01-01")]).await;
    ann.ask(&t, bare("c")).await.problem(403, "consent_required");
}

#[tokio::test]
async fn with_a_key_a_repeat_is_harmless_at_any_time() {
    let go = gate();
    let slow = vec![stream_head(), delta("new"), Step::Wait(go.clone()), finish()];
    let upstream = answers(vec![reply("old"), slow, reply("other"), vec![Step::Reset], reply("late")]).await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    ann.say(&t, "c", "m1", "hello").await.ok();
    let keyed = |body: Value, key: &str| ann.ask(&t, body).header("idempotency-key", key);
    let request = ann.post(&t, "/v1/chat", anew("c", HELLO, None)).header("idempotency-key", "k1");
    let mut stream = Stream::new(request.send().await);
    let started = stream.start().await;
    stream.first_word().await;
    let request = ann.post(&t, "/v1/chat", anew("c", HELLO, None)).header("idempotency-key", "\"k1\"");
    let mut joined = Stream::new(request.send().await);
    assert_eq!(joined.start().await, started, "in quotes, as the draft has it, it is the same");
    go.add_permits(1);
    stream.rest().await;

    let again = keyed(anew("c", HELLO, None), "k1").await.ok();
    assert_eq!((id_of(&again), text_of(&again)), (started.1.clone(), "new"));
    for body in [anew("c", HELLO, Some(&started.1)), bare("c"), anew("d", HELLO, None), bare("unknown")] {
        keyed(body, "k1").await.problem(409, "idempotency_mismatch");
    }
    assert_eq!((upstream.received().len(), ann.used(&t).await), (2, 2));

    // Replaced by another one: the reply of the first key is gone, and paying twice is no answer.
    keyed(anew("c", HELLO, None), "k2").await.ok();
    keyed(anew("c", HELLO, None), "k1").await.problem(409, "conflict");
    assert_eq!((upstream.received().len(), ann.used(&t).await), (3, 3));

    // Without a word nothing was paid: then the key may try again.
    keyed(anew("c", HELLO, None), "k3").await.problem(502, "provider_failed");
    let late = keyed(anew("c", HELLO, None), "k3").await.ok();
    assert_eq!(keyed(anew("c", HELLO, None), "k3").await.ok(), late);
    assert_eq!((ann.texts(&t, "c").await, ann.used(&t).await), (vec!["hello".into(), "late".into()], 4));

    // Somebody else's key is their own.
    let bob = t.sign_up("bob@example.com").await;
    bob.say(&t, "c", "m1", "hello").await.ok();
    bob.ask(&t, bare("c")).header("idempotency-key", "k1").await.ok();
}

#[tokio::test]
async fn a_key_is_judged_where_it_counts() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let long = "k".repeat(65);
    let message = || crate::support::app::message("c", "m1", "hello");
    ann.ask(&t, message()).header("idempotency-key", "what ever").await.ok(); // A message has its id.
    for key in ["", "\"\"", "two words", "k/1", "\"open", &long] {
        ann.ask(&t, bare("c")).header("idempotency-key", key).await.problem(400, "bad_request");
    }
    let twice = ann.ask(&t, bare("c")).header("idempotency-key", "a").header("idempotency-key", "b");
    twice.await.problem(400, "bad_request");
    assert_eq!(ann.used(&t).await, 1);
    ann.ask(&t, bare("c")).header("idempotency-key", &long[1..]).await.ok();
}

#[tokio::test]
async fn a_stop_before_the_first_word_is_what_its_key_gets_again() {
    let upstream = answers(vec![reply("old"), vec![Step::Hang], reply("new")]).await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    ann.say(&t, "c", "m1", "hello").await.ok();
    let request = || ann.post(&t, "/v1/chat", bare("c")).header("idempotency-key", "k");
    let mut stream = Stream::new(request().send().await);
    let started = stream.start().await;
    until("the provider was asked", async || upstream.received().len() == 2).await;
    ann.post(&t, "/v1/chat/c/stop", json!({})).await.status(204);
    stream.rest().await;
    let mut again = Stream::new(request().send().await);
    assert_eq!(again.start().await, started);
    assert_eq!(again.rest().await.types(), ["start-step", "abort", "[DONE]"]);
    ann.ask(&t, bare("c")).await.ok();
    request().accept_json().await.problem(409, "conflict"); // There are newer words by now.
    assert_eq!(upstream.received().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asked_for_twenty_times_at_once_one_reply_is_made() {
    // Three times: with the reply held back, and as fast as it comes.
    for held in [true, false, false] {
        let go = gate();
        let slow = vec![stream_head(), delta("new"), Step::Wait(go.clone()), finish()];
        let second = if held { slow } else { reply("new") };
        let upstream = answers(vec![reply("old"), second, reply("too many")]).await;
        let settings = [upstream.settings(), vec![("DM__CHAT__FREE_MESSAGES_PER_DAY", "2")]].concat();
        let t = TestApp::with(&settings).await;
        let ann = t.sign_up("ann@example.com").await;
        let old = id_of(&ann.say(&t, "c", "m1", "hello").await.ok());
        // Named, because those that come when it is done would rightly get yet another one.
        let calls = (0..20).map(|_| ann.ask(&t, anew("c", HELLO, Some(&old))));
        let answers = if held {
            let calls = all(calls);
            let opening = async {
                until("it is being made", async || upstream.received().len() == 2).await;
                go.add_permits(1);
            };
            tokio::join!(calls, opening).0
        } else {
            all(calls).await
        };
        let mut told = 0;
        for answer in answers {
            match answer.code {
                200 => {
                    assert_eq!(text_of(&answer.ok()), "new");
                    told += 1;
                }
                _ => drop(answer.problem(409, "conflict")), // Came when it was done.
            }
        }
        assert!(told >= 1);
        assert_eq!((upstream.received().len(), ann.used(&t).await), (2, 2));
        assert_eq!(ann.texts(&t, "c").await, ["hello", "new"]);
        assert_eq!(ann.ids(&t, "c").await.len(), 2);
    }
}

/// As when a reply is made and stored between the moment in which a request looks at the conversation and the one in which
/// it looks at its messages.
#[tokio::test]
async fn a_reply_that_was_made_while_a_request_looked_is_its_answer() {
    digitalmistress::queries! {
        fn forget_its_end(id: str, generation: uuid::Uuid) =
            "UPDATE conversation SET generation_id = $2 WHERE id = $1";
        fn forget_its_place(id: str) =
            "UPDATE conversation SET generation_id = NULL, last_seq = last_seq - 1 WHERE id = $1";
    }
    let upstream = answers(vec![reply("old"), reply("new"), reply("too many")]).await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    let old = id_of(&ann.say(&t, "c", "m1", "hello").await.ok());
    let mut stream = ann.listen(&t, bare("c")).await;
    let (generation, new) = stream.start().await;
    stream.rest().await;
    let generation: uuid::Uuid = generation.parse().unwrap();
    for place_too in [false, true] {
        let forged: Result<u64, Error> = t
            .db()
            .write(async move |c| match place_too {
                false => forget_its_end("c", generation).exec(&c).await,
                true => forget_its_place("c").exec(&c).await,
            })
            .await;
        assert_eq!(forged.unwrap(), 1);
        for body in [bare("c"), anew("c", HELLO, None), anew("c", HELLO, Some(&old))] {
            assert_eq!(id_of(&ann.ask(&t, body).await.ok()), new);
        }
    }
    assert_eq!((upstream.received().len(), ann.used(&t).await), (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_another_reply_and_a_new_message_at_once_one_is_first() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    ann.say(&t, "c", "m0", "hello").await.ok();
    let (mut turns, mut paid) = (1, 1);
    for round in 1..=6 {
        let last = format!("m{}", round - 1);
        let answers = all([
            ann.ask(&t, anew("c", (&last, "hello"), None)),
            ann.say(&t, "c", &format!("m{round}"), "hello"),
        ])
        .await;
        let [regenerated, sent] = answers.try_into().unwrap();
        match regenerated.code {
            200 => paid += 1,
            _ => assert!(matches!(
                regenerated.problem_code().as_deref(),
                Some("generation_in_progress" | "conflict")
            )),
        }
        if sent.code != 200 {
            sent.problem(409, "generation_in_progress");
            ann.say(&t, "c", &format!("m{round}"), "hello").await.ok();
        }
        (turns, paid) = (turns + 1, paid + 1);
        assert_eq!(ann.used(&t).await, paid);
        assert_eq!(ann.ids(&t, "c").await.len(), 2 * turns);
        assert!(ann.statuses(&t, "c").await.iter().all(|status| status == "complete"));
    }
}

#[tokio::test]
async fn a_conversation_that_is_deleted_meanwhile_takes_both_replies_along() {
    digitalmistress::queries! {
        fn messages(conversation: str) -> i64 =
            "SELECT COUNT(*) FROM message WHERE conversation_key = (SELECT key FROM conversation WHERE id = $1)";
    }
    let upstream = answers(vec![reply("old"), vec![Step::Hang]]).await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    ann.say(&t, "c", "m1", "hello").await.ok();
    let stream = ann.listen(&t, bare("c")).await;
    ann.delete(&t, "/v1/conversations/c").await.status(204);
    assert_eq!(stream.rest().await.types(), ["start", "start-step", "data-quota", "abort", "[DONE]"]);
    assert_eq!(ann.used(&t).await, 1, "what delivered nothing is given back");
    t.background.run_due().await.unwrap();
    let left: Result<i64, Error> = t.db().read(async |c| messages("c").one(&c).await).await;
    assert_eq!(left.unwrap(), 0);
}

/// What a killed process leaves behind while it makes another reply, with a part of it stored and without.
#[tokio::test]
async fn after_a_crash_the_old_reply_is_there_if_the_new_one_has_no_text() {
    digitalmistress::queries! {
        scan fn forge(instance: uuid::Uuid) = "UPDATE generation SET instance = $1, lease = 0 WHERE status = 'generating'";
        fn forge_partial(conversation: str) =
            "UPDATE generation SET partial = TRUE
              WHERE status = 'generating' AND conversation_key = (SELECT key FROM conversation WHERE id = $1)";
    }
    let upstream = answers(vec![reply("old"), reply("old"), vec![Step::Hang]]).await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    for conversation in ["silent", "spoken"] {
        ann.say(&t, conversation, "m1", "hello").await.ok();
    }
    let mut open = Vec::new();
    for conversation in ["silent", "spoken"] {
        let mut stream = ann.listen(&t, bare(conversation)).await;
        stream.start().await;
        open.push(stream);
    }
    let other = uuid::Uuid::from_u128(7);
    let forged: Result<u64, Error> = t
        .db()
        .write(async move |c| {
            forge_partial("spoken").exec(&c).await?;
            forge(other).exec(&c).await
        })
        .await;
    assert_eq!(forged.unwrap(), 2);
    assert_eq!(ann.used(&t).await, 4);

    let beside = t.beside().await;
    beside.background.chat.sweep().await.unwrap();
    assert_eq!(ann.texts(&beside, "silent").await, ["hello", "old"]);
    assert_eq!(ann.texts(&beside, "spoken").await, ["hello", ""], "what was stored of the new one");
    assert_eq!(ann.statuses(&beside, "spoken").await, ["complete", "interrupted"]);
    for conversation in ["silent", "spoken"] {
        assert_eq!(ann.ids(&beside, conversation).await.len(), 2);
    }
    assert_eq!(ann.used(&beside).await, 3, "the silent one was given back");
    drop(open);
}
