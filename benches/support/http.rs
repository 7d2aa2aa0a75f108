//! A connection that stays open, for those who send more than a client for everything could.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// A connection for one request after the other.
pub struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    pub async fn open(address: &str) -> Connection {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Connection { stream, answer: Vec::new() }
    }

    /// Sends a request and reads the whole answer; its status.
    pub async fn call(&mut self, request: &[u8]) -> u16 {
        self.stream.write_all(request).await.unwrap();
        self.answer.clear();
        while !is_whole(&self.answer) {
            assert!(self.stream.read_buf(&mut self.answer).await.unwrap() > 0, "the connection ended");
        }
        let status = self.answer.strip_prefix(b"HTTP/1.1 ").expect("an answer");
        std::str::from_utf8(&status[..3]).unwrap().parse().unwrap()
    }

    /// The newest answer.
    pub fn answer(&self) -> String {
        String::from_utf8_lossy(&self.answer).into_owned()
    }
}

fn is_whole(answer: &[u8]) -> bool {
    let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let text = std::str::from_utf8(&answer[..head]).unwrap().to_ascii_lowercase();
    let length = text.split("content-length: ").nth(1).map_or("0", |rest| rest.lines().next().unwrap());
    answer.len() >= head + 4 + length.parse::<usize>().unwrap()
}
