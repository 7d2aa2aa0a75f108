//! What the model is told: the persona, and the newest whole turns of this conversation and no other.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use serde_json::{Value, json};

use crate::support::{
    app::{Person, TestApp},
    upstream::{
        Received, Step, Upstream, delta, finish_having_counted, json_answer, reply, stream_head, too_long,
    },
};

/// A reply of a provider that counts so many times the tokens that we estimate.
fn counting(request: &Received, times: u64) -> Vec<Step> {
    let estimate = |text: &str| text.len().div_ceil(3) as u64 + 4;
    let estimated: u64 = request.told().iter().map(|(_, text)| estimate(text)).sum();
    vec![stream_head(), delta("I see."), finish_having_counted(estimated * times)]
}

/// A text of so many tokens, as we estimate them.
fn tokens(tokens: usize) -> String {
    "x".repeat(3 * (tokens - 4))
}

/// Settings of a small model, and of a persona of which little is to be said.
fn small<'u>(upstream: &'u Upstream, context_tokens: &'u str) -> Vec<(&'u str, &'u str)> {
    let small = [
        ("DM__CHAT__PROVIDERS__UPSTREAM__CONTEXT_TOKENS", context_tokens),
        ("DM__CHAT__PROVIDERS__UPSTREAM__MAX_OUTPUT_TOKENS", "100"),
        ("DM__CHAT__COMPANIONS__OCTAVIA__PROMPT", "Be kind."),
    ];
    [upstream.settings(), small.to_vec()].concat()
}

#[tokio::test]
async fn the_model_hears_the_persona_and_the_conversation_so_far() {
    let upstream = Upstream::start(reply("I see.")).await;
    let t = TestApp::with(&upstream.settings()).await;
    let (ann, bob) = (t.sign_up("ann@example.com").await, t.sign_up("bob@example.com").await);
    bob.say(&t, "c", "m1", "a secret of Bob's").await.ok();
    ann.say(&t, "other", "m1", "another conversation").await.ok();
    ann.say(&t, "c", "m1", "first").await.ok();
    ann.say(&t, "c", "m2", "second").await.ok();

    let last = upstream.received().pop().unwrap();
    let heard = last.told();
    assert_eq!(heard[0].0, "system");
    assert!(heard[0].1.contains("You are Octavia"));
    assert_eq!(heard[1..], [("user", "first"), ("assistant", "I see."), ("user", "second")]);
    let body = last.body.to_string();
    for private in ["ann@example.com", &ann.id, "secret of Bob", "another conversation"] {
        assert!(!body.contains(private), "{private} was sent upstream");
    }
    assert!(last.head.contains("authorization: Bearer sk-test-key"));
    assert_eq!((&last.body["model"], &last.body["stream"]), (&json!("test-model"), &json!(true)));
    assert_eq!(last.body["max_tokens"], 500);
}

#[tokio::test]
async fn a_small_window_keeps_the_newest_whole_turns() {
    let upstream = Upstream::answering(|request| counting(request, 1)).await;
    let settings = [
        upstream.settings(),
        vec![
            ("DM__CHAT__PROVIDERS__UPSTREAM__CONTEXT_TOKENS", "2200"),
            ("DM__CHAT__PROVIDERS__UPSTREAM__MAX_OUTPUT_TOKENS", "100"),
        ],
    ]
    .concat();
    let t = TestApp::with(&settings).await;
    let ann = t.sign_up("ann@example.com").await;
    for n in 0..6 {
        ann.say(&t, "c", &format!("m{n}"), &format!("{n} {}", "words ".repeat(150))).await.ok();
    }
    let last = upstream.received().pop().unwrap();
    let heard = last.told();
    assert_eq!(heard[0].0, "system");
    assert_eq!(heard[1].0, "user", "a turn begins with the user");
    assert!(heard.last().unwrap().1.starts_with("5 "));
    let users = heard.iter().filter(|(role, _)| *role == "user").count();
    assert!((2..6).contains(&users), "{users} turns fit");
}

#[tokio::test]
async fn what_was_interrupted_was_said_and_what_failed_was_not() {
    let count = AtomicUsize::new(0);
    let upstream = Upstream::answering(move |_| match count.fetch_add(1, SeqCst) {
        0 => vec![Step::Reset],
        1 => vec![stream_head(), delta("half a "), Step::Reset],
        _ => reply("whole"),
    })
    .await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    for n in 0..3 {
        let _ = ann.say(&t, "c", &format!("m{n}"), &format!("message {n}")).await;
    }
    let last = upstream.received().pop().unwrap();
    let heard = last.told();
    let texts: Vec<&str> = heard[1..].iter().map(|(_, text)| *text).collect();
    assert_eq!(
        texts,
        ["message 0\n\nmessage 1", "half a ", "message 2"],
        "by turns, as every model takes it"
    );
}

#[tokio::test]
async fn a_wide_window_hears_more_than_is_read_at_once() {
    let upstream = Upstream::start(reply("yes")).await;
    let settings = [upstream.settings(), vec![("DM__CHAT__FREE_MESSAGES_PER_DAY", "100")]].concat();
    let t = TestApp::with(&settings).await;
    let ann = t.sign_up("ann@example.com").await;
    for n in 0..24 {
        ann.say(&t, "c", &format!("m{n}"), &format!("question {n}")).await.ok();
    }
    let last = upstream.received().pop().unwrap();
    let messages = last.body["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 1 + 23 * 2 + 1);
    assert_eq!(messages[1]["content"], "question 0");
    assert_eq!(messages[47]["content"], "question 23");
}

#[tokio::test]
async fn a_model_that_counts_more_tokens_is_told_less_from_then_on() {
    // The window leaves 3,500 tokens. Both messages and the reply are 2,700 by our estimate; a provider that counts four times as
    // many is believed by an eighth, and then 2,545 of ours fit.
    for (times, heard) in [(1, 3), (4, 1)] {
        let upstream = Upstream::answering(move |request| counting(request, times)).await;
        let t = TestApp::with(&small(&upstream, "4000")).await;
        let ann = t.sign_up("ann@example.com").await;
        ann.say(&t, "c", "m1", &tokens(1700)).await.ok();
        ann.say(&t, "c", "m2", &tokens(1000)).await.ok();
        let requests = upstream.received();
        assert_eq!(requests[0].told().len(), 1 + 1);
        assert_eq!(requests[1].told().len(), 1 + heard, "{times} times as many");
        assert_eq!(requests[1].told().last().unwrap().1, tokens(1000));
    }
}

/// The ratio is everybody's, and who writes what has many tokens has moved it.
#[tokio::test]
async fn nobodys_message_is_refused_for_what_others_wrote() {
    let upstream = Upstream::answering(|request| counting(request, 4)).await;
    let t = TestApp::with(&small(&upstream, "2000")).await;
    let (ann, bob) = (t.sign_up("ann@example.com").await, t.sign_up("bob@example.com").await);
    for n in 0..10 {
        ann.say(&t, "c", &format!("m{n}"), "odd").await.ok();
    }
    // The window leaves 1,700 tokens, of which the persona has 7.
    bob.say(&t, "c", "m1", &tokens(1_600)).await.ok();
    bob.say(&t, "c", "m2", &tokens(1_800)).await.invalid("/message/parts", "too_long");
}

#[tokio::test]
async fn a_prompt_that_is_too_long_is_cut_in_half_once() {
    let count = AtomicUsize::new(0);
    // The fourth prompt is refused.
    let upstream = Upstream::answering(move |request| match count.fetch_add(1, SeqCst) {
        3 => vec![too_long()],
        _ => counting(request, 1),
    })
    .await;
    let t = TestApp::with(&small(&upstream, "4000")).await;
    let ann = t.sign_up("ann@example.com").await;
    for n in 0..3 {
        ann.say(&t, "c", &format!("m{n}"), &tokens(300)).await.ok();
    }
    let answer = ann.say(&t, "c", "m3", "the last").await.ok();
    assert_eq!(answer["message"]["parts"][0]["text"], "I see.");
    let requests = upstream.received();
    assert_eq!(requests.len(), 5);
    assert_eq!(
        (requests[3].told().len(), requests[4].told().len()),
        (1 + 7, 1 + 3),
        "half of four turns fit two"
    );
    for request in &requests[3..] {
        assert_eq!(request.told()[0], ("system", "Be kind."));
        assert!(request.told().last() == Some(&("user", "the last")));
    }
    assert_eq!(ann.used(&t).await, 4, "one message is one charge");
    assert_eq!(answer["usage"]["estimated"], false);
}

#[tokio::test]
async fn what_is_still_too_long_fails_and_is_given_back() {
    let count = AtomicUsize::new(0);
    let upstream = Upstream::answering(move |request| match count.fetch_add(1, SeqCst) {
        0..5 => counting(request, 1),
        _ => vec![too_long()],
    })
    .await;
    let t = TestApp::with(&small(&upstream, "4000")).await;
    let ann = t.sign_up("ann@example.com").await;
    for n in 0..5 {
        ann.say(&t, "c", &format!("m{n}"), &tokens(300)).await.ok();
    }
    ann.say(&t, "c", "m5", &tokens(300)).await.problem(502, "provider_failed");
    let requests = upstream.received();
    assert_eq!(requests.len(), 5 + 2, "one more try, and no more, though there is more to leave out");
    assert!(requests[6].told().len() > 1 + 1);
    assert_eq!(ann.used(&t).await, 5);

    // Where there is nothing to leave out, the same would be refused again.
    ann.say(&t, "new", "m1", &tokens(300)).await.problem(502, "provider_failed");
    assert_eq!(upstream.received().len(), 7 + 1);
}

#[tokio::test]
async fn other_refusals_are_not_tried_again() {
    let count = AtomicUsize::new(0);
    let refusal = json!({"error": {"message": "…", "code": "something_else"}});
    let upstream = Upstream::answering(move |request| match count.fetch_add(1, SeqCst) {
        0 => counting(request, 1),
        _ => vec![json_answer("400 Bad Request", "", &refusal)],
    })
    .await;
    let t = TestApp::with(&small(&upstream, "4000")).await;
    let ann = t.sign_up("ann@example.com").await;
    ann.say(&t, "c", "m1", "first").await.ok();
    ann.say(&t, "c", "m2", "second").await.problem(502, "provider_failed");
    assert_eq!(upstream.received().len(), 2);
}

/// The notice in a stream that messages were left out, and what stands around it.
async fn notice(t: &TestApp, who: &Person, id: &str, text: &str) -> Option<Value> {
    let chunks = who.stream(t, "c", id, text).await.rest().await;
    let types = chunks.types();
    let at = types.iter().position(|kind| *kind == "data-context")?;
    assert_eq!(types[at - 1..], ["text-end", "data-context", "finish-step", "finish", "[DONE]"]);
    chunks.0.iter().find(|chunk| chunk["type"] == "data-context").cloned()
}

#[tokio::test]
async fn a_reply_says_when_the_model_was_not_told_everything() {
    let upstream = Upstream::answering(|request| counting(request, 1)).await;
    let t = TestApp::with(&small(&upstream, "1000")).await;
    let ann = t.sign_up("ann@example.com").await;
    // 800 tokens fit, the persona is 7: two turns of 306 and no third one.
    assert_eq!(notice(&t, &ann, "m1", &tokens(300)).await, None);
    assert_eq!(notice(&t, &ann, "m2", &tokens(300)).await, None);
    let cut = json!({"type": "data-context", "data": {"truncated": true, "messages_used": 3}});
    assert_eq!(notice(&t, &ann, "m3", &tokens(300)).await, Some(cut));
    assert_eq!(upstream.received()[2].told().len(), 1 + 3);
    // Said once, while it happens.
    assert_eq!(notice(&t, &ann, "m3", &tokens(300)).await, None);
    assert_eq!(upstream.received().len(), 3);
}

#[tokio::test]
async fn the_demo_forgets_as_a_model_does() {
    let t = TestApp::with(&[
        ("DM__CHAT__PROVIDERS__DEMO__CONTEXT_TOKENS", "2200"),
        ("DM__CHAT__PROVIDERS__DEMO__MAX_OUTPUT_TOKENS", "100"),
    ])
    .await;
    let ann = t.sign_up("ann@example.com").await;
    assert_eq!(notice(&t, &ann, "m1", &tokens(1000)).await, None);
    assert_eq!(notice(&t, &ann, "m2", &tokens(1000)).await.unwrap()["data"]["messages_used"], 1);
}

#[tokio::test]
async fn more_than_two_hundred_messages_are_never_told() {
    let count = AtomicUsize::new(0);
    let upstream = Upstream::answering(move |request| match count.fetch_add(1, SeqCst) {
        0 => vec![Step::Reset],
        _ => counting(request, 1),
    })
    .await;
    let t = TestApp::with(&[upstream.settings(), vec![("DM__CHAT__FREE_MESSAGES_PER_DAY", "200")]].concat())
        .await;
    let ann = t.sign_up("ann@example.com").await;
    for n in 0..99 {
        let _ = ann.say(&t, "c", &format!("m{n}"), "hi").await;
    }
    assert_eq!(notice(&t, &ann, "m99", "hi").await, None, "199 are read");
    // Of the newest 200 the first is the reply that failed without a word.
    assert_eq!(notice(&t, &ann, "m100", "hi").await.unwrap()["data"]["messages_used"], 199);
    assert_eq!(upstream.received()[100].told().len(), 1 + 199);
}
