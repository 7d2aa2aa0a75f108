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
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const PATIENCE: Duration = Duration::from_secs(20);
const USUAL: Limits = Limits::new(100, Duration::ZERO);
const BRIEF: Duration = Duration::from_millis(20);

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
    let answer = everything(&mut client).await;
    assert_eq!(answer.matches(": comment").count(), PAUSES.len(), "{answer}");
    assert!(answer.ends_with("0\r\n\r\n"), "{answer}");
}
