//! A provider that says exactly what a test tells it to, byte by byte, over a real socket. The words at the end are those of
//! Chat Completions; [`anthropic`] has those of Messages.

pub mod anthropic;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
};

/// What to do next on a connection.
#[derive(Clone)]
pub enum Step {
    /// Send bytes as they are.
    Bytes(Vec<u8>),
    /// Wait until the test lets it go on.
    Wait(Arc<Semaphore>),
    /// Send the same bytes again and again, with a pause between, until the other side has enough.
    Repeat(Vec<u8>, Duration),
    /// Never say anything again, but keep the connection open until the other side hangs up.
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
    /// The last paragraph that was said: the newest message, where that is one paragraph. Whatever before it was never answered
    /// is joined with it.
    pub fn question(&self) -> &str {
        let last = self.body["messages"].as_array().and_then(|messages| messages.last());
        let content = last.and_then(|message| message["content"].as_str()).unwrap_or_default();
        content.rsplit("\n\n").next().unwrap_or_default()
    }

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
    hung_up: Arc<AtomicUsize>,
    /// Held so that nobody else gets its port.
    _refusing: Option<TcpSocket>,
}

/// Settings as an operator would give them.
pub type Settings = Vec<(String, String)>;

/// Settings for a route of several providers.
pub fn route(providers: &[(&str, &Upstream)]) -> Settings {
    let names: Vec<&str> = providers.iter().map(|(name, _)| *name).collect();
    let mut settings = vec![("DM__CHAT__ROUTE".to_owned(), names.join(","))];
    for (name, upstream) in providers {
        let key = |field: &str| format!("DM__CHAT__PROVIDERS__{}__{field}", name.to_uppercase());
        settings.extend([
            (key("KIND"), "openai".into()),
            (key("BASE_URL"), upstream.url.clone()),
            (key("API_KEY"), "sk-test-key".into()),
            (key("MODEL"), format!("{name}-model")),
            (key("CONTEXT_TOKENS"), "8192".into()),
            (key("MAX_OUTPUT_TOKENS"), "500".into()),
        ]);
    }
    settings
}

impl Upstream {
    /// One that refuses every connection.
    pub fn refusing() -> Upstream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let url = format!("http://{}/v1", socket.local_addr().unwrap());
        Upstream { url, received: Arc::default(), hung_up: Arc::default(), _refusing: Some(socket) }
    }

    /// Answers every request with the same steps, then closes the connection.
    pub async fn start(steps: Vec<Step>) -> Upstream {
        Self::answering(move |_| steps.clone()).await
    }

    /// Answers each request with the steps that `answer` gives for it.
    pub async fn answering(answer: impl Fn(&Received) -> Vec<Step> + Send + Sync + 'static) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let hung_up: Arc<AtomicUsize> = Arc::default();
        let (log, answer, ended) = (received.clone(), Arc::new(answer), hung_up.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, answer, ended) = (log.clone(), answer.clone(), ended.clone());
                tokio::spawn(async move {
                    let mut stream = stream;
                    let Some(request) = read_request(&mut stream).await else { return };
                    log.lock().unwrap().push(request.clone());
                    play(stream, answer(&request), &ended).await;
                });
            }
        });
        Upstream { url, received, hung_up, _refusing: None }
    }

    /// Settings that make it a provider of a name (in upper case) and a model; the route is for the test to say.
    pub fn settings_named(&self, name: &str, model: &str) -> Vec<(String, String)> {
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
        self.settings_as("openai")
    }

    /// The same, as a provider of some kind.
    pub fn settings_as<'a>(&'a self, kind: &'a str) -> Vec<(&'a str, &'a str)> {
        vec![
            ("DM__CHAT__ROUTE", "upstream"),
            ("DM__CHAT__PROVIDERS__UPSTREAM__KIND", kind),
            ("DM__CHAT__PROVIDERS__UPSTREAM__BASE_URL", &self.url),
            ("DM__CHAT__PROVIDERS__UPSTREAM__API_KEY", "sk-test-key"),
            ("DM__CHAT__PROVIDERS__UPSTREAM__MODEL", "test-model"),
            ("DM__CHAT__PROVIDERS__UPSTREAM__CONTEXT_TOKENS", "8192"),
            ("DM__CHAT__PROVIDERS__UPSTREAM__MAX_OUTPUT_TOKENS", "500"),
        ]
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.received.lock().unwrap().len()
    }

    /// The requests so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// What arrived since this was asked last, for tests that send more than is worth keeping.
    pub fn take_received(&self) -> Vec<Received> {
        std::mem::take(&mut *self.received.lock().unwrap())
    }

    /// How often the other side hung up, on a [`Step::Hang`] or while something was said to it.
    pub fn hung_up(&self) -> usize {
        self.hung_up.load(Ordering::SeqCst)
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

async fn play(mut stream: TcpStream, steps: Vec<Step>, hung_up: &AtomicUsize) {
    for step in steps {
        match step {
            Step::Bytes(bytes) => {
                if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
                    hung_up.fetch_add(1, Ordering::SeqCst);
                    return;
                }
            }
            Step::Repeat(bytes, pause) => {
                while stream.write_all(&bytes).await.is_ok() {
                    // Else a pause of nothing would leave no time to anybody else.
                    tokio::task::yield_now().await;
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                    }
                }
                hung_up.fetch_add(1, Ordering::SeqCst);
                return;
            }
            Step::Wait(gate) => gate.acquire().await.unwrap().forget(),
            Step::Hang => {
                while stream.read_u8().await.is_ok() {}
                hung_up.fetch_add(1, Ordering::SeqCst);
                return;
            }
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
