//! Which provider is asked, how often, and when it is left alone.

use serde_json::json;

use super::until;
use crate::support::{
    app::{Person, TestApp},
    logs::Logs,
    upstream::{Step, Upstream, bytes, delta, finish, gate, json_answer, reply, route, stream_head},
};

/// No waits to speak of.
const AT_ONCE: (&str, &str) = ("DM__CHAT__RETRY_BASE", "1ms");

fn refusal(status: &str, headers: &str) -> Vec<Step> {
    vec![json_answer(status, headers, &json!({"error": {"code": "x"}}))]
}

/// Answers with each of these in turn, and for ever with the last.
async fn in_turn(answers: Vec<Vec<Step>>) -> Upstream {
    let turn = std::sync::atomic::AtomicUsize::new(0);
    Upstream::answering(move |_| {
        let turn = turn.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        answers[turn.min(answers.len() - 1)].clone()
    })
    .await
}

/// Sends another message.
async fn say(t: &TestApp, person: &Person, n: usize) -> crate::support::http::Answer {
    person.say(t, "c", &format!("m{n}"), &format!("message {n}")).await
}

#[tokio::test]
async fn providers_are_asked_in_their_order_each_so_often() {
    let first = Upstream::start(refusal("500 Oops", "")).await;
    let second = Upstream::start(refusal("503 Busy", "")).await;
    let third = Upstream::start(reply("from the third")).await;
    let fourth = Upstream::start(reply("from the fourth")).await;
    let providers = route(&[("first", &first), ("second", &second), ("third", &third), ("fourth", &fourth)]);
    let t = TestApp::routed(&providers, &[AT_ONCE, ("DM__CHAT__ATTEMPTS", "3")]).await;
    let ann = t.sign_up("ann@example.com").await;
    let answer = say(&t, &ann, 1).await.ok();
    assert_eq!(answer["message"]["parts"][0]["text"], "from the third");
    assert_eq!(answer["message"]["metadata"]["model"], "third-model");
    let asked = [&first, &second, &third, &fourth].map(Upstream::asked);
    assert_eq!(asked, [3, 3, 1, 0]);
    assert_eq!(ann.used(&t).await, 1, "charged once");
    let usage = &answer["usage"];
    assert_eq!(
        *usage,
        json!({"input_tokens": 9, "output_tokens": 2, "estimated": false}),
        "of the third alone"
    );
}

#[tokio::test]
async fn a_burst_of_failures_is_not_seen() {
    let upstream = in_turn(vec![
        refusal("529 Overloaded", ""),
        refusal("500 Oops", ""),
        refusal("429 Too Many Requests", "retry-after-ms: 5\r\n"),
        reply("at last"),
    ])
    .await;
    let t = TestApp::routed(&route(&[("only", &upstream)]), &[AT_ONCE, ("DM__CHAT__ATTEMPTS", "4")]).await;
    let ann = t.sign_up("ann@example.com").await;
    let chunks = ann.stream(&t, "c", "m1", "hello").await.rest().await;
    assert_eq!(chunks.text(), "at last");
    assert_eq!(chunks.types().last(), Some(&"[DONE]"));
    assert_eq!((upstream.asked(), ann.used(&t).await), (4, 1));
}

#[tokio::test]
async fn another_provider_is_never_asked_after_a_word() {
    let half = Upstream::start(vec![stream_head(), delta("half a "), Step::Reset]).await;
    let good = Upstream::start(reply("from the second")).await;
    let t = TestApp::routed(&route(&[("half", &half), ("good", &good)]), &[AT_ONCE]).await;
    let ann = t.sign_up("ann@example.com").await;
    let chunks = ann.stream(&t, "c", "m1", "hello").await.rest().await;
    assert_eq!((chunks.text().as_str(), &chunks.problem()["code"]), ("half a ", &json!("provider_failed")));
    assert_eq!((half.asked(), good.asked()), (1, 0));
    assert_eq!(ann.statuses(&t, "c").await, ["complete", "interrupted"]);
}

#[tokio::test]
async fn a_wait_that_does_not_fit_goes_to_the_next_provider_and_else_to_the_caller() {
    let busy = Upstream::start(refusal("429 Too Many Requests", "retry-after: 86400\r\n")).await;
    let good = Upstream::start(reply("from the second")).await;
    let t = TestApp::routed(&route(&[("busy", &busy), ("good", &good)]), &[]).await;
    let ann = t.sign_up("ann@example.com").await;
    assert_eq!(say(&t, &ann, 1).await.ok()["message"]["parts"][0]["text"], "from the second");
    assert_eq!(busy.asked(), 1);

    let short = Upstream::start(refusal("429 Too Many Requests", "retry-after: 7\r\n")).await;
    let limits = [("DM__CHAT__FIRST_TOKEN_TIMEOUT", "6s")];
    let t = TestApp::routed(&route(&[("short", &short)]), &limits).await;
    let ann = t.sign_up("ann@example.com").await;
    let answer = say(&t, &ann, 1).await;
    assert_eq!(answer.header("retry-after"), "7");
    answer.problem(503, "provider_unavailable");
    assert_eq!(short.asked(), 1);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_the_next_attempt() {
    let busy = Upstream::start(refusal("503 Busy", "retry-after: 10\r\n")).await;
    let t = TestApp::routed(&route(&[("busy", &busy)]), &[]).await;
    let ann = t.sign_up("ann@example.com").await;
    let stream = ann.stream(&t, "c", "m1", "hello").await;
    until("it is busy", async || busy.asked() == 1).await;
    ann.post(&t, "/v1/chat/c/stop", json!({})).await.status(204);
    assert_eq!(stream.rest().await.types(), ["start", "start-step", "data-quota", "abort", "[DONE]"]);
    assert_eq!((busy.asked(), ann.used(&t).await), (1, 0));
}

#[tokio::test]
async fn every_failure_is_logged_once() {
    let broken = Upstream::start(refusal("500 Oops", "")).await;
    let lost = Upstream::start(vec![Step::Reset]).await;
    let logs = Logs::listen();
    let t = TestApp::routed(&route(&[("broken", &broken), ("lost", &lost)]), &[AT_ONCE]).await;
    let ann = t.sign_up("ann@example.com").await;
    say(&t, &ann, 1).await.problem(502, "provider_failed");
    let lines = [logs.lines_with("the provider failed: HTTP 500"), logs.lines_with("the answer was lost")];
    assert_eq!([lines[0].len(), lines[1].len()], [2, 1], "{lines:#?}");
}

/// Opens after two failures of the last three.
const EAGER: [(&str, &str); 4] = [
    AT_ONCE,
    ("DM__CHAT__ATTEMPTS", "1"),
    ("DM__CHAT__BREAKER_FAILURES", "2"),
    ("DM__CHAT__BREAKER_WINDOW", "3"),
];

#[tokio::test]
async fn a_provider_that_fails_again_and_again_is_left_alone() {
    let broken = Upstream::start(refusal("500 Oops", "")).await;
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let counted = recorder.handle();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let t = TestApp::routed(&route(&[("broken", &broken)]), &EAGER).await;
    let (ann, bob) = (t.sign_up("ann@example.com").await, t.sign_up("bob@example.com").await);
    for person in [&ann, &bob] {
        say(&t, person, 1).await.problem(502, "provider_failed");
    }
    let answer = say(&t, &ann, 3).await;
    let wait: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=15).contains(&wait), "{wait}");
    answer.problem(503, "provider_unavailable");
    assert_eq!((broken.asked(), ann.used(&t).await), (2, 0));
    let text = counted.render();
    for line in [
        r#"chat_breaker_state{provider="broken"} 2"#,
        r#"chat_attempts_total{provider="broken",outcome="failed"} 2"#,
        r#"chat_attempts_total{provider="broken",outcome="skipped"} 1"#,
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[tokio::test]
async fn a_reply_is_measured_and_its_words_are_not() {
    let steps = vec![stream_head(), delta("First "), delta("and the tide."), finish()];
    let upstream = Upstream::start(steps).await;
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let counted = recorder.handle();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let t = TestApp::routed(&route(&[("one", &upstream)]), &[]).await;
    let ann = t.sign_up("ann@example.com").await;
    say(&t, &ann, 1).await.ok();
    let text = counted.render();
    for line in [
        r#"chat_first_token_seconds_count{provider="one"} 1"#,
        r#"chat_text_gap_seconds_count{provider="one"} 1"#,
        r#"chat_tokens_total{direction="input",provider="one"} 9"#,
        r#"chat_tokens_total{direction="output",provider="one"} 2"#,
        r#"chat_replies_total{status="complete",provider="one"} 1"#,
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("tide"), "{text}");
}

/// The last failure before it is left alone is not waited on.
#[tokio::test]
async fn nobody_waits_for_one_that_is_left_alone() {
    let busy = |seconds: &str| refusal("503 Busy", &format!("retry-after: {seconds}\r\n"));
    let busy = in_turn(vec![busy("86400"), busy("10")]).await;
    let good = Upstream::start(reply("from the second")).await;
    let settings = [("DM__CHAT__BREAKER_FAILURES", "2"), ("DM__CHAT__TOTAL_TIMEOUT", "9s")];
    let t = TestApp::routed(&route(&[("busy", &busy), ("good", &good)]), &settings).await;
    let ann = t.sign_up("ann@example.com").await;
    for n in [1, 2] {
        assert_eq!(say(&t, &ann, n).await.ok()["message"]["parts"][0]["text"], "from the second");
    }
    assert_eq!((busy.asked(), good.asked()), (2, 2));
}

/// Else a service with one customer would ask a provider that is gone each time.
#[tokio::test]
async fn one_persons_messages_find_out_that_a_provider_is_gone_but_not_that_it_breaks_off() {
    for (answer, asked) in
        [(refusal("500 Oops", ""), 2), (refusal("401 Unauthorized", ""), 2), (vec![Step::Reset], 4)]
    {
        let first = Upstream::start(answer).await;
        let good = Upstream::start(reply("from the second")).await;
        let t = TestApp::routed(&route(&[("first", &first), ("good", &good)]), &EAGER).await;
        let ann = t.sign_up("ann@example.com").await;
        for n in 0..4 {
            say(&t, &ann, n).await.ok();
        }
        assert_eq!((first.asked(), good.asked()), (asked, 4));
    }
}

#[tokio::test]
async fn one_that_is_left_alone_is_passed_over() {
    let broken = Upstream::start(vec![stream_head(), delta("half a "), Step::Reset]).await;
    let good = Upstream::start(reply("from the second")).await;
    let t = TestApp::routed(&route(&[("broken", &broken), ("good", &good)]), &EAGER).await;
    let (ann, bob) = (t.sign_up("ann@example.com").await, t.sign_up("bob@example.com").await);
    for person in [&ann, &bob] {
        say(&t, person, 1).await.problem(502, "provider_failed");
    }
    assert_eq!(say(&t, &ann, 3).await.ok()["message"]["parts"][0]["text"], "from the second");
    assert_eq!((broken.asked(), good.asked()), (2, 1), "replies that break off count");
}

#[tokio::test]
async fn after_a_while_one_message_finds_out_whether_it_answers_again() {
    let go = gate();
    let probe = vec![Step::Wait(go.clone()), stream_head(), delta("I am "), delta("back"), finish()];
    let broken = refusal("500 Oops", "");
    let upstream = in_turn(vec![broken.clone(), broken, probe, reply("well")]).await;
    let settings = [&EAGER[..], &[("DM__CHAT__BREAKER_PAUSE", "100ms")]].concat();
    let t = TestApp::routed(&route(&[("only", &upstream)]), &settings).await;
    let (ann, bob) = (t.sign_up("ann@example.com").await, t.sign_up("bob@example.com").await);
    for person in [&ann, &bob] {
        say(&t, person, 1).await.problem(502, "provider_failed");
    }
    let try_until_it_answers = async || loop {
        let answer = say(&t, &ann, 3).await;
        if answer.code == 200 {
            break answer.ok();
        }
        answer.problem(503, "provider_unavailable");
    };
    let meanwhile = async || {
        until("one is let through", async || upstream.asked() == 3).await;
        say(&t, &bob, 2).await.problem(503, "provider_unavailable");
        assert_eq!(upstream.asked(), 3, "and nobody else");
        go.add_permits(1);
    };
    let (answer, ()) = tokio::join!(try_until_it_answers(), meanwhile());
    assert_eq!(answer["message"]["parts"][0]["text"], "I am back");
    assert_eq!(say(&t, &bob, 2).await.ok()["message"]["parts"][0]["text"], "well");
}

#[tokio::test]
async fn what_people_do_closes_no_provider() {
    let upstream = Upstream::answering(|request| match request.question() {
        "decline" => {
            vec![json_answer("400 Bad Request", "", &json!({"error": {"code": "content_policy_violation"}}))]
        }
        "too long" => {
            vec![json_answer("400 Bad Request", "", &json!({"error": {"code": "context_length_exceeded"}}))]
        }
        "odd" => refusal("422 Unprocessable", ""),
        "forbidden" => refusal("403 Forbidden", ""),
        "stop" => vec![stream_head(), delta("word"), Step::Hang],
        _ => reply("here I am"),
    })
    .await;
    let t = TestApp::routed(&route(&[("only", &upstream)]), &EAGER).await;
    let ann = t.sign_up("ann@example.com").await;
    let texts = ["decline", "too long", "odd", "forbidden"];
    for (n, text) in texts.into_iter().cycle().take(8).enumerate() {
        ann.say(&t, "c", &format!("m{n}"), text).await.problem(502, "provider_failed");
    }
    for n in 0..3 {
        let mut stream = ann.stream(&t, "d", &format!("m{n}"), "stop").await;
        stream.first_word().await;
        ann.post(&t, "/v1/chat/d/stop", json!({})).await.status(204);
        stream.rest().await;
    }
    assert_eq!(ann.say(&t, "c", "last", "hello").await.ok()["message"]["parts"][0]["text"], "here I am");
}

/// A model that thinks is not silent: from its first thought on the limit on silence counts, and then comments do not help.
#[tokio::test]
async fn thinking_counts_as_the_first_token() {
    let thought = "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n";
    let warm = Step::Repeat(b": still here\n\n".to_vec(), std::time::Duration::from_millis(50));
    let thinks = Upstream::start(vec![stream_head(), bytes(thought), warm]).await;
    let limits = [("DM__CHAT__FIRST_TOKEN_TIMEOUT", "1s"), ("DM__CHAT__IDLE_TIMEOUT", "2s")];
    let logs = Logs::listen();
    let t = TestApp::routed(&route(&[("thinks", &thinks)]), &limits).await;
    let ann = t.sign_up("ann@example.com").await;
    say(&t, &ann, 1).await.problem(504, "provider_timeout");
    assert_eq!(logs.lines_with("too slow: silence in the middle").len(), 1);
    assert_eq!(ann.used(&t).await, 0, "but it is no word");
}
