//! Measures the program as a whole: a process of its own, over HTTP, on a real disk. `make bench` runs it;
//! docs/performance.md explains the figures. Everything is compared with a direct call and a bare durable commit in the
//! same run, because machines differ and drift.

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

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use self::support::{Server, bare_commits, machine, message, ms, quantile, upstream};

const CALLERS: usize = 64;
const LOAD: Duration = Duration::from_secs(10);
const CALLS: usize = 300;
const STARTS: usize = 10;

fn main() {
    // `cargo bench` passes flags that are meant for other harnesses.
    let dir = tempfile::tempdir_in(".").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    println!("machine: {}", machine());
    let commit = p50(&bare_commits(dir.path(), CALLS));
    println!("bare durable commit: p50 {:.3} ms", ms(commit));
    starts(dir.path());
    runtime.block_on(async {
        let upstream = upstream::start().await;
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let settings = [("DM__SERVER__METRICS_LISTEN", free.as_str())];
        let server = Server::start(&dir.path().join("server"), &upstream, &settings);
        memory(&server, "idle, after start").await;
        let client = reqwest::Client::new();
        let people = server.people(&client, CALLERS).await;
        first_word(&server, &client, &upstream, &people[0], commit).await;
        let metrics = format!("http://{free}/metrics");
        for words in [4, 64] {
            turns(&server, &people, words, commit, &metrics).await;
        }
        memory(&server, "after the load").await;
    });
}

fn starts(dir: &Path) {
    let data = dir.join("starts");
    let times: Vec<_> = (0..=STARTS)
        .map(|_| {
            let started = Instant::now();
            drop(Server::start(&data, "http://127.0.0.1:1/v1", &[]));
            started.elapsed()
        })
        .skip(1) // The first one makes the database.
        .collect();
    println!("start to ready: p50 {:.0} ms", ms(p50(&times)));
}

async fn memory(server: &Server, when: &str) {
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!("resident memory, {when}: {:.1} MB", server.memory("VmRSS"));
}

/// The time to the first word: directly, and through the program.
async fn first_word(
    server: &Server,
    client: &reqwest::Client,
    upstream: &str,
    token: &str,
    commit: Duration,
) {
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    for n in 0..CALLS {
        let request = client.post(format!("{upstream}/chat/completions"));
        let body = json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "hello"}]});
        direct.push(until(request.json(&body), "\"content\"").await);

        // A conversation for every ten messages, so that there is some history.
        let body = message(&format!("f{}", n / 10), &format!("m{n}"), "Good evening. How was your day?");
        let request = client.post(server.at("/v1/chat")).bearer_auth(token);
        through.push(until(request.json(&body), "text-delta").await);
    }
    let (direct, through) = (p50(&direct), p50(&through));
    let added = through.saturating_sub(direct);
    println!("first word, direct: p50 {:.3} ms", ms(direct));
    println!(
        "first word, through the program: p50 {:.3} ms ({:.1} times)",
        ms(through),
        through.as_secs_f64() / direct.as_secs_f64()
    );
    println!(
        "added: {:.3} ms = one bare commit ({:.3} ms) and {:.3} ms; at most 1.5 ms more than a commit is wanted",
        ms(added),
        ms(commit),
        ms(added.saturating_sub(commit))
    );
}

/// Reads a response until a text shows up; then to its end, so that the next one starts alone.
async fn until(request: reqwest::RequestBuilder, text: &str) -> Duration {
    let started = Instant::now();
    let mut response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    let (mut seen, mut took) = (Vec::new(), None);
    while let Some(piece) = response.chunk().await.unwrap() {
        seen.extend_from_slice(&piece);
        if took.is_none() && seen.windows(text.len()).any(|window| window == text.as_bytes()) {
            took = Some(started.elapsed());
        }
    }
    took.unwrap_or_else(|| panic!("{text} never came: {}", String::from_utf8_lossy(&seen)))
}

/// Turns a second with many callers: each turn is two durable commits.
async fn turns(server: &Server, people: &[String], words: usize, commit: Duration, metrics: &str) {
    let done = Arc::new(AtomicUsize::new(0));
    let before = Sums::read(metrics).await;
    let (cpu_before, started) = (server.cpu_seconds(), Instant::now());
    let callers: Vec<_> = people
        .iter()
        .cloned()
        .map(|token| {
            let (url, done) = (server.at("/v1/chat"), done.clone());
            tokio::spawn(async move {
                let client = reqwest::Client::new();
                let mut times = Vec::new();
                for n in 0.. {
                    if started.elapsed() > LOAD {
                        break;
                    }
                    let call = Instant::now();
                    let body = message(
                        &format!("t{words}-{}", n / 20),
                        &format!("m{n}"),
                        &format!("Good evening. words={words}"),
                    );
                    let request = client.post(&url).bearer_auth(&token).header("accept", "application/json");
                    let response = request.json(&body).send().await.unwrap();
                    assert_eq!(response.status(), 200);
                    let answer: Value = response.json().await.unwrap();
                    assert_eq!(answer["message"]["metadata"]["status"], "complete");
                    times.push(call.elapsed());
                    done.fetch_add(1, Ordering::Relaxed);
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for caller in callers {
        times.extend(caller.await.unwrap());
    }
    let seconds = started.elapsed().as_secs_f64();
    let turns = done.load(Ordering::Relaxed) as f64;
    let cpu = server.cpu_seconds() - cpu_before;
    println!(
        "durable turns of {words} deltas, {CALLERS} callers: {:.0} a second, p50 {:.0} ms, p99 {:.0} ms",
        turns / seconds,
        ms(quantile(&times, 0.5)),
        ms(quantile(&times, 0.99))
    );
    println!(
        "  two commits each; one caller with bare commits would do {:.0} a second: {:.1} times as many",
        0.5 / commit.as_secs_f64(),
        turns / seconds * 2.0 * commit.as_secs_f64()
    );
    println!(
        "  processor: {:.2} ms a turn in the program, {:.0} % of one core",
        cpu / turns * 1000.0,
        cpu / seconds * 100.0
    );
    let Sums { groups, writes, closures } = Sums::read(metrics).await;
    println!("  writes for each fsync: {:.1}", (writes - before.writes) / (groups - before.groups));
    println!(
        "  closures on the writer thread: {:.3} ms a turn",
        (closures - before.closures) / turns * 1000.0
    );
}

/// Sums of the program's own metrics since its start.
struct Sums {
    groups: f64,
    writes: f64,
    closures: f64,
}

impl Sums {
    async fn read(metrics: &str) -> Sums {
        let text = reqwest::get(metrics).await.unwrap().text().await.unwrap();
        let sum = |name: &str, label: &str| -> f64 {
            text.lines()
                .filter(|line| line.starts_with(name) && line.contains(label))
                .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
                .sum()
        };
        Sums {
            groups: sum("db_sqlite_group_size_count", ""),
            writes: sum("db_sqlite_group_size_sum", ""),
            closures: sum("db_closure_seconds_sum", "sqlite"),
        }
    }
}

fn p50(times: &[Duration]) -> Duration {
    quantile(times, 0.5)
}
