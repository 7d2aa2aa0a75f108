//! The fake's wire: HTTP on loopback, keys, idempotency, and whatever goes wrong.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpListener, sync::Semaphore};

use super::{
    KEY, LIVE_KEY,
    calls::{self, Refusal},
    params::Params,
    state::State,
};

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This is answered and nothing done: status, headers, body.
    Answer(u16, Vec<(&'static str, &'static str)>, Vec<u8>),
    /// Nothing is answered, and the connection stays.
    Hang,
    /// The connection breaks before anything is done.
    Drop,
    /// What was asked for is done, and then the connection breaks.
    LoseAnswer,
    /// What was asked for is done, and the answer is held back until the test lets it go.
    Late(Late),
}

/// An answer that is ready, and waits for the test.
#[derive(Clone, Debug)]
pub struct Late {
    ready: Arc<Semaphore>,
    go: Arc<Semaphore>,
}

impl Default for Late {
    fn default() -> Self {
        Late { ready: Arc::new(Semaphore::new(0)), go: Arc::new(Semaphore::new(0)) }
    }
}

impl Late {
    /// Completes when what was asked for has been done.
    pub async fn ready(&self) {
        self.ready.acquire().await.unwrap().forget();
    }

    /// Lets the answer go.
    pub fn go(&self) {
        self.go.add_permits(1);
    }

    async fn pass(&self) {
        self.ready.add_permits(1);
        self.go.acquire().await.unwrap().forget();
    }
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub body: String,
}

impl Request {
    /// All that has to be the same whoever asks: method, address and body.
    pub fn line(&self) -> String {
        let query = if self.query.is_empty() { String::new() } else { format!("?{}", self.query) };
        let body = if self.body.is_empty() { String::new() } else { format!(" {}", self.body) };
        format!("{} {}{query}{body}", self.method, self.path)
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

#[derive(Default)]
pub struct Shared {
    pub state: State,
    pub requests: Vec<Request>,
    pub faults: VecDeque<Fault>,
    /// What was answered under an idempotency key, and to what.
    answered: HashMap<String, (String, String)>,
}

struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

pub async fn serve(listener: TcpListener, shared: Arc<Mutex<Shared>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, &shared));
            let connection = hyper::server::conn::http1::Builder::new();
            // Errors are those that a test asked for, and clients that went away.
            let _ = connection.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    request: hyper::Request<Incoming>,
    shared: &Mutex<Shared>,
) -> io::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let request = Request {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body: String::from_utf8(body.to_vec()).expect("UTF-8"),
    };
    let fault = {
        let mut shared = shared.lock().unwrap();
        shared.requests.push(request.clone());
        shared.faults.pop_front()
    };
    let reply = match fault {
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Drop) => return Err(io::Error::other("dropped")),
        Some(Fault::LoseAnswer) => {
            shared.lock().unwrap().reply(&request);
            return Err(io::Error::other("lost"));
        }
        Some(Fault::Late(late)) => {
            let reply = shared.lock().unwrap().reply(&request);
            late.pass().await;
            reply
        }
        Some(Fault::Answer(status, headers, body)) => {
            let headers = headers.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
            Reply { status, headers, body }
        }
        None => shared.lock().unwrap().reply(&request),
    };
    let mut response = Response::builder().status(reply.status).header("content-type", "application/json");
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    Ok(response.body(Full::from(reply.body)).unwrap())
}

impl Shared {
    fn reply(&mut self, request: &Request) -> Reply {
        let mut headers = vec![("request-id", format!("req_{:06}", self.requests.len()))];
        let key = request.header("idempotency-key");
        if !key.is_empty() {
            headers.push(("idempotency-key", key.to_owned()));
        }
        let (status, body) = match self.result(request, &mut headers) {
            Ok(body) => (200, body),
            Err(refusal) => (refusal.status, refusal.body().to_string()),
        };
        Reply { status, headers, body: body.into_bytes() }
    }

    fn result(
        &mut self,
        request: &Request,
        headers: &mut Vec<(&'static str, String)>,
    ) -> Result<String, Refusal> {
        let given = request.header("authorization");
        if ![KEY, LIVE_KEY].iter().any(|key| given == format!("Bearer {key}")) {
            let message = "Invalid API Key provided: sk_test_****";
            return Err(Refusal::new(401, None, message));
        }
        headers.push(("stripe-version", request.header("stripe-version").to_owned()));
        let (key, line) = (request.header("idempotency-key").to_owned(), request.line());
        if let Some((before, body)) = self.answered.get(&key) {
            if *before != line {
                let message = "Keys for idempotent requests can only be used with the same parameters they were first used with.";
                return Err(Refusal { kind: "idempotency_error", ..Refusal::new(400, None, message) });
            }
            headers.push(("idempotent-replayed", "true".into()));
            return Ok(body.clone());
        }
        let body = self.value(request)?.to_string();
        // What is refused is not kept.
        if request.method == "POST" && !key.is_empty() {
            self.answered.insert(key, (line, body.clone()));
        }
        Ok(body)
    }

    fn value(&mut self, request: &Request) -> Result<Value, Refusal> {
        let segments: Vec<&str> = request.path.split('/').skip(1).collect();
        let Some(("v1", path)) = segments.split_first().map(|(version, path)| (*version, path)) else {
            return Err(Refusal::new(404, None, format!("Unrecognized request URL ({}).", request.path)));
        };
        let is_form = request.header("content-type").starts_with("application/x-www-form-urlencoded");
        let params = match request.method.as_str() {
            "POST" if !is_form => return Err(Refusal::new(400, None, "Invalid request: not a form.")),
            "POST" => Params::parse(&request.body),
            _ => Params::parse(&request.query),
        };
        calls::answer(&mut self.state, &request.method, path, &params)
    }
}
