//! A reply as a client reads it: chunk by chunk.

use std::time::Duration;

use serde_json::Value;

/// How long a chunk may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// An open event stream.
pub struct Stream {
    response: reqwest::Response,
    buffer: Vec<u8>,
}

impl Stream {
    pub fn new(response: reqwest::Response) -> Stream {
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Stream { response, buffer: Vec::new() }
    }

    /// The next chunk; `None` at the end. Comments pass by; the end mark is a chunk of type `[DONE]`.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|end| end == b"\n\n") {
                let frame: Vec<u8> = self.buffer.drain(..end + 2).take(end).collect();
                let frame = String::from_utf8(frame).expect("a frame is text");
                match frame.strip_prefix("data: ") {
                    Some("[DONE]") => return Some(serde_json::json!({"type": "[DONE]"})),
                    Some(data) => return Some(serde_json::from_str(data).expect("a chunk is JSON")),
                    None => assert!(frame.starts_with(':'), "{frame}"),
                }
                continue;
            }
            let piece =
                tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("the stream goes on");
            match piece {
                Ok(Some(piece)) => self.buffer.extend_from_slice(&piece),
                Ok(None) => return None,
                Err(_) => return None,
            }
        }
    }

    /// Reads up to the first piece of text and returns it.
    pub async fn first_word(&mut self) -> String {
        while let Some(chunk) = self.next().await {
            if chunk["type"] == "text-delta" {
                return chunk["delta"].as_str().unwrap().to_owned();
            }
        }
        panic!("the stream ended without a word");
    }

    /// The generation and the message that the first chunk names.
    pub async fn start(&mut self) -> (String, String) {
        let chunk = self.next().await.expect("there is a start");
        assert_eq!(chunk["type"], "start");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&chunk["messageMetadata"]["generation_id"]), text(&chunk["messageId"]))
    }

    /// Everything that is still to come.
    pub async fn rest(mut self) -> Chunks {
        let mut chunks = Vec::new();
        while let Some(chunk) = self.next().await {
            chunks.push(chunk);
        }
        Chunks(chunks)
    }
}

/// Chunks that were read.
#[derive(Debug)]
pub struct Chunks(pub Vec<Value>);

impl Chunks {
    pub fn text(&self) -> String {
        self.0.iter().filter_map(|chunk| chunk["delta"].as_str()).collect()
    }

    /// The types in order, runs of text written once.
    pub fn types(&self) -> Vec<&str> {
        let mut types: Vec<&str> = self.0.iter().map(|chunk| chunk["type"].as_str().unwrap()).collect();
        types.dedup();
        types
    }

    pub fn last_but_mark(&self) -> &Value {
        assert_eq!(self.0.last().unwrap()["type"], "[DONE]");
        &self.0[self.0.len() - 2]
    }

    /// The problem in the `error` chunk at the end.
    pub fn problem(&self) -> Value {
        let last = self.last_but_mark();
        assert_eq!(last["type"], "error", "{last}");
        serde_json::from_str(last["errorText"].as_str().unwrap()).expect("the error is a problem as text")
    }
}
