//! Connections as sockets see them: what a client may do with one, and how it ends.
//!
//! Limits on time are a few milliseconds here. A test says what happens when they have passed, never how soon.

use std::{convert::Infallible, future::Future, net::SocketAddr, time::Duration};

use axum::{Router, body::Body, routing::get};
use bytes::Bytes;
use digitalmistress::platform::{
    server::{Limits, serve},
    tasks::Tasks,
};
use futures_util::{StreamExt as _, stream};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::support::app::TestApp;

const PATIENCE: Duration = Duration::from_secs(20);
const USUAL: Limits = Limits::new(100, Duration::ZERO);
const BRIEF: Duration = Duration::from_millis(20);
/// More than anything takes, where the timer is paused and costs nothing.
const LONG: Duration = Duration::from_hours(24);

/// Awaits what must happen without the test's help.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it happens")
}

/// A server that does not accept yet, so that what a client sent first is there when its time begins to run.
struct Closed(TcpListener);

impl Closed {
    async fn new() -> Closed {
        Closed(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    /// A client in the queue that has sent something already.
    async fn client(&self, sent: &[u8]) -> TcpStream {
        connected(self.0.local_addr().unwrap(), sent).await
    }

    /// Opens. Dropping the result closes for good.
    fn open(self, router: Router, limits: Limits) -> Open {
        let tasks = Tasks::default();
        let serving = tasks.clone();
        tokio::spawn(async move { serve(vec![self.0], router, &serving, limits).await });
        Open(tasks)
    }
}

struct Open(Tasks);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.end();
    }
}

async fn connected(address: SocketAddr, sent: &[u8]) -> TcpStream {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(sent).await.unwrap();
    client
}

/// Reads to the end of the connection.
async fn everything(client: &mut TcpStream) -> String {
    let mut text = String::new();
    client.read_to_string(&mut text).await.expect("it ends in order");
    text
}

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

#[tokio::test]
async fn a_head_that_does_not_arrive_ends_the_connection() {
    let server = Closed::new().await;
    let mut silent = server.client(b"").await;
    let mut slow = server.client(b"GET / HTTP/1.1\r\nhost: localhost\r\n").await;
    let _open = server.open(hello(), Limits { head: BRIEF, ..USUAL });
    assert_eq!(soon(everything(&mut silent)).await, "");
    assert_eq!(soon(everything(&mut slow)).await, "");
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let server = Closed::new().await;
    let mut client = server.client(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let _open = server.open(hello(), Limits { head: BRIEF, ..USUAL });
    let answer = soon(everything(&mut client)).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nhello"), "{answer}");
    assert!(!answer.contains("connection: close"), "it was open for another request: {answer}");
}

/// An answer without end, for readers who take nothing.
fn endless() -> Router {
    let piece = Bytes::from(vec![b'.'; 64 * 1024]);
    let body = move || {
        let pieces = stream::repeat(Ok::<_, Infallible>(piece.clone()));
        async { Body::from_stream(pieces) }
    };
    hello().route("/endless", get(body))
}

#[tokio::test]
async fn a_reader_who_takes_nothing_loses_its_place() {
    let server = Closed::new().await;
    let mut greedy = server.client(b"GET /endless HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut next = server.client(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    let _open = server.open(endless(), Limits { connections: 1, stall: BRIEF, ..USUAL });
    assert!(soon(everything(&mut next)).await.ends_with("hello"));
    let mut rest = Vec::new();
    // What was on its way still comes; then it is over, as an end or as an error.
    let _ = soon(greedy.read_to_end(&mut rest)).await;
}

/// The timer is paused and runs ahead whenever everybody waits, so an hour takes no time.
#[tokio::test(start_paused = true)]
async fn a_stream_may_be_quiet_for_as_long_as_it_likes() {
    const PAUSES: [u64; 5] = [15, 3600, 15, 15, 15];
    let comments = || async {
        Body::from_stream(stream::iter(PAUSES).then(|seconds| async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            Ok::<_, Infallible>(": comment\n\n")
        }))
    };
    let server = Closed::new().await;
    let mut client = server.client(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    let _open = server.open(Router::new().route("/", get(comments)), USUAL);
    let answer = tokio::time::timeout(LONG, everything(&mut client)).await.expect("it ends");
    assert_eq!(answer.matches(": comment").count(), PAUSES.len(), "{answer}");
    assert!(answer.ends_with("0\r\n\r\n"), "{answer}");
}

/// Sends a request and reads to the end, which may be an error: the server need not read all that was sent.
async fn answer_to(request: &str) -> String {
    let server = Closed::new().await;
    let mut client = server.client(b"").await;
    // Nothing ends by waiting here.
    let _open = server.open(hello(), Limits { head: LONG, ..USUAL });
    let (mut reading, mut writing) = client.split();
    let mut answer = Vec::new();
    let (_, _) =
        soon(async { tokio::join!(writing.write_all(request.as_bytes()), reading.read_to_end(&mut answer)) })
            .await;
    String::from_utf8(answer).unwrap()
}

const LAST: &str = "host: localhost\r\nconnection: close\r\n";

/// The answers below are made by the HTTP library, before any code of ours. `docs/errors.md` tells callers of them.
#[tokio::test]
async fn what_is_not_http_gets_a_bare_status_and_the_end() {
    for (request, status) in [
        ("\x16\x03\x01 hello over TLS\r\n\r\n", "400 Bad Request"),
        ("GET\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/9\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n", "400 Bad Request"),
        ("POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", "400 Bad Request"),
        (&format!("GET / HTTP/1.1\r\nx: {}", "x".repeat(70_000)), "431 Request Header Fields Too Large"),
    ] {
        let answer = answer_to(request).await;
        let what = &request[..request.len().min(60)];
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{what:?}: {answer}");
        let mut names: Vec<&str> =
            answer.trim_end().lines().skip(1).map(|line| line.split(':').next().unwrap()).collect();
        names.sort_unstable();
        assert_eq!(names, ["connection", "content-length", "date"], "{what:?}: {answer}");
    }
    // What speaks HTTP/2 could not read an answer.
    assert_eq!(answer_to("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await, "");
}

#[tokio::test]
async fn the_head_of_a_request_has_a_hundred_headers_and_64_kib() {
    let headers = |count: usize| {
        let more: String = (2..count).map(|n| format!("x-{n}: 1\r\n")).collect();
        format!("GET / HTTP/1.1\r\n{more}{LAST}\r\n")
    };
    let bytes = |count: usize| {
        let (start, end) = ("GET /?", format!(" HTTP/1.1\r\n{LAST}\r\n"));
        format!("{start}{}{end}", "x".repeat(count - start.len() - end.len()))
    };
    for (request, status) in
        [(headers(100), "200"), (headers(101), "431"), (bytes(65_536), "200"), (bytes(65_537), "431")]
    {
        let answer = answer_to(&request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{}: {answer}", request.len());
    }
}

/// The time limit is the real one; the test's timer is paused and runs ahead to it.
#[tokio::test]
async fn a_body_that_does_not_arrive_is_a_problem_and_the_end() {
    let t = TestApp::start().await;
    let address = t.base.strip_prefix("http://").unwrap().parse().unwrap();
    for missing in ["content-length: 100\r\n\r\n{", "transfer-encoding: chunked\r\n\r\n1\r\n{\r\n"] {
        let head = "POST /v1/auth/login HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
        let mut client = connected(address, format!("{head}{missing}").as_bytes()).await;
        tokio::time::pause();
        let answer = tokio::time::timeout(LONG, everything(&mut client)).await.expect("it ends");
        tokio::time::resume();
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
        let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!(body["code"], "bad_request");
        assert_eq!(body["detail"], "The body took too long to arrive.");
    }
}
