//! A provider that says what the newest message asks for: `words=N every=MICROSECONDS`, `times` to have each word be the time
//! at which it is sent, and `hold` to go on only when the program hangs up. Without any of them it says ten words at once.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::since_start;

/// Says one word after the other.
struct Wish {
    words: usize,
    every: Duration,
    times: bool,
    hold: bool,
}

impl Wish {
    fn of(body: &Value) -> Wish {
        let newest = body["messages"].as_array().and_then(|all| all.last()).map(|last| &last["content"]);
        let text = newest.and_then(Value::as_str).unwrap_or_default();
        let number = |name: &str| {
            let value = text.split_whitespace().find_map(|word| word.strip_prefix(name))?;
            value.parse::<u64>().ok()
        };
        Wish {
            words: number("words=").unwrap_or(10) as usize,
            every: Duration::from_micros(number("every=").unwrap_or(0)),
            times: text.contains("times"),
            hold: text.contains("hold"),
        }
    }
}

/// Starts it; returns its base URL.
pub async fn start() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            tokio::spawn(answer_all(stream));
        }
    });
    url
}

async fn answer_all(mut stream: TcpStream) -> Option<()> {
    let mut buffer = Vec::new();
    loop {
        let (head, end) = loop {
            if let Some(found) = whole_request(&buffer) {
                break found;
            }
            if stream.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        };
        let wish = Wish::of(&serde_json::from_slice(&buffer[head..end]).unwrap_or_default());
        buffer.drain(..end);
        answer(&mut stream, &wish).await?;
    }
}

async fn answer(stream: &mut TcpStream, wish: &Wish) -> Option<()> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let (word, mut out) = (said("evening "), head.to_owned());
    for _ in 0..wish.words {
        if wish.times {
            out.push_str(&said(&format!("{} ", since_start().as_micros())));
        } else {
            out.push_str(&word);
        }
        if !wish.every.is_zero() {
            stream.write_all(out.as_bytes()).await.ok()?;
            out.clear();
            tokio::time::sleep(wish.every).await;
        }
    }
    if wish.hold {
        stream.write_all(out.as_bytes()).await.ok()?;
        let _ = stream.read(&mut [0]).await;
        return None;
    }
    out.push_str(&chunk(
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
    ));
    out.push_str("0\r\n\r\n");
    stream.write_all(out.as_bytes()).await.ok()
}

fn said(word: &str) -> String {
    let delta = json!({"choices": [{"index": 0, "delta": {"content": word}}]});
    chunk(&format!("data: {delta}\n\n"))
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// Where the body of the first request in the buffer begins, and where it ends.
fn whole_request(buffer: &[u8]) -> Option<(usize, usize)> {
    let head = buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&buffer[..head]).ok()?.to_ascii_lowercase();
    let length = text.split("content-length:").nth(1)?.split("\r\n").next()?.trim().parse::<usize>().ok()?;
    (buffer.len() >= head + length).then_some((head, head + length))
}
