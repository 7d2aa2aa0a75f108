//! A provider that says exactly what a test tells it to, byte by byte, over a real socket.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

/// What to do next on a connection.
#[derive(Clone)]
pub enum Step {
    /// Send bytes as they are.
    Bytes(Vec<u8>),
    /// Wait until the test lets it go on.
    Wait(Arc<Semaphore>),
    /// Never say anything again, but keep the connection open.
    Hang,
    /// Break the connection.
    Reset,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    pub head: String,
    pub body: Value,
}

impl Received {
    /// What the model was told: who said it, and what.
    pub fn told(&self) -> Vec<(&str, &str)> {
        let messages = self.body["messages"].as_array().unwrap();
        messages
            .iter()
            .map(|message| (message["role"].as_str().unwrap(), message["content"].as_str().unwrap()))
            .collect()
    }
}

/// The provider.
pub struct Upstream {
    pub url: String,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Upstream {
    /// Answers every request with the same steps, then closes the connection.
    pub async fn start(steps: Vec<Step>) -> Upstream {
        Self::answering(move |_| steps.clone()).await
    }

    /// Answers each request with the steps that `answer` gives for it.
    pub async fn answering(answer: impl Fn(&Received) -> Vec<Step> + Send + Sync + 'static) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let (log, answer) = (received.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, answer) = (log.clone(), answer.clone());
                tokio::spawn(async move {
                    let mut stream = stream;
                    let Some(request) = read_request(&mut stream).await else { return };
                    log.lock().unwrap().push(request.clone());
                    play(stream, answer(&request)).await;
                });
            }
        });
        Upstream { url, received }
    }

    /// Settings that make it a provider of a name (in upper case) and a model; the route is for the test to say.
    pub fn settings_as(&self, name: &str, model: &str) -> Vec<(String, String)> {
        let values = [
            ("KIND", "openai"),
            ("BASE_URL", &self.url),
            ("MODEL", model),
            ("CONTEXT_TOKENS", "8192"),
            ("MAX_OUTPUT_TOKENS", "500"),
        ];
        values.map(|(key, value)| (format!("DM__CHAT__PROVIDERS__{name}__{key}"), value.to_owned())).to_vec()
    }

    /// Settings that make it the only provider.
    pub fn settings(&self) -> Vec<(&str, &str)> {
        vec![
            ("DM__CHAT__ROUTE", "upstream"),
            ("DM__CHAT__PROVIDERS__UPSTREAM__KIND", "openai"),
            ("DM__CHAT__PROVIDERS__UPSTREAM__BASE_URL", &self.url),
            ("DM__CHAT__PROVIDERS__UPSTREAM__API_KEY", "sk-test-key"),
            ("DM__CHAT__PROVIDERS__UPSTREAM__MODEL", "test-model"),
            ("DM__CHAT__PROVIDERS__UPSTREAM__CONTEXT_TOKENS", "8192"),
            ("DM__CHAT__PROVIDERS__UPSTREAM__MAX_OUTPUT_TOKENS", "500"),
        ]
    }

    /// The requests so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<Received> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
            });
            if bytes.len() >= end + 4 + length.unwrap_or(0) {
                let body = serde_json::from_slice(&bytes[end + 4..]).unwrap_or_default();
                return Some(Received { head, body });
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

async fn play(mut stream: TcpStream, steps: Vec<Step>) {
    for step in steps {
        match step {
            Step::Bytes(bytes) => {
                if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
            }
            Step::Wait(gate) => gate.acquire().await.unwrap().forget(),
            Step::Hang => std::future::pending().await,
            Step::Reset => {
                stream.set_zero_linger().unwrap();
                return;
            }
        }
    }
}

pub fn gate() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(0))
}

pub fn bytes(text: impl AsRef<[u8]>) -> Step {
    Step::Bytes(text.as_ref().to_vec())
}

/// The head of an event stream.
pub fn stream_head() -> Step {
    bytes("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
}

/// A whole answer with a JSON body.
pub fn json_answer(status: &str, headers: &str, body: &Value) -> Step {
    let body = body.to_string();
    bytes(format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    ))
}

/// One piece of text.
pub fn delta(text: &str) -> Step {
    bytes(format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": {"content": text}}]})))
}

/// The end of a reply, with the provider's count of tokens.
pub fn finish() -> Step {
    bytes(
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\
         data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n",
    )
}

/// The end of a reply, with another count of the prompt's tokens.
pub fn finish_having_counted(prompt_tokens: u64) -> Step {
    let usage = json!({"choices": [], "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": 2}});
    bytes(format!(
        "data: {{\"choices\":[{{\"index\":0,\"delta\":{{}},\"finish_reason\":\"stop\"}}]}}\n\n\
         data: {usage}\n\ndata: [DONE]\n\n"
    ))
}

/// A refusal because the prompt is longer than the model's window.
pub fn too_long() -> Step {
    let error = json!({"error": {"message": "…", "type": "invalid_request_error", "code": "context_length_exceeded"}});
    json_answer("400 Bad Request", "", &error)
}

/// An ordinary reply.
pub fn reply(text: &str) -> Vec<Step> {
    vec![stream_head(), delta(text), finish()]
}
