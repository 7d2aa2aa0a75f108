//! Clients that leave at every stage, by the thousand: afterwards the program holds nothing that is theirs.
//!
//! It is asked from outside, as an operator would: metrics, `/proc`, and a provider that counts who hung up on it.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{
    app::{PASSWORD, message},
    database::TestDatabase,
    process::{Server, run},
    upstream::{Step, Upstream, delta, finish, stream_head},
};
use secrecy::ExposeSecret as _;

/// Runs in the suite; `make soak` asks for more by `DM_TEST_LEAVERS`.
const LEAVERS: usize = 4000;
/// Clients before the baseline is taken, so that pools and caches are as full as they get.
const WARM_UP: usize = 400;
const PEOPLE: usize = 8;
const AT_ONCE: usize = 32;
/// What a long reply holds. Three clients of ten leave one behind: were they kept, that would be 72 MB after 4,000
/// clients.
const REPLY: usize = 60_000;
/// How much larger the program may be afterwards, in KiB. Measured are 1 to 7 MiB, after 600 clients and after 10,000;
/// the rest is for allocators that keep what they were given back.
const MARGIN: u64 = 16 * 1024;
const PATIENCE: Duration = Duration::from_secs(60);

/// How far a client goes before it leaves.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Connected,
    HalfOfTheHead,
    HalfOfTheBody,
    BeforeTheHead,
    AfterTheHead,
    AfterTheStart,
    InTheMiddle,
    WaitingForJson,
    WaitingForTheFirstWord,
    /// Does not leave: what others do costs it nothing.
    AtTheEnd,
}

use Stage::{
    AfterTheHead, AfterTheStart, AtTheEnd, BeforeTheHead, Connected, HalfOfTheBody, HalfOfTheHead,
    InTheMiddle, WaitingForJson, WaitingForTheFirstWord,
};

const STAGES: [Stage; 10] = [
    Connected,
    HalfOfTheHead,
    HalfOfTheBody,
    BeforeTheHead,
    AfterTheHead,
    AfterTheStart,
    InTheMiddle,
    WaitingForJson,
    WaitingForTheFirstWord,
    AtTheEnd,
];

/// What the program holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    replies: u64,
    tasks: u64,
    descriptors: usize,
}

struct Program {
    server: Server,
    upstream: Upstream,
    metrics: String,
    tokens: Vec<String>,
    client: reqwest::Client,
    _database: TestDatabase,
}

impl Program {
    async fn start() -> Program {
        let upstream = Upstream::answering(|request| match request.question() {
            "short" => vec![stream_head(), delta("Good evening."), finish()],
            "silent" => vec![stream_head(), Step::Hang],
            "pieces" => {
                let pieces = (0..REPLY / 4).map(|_| delta("and "));
                std::iter::once(stream_head()).chain(pieces).chain([finish()]).collect()
            }
            _ => vec![stream_head(), delta(&"word ".repeat(REPLY / 5)), Step::Hang],
        })
        .await;
        let database = TestDatabase::new().await;
        let data = database.dir.path().join("data");
        let url = database.settings.url.expose_secret();
        let metrics = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let settings = [
            upstream.settings(),
            vec![
                ("DM__SERVER__METRICS_LISTEN", &*metrics),
                ("DM__CHAT__FREE_MESSAGES_PER_DAY", "1000000"),
                ("DM__CHAT__GENERATIONS_PER_USER", "100"),
                ("DM__CHAT__DETACHED_GRACE", "100ms"),
                ("DM__CHAT__PROVIDERS__UPSTREAM__CONTEXT_TOKENS", "100000"),
                ("DM__DATABASE__POOL_SIZE", "5"),
                ("DM__LOG__LEVEL", "error"),
            ],
        ]
        .concat();
        let server = Server::dev(&data, url, &settings);
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
        let env = [
            ("DM_PROFILE", "development"),
            ("DM__SERVER__DATA_DIR", data.to_str().unwrap()),
            ("DM__DATABASE__URL", url),
        ];
        let mut tokens = Vec::new();
        for person in 0..PEOPLE {
            let email = format!("person-{person}@example.com");
            let create = ["user", "create", "--email", &email, "--role", "user", "--password-stdin"];
            assert!(run(&create, &env, PASSWORD).success);
            let body = json!({"email": email, "password": PASSWORD});
            let answer =
                client.post(format!("{}/v1/auth/login", server.base)).json(&body).send().await.unwrap();
            let answer: Value = answer.json().await.unwrap();
            tokens.push(answer["access_token"].as_str().unwrap().to_owned());
        }
        Program { server, upstream, metrics, tokens, client, _database: database }
    }

    fn address(&self) -> &str {
        self.server.base.trim_start_matches("http://")
    }

    async fn gauge(&self, name: &str) -> u64 {
        let url = format!("http://{}/metrics", self.metrics);
        let text = self.client.get(url).send().await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name}:\n{text}")).parse().unwrap()
    }

    async fn held(&self) -> Held {
        Held {
            replies: self.gauge("chat_live_generations").await,
            tasks: self.gauge("tasks_running").await,
            descriptors: std::fs::read_dir(format!("/proc/{}/fd", self.server.id())).unwrap().count(),
        }
    }

    /// KiB of a kind of memory, as `/proc/PID/status` tells it.
    fn memory(&self, kind: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.server.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(&format!("{kind}:")));
        line.unwrap().trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Waits until no reply is made and nothing is on its way, and says what is held then.
    async fn settled(&self, at_most: Option<Held>) -> Held {
        let deadline = Instant::now() + PATIENCE;
        let mut last = None;
        loop {
            let held = self.held().await;
            let is_enough = match at_most {
                Some(most) => {
                    held.replies == 0 && held.tasks <= most.tasks && held.descriptors <= most.descriptors
                }
                // Twice the same: nobody is on the way out any more.
                None => held.replies == 0 && last == Some(held),
            };
            if is_enough {
                return held;
            }
            assert!(Instant::now() < deadline, "{held:?} are held, and {at_most:?} were before");
            last = Some(held);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Lets many clients come and leave, a few at once.
    async fn receive(&self, from: usize, count: usize) {
        let next = Mutex::new(from..from + count);
        let workers = (0..AT_ONCE).map(async |_| {
            loop {
                let Some(n) = next.lock().unwrap().next() else { return };
                let client = Client { address: self.address(), token: &self.tokens[n % PEOPLE], n };
                let visit = tokio::time::timeout(PATIENCE, client.visit(STAGES[n % STAGES.len()])).await;
                visit.unwrap_or_else(|_| panic!("client {n} is not served"));
            }
        });
        join_all(workers).await;
    }

    async fn get(&self, person: usize, path: &str) -> Value {
        let answer = self.client.get(format!("{}{path}", self.server.base)).bearer_auth(&self.tokens[person]);
        let answer = answer.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.json().await.unwrap()
    }
}

/// One client on a socket of its own.
struct Client<'a> {
    address: &'a str,
    token: &'a str,
    n: usize,
}

impl Client<'_> {
    async fn visit(&self, stage: Stage) {
        let text = match stage {
            AtTheEnd => "short",
            AfterTheHead | AfterTheStart | WaitingForTheFirstWord => "silent",
            _ => "long",
        };
        let accept = if matches!(stage, WaitingForJson) { "application/json" } else { "text/event-stream" };
        let body = message(&format!("c{}", self.n), "m1", text).to_string();
        let head = format!(
            "POST /v1/chat HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\naccept: {accept}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.token,
            body.len()
        );
        let request = format!("{head}{body}");
        let sent = match stage {
            Connected => 0,
            HalfOfTheHead => head.len() / 2,
            HalfOfTheBody => head.len() + body.len() / 2,
            _ => request.len(),
        };
        let mut socket = self.connect(&request[..sent]).await;
        match stage {
            Connected | HalfOfTheHead | HalfOfTheBody | BeforeTheHead => {}
            AfterTheHead => self.read_until(&mut socket, "\r\n\r\n").await,
            AfterTheStart => self.read_until(&mut socket, "\"type\":\"start\"").await,
            InTheMiddle => self.read_until(&mut socket, "\"delta\":\"word ").await,
            WaitingForTheFirstWord => self.read_until(&mut socket, "\"type\":\"start-step\"").await,
            WaitingForJson => self.listen_beside().await,
            AtTheEnd => self.read_until(&mut socket, "data: [DONE]").await,
        }
        if self.n % 20 >= 10 {
            socket.set_zero_linger().unwrap(); // Leaves with a reset.
        }
    }

    async fn connect(&self, sent: &str) -> TcpStream {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        socket.write_all(sent.as_bytes()).await.unwrap();
        socket
    }

    async fn read_until(&self, socket: &mut TcpStream, what: &str) {
        let mut text = Vec::new();
        while !String::from_utf8_lossy(&text).contains(what) {
            let read = socket.read_buf(&mut text).await.unwrap();
            assert!(read > 0, "no {what}: {}", String::from_utf8_lossy(&text));
        }
        assert!(text.starts_with(b"HTTP/1.1 200 OK"), "{}", String::from_utf8_lossy(&text));
    }

    /// Joins the reply over another connection, and leaves it when words come: then the first one waits for its end.
    async fn listen_beside(&self) {
        let request = format!(
            "GET /v1/chat/c{}/stream HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\nconnection: close\r\n\r\n",
            self.n, self.token
        );
        loop {
            let mut socket = self.connect(&request).await;
            let mut head = [0; 12];
            socket.read_exact(&mut head).await.unwrap();
            if head.ends_with(b"200") {
                let mut text = Vec::new();
                while !String::from_utf8_lossy(&text).contains("\"delta\":\"word ") {
                    assert!(socket.read_buf(&mut text).await.unwrap() > 0, "it ended");
                }
                return;
            }
        }
    }
}

/// As in LibreChat#13391 and #6167, anything-llm#6202: streams that were left kept their memory, listeners, or the
/// provider. litellm#30244: the provider went on after the client had left. litellm#36429: large replies that were left
/// kept everybody else waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_leave_leave_nothing_behind() {
    let count = std::env::var("DM_TEST_LEAVERS").ok().and_then(|count| count.parse().ok()).unwrap_or(LEAVERS);
    let p = Program::start().await;
    p.receive(0, WARM_UP).await;
    let before = p.settled(None).await;
    let memory_before = p.memory("VmRSS");
    let started = Instant::now();
    p.receive(WARM_UP, count).await;
    let after = p.settled(Some(before)).await;
    let grown = p.memory("VmRSS").saturating_sub(memory_before);
    eprintln!(
        "{count} clients left in {:.1} s; held: {after:?}; {memory_before} KiB and {grown} more",
        started.elapsed().as_secs_f32()
    );
    assert!(grown < MARGIN, "the program has grown by {grown} KiB");

    // Every provider that had no end was hung up on.
    let received = p.upstream.take_received();
    let endless = received.iter().filter(|request| request.question() != "short").count();
    let deadline = Instant::now() + PATIENCE;
    while p.upstream.hung_up() < endless {
        assert!(Instant::now() < deadline, "{} of {endless} were hung up on", p.upstream.hung_up());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Who stayed got everything, and what was left was kept.
    for n in
        (0..WARM_UP + count).filter(|n| matches!(STAGES[n % STAGES.len()], AtTheEnd | InTheMiddle)).take(100)
    {
        let page = p.get(n % PEOPLE, &format!("/v1/conversations/c{n}/messages")).await;
        let reply = &page["data"][1];
        let (status, length) = match STAGES[n % STAGES.len()] {
            AtTheEnd => ("complete", "Good evening.".len()),
            _ => ("interrupted", REPLY / 5 * 5),
        };
        assert_eq!(reply["metadata"]["status"], status, "c{n}");
        assert_eq!(reply["parts"][0]["text"].as_str().unwrap().len(), length, "c{n}");
    }
}

/// As in Vane#1199: each piece of a reply was kept with all that came before it. The 15,000 pieces of this one would be
/// 450 MB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_of_many_pieces_is_kept_once() {
    let p = Arc::new(Program::start().await);
    let client = Client { address: p.address(), token: &p.tokens[0], n: 0 };
    client.visit(AtTheEnd).await; // Whatever the first reply needs is there now.
    let before = p.memory("VmHWM");
    let url = format!("{}/v1/chat", p.server.base);
    let readers = (0..8).map(async |_| {
        let request = p.client.post(&url).bearer_auth(&p.tokens[1]).json(&message("c", "m1", "pieces"));
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.text().await.unwrap()
    });
    for text in join_all(readers).await {
        assert!(text.ends_with("data: [DONE]\n\n"));
    }
    let grown = p.memory("VmHWM") - before;
    assert!(grown < 2 * MARGIN, "it took {grown} KiB");
    let page = p.get(1, "/v1/conversations/c/messages").await;
    assert_eq!(page["data"][1]["parts"][0]["text"].as_str().unwrap().len(), REPLY);
}
