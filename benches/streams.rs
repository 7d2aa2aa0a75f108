//! What streams cost: the first word with many at once, a delta, an open stream, a reader who does not read. `make bench`
//! runs it; docs/performance.md explains the figures.

// A benchmark may do what the program may not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::disallowed_methods,
    clippy::pedantic
)]
#![allow(clippy::print_stdout, missing_docs)]

mod support;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use self::support::{Server, bare_commits, machine, message, ms, quantile, upstream};

/// Streams at once where the first word is measured.
const AT_ONCE: usize = 16;
/// Replies of each of them.
const REPLIES: usize = 40;
/// Streams that are open at once, of so many users.
const OPEN: usize = 5_000;
const USERS: usize = 200;
/// Readers who do not read.
const STALLED: usize = 200;

fn main() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    println!("machine: {}", machine());
    let commits = bare_commits(dir.path(), 1_000);
    println!(
        "bare durable commit: p50 {:.3} ms, p99 {:.3} ms",
        ms(quantile(&commits, 0.5)),
        ms(quantile(&commits, 0.99))
    );
    runtime.block_on(async {
        let upstream = upstream::start().await;
        let settings = [
            ("DM__CHAT__GENERATIONS_PER_USER", "100"),
            ("DM__CHAT__MAX_GENERATIONS", "10000"),
            ("DM__CHAT__TOTAL_TIMEOUT", "30m"),
        ];
        let server = Server::start(&dir.path().join("server"), &upstream, &settings);
        let client = reqwest::Client::new();
        let people = server.people(&client, USERS).await;
        let quiet = first_words(&server, &client, &upstream, &people, "quiet").await;
        println!("{AT_ONCE} streams at once, 64 deltas each, 5 ms apart:");
        println!("  first delta, direct: {}", shown(&quiet.direct));
        println!("  first delta, through the program: {}", shown(&quiet.through));
        for (name, q, wanted) in [("p50", 0.5, 1.0), ("p99", 0.99, 5.0)] {
            let added = quantile(&quiet.through, q).saturating_sub(quantile(&quiet.direct, q));
            let commit = quantile(&commits, q);
            println!(
                "  added at {name}: {:.3} ms = one bare commit ({:.3} ms) and {:.3} ms (wanted: at most {wanted})",
                ms(added),
                ms(commit),
                ms(added.saturating_sub(commit))
            );
        }
        cost_of_a_delta(&server, &client, &people).await;
        let stalled = stall(&server, &people).await;
        let beside = first_words(&server, &client, &upstream, &people, "beside").await;
        println!("beside {STALLED} readers who do not read: first delta {}", shown(&beside.through));
        drop((stalled, server));
        // A process of its own: memory that others gave back would hide what these need.
        let server = Server::start(&dir.path().join("open"), &upstream, &settings);
        let people = server.people(&client, USERS).await;
        open_streams(&server, &people).await;
    });
}

fn shown(times: &[Duration]) -> String {
    format!("p50 {:.3} ms, p99 {:.3} ms", ms(quantile(times, 0.5)), ms(quantile(times, 0.99)))
}

struct FirstWords {
    direct: Vec<Duration>,
    through: Vec<Duration>,
}

/// The time to the first delta with so many streams at once, directly and through the program, by turns.
async fn first_words(
    server: &Server,
    client: &reqwest::Client,
    upstream: &str,
    people: &[String],
    name: &str,
) -> FirstWords {
    let wish = "words=64 every=5000";
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    for round in 0..4 {
        direct.extend(
            join_all((0..AT_ONCE).map(|caller| async move {
                let mut times = Vec::new();
                tokio::time::sleep(Duration::from_millis(21 * caller as u64)).await;
                for _ in 0..REPLIES / 4 {
                    let body = json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": wish}]});
                    let request = client.post(format!("{upstream}/chat/completions")).json(&body);
                    times.push(first(request, "\"content\"").await);
                }
                times
            }))
            .await
            .concat(),
        );
        through.extend(
            join_all((0..AT_ONCE).map(|caller| async move {
                let mut times = Vec::new();
                tokio::time::sleep(Duration::from_millis(21 * caller as u64)).await;
                for n in 0..REPLIES / 4 {
                    let body = message(&format!("{name}{round}"), &format!("m{n}"), wish);
                    let request = client.post(server.at("/v1/chat")).bearer_auth(&people[caller]).json(&body);
                    times.push(first(request, "text-delta").await);
                }
                times
            }))
            .await
            .concat(),
        );
    }
    FirstWords { direct, through }
}

/// The time until a text shows up in a response, which is read to its end.
async fn first(request: reqwest::RequestBuilder, text: &str) -> Duration {
    let started = Instant::now();
    let mut response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    let (mut seen, mut took) = (Vec::new(), None);
    while let Some(piece) = response.chunk().await.unwrap() {
        if took.is_none() {
            seen.extend_from_slice(&piece);
            if seen.windows(text.len()).any(|window| window == text.as_bytes()) {
                took = Some(started.elapsed());
            }
        }
    }
    took.expect("the text came")
}

/// Processor time of the program for one delta, from replies of two lengths.
async fn cost_of_a_delta(server: &Server, client: &reqwest::Client, people: &[String]) {
    let mut costs = Vec::new();
    for words in [100_usize, 2_100] {
        let wish = format!("words={words} every=1000");
        let before = server.cpu_seconds();
        join_all((0..AT_ONCE).map(|caller| {
            let body = message(&format!("delta{words}"), "m", &wish);
            let request = client.post(server.at("/v1/chat")).bearer_auth(&people[caller]).json(&body);
            first(request, "text-delta")
        }))
        .await;
        costs.push(server.cpu_seconds() - before);
    }
    let each = (costs[1] - costs[0]) / (2_000 * AT_ONCE) as f64 * 1e6;
    println!("processor time of one delta, {AT_ONCE} streams: {each:.1} µs (wanted: at most 15)");
}

/// Readers who ask for a long reply and do not read it.
async fn stall(server: &Server, people: &[String]) -> Vec<TcpStream> {
    let asked = (0..STALLED).map(|n| ask(server, &people[n], "stalled", "words=7000 every=0 hold"));
    let streams = join_all(asked).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    streams
}

/// Sends a message and leaves the answer where it is.
async fn ask(server: &Server, token: &str, conversation: &str, wish: &str) -> TcpStream {
    let address = server.base.strip_prefix("http://").unwrap();
    let body = message(conversation, "m", wish).to_string();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "POST /v1/chat HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Resident memory of streams that stay open after replies of 500 words. These come 8 ms apart, which is fast for a model: what
/// comes all at once fills larger buffers.
async fn open_streams(server: &Server, people: &[String]) {
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = server.memory("VmRSS");
    let mut streams = Vec::new();
    for batch in 0..OPEN / USERS {
        let conversation = format!("open{batch}");
        let mut opened = join_all(
            people.iter().map(|token| ask(server, token, &conversation, "words=500 every=8000 hold")),
        )
        .await;
        join_all(opened.iter_mut().map(hear_it_all)).await;
        streams.append(&mut opened);
    }
    let after = server.memory("VmRSS");
    println!(
        "{} open streams with replies of 500 words: {:.1} KB each (wanted: at most 40); {before:.1} MB before, {after:.1} MB with them",
        streams.len(),
        (after - before) * 1024.0 / streams.len() as f64
    );
}

/// Reads until all 500 words of a reply have come; the stream stays open.
async fn hear_it_all(stream: &mut TcpStream) {
    let (word, mut heard, mut tail) = (b"evening ", 0, Vec::new());
    while heard < 500 {
        assert!(stream.read_buf(&mut tail).await.unwrap() > 0, "the stream ended early");
        heard += tail.windows(word.len()).filter(|window| window == word).count();
        // What was counted goes; a word may have come in halves.
        let end = tail.windows(word.len()).rposition(|window| window == word).map_or(0, |at| at + word.len());
        tail.drain(..end.max(tail.len().saturating_sub(word.len() - 1)));
    }
}
