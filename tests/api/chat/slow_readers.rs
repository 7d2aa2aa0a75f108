//! Readers who take nothing of what is said to them.

use std::time::Duration;

use digitalmistress::platform::{
    server::{Limits, serve},
    tasks::Tasks,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use super::until;
use crate::support::{
    app::{Person, TestApp, message},
    stream::Stream,
    upstream::{Step, Upstream, delta, finish, gate, stream_head},
};

/// Bytes that a socket keeps for a reader who does not read; the least that Linux allows is somewhat more.
const SOCKET: u32 = 4096;
const PATIENCE: Duration = Duration::from_secs(20);

/// A door of its own into the program, with sockets that take little. Dropping it closes it.
struct Door {
    address: std::net::SocketAddr,
    tasks: Tasks,
}

impl Door {
    fn open(t: &TestApp, limits: Limits) -> Door {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_send_buffer_size(SOCKET).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(16).unwrap();
        let (address, router, tasks) = (listener.local_addr().unwrap(), t.router.clone(), Tasks::default());
        let serving = tasks.clone();
        tokio::spawn(async move { serve(vec![listener], router, &serving, limits).await });
        Door { address, tasks }
    }

    /// Somebody who has sent a request and reads nothing yet.
    async fn reader(&self, person: &Person, request: &str, body: &str) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(SOCKET).unwrap();
        let mut stream = socket.connect(self.address).await.unwrap();
        let head = format!(
            "{request} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            person.access_token,
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.tasks.end();
    }
}

/// More than the sockets of a slow reader and its connection's buffer take, written as JSON: each character takes six.
fn much() -> String {
    format!("from the first word {}", "\u{1}".repeat(60_000))
}

/// The words of a stream that was read as it came, up to where it was cut.
fn words(answer: &str) -> String {
    let frames = answer.lines().filter_map(|line| line.strip_prefix("data: {"));
    let chunks = frames.filter_map(|rest| serde_json::from_str::<Value>(&format!("{{{rest}")).ok());
    chunks.filter_map(|chunk| Some(chunk["delta"].as_str()?.to_owned())).collect()
}

#[tokio::test]
async fn a_reader_who_takes_nothing_holds_nobody_up_and_misses_nothing() {
    let go = gate();
    let steps = vec![stream_head(), delta(&much()), Step::Wait(go.clone()), delta("the end"), finish()];
    let upstream = Upstream::start(steps).await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    let door = Door::open(&t, Limits::new(10, Duration::ZERO));
    let mut slow = door.reader(&ann, "POST /v1/chat", &message("c", "m1", "hello").to_string()).await;
    until("it has begun", async || !upstream.received().is_empty()).await;

    let fast = Stream::new(ann.get(&t, "/v1/chat/c/stream").send().await);
    go.add_permits(1);
    let chunks = fast.rest().await;
    assert!(chunks.text() == format!("{}the end", much()), "{} bytes", chunks.text().len());
    assert_eq!(chunks.last_but_mark()["type"], "finish");
    assert_eq!(ann.statuses(&t, "c").await, ["complete", "complete"], "it is stored");

    // Nobody has read a byte of this one so far.
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, slow.read_to_string(&mut answer)).await.expect("it ends").unwrap();
    assert!(words(&answer) == chunks.text(), "{} bytes", words(&answer).len());
    assert!(answer.contains("data: [DONE]"));
}

#[tokio::test]
async fn a_reader_who_takes_nothing_is_given_up_and_may_come_back() {
    let go = gate();
    let steps = vec![stream_head(), delta(&much()), Step::Wait(go.clone()), delta("the end"), finish()];
    let upstream = Upstream::start(steps).await;
    let t = TestApp::with(&upstream.settings()).await;
    let ann = t.sign_up("ann@example.com").await;
    let limits = Limits { stall: Duration::from_millis(50), ..Limits::new(1, Duration::ZERO) };
    let door = Door::open(&t, limits);
    let mut slow = door.reader(&ann, "POST /v1/chat", &message("c", "m1", "hello").to_string()).await;
    until("it has begun", async || !upstream.received().is_empty()).await;

    // There is one place behind this door, so whoever comes next is served when the slow one has lost it.
    let mut next = door.reader(&ann, "GET /v1/companions", "").await;
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, next.read_to_string(&mut answer)).await.expect("it is served").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, slow.read_to_end(&mut rest)).await.expect("it is over");
    assert!(!String::from_utf8_lossy(&rest).contains("[DONE]"), "it was cut");

    let mut again = Stream::new(ann.get(&t, "/v1/chat/c/stream").send().await);
    assert!(again.first_word().await == much(), "from the first word");
    go.add_permits(1);
    assert_eq!(again.rest().await.text(), "the end");
    assert_eq!(ann.statuses(&t, "c").await, ["complete", "complete"]);
    assert_eq!(ann.used(&t).await, 1);
}
