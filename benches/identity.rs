//! What signing in costs, and whether its time tells who has an account. `make bench` runs it.
//!
//! The program under test is a process of its own, with throttles that hold nobody up. Figures are for the machine that is
//! named in the first line, shared with whatever else runs there.

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
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use self::support::{
    PASSWORD, Server, cpu_seconds, http::Connection, lateness, machine, ms, quantile, upstream,
};

const WRONG: &str = "eight quiet lanterns at dawn";
/// Samples of each state of an account.
const SAMPLES: usize = 200;
/// No honest run comes near it (one in a hundred thousand), and a tenth of a hash that is missing is far beyond.
const FAR: f64 = 4.5;
const LOAD: Duration = Duration::from_secs(10);
const CALLERS: usize = 500;
/// Accounts that sign in by turns: none has so many sessions that an old one is ended, which costs a mail.
const ACCOUNTS: usize = 60;
/// Turns of sign-ins and bare hashes.
const ROUNDS: u32 = 10;
/// Between two words of the stream that is listened to.
const PACE: Duration = Duration::from_millis(20);
/// Connections that ask for sessions.
const CONNECTIONS: usize = 32;
/// Makes this program the empty server that the other one is compared with.
const EMPTY: &str = "DM_BENCH_EMPTY";

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if std::env::var_os(EMPTY).is_some() {
        runtime.block_on(empty_server());
        return;
    }
    let dir = tempfile::tempdir_in(".").unwrap();
    println!("machine: {}", machine());
    runtime.block_on(async {
        let upstream = upstream::start().await;
        let server = Server::start(&dir.path().join("server"), &upstream, &[]);
        for email in ["ann@example.com", "locked@example.com", "suspended@example.com", "reader@example.com"]
        {
            server.create_user(email);
        }
        server.command_line(&["user", "suspend", "suspended@example.com", "--reason", "a bench"], "");
        let client = reqwest::Client::new();
        // Somebody else: the many sign-ins below end the oldest sessions of theirs.
        let token = server.log_in(&client, "reader@example.com").await;
        states(&client, &server).await;
        sign_ins(&client, &server).await;
        crowd(&client, &server, &token).await;
        sessions(&server, &token).await;
    });
}

// --- Whether time tells who has an account.

/// A name, the address of each sample, and the password.
type State = (&'static str, fn(usize) -> String, &'static str);

async fn states(client: &reqwest::Client, server: &Server) {
    let pending = json!({"email": "pending@example.com", "password": PASSWORD, "birth_date": "1990-12-31",
                         "consents": consents(client, server).await});
    let started = client.post(server.at("/v1/auth/signup")).json(&pending).send().await.unwrap();
    assert_eq!(started.status(), 202);
    for _ in 0..100 {
        attempt(client, server, "locked@example.com", WRONG, 401).await;
    }
    let states: [State; 7] = [
        ("wrong password", |_| "ann@example.com".into(), WRONG),
        ("empty password", |_| "ann@example.com".into(), ""),
        ("unknown address", |_| "nobody@example.com".into(), WRONG),
        ("unknown, never seen", |n| format!("nobody{n}@example.com"), WRONG),
        ("locked, right password", |_| "locked@example.com".into(), PASSWORD),
        ("suspended, wrong one", |_| "suspended@example.com".into(), WRONG),
        ("pending sign-up", |_| "pending@example.com".into(), PASSWORD),
    ];
    let mut times = vec![Vec::new(); states.len()];
    for n in 0..SAMPLES {
        // Each round begins with another state, so that none always follows the same one.
        for k in 0..states.len() {
            let state = (n + k) % states.len();
            let (_, email, password) = states[state];
            times[state].push(attempt(client, server, &email(n), password, 401).await);
        }
        if n % 20 == 19 {
            server.log_in(client, "ann@example.com").await; // Else it would be locked, too.
        }
    }
    println!(
        "refused sign-ins, {SAMPLES} of each state, interleaved; z of Mann-Whitney's U against a wrong password:"
    );
    for (k, (name, ..)) in states.iter().enumerate() {
        let z = mann_whitney(&times[k], &times[0]);
        let verdict = if z.abs() < FAR { "cannot be told apart" } else { "TELLS" };
        println!("  {name:<24} p50 {:>7.2} ms  z {z:>6.2}  {verdict}", ms(quantile(&times[k], 0.5)));
    }
}

async fn attempt(
    client: &reqwest::Client,
    server: &Server,
    email: &str,
    password: &str,
    status: u16,
) -> Duration {
    let started = Instant::now();
    let body = json!({"email": email, "password": password});
    let response = client.post(server.at("/v1/auth/login")).json(&body).send().await.unwrap();
    let code = response.status();
    let text = response.text().await.unwrap();
    let took = started.elapsed();
    assert_eq!(code, status, "{text}");
    took
}

/// The z of the rank sum: how many standard deviations away from what two samples of one distribution give.
fn mann_whitney(a: &[Duration], b: &[Duration]) -> f64 {
    let mut all: Vec<(Duration, bool)> =
        a.iter().map(|t| (*t, true)).chain(b.iter().map(|t| (*t, false))).collect();
    all.sort_unstable();
    let (mut rank_sum, mut start) = (0.0, 0);
    while start < all.len() {
        let end = all[start..].iter().position(|(t, _)| *t != all[start].0).map_or(all.len(), |n| start + n);
        // Ties share the mean of their ranks.
        let rank = (start + 1 + end) as f64 / 2.0;
        rank_sum += rank * all[start..end].iter().filter(|(_, is_a)| *is_a).count() as f64;
        start = end;
    }
    let (n, m) = (a.len() as f64, b.len() as f64);
    let u = rank_sum - n * (n + 1.0) / 2.0;
    (u - n * m / 2.0) / (n * m * (n + m + 1.0) / 12.0).sqrt()
}

// --- What a sign-in costs.

async fn sign_ins(client: &reqwest::Client, server: &Server) {
    for n in 0..ACCOUNTS {
        server.create_user(&format!("caller{n}@example.com"));
    }
    // By turns: a virtual machine is not equally fast all the time.
    let (mut bare, mut through) = (Spent::default(), Spent::default());
    for round in 0..ROUNDS {
        bare.add(&bare_hashes());
        through.add(&logins(client, server, round).await);
    }
    println!("Argon2id alone (19 MiB, 2 passes): {:.1} a CPU-second", bare.rate());
    println!(
        "sign-ins: {:.1} a CPU-second of the program ({:.0} % of Argon2id alone), {:.1} a second",
        through.rate(),
        through.rate() / bare.rate() * 100.0,
        through.done / through.time
    );
}

/// What was done, in how many seconds and how many of processor time.
#[derive(Default)]
struct Spent {
    done: f64,
    cpu: f64,
    time: f64,
}

impl Spent {
    fn add(&mut self, other: &Spent) {
        self.done += other.done;
        self.cpu += other.cpu;
        self.time += other.time;
    }

    fn rate(&self) -> f64 {
        self.done / self.cpu
    }
}

/// Four callers who sign in all the time, with many accounts.
async fn logins(client: &reqwest::Client, server: &Server, round: u32) -> Spent {
    let (cpu, started) = (server.cpu_seconds(), Instant::now());
    let done = Arc::new(AtomicUsize::new(0));
    let callers = (0..4).map(|_| {
        let done = done.clone();
        async move {
            while started.elapsed() < LOAD / ROUNDS {
                let n = done.fetch_add(1, Ordering::Relaxed) + round as usize * 7;
                server.log_in(client, &format!("caller{}@example.com", n % ACCOUNTS)).await;
            }
        }
    });
    futures_util::future::join_all(callers).await;
    let time = started.elapsed().as_secs_f64();
    Spent { done: done.load(Ordering::Relaxed) as f64, cpu: server.cpu_seconds() - cpu, time }
}

/// Hashes, with the program's parameters and reused memory.
fn bare_hashes() -> Spent {
    let params = Params::new(19_456, 2, 1, Some(32)).unwrap();
    let mut memory = vec![Block::default(); params.block_count()];
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let mut hash = || {
        let mut tag = [0; 32];
        argon2
            .hash_password_into_with_memory(PASSWORD.as_bytes(), b"sixteen bytes ok", &mut tag, &mut memory)
            .unwrap();
    };
    hash();
    let (before, started, mut done) = (cpu_seconds(std::process::id()), Instant::now(), 0);
    while started.elapsed() < LOAD / ROUNDS {
        hash();
        done += 1;
    }
    let time = started.elapsed().as_secs_f64();
    Spent { done: f64::from(done), cpu: cpu_seconds(std::process::id()) - before, time }
}

// --- A crowd that signs in, and what others notice of it.

async fn crowd(client: &reqwest::Client, server: &Server, token: &str) {
    let quiet_probe = probes(client, server, LOAD / 2).await;
    let quiet_stream = lateness(client, server, token, "quiet", LOAD / 2, PACE).await;
    forget_peak_memory(server);
    let before = server.memory("VmRSS");
    let over = Arc::new(AtomicBool::new(false));
    let (in_, later) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let begun = Instant::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (client, url, over) = (client.clone(), server.at("/v1/auth/login"), over.clone());
            let (in_, later) = (in_.clone(), later.clone());
            tokio::spawn(async move {
                let body = json!({"email": "ann@example.com", "password": PASSWORD});
                while !over.load(Ordering::Relaxed) {
                    let response = client.post(&url).json(&body).send().await.unwrap();
                    let status = response.status().as_u16();
                    response.bytes().await.unwrap();
                    match status {
                        200 => _ = in_.fetch_add(1, Ordering::Relaxed),
                        503 => {
                            later.fetch_add(1, Ordering::Relaxed);
                            tokio::time::sleep(Duration::from_secs(1)).await; // As it was told.
                        }
                        other => panic!("a sign-in was answered {other}"),
                    }
                }
            })
        })
        .collect();
    let (probe, stream) =
        tokio::join!(probes(client, server, LOAD), lateness(client, server, token, "busy", LOAD, PACE));
    let lasted = begun.elapsed();
    over.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    println!(
        "{CALLERS} parallel sign-ins for {:.0} s: {} signed in, {} told to come back; resident memory {before:.1} MB \
         before, at most {:.1} MB",
        lasted.as_secs_f64(),
        in_.load(Ordering::Relaxed),
        later.load(Ordering::Relaxed),
        server.memory("VmHWM")
    );
    for (what, quiet, busy) in [
        ("GET /v1/policies", quiet_probe, probe),
        ("a word of a running reply, late by", quiet_stream, stream),
    ] {
        println!(
            "  {what}: p50 {:.2} ms, p99 {:.2} ms meanwhile; p50 {:.2} ms, p99 {:.2} ms before",
            ms(quantile(&busy, 0.5)),
            ms(quantile(&busy, 0.99)),
            ms(quantile(&quiet, 0.5)),
            ms(quantile(&quiet, 0.99))
        );
    }
}

async fn probes(client: &reqwest::Client, server: &Server, during: Duration) -> Vec<Duration> {
    let (begun, mut times) = (Instant::now(), Vec::new());
    while begun.elapsed() < during {
        let started = Instant::now();
        let response = client.get(server.at("/v1/policies")).send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.bytes().await.unwrap();
        times.push(started.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    times
}

// --- Session validation.

async fn sessions(server: &Server, token: &str) {
    let empty = Empty::start();
    let (empty_rate, empty_cpu) = requests(&empty.address, empty.child.id(), "/", "").await;
    let header = format!("authorization: Bearer {token}\r\n");
    let address = server.base.strip_prefix("http://").unwrap();
    let (rate, cpu) = requests(address, server.child.id(), "/v1/session", &header).await;
    println!("an empty axum handler: {empty_rate:.0} requests a second, {empty_cpu:.1} µs of processor each");
    println!(
        "GET /v1/session: {rate:.0} requests a second ({:.0} % of that), {cpu:.1} µs of processor each",
        rate / empty_rate * 100.0
    );
}

/// Requests a second over connections that stay open, and the server's processor time for each in microseconds.
async fn requests(address: &str, process: u32, path: &str, headers: &str) -> (f64, f64) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n{headers}\r\n");
    let (before, started) = (cpu_seconds(process), Instant::now());
    let callers: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (address, request) = (address.to_owned(), request.clone());
            tokio::spawn(async move {
                let (mut connection, mut done) = (Connection::open(&address).await, 0usize);
                while started.elapsed() < LOAD / 2 {
                    let status = connection.call(request.as_bytes()).await;
                    assert_eq!(status, 200, "{}", connection.answer());
                    done += 1;
                }
                done
            })
        })
        .collect();
    let mut done = 0;
    for caller in callers {
        done += caller.await.unwrap();
    }
    let cpu = cpu_seconds(process) - before;
    (done as f64 / started.elapsed().as_secs_f64(), cpu / done as f64 * 1e6)
}

struct Empty {
    address: String,
    child: Child,
}

impl Empty {
    fn start() -> Empty {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = command.env(EMPTY, "1").stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Empty { address: lines.next().unwrap().unwrap(), child }
    }
}

impl Drop for Empty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn empty_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    let router = axum::Router::new().route("/", axum::routing::get(async || ""));
    axum::serve(listener, router).await.unwrap();
}

// --- The program.

async fn consents(client: &reqwest::Client, server: &Server) -> Value {
    let policies: Value = client.get(server.at("/v1/policies")).send().await.unwrap().json().await.unwrap();
    let consent = |policy: &Value| json!({"document": policy["document"], "version": policy["version"]});
    policies["data"].as_array().unwrap().iter().map(consent).collect()
}

fn forget_peak_memory(server: &Server) {
    std::fs::write(format!("/proc/{}/clear_refs", server.child.id()), "5").unwrap();
}
