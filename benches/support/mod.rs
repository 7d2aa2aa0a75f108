//! The program as a process of its own, people who use it, and what a process costs.

#![allow(dead_code, reason = "no bench uses all of it")]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

pub mod http;
pub mod upstream;

pub const PASSWORD: &str = "seven quiet lanterns at dusk";

/// Settings as an operator would give them.
pub type Settings<'a> = &'a [(&'a str, &'a str)];

/// A running program, with throttles that hold nobody up.
pub struct Server {
    pub base: String,
    pub child: Child,
    data: PathBuf,
}

impl Server {
    fn command(data: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_digitalmistress"));
        command
            .env("DM_PROFILE", "development")
            .env("DM__SERVER__LISTEN", "127.0.0.1:0")
            .env("DM__SERVER__DATA_DIR", data)
            .env("DM__LOG__LEVEL", "error")
            .env("DM__CHAT__FREE_MESSAGES_PER_DAY", "1000000");
        for name in ["ACCOUNT", "PAIR", "ADDRESS"] {
            command.env(format!("DM__AUTH__THROTTLE__LOGIN_{name}__BURST"), "1000000");
        }
        command
    }

    /// Starts it in a directory, with a provider that speaks Chat Completions at `upstream`, and waits until it is ready.
    pub fn start(data: &Path, upstream: &str, settings: Settings<'_>) -> Server {
        let mut child = Self::command(data)
            .env("DM__CHAT__ROUTE", "upstream")
            .env("DM__CHAT__PROVIDERS__UPSTREAM__KIND", "openai")
            .env("DM__CHAT__PROVIDERS__UPSTREAM__BASE_URL", upstream)
            .env("DM__CHAT__PROVIDERS__UPSTREAM__MODEL", "m")
            .env("DM__CHAT__PROVIDERS__UPSTREAM__CONTEXT_TOKENS", "8192")
            .env("DM__CHAT__PROVIDERS__UPSTREAM__MAX_OUTPUT_TOKENS", "2000")
            .envs(settings.iter().copied())
            .arg("dev")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let base = lines.find_map(|line| {
            Some(line.trim().strip_prefix("API")?.trim().trim_end_matches("/v1").to_owned())
        });
        let base = base.expect("the server started").replace("localhost", "127.0.0.1");
        std::thread::spawn(move || lines.for_each(drop));
        Server { base, child, data: data.to_owned() }
    }

    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub fn create_user(&self, email: &str) {
        let create = ["user", "create", "--email", email, "--role", "user", "--password-stdin"];
        self.command_line(&create, PASSWORD);
    }

    pub fn command_line(&self, arguments: &[&str], input: &str) {
        let mut command = Self::command(&self.data);
        let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    /// Access tokens of so many new users.
    pub async fn people(&self, client: &reqwest::Client, how_many: usize) -> Vec<String> {
        let mut tokens = Vec::new();
        for n in 0..how_many {
            let email = format!("caller{n}@example.com");
            self.create_user(&email);
            tokens.push(self.log_in(client, &email).await);
        }
        tokens
    }

    pub async fn log_in(&self, client: &reqwest::Client, email: &str) -> String {
        let body = json!({"email": email, "password": PASSWORD});
        let response = client.post(self.at("/v1/auth/login")).json(&body).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let tokens: Value = response.json().await.unwrap();
        tokens["access_token"].as_str().unwrap().to_owned()
    }

    pub fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.child.id())
    }

    /// A figure of the process's memory in megabytes, such as `VmRSS`.
    pub fn memory(&self, name: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A message in the lean form.
pub fn message(conversation: &str, id: &str, text: &str) -> Value {
    json!({"id": conversation, "message": {"id": id, "role": "user", "parts": [{"type": "text", "text": text}]}})
}

/// Listens to a reply whose words say when they were sent, `every` so often; how late each one came.
pub async fn lateness(
    client: &reqwest::Client,
    server: &Server,
    token: &str,
    conversation: &str,
    during: Duration,
    every: Duration,
) -> Vec<Duration> {
    let words = during.as_micros() / every.as_micros();
    let wish = format!("times words={words} every={}", every.as_micros());
    let body = message(conversation, "m", &wish);
    let mut response =
        client.post(server.at("/v1/chat")).bearer_auth(token).json(&body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let (mut times, mut buffer) = (Vec::new(), String::new());
    while let Some(piece) = response.chunk().await.unwrap() {
        let now = since_start();
        buffer.push_str(std::str::from_utf8(&piece).unwrap());
        while let Some((frame, rest)) = buffer.split_once("\n\n") {
            let data = frame.strip_prefix("data: ");
            let chunk: Option<Value> = data.and_then(|data| serde_json::from_str(data).ok());
            let text = chunk.as_ref().and_then(|chunk| chunk["delta"].as_str()).unwrap_or_default();
            let sent = text.split_whitespace().map(|word| word.parse::<u64>().expect("a word is a time"));
            times.extend(sent.map(|sent| now.saturating_sub(Duration::from_micros(sent))));
            buffer = rest.to_owned();
        }
    }
    assert_eq!(times.len() as u128, words, "every word came");
    times
}

/// The time since somebody first asked for it.
pub fn since_start() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// One insert, one commit, one fsync each time, with the settings of the program.
pub fn bare_commits(dir: &Path, how_many: usize) -> Vec<Duration> {
    let db = rusqlite::Connection::open(dir.join("bare.sqlite")).unwrap();
    db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (body BLOB);")
        .unwrap();
    let insert = |_| {
        let started = Instant::now();
        db.execute("INSERT INTO t VALUES (zeroblob(400))", []).unwrap();
        started.elapsed()
    };
    (0..how_many).map(insert).collect()
}

/// Seconds of processor time that a process has used.
pub fn cpu_seconds(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

pub fn quantile(times: &[Duration], q: f64) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[((times.len() - 1) as f64 * q) as usize]
}

pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// The machine, for the first line of a report.
pub fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let model = model.trim_start_matches([':', ' ', '\t']);
    format!("{} cores, {model}", std::thread::available_parallelism().unwrap())
}
