//! What the model is told: the persona, and the newest whole turns of this conversation and no other.

use serde_json::{Value, json};

use crate::support::{
    app::TestApp,
    upstream::{Received, Step, Upstream, reply},
};

fn contents(request: &Received) -> Vec<(String, String)> {
    request.body["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (text(&message["role"]), text(&message["content"]))
        })
        .collect()
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
    let heard = contents(&last);
    assert_eq!(heard[0].0, "system");
    assert!(heard[0].1.contains("You are Octavia"));
    let rest: Vec<(&str, &str)> =
        heard[1..].iter().map(|(role, text)| (role.as_str(), text.as_str())).collect();
    assert_eq!(rest, [("user", "first"), ("assistant", "I see."), ("user", "second")]);
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
    let upstream = Upstream::start(reply("I see.")).await;
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
    let heard = contents(&upstream.received().pop().unwrap());
    assert_eq!(heard[0].0, "system");
    assert_eq!(heard[1].0, "user", "a turn begins with the user");
    assert!(heard.last().unwrap().1.starts_with("5 "));
    let users = heard.iter().filter(|(role, _)| role == "user").count();
    assert!((2..6).contains(&users), "{users} turns fit");
}

#[tokio::test]
async fn what_was_interrupted_was_said_and_what_failed_was_not() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let upstream =
        Upstream::answering(move |_| match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => vec![Step::Reset],
            1 => vec![
                crate::support::upstream::stream_head(),
                crate::support::upstream::delta("half a "),
                Step::Reset,
            ],
            _ => reply("whole"),
        })
        .await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    for n in 0..3 {
        let _ = ann.say(&t, "c", &format!("m{n}"), &format!("message {n}")).await;
    }
    let heard = contents(&upstream.received().pop().unwrap());
    let texts: Vec<&str> = heard[1..].iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(texts, ["message 0", "message 1", "half a ", "message 2"]);
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
