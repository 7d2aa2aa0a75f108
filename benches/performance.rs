//! Measures the program as a whole: a process of its own, over HTTP, on a real disk. `make bench` runs it;
//! docs/performance.md explains the figures. Everything is compared with a direct call and a bare durable commit in the
//! same run, because machines differ and drift.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice
)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::disallowed_methods,
    clippy::pedantic
)]
#![allow(clippy::print_stdout, missing_docs)]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

const CALLERS: usize = 64;
const LOAD: Duration = Duration::from_secs(10);
const CALLS: usize = 300;
const STARTS: usize = 10;
const PASSWORD: &str = "seven quiet lanterns at dusk";

fn main() {
    // `cargo bench` passes flags that are meant for other harnesses.
    let dir = tempfile::tempdir_in(".").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    println!("machine: {} cores, {}", std::thread::available_parallelism().unwrap(), cpu());
    let commit = bare_commit(dir.path());
    println!("bare durable commit: p50 {:.3} ms", ms(commit));
    starts(dir.path());
    runtime.block_on(async {
        let upstream = upstream().await;
        let server = Server::start(dir.path(), &upstream);
        memory(&server, "idle, after start").await;
        let people = people(dir.path(), &server, &upstream).await;
        first_word(&server, &upstream, &people[0], commit).await;
        turns(&server, &people, commit).await;
        memory(&server, "after the load").await;
    });
}

/// One insert, one commit, one fsync, with the settings of the program.
fn bare_commit(dir: &Path) -> Duration {
    let db = rusqlite::Connection::open(dir.join("bare.sqlite")).unwrap();
    db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (body BLOB);")
        .unwrap();
    p50((0..CALLS)
        .map(|_| {
            let started = Instant::now();
            db.execute("INSERT INTO t VALUES (zeroblob(400))", []).unwrap();
            started.elapsed()
        })
        .collect())
}

fn starts(dir: &Path) {
    let data = dir.join("starts");
    let times = (0..=STARTS)
        .map(|_| {
            let started = Instant::now();
            let mut child = Server::spawn(&data, "http://127.0.0.1:1/v1");
            read_base(&mut child);
            let took = started.elapsed();
            child.kill().unwrap();
            child.wait().unwrap();
            took
        })
        .skip(1) // The first one makes the database.
        .collect();
    println!("start to ready: p50 {:.0} ms", ms(p50(times)));
}

/// A provider that answers at once.
async fn upstream() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            tokio::spawn(async move {
                let mut buffer = Vec::new();
                loop {
                    let end = loop {
                        if let Some(end) = whole_request(&buffer) {
                            break end;
                        }
                        match stream.read_buf(&mut buffer).await {
                            Ok(0) | Err(_) => return,
                            Ok(_) => {}
                        }
                    };
                    buffer.drain(..end);
                    let delta = |text: &str| {
                        let chunk = json!({"choices": [{"index": 0, "delta": {"content": text}}]});
                        format!("data: {chunk}\n\n")
                    };
                    let mut body = delta("Good ");
                    for _ in 0..9 {
                        body.push_str(&delta("evening to you, "));
                    }
                    body.push_str("data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n");
                    let head = format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n",
                        body.len()
                    );
                    if stream.write_all(format!("{head}{body}").as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    url
}

/// Where the first request in the buffer ends.
fn whole_request(buffer: &[u8]) -> Option<usize> {
    let head = buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&buffer[..head]).ok()?.to_ascii_lowercase();
    let length = text.split("content-length:").nth(1)?.split("\r\n").next()?.trim().parse::<usize>().ok()?;
    (buffer.len() >= head + length).then_some(head + length)
}

struct Server {
    base: String,
    metrics: String,
    child: Child,
}

impl Server {
    fn spawn(data: &Path, upstream: &str) -> Child {
        Self::command(data, upstream).arg("dev").stdin(Stdio::null()).spawn().unwrap()
    }

    fn command(data: &Path, upstream: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_digitalmistress"));
        command
            .env("DM_PROFILE", "development")
            .env("DM__SERVER__LISTEN", "127.0.0.1:0")
            .env("DM__SERVER__DATA_DIR", data)
            .env("DM__LOG__LEVEL", "warn")
            .env("DM__CHAT__ROUTE", "upstream")
            .env("DM__CHAT__PROVIDERS__UPSTREAM__KIND", "openai")
            .env("DM__CHAT__PROVIDERS__UPSTREAM__BASE_URL", upstream)
            .env("DM__CHAT__PROVIDERS__UPSTREAM__MODEL", "m")
            .env("DM__CHAT__PROVIDERS__UPSTREAM__CONTEXT_TOKENS", "4096")
            .env("DM__CHAT__PROVIDERS__UPSTREAM__MAX_OUTPUT_TOKENS", "500")
            .env("DM__CHAT__FREE_MESSAGES_PER_DAY", "1000000")
            .stdout(Stdio::piped());
        command
    }

    fn start(dir: &Path, upstream: &str) -> Server {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Self::command(&dir.join("server"), upstream);
        let mut child = command
            .env("DM__SERVER__METRICS_LISTEN", free.to_string())
            .arg("dev")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let base = read_base(&mut child);
        Server { base, metrics: format!("http://{free}/metrics"), child }
    }

    /// Seconds of processor time that the process has used.
    fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the server says where it is; it goes on printing into nothing.
fn read_base(child: &mut Child) -> String {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let base = lines
        .find_map(|line| {
            let url = line.trim().strip_prefix("API")?.trim().trim_end_matches("/v1").to_owned();
            Some(url.replace("localhost", "127.0.0.1"))
        })
        .expect("the server started");
    std::thread::spawn(move || lines.for_each(drop));
    base
}

async fn memory(server: &Server, when: &str) {
    tokio::time::sleep(Duration::from_secs(1)).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let kib: f64 = status.split("VmRSS:").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    println!("resident memory, {when}: {:.1} MB", kib / 1024.0);
}

/// Users with access tokens.
async fn people(dir: &Path, server: &Server, upstream: &str) -> Vec<String> {
    let client = reqwest::Client::new();
    let mut tokens = Vec::new();
    for n in 0..CALLERS {
        let email = format!("caller{n}@example.com");
        let mut command = Server::command(&dir.join("server"), upstream);
        let mut child = command
            .args(["user", "create", "--email", &email, "--role", "user", "--password-stdin"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(PASSWORD.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        let login = client.post(format!("{}/v1/auth/login", server.base));
        let login = login.json(&json!({"email": email, "password": PASSWORD})).send().await.unwrap();
        let tokens_of: Value = login.json().await.unwrap();
        tokens.push(tokens_of["access_token"].as_str().unwrap().to_owned());
    }
    tokens
}

/// The time to the first word: directly, and through the program.
async fn first_word(server: &Server, upstream: &str, token: &str, commit: Duration) {
    let client = reqwest::Client::new();
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    for n in 0..CALLS {
        let request = client.post(format!("{upstream}/chat/completions"));
        let body = json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "hello"}]});
        direct.push(until(request.json(&body), "\"content\"").await);

        // A conversation for every ten messages, so that there is some history.
        let (conversation, message) = (format!("f{}", n / 10), format!("m{n}"));
        let request = client.post(format!("{}/v1/chat", server.base)).bearer_auth(token);
        through.push(until(request.json(&chat(&conversation, &message)), "text-delta").await);
    }
    let (direct, through) = (p50(direct), p50(through));
    let added = through.saturating_sub(direct);
    println!("first word, direct: p50 {:.3} ms", ms(direct));
    println!(
        "first word, through the program: p50 {:.3} ms ({:.1} times)",
        ms(through),
        ratio(through, direct)
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

fn chat(conversation: &str, id: &str) -> Value {
    let parts = json!([{"type": "text", "text": "Good evening. How was your day?"}]);
    json!({"id": conversation, "message": {"id": id, "role": "user", "parts": parts}})
}

/// Turns a second with many callers: each turn is two durable commits.
async fn turns(server: &Server, people: &[String], commit: Duration) {
    let done = Arc::new(AtomicUsize::new(0));
    let cpu_before = server.cpu_seconds();
    let started = Instant::now();
    let callers: Vec<_> = people
        .iter()
        .cloned()
        .map(|token| {
            let (base, done) = (server.base.clone(), done.clone());
            tokio::spawn(async move {
                let client = reqwest::Client::new();
                let mut times = Vec::new();
                for n in 0.. {
                    if started.elapsed() > LOAD {
                        break;
                    }
                    let call = Instant::now();
                    let request = client.post(format!("{base}/v1/chat")).bearer_auth(&token);
                    let request = request.header("accept", "application/json");
                    let body = chat(&format!("t{}", n / 20), &format!("m{n}"));
                    let response = request.json(&body).send().await.unwrap();
                    assert_eq!(response.status(), 200);
                    response.bytes().await.unwrap();
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
    times.sort_unstable();
    println!(
        "durable turns, {CALLERS} callers: {:.0} a second, p50 {:.0} ms, p99 {:.0} ms",
        turns / seconds,
        ms(times[times.len() / 2]),
        ms(times[times.len() * 99 / 100])
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
    where_the_time_goes(server, turns).await;
}

/// From the program's own metrics.
async fn where_the_time_goes(server: &Server, turns: f64) {
    let text = reqwest::get(&server.metrics).await.unwrap().text().await.unwrap();
    let sum = |name: &str, label: &str| -> f64 {
        text.lines()
            .filter(|line| line.starts_with(name) && line.contains(label))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    };
    let groups = sum("db_sqlite_group_size_count", "");
    let writes = sum("db_sqlite_group_size_sum", "");
    println!("  writes for each fsync: {:.1}", writes / groups);
    println!(
        "  closures on the writer thread: {:.3} ms a turn",
        sum("db_closure_seconds_sum", "sqlite") / turns * 1000.0
    );
    println!(
        "  in the request, from the first byte to the answer's head: {:.1} ms a turn",
        sum("http_request_seconds_sum", "/v1/chat") / turns * 1000.0
    );
}

fn p50(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}

fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    model.trim_start_matches([':', ' ', '\t']).to_owned()
}
