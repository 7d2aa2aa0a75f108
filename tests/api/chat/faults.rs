//! Everything that a provider can do wrong, each played once: what the client sees, what is stored, what is charged.
//! `docs/faults.md` has the same table, written from this one.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Value, json};

use crate::support::{
    app::{Person, TestApp},
    logs::Logs,
    upstream::{Received, Step, Upstream, bytes, delta, finish, json_answer, reply, route, stream_head},
};

/// What ends it. Each has a test with that limit made small and all others as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndsBy {
    /// What the provider does, or a bound on how much it may send.
    Itself,
    Headers,
    FirstToken,
    Idle,
    Total,
}

impl EndsBy {
    fn settings(self) -> Vec<(&'static str, &'static str)> {
        let limit = match self {
            EndsBy::Itself => ("DM__CHAT__RETRY_MAX", "1ms"),
            EndsBy::Headers => ("DM__CHAT__HEADERS_TIMEOUT", "1s"),
            EndsBy::FirstToken => ("DM__CHAT__FIRST_TOKEN_TIMEOUT", "1s"),
            EndsBy::Idle => ("DM__CHAT__IDLE_TIMEOUT", "1s"),
            EndsBy::Total => ("DM__CHAT__TOTAL_TIMEOUT", "2s"),
        };
        // Whatever is not ended by what should end it is ended by this.
        let late = ("DM__CHAT__TOTAL_TIMEOUT", "20s");
        vec![late, limit, ("DM__CHAT__FREE_MESSAGES_PER_DAY", "1000"), ("DM__CHAT__RETRY_BASE", "1ms")]
    }

    /// What the log says of it.
    fn logged(self) -> &'static str {
        match self {
            EndsBy::Itself => "a reply failed",
            EndsBy::Headers => "too slow: response headers",
            EndsBy::FirstToken => "too slow: first token",
            EndsBy::Idle => "too slow: silence in the middle",
            EndsBy::Total => "too slow: the whole reply",
        }
    }

    fn told(self) -> &'static str {
        match self {
            EndsBy::Itself => "at once",
            EndsBy::Headers => "`headers_timeout`",
            EndsBy::FirstToken => "`first_token_timeout`",
            EndsBy::Idle => "`idle_timeout` after the last sign of life",
            EndsBy::Total => "`total_timeout`",
        }
    }
}

/// What a fault comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comes {
    /// To a whole reply, "whole", which is charged; some only by asking again.
    Whole,
    /// To a reply that is cut at its bound, complete and charged.
    Cut,
    /// To an error without a word, not charged. Another provider is asked.
    Nothing(u16, &'static str),
    /// The same, and no other provider is asked.
    Refused(u16, &'static str),
    /// To an error after "half ", which is kept and charged. No other provider is asked.
    Half(u16, &'static str),
}

use Comes::{Cut, Half, Nothing, Refused, Whole};

const FAILED: (u16, &str) = (502, "provider_failed");

struct Fault {
    name: &'static str,
    /// What the provider does when it is asked for the nth time.
    steps: fn(usize) -> Vec<Step>,
    /// How many requests it gets.
    requests: usize,
    comes: Comes,
    ends_by: EndsBy,
}

fn fault(name: &'static str, requests: usize, comes: Comes, steps: fn(usize) -> Vec<Step>) -> Fault {
    Fault { name, steps, requests, comes, ends_by: EndsBy::Itself }
}

fn slow(name: &'static str, ends_by: EndsBy, comes: Comes, steps: fn(usize) -> Vec<Step>) -> Fault {
    Fault { name, steps, requests: 1, comes, ends_by }
}

/// Both secrets must stay inside.
fn error(code: &str) -> Value {
    json!({"error": {"message": "key sk-test-key at 127.0.0.1", "type": "t", "param": null, "code": code}})
}

fn refuses(status: &str, code: &str) -> Vec<Step> {
    refuses_with(status, "", code)
}

fn refuses_with(status: &str, headers: &str, code: &str) -> Vec<Step> {
    vec![json_answer(status, headers, &error(code))]
}

/// Refuses the first request and answers the second.
fn once(n: usize, refusal: Vec<Step>) -> Vec<Step> {
    if n == 1 { refusal } else { reply("whole") }
}

fn streams(steps: impl IntoIterator<Item = Step>) -> Vec<Step> {
    std::iter::once(stream_head()).chain(steps).collect()
}

fn half(steps: impl IntoIterator<Item = Step>) -> Vec<Step> {
    streams(std::iter::once(delta("half ")).chain(steps))
}

/// Faster than any limit on silence, and slow enough for a machine with other work.
fn again_and_again(text: &str) -> Step {
    Step::Repeat(text.as_bytes().to_vec(), Duration::from_millis(50))
}

fn plain(head: &str, body: &str) -> Vec<Step> {
    vec![bytes(format!("HTTP/1.1 {head}\r\nconnection: close\r\n\r\n{body}"))]
}

fn ends(reason: &str) -> Step {
    bytes(format!("data: {}\n\n", json!({"choices": [{"delta": {}, "finish_reason": reason}]})))
}

const COUNT: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\n";

fn connections() -> Vec<Fault> {
    let (failed, timeout) = (Nothing(FAILED.0, FAILED.1), Nothing(504, "provider_timeout"));
    let (half_failed, half_timeout) = (Half(FAILED.0, FAILED.1), Half(504, "provider_timeout"));
    vec![
        fault(REFUSES, 0, failed, |_| vec![]),
        slow("never answers", EndsBy::Headers, timeout, |_| vec![Step::Hang]),
        fault("breaks the connection before it answers", 1, failed, |_| vec![Step::Reset]),
        slow("answers with headers and says nothing", EndsBy::FirstToken, timeout, |_| streams([Step::Hang])),
        slow("sends comments for ever", EndsBy::FirstToken, timeout, |_| {
            streams([again_and_again(": still here\n\n")])
        }),
        slow("sends empty events for ever", EndsBy::FirstToken, timeout, |_| {
            streams([again_and_again("data:\n\n")])
        }),
        slow("counts tokens for ever", EndsBy::FirstToken, timeout, |_| streams([again_and_again(COUNT)])),
        slow("sends one byte at a time", EndsBy::FirstToken, timeout, |_| {
            streams([bytes("data: "), again_and_again("x")])
        }),
        slow("stalls after some words", EndsBy::Idle, half_timeout, |_| half([Step::Hang])),
        slow("sends comments for ever after some words", EndsBy::Idle, half_timeout, |_| {
            half([again_and_again(": still here\n\n")])
        }),
        slow("sends empty events for ever after some words", EndsBy::Idle, half_timeout, |_| {
            half([again_and_again("data:\n\n")])
        }),
        slow("sends one byte at a time after some words", EndsBy::Idle, half_timeout, |_| {
            half([bytes("data: "), again_and_again("x")])
        }),
        slow("thinks for ever after some words", EndsBy::Total, half_timeout, |_| {
            let thought = r#"data: {"choices":[{"delta":{"reasoning":"hm"}}]}"#;
            half([again_and_again(&format!("{thought}\n\n"))])
        }),
        fault("closes the connection without a word", 1, failed, |_| streams([])),
        fault("closes the connection after some words", 1, half_failed, |_| half([])),
        fault("breaks the connection without a word", 1, failed, |_| streams([Step::Reset])),
        fault("breaks the connection after some words", 1, half_failed, |_| half([Step::Reset])),
    ]
}

fn statuses() -> Vec<Fault> {
    let (failed, busy) = (Nothing(FAILED.0, FAILED.1), Nothing(503, "provider_unavailable"));
    const TOO_MANY: &str = "429 Too Many Requests";
    vec![
        fault("429 once, with a short Retry-After", 2, Whole, |n| {
            once(n, refuses_with(TOO_MANY, "retry-after-ms: 5\r\n", "rate_limit_exceeded"))
        }),
        fault("429 with a short Retry-After, again and again", 2, busy, |_| {
            refuses_with(TOO_MANY, "retry-after-ms: 5\r\n", "rate_limit_exceeded")
        }),
        fault("429 with an absurd Retry-After", 1, busy, |_| {
            refuses_with(TOO_MANY, "retry-after: 86400\r\n", "rate_limit_exceeded")
        }),
        fault("429 once, without Retry-After", 2, Whole, |n| {
            once(n, refuses(TOO_MANY, "rate_limit_exceeded"))
        }),
        fault("429 without Retry-After, again and again", 2, busy, |_| {
            refuses(TOO_MANY, "rate_limit_exceeded")
        }),
        fault("429, the account is used up", 1, busy, |_| refuses(TOO_MANY, "insufficient_quota")),
        fault("500 once", 2, Whole, |n| once(n, refuses("500 Internal Server Error", "server_error"))),
        fault("500 again and again", 2, failed, |_| refuses("500 Internal Server Error", "server_error")),
        fault("502 once", 2, Whole, |n| once(n, refuses("502 Bad Gateway", ""))),
        fault("502 again and again", 2, failed, |_| refuses("502 Bad Gateway", "")),
        fault("503 once", 2, Whole, |n| once(n, refuses("503 Service Unavailable", "overloaded"))),
        fault("503 again and again", 2, busy, |_| refuses("503 Service Unavailable", "overloaded")),
        fault("529 once", 2, Whole, |n| once(n, refuses("529 Overloaded", "overloaded"))),
        fault("529 again and again", 2, busy, |_| refuses("529 Overloaded", "overloaded")),
        fault("504", 1, failed, |_| refuses("504 Gateway Timeout", "")),
        fault("401", 1, failed, |_| refuses("401 Unauthorized", "invalid_api_key")),
        fault("403", 1, failed, |_| refuses("403 Forbidden", "")),
        fault("404, no such model", 1, failed, |_| refuses("404 Not Found", "model_not_found")),
        fault("400", 1, failed, |_| refuses("400 Bad Request", "invalid_value")),
        fault("400, the prompt is too long", 1, failed, |_| {
            refuses("400 Bad Request", "context_length_exceeded")
        }),
        fault("400, it declines", 1, Refused(FAILED.0, FAILED.1), |_| {
            refuses("400 Bad Request", "content_policy_violation")
        }),
        fault("302 to elsewhere", 1, failed, |_| plain("302 Found\r\nlocation: http://127.0.0.1:1/", "")),
        fault("200 with an error as JSON", 2, failed, |_| refuses("200 OK", "server_error")),
        fault("200 with JSON that is none", 1, failed, |_| {
            plain("200 OK\r\ncontent-type: application/json", "not json")
        }),
        fault("200 with HTML", 1, failed, |_| plain("200 OK\r\ncontent-type: text/html", "<html>")),
        fault("200, compressed (a gzip bomb)", 1, failed, |_| {
            let head = "200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip";
            plain(head, &"\u{1f}".repeat(10_000))
        }),
        fault("something that is not HTTP", 1, failed, |_| vec![bytes("not http\r\n\r\n")]),
    ]
}

fn streams_that_are_wrong() -> Vec<Fault> {
    let (failed, half_failed) = (Nothing(FAILED.0, FAILED.1), Half(FAILED.0, FAILED.1));
    vec![
        fault("an error in the stream without a word", 2, failed, |_| {
            streams([bytes(format!("data: {}\n\n", error("server_error")))])
        }),
        fault("an error 429 in the stream without a word", 2, Nothing(503, "provider_unavailable"), |_| {
            streams([bytes(format!("data: {}\n\n", error("429")))])
        }),
        fault("an error in the stream after some words", 1, half_failed, |_| {
            half([bytes(format!("data: {}\n\n", error("server_error")))])
        }),
        fault("malformed JSON without a word", 1, failed, |_| streams([bytes("data: {broken\n\n")])),
        fault("malformed JSON after some words", 1, half_failed, |_| half([bytes("data: {broken\n\n")])),
        fault("a line of 20 MB", 1, failed, |_| {
            streams([bytes(format!("data: {}", "x".repeat(20_000_000)))])
        }),
        fault("a line of 20 MB after some words", 1, half_failed, |_| {
            half([bytes(format!("data: {}", "x".repeat(20_000_000)))])
        }),
        fault("comments without end and without a pause", 1, failed, |_| {
            streams([Step::Repeat(format!(":{}\n", "x".repeat(60_000)).into_bytes(), Duration::ZERO)])
        }),
        fault("a million empty events", 1, failed, |_| streams([bytes("data:\n\n".repeat(1_000_000))])),
        fault("a million empty events after some words", 1, half_failed, |_| {
            half([bytes("data:\n\n".repeat(1_000_000))])
        }),
        fault("text without end", 1, Cut, |_| {
            let Step::Bytes(text) = delta(&"x".repeat(8 * 1024)) else { return vec![] };
            streams([Step::Repeat(text, Duration::ZERO)])
        }),
        fault("an empty reply", 1, failed, |_| streams([finish()])),
        fault("nothing but white space", 1, failed, |_| streams([delta("\n"), delta(" \n"), finish()])),
        fault("a refusal in place of text", 1, Whole, |_| {
            let refusal = json!({"choices": [{"delta": {"content": null, "refusal": "whole"}}]});
            streams([bytes(format!("data: {refusal}\n\n")), finish()])
        }),
        fault("its filter ends the reply without a word", 1, Refused(FAILED.0, FAILED.1), |_| {
            streams([ends("content_filter")])
        }),
        fault("its filter ends the reply after some words", 1, Whole, |_| {
            streams([delta("whole"), ends("content_filter")])
        }),
        fault("the finish reason `error` after some words", 1, half_failed, |_| half([ends("error")])),
        fault("an unknown finish reason", 1, Whole, |_| streams([delta("whole"), ends("tired"), finish()])),
        fault("no end mark after the finish reason", 1, Whole, |_| streams([delta("whole"), ends("stop")])),
        fault("an end mark without a finish reason", 1, Whole, |_| {
            streams([delta("whole"), bytes("data: [DONE]\n\n")])
        }),
        fault("two end marks", 1, Whole, |_| streams([delta("whole"), finish(), finish()])),
        fault("text after the end mark", 1, Whole, |_| {
            streams([delta("whole"), finish(), delta(" and more")])
        }),
        fault("a broken connection after the finish reason", 1, Whole, |_| {
            streams([delta("whole"), ends("stop"), Step::Reset])
        }),
    ]
}

/// Played by a provider of its own.
const REFUSES: &str = "refuses the connection";

fn faults() -> Vec<Fault> {
    [connections(), statuses(), streams_that_are_wrong()].into_iter().flatten().collect()
}

/// What was seen: the client's status and code, how the reply is stored, with which text, and what was charged.
type Seen = (u16, String, String, String, i64);

impl Comes {
    fn expected(self, elsewhere: bool) -> Seen {
        let seen = |status, code: &str, stored: &str, text: &str, charged| {
            (status, code.to_owned(), stored.to_owned(), text.to_owned(), charged)
        };
        match self {
            Whole => seen(200, "", "complete", "whole", 1),
            Cut => seen(200, "", "complete", &"x".repeat(64 * 1024), 1),
            Nothing(..) if elsewhere => seen(200, "", "complete", "elsewhere", 1),
            Nothing(status, code) | Refused(status, code) => seen(status, code, "failed", "", 0),
            Half(status, code) => seen(status, code, "interrupted", "half ", 1),
        }
    }
}

/// Sends a message in a conversation of its own.
async fn play(t: &TestApp, ann: &Person, n: usize, fault: &Fault) -> Seen {
    let conversation = format!("c{n}");
    let before = ann.used(t).await;
    let answer = ann.say(t, &conversation, "m", fault.name).await;
    assert!(!answer.text.contains("sk-test-key") && !answer.text.contains("127.0.0.1"), "{}", answer.text);
    let code = serde_json::from_str::<Value>(&answer.text).unwrap()["code"].as_str().unwrap_or("").to_owned();
    let stored = ann.statuses(t, &conversation).await.pop().unwrap();
    let text = ann.texts(t, &conversation).await.pop().unwrap();
    (answer.code, code, stored, text, ann.used(t).await - before)
}

/// Plays every fault that ends by one thing, alone and with another provider behind it.
async fn play_all(ends_by: EndsBy) {
    let faults: Vec<Fault> = faults().into_iter().filter(|fault| fault.ends_by == ends_by).collect();
    assert!(!faults.is_empty());
    let logs = Logs::listen();
    for elsewhere in [false, true] {
        let upstream = misbehaving().await;
        let (refusing, other) = (Upstream::refusing(), Upstream::start(reply("elsewhere")).await);
        let behind = elsewhere.then_some(("other", &other));
        let app = async |first: &Upstream| {
            let providers: Vec<(&str, &Upstream)> = [("first", first)].into_iter().chain(behind).collect();
            TestApp::routed(&route(&providers), &ends_by.settings()).await
        };
        let t = app(&upstream).await;
        let ann = t.sign_up("ann@example.com").await;
        for (n, fault) in faults.iter().enumerate() {
            let before = logs.lines_with(ends_by.logged()).len();
            let seen = if fault.name == REFUSES {
                let t = app(&refusing).await;
                let ann = t.sign_up("ann@example.com").await;
                play(&t, &ann, n, fault).await
            } else {
                play(&t, &ann, n, fault).await
            };
            assert_eq!(seen, fault.comes.expected(elsewhere), "{}, elsewhere: {elsewhere}", fault.name);
            if ends_by != EndsBy::Itself {
                let ended = logs.lines_with(ends_by.logged()).len() - before;
                assert_eq!(ended, 1, "{} is ended by another limit", fault.name);
            }
            let requests = asked_for(&upstream.received(), fault.name);
            assert_eq!(requests, fault.requests, "requests: {}", fault.name);
        }
    }
}

fn asked_for(received: &[Received], name: &str) -> usize {
    received.iter().filter(|request| request.question() == name).count()
}

/// A provider that plays the fault whose name it is sent.
async fn misbehaving() -> Upstream {
    let asked = std::sync::Mutex::new(Vec::<String>::new());
    Upstream::answering(move |request| {
        let mut asked = asked.lock().unwrap();
        asked.push(request.question().to_owned());
        let n = asked.iter().filter(|name| *name == request.question()).count();
        let faults = faults();
        let fault = faults.iter().find(|fault| fault.name == request.question()).unwrap();
        (fault.steps)(n)
    })
    .await
}

#[tokio::test]
async fn what_ends_by_itself() {
    play_all(EndsBy::Itself).await;
}

#[tokio::test]
async fn what_is_ended_by_the_limit_on_headers() {
    play_all(EndsBy::Headers).await;
}

#[tokio::test]
async fn what_is_ended_by_the_limit_on_the_first_token() {
    play_all(EndsBy::FirstToken).await;
}

#[tokio::test]
async fn what_is_ended_by_the_limit_on_silence() {
    play_all(EndsBy::Idle).await;
}

#[tokio::test]
async fn what_is_ended_by_the_limit_on_the_whole() {
    play_all(EndsBy::Total).await;
}

/// The table in the document is this one.
#[test]
fn the_document_has_every_fault() {
    const PATH: &str = "docs/faults.md";
    const BEGIN: &str = "<!-- written by `make golden` -->\n";
    const END: &str = "<!-- end -->\n";
    let document = std::fs::read_to_string(PATH).unwrap();
    let (before, rest) = document.split_once(BEGIN).expect("the document says where the table begins");
    let (_, after) = rest.split_once(END).expect("the document says where the table ends");
    crate::http::document::assert_golden(PATH, &format!("{before}{BEGIN}{}{END}{after}", table()));
}

fn table() -> String {
    let mut table = "\n| the provider, or its answer | requests | the client sees | stored | charged | at the latest by | the next provider |\n|---|---|---|---|---|---|---|\n".to_owned();
    for fault in faults() {
        let Fault { name, requests, comes, ends_by, .. } = fault;
        let (status, code, stored, _, charged) = comes.expected(false);
        let sees = match comes {
            Whole => "the reply".to_owned(),
            Cut => "64 KiB of the reply, `length`".to_owned(),
            Nothing(..) | Refused(..) => format!("{status} `{code}`"),
            Half(..) => format!("the words, then {status} `{code}`"),
        };
        let next = match comes {
            Nothing(..) => "is asked",
            Whole | Cut | Refused(..) | Half(..) => "is not asked",
        };
        let charged = if charged == 1 { "yes" } else { "no" };
        let by = if requests == 1 { ends_by.told() } else { "after one wait" };
        writeln!(table, "| {name} | {requests} | {sees} | `{stored}` | {charged} | {by} | {next} |").unwrap();
    }
    table.push('\n');
    table
}
