//! Calls of Stripe's API: parameters go out, JSON comes back, and what fails is tried again by the rule of Stripe's SDKs.
//!
//! A failure is told by status, Stripe's type and code, and the id of the request. Messages are left out, since they may quote
//! what was sent, and so are addresses.

use std::time::Duration;

use reqwest::{
    Method, RequestBuilder, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};
use url::Url;

use super::{form::Form, reading};
use crate::{
    billing::{gateway::GatewayError, row::Mode},
    platform::random::{Random, SystemRandom},
};

/// The version whose shapes we read. Stripe keeps old ones.
const VERSION: &str = "2026-10-28.endive";
/// The most of an answer that is read, in bytes. A page of a hundred subscriptions has some hundred KiB.
const MAX_ANSWER: usize = 2 * 1024 * 1024;
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);
/// How long all attempts may take, with the pauses between them.
const TOTAL: Duration = Duration::from_secs(15);
/// The pause before the first retry. That before the second one, which is the last, takes up to twice as long.
const PAUSE: Duration = Duration::from_millis(500);
/// Entries that a page has.
const PAGE: &str = "100";
/// The longest text of theirs that goes into a message.
const MAX_NAME: usize = 64;

/// Stripe, for one account.
pub struct Client {
    http: reqwest::Client,
    base_url: Url,
    /// `None` if it holds characters that no header may hold.
    key: Option<HeaderValue>,
    mode: Mode,
}

/// A call that gave nothing.
pub struct Failure {
    error: GatewayError,
    status: Option<StatusCode>,
    code: String,
    may_retry: bool,
}

struct Call<'a> {
    method: Method,
    path: &'a [&'a str],
    form: &'a Form,
    idempotency_key: Option<&'a str>,
}

/// The entries of a list.
pub struct Listed {
    /// They.
    pub entries: Vec<Value>,
    /// Whether there are more than were asked for.
    pub is_cut: bool,
}

impl Failure {
    /// Nothing has this reference.
    pub fn is_missing(&self) -> bool {
        // A status alone would not do: whatever stands at a wrong address answers 404, too.
        self.code == "resource_missing"
    }

    /// The parameters, or the state of what they name, do not allow it.
    pub fn is_bad_request(&self) -> bool {
        self.status == Some(StatusCode::BAD_REQUEST)
    }

    /// There was no answer that could be understood.
    fn without_answer(error: GatewayError, may_retry: bool) -> Failure {
        Failure { error, status: None, code: String::new(), may_retry }
    }

    fn protocol(what: &str) -> Failure {
        Failure::without_answer(GatewayError::Protocol(what.to_owned()), false)
    }

    fn lost(what: &str) -> Failure {
        Failure::without_answer(GatewayError::Unavailable(what.to_owned()), true)
    }

    fn misconfigured(what: &str) -> Failure {
        Failure::without_answer(GatewayError::Misconfigured(what.to_owned()), false)
    }

    /// What an answer with a status that is no success means.
    fn answered(status: StatusCode, headers: &HeaderMap, body: &Value) -> Failure {
        if status.is_redirection() {
            return Failure::protocol("a redirect");
        }
        let name = |field: &str| named(body.pointer(field).and_then(Value::as_str).unwrap_or_default());
        let (kind, code) = (name("/error/type"), name("/error/code"));
        let request = named(header(headers, "request-id"));
        let words = [format!("HTTP {}", status.as_u16()), kind, code.clone(), request];
        let detail = words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        let error = match status.as_u16() {
            401 | 403 => GatewayError::Misconfigured(detail),
            // 409 is another call about the same thing, 424 somebody whom Stripe depends on.
            409 | 424 | 429 | 500.. => GatewayError::Unavailable(detail),
            400..=499 => GatewayError::Refused(detail),
            _ => GatewayError::Protocol(detail),
        };
        let may_retry = match header(headers, "stripe-should-retry") {
            "true" => true,
            "false" => false,
            _ => status == StatusCode::CONFLICT || status.is_server_error(),
        };
        Failure { error, status: Some(status), code, may_retry }
    }
}

impl From<GatewayError> for Failure {
    fn from(error: GatewayError) -> Self {
        Failure::without_answer(error, false)
    }
}

impl From<Failure> for GatewayError {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

impl Client {
    /// Prepares calls of the API at `base_url`, which has no version in it.
    pub fn new(http: reqwest::Client, base_url: Url, key: &SecretString, mode: Mode) -> Client {
        let mut key = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret())).ok();
        if let Some(key) = &mut key {
            key.set_sensitive(true);
        }
        Client { http, base_url, key, mode }
    }

    /// Reads what stands under a path, given by its segments behind the version.
    pub async fn get(&self, path: &[&str], form: &Form) -> Result<Value, Failure> {
        self.call(&Call { method: Method::GET, path, form, idempotency_key: None }).await
    }

    /// The same; `None` if there is no such thing.
    pub async fn find(&self, path: &[&str], form: &Form) -> Result<Option<Value>, Failure> {
        match self.get(path, form).await {
            Ok(found) => Ok(Some(found)),
            Err(failure) if failure.is_missing() => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Changes something. Called twice with one key, it is changed once, and answered alike.
    pub async fn post(&self, path: &[&str], form: &Form, idempotency_key: &str) -> Result<Value, Failure> {
        let key = Some(idempotency_key);
        self.call(&Call { method: Method::POST, path, form, idempotency_key: key }).await
    }

    /// Changes something under a key that only the retries of this call share.
    pub async fn post_once(&self, path: &[&str], form: &Form) -> Result<Value, Failure> {
        let key = uuid::Builder::from_random_bytes(drawn()).into_uuid();
        self.post(path, form, &key.to_string()).await
    }

    /// Reads a list, at most so many pages of it, newest entries first.
    pub async fn list(&self, path: &[&str], form: Form, most_pages: usize) -> Result<Listed, Failure> {
        let form = form.with("limit", PAGE);
        let mut entries: Vec<Value> = Vec::new();
        for _ in 0..most_pages {
            let form = match entries.last() {
                None => form.clone(),
                Some(last) => {
                    let id = reading::id(last).ok_or_else(|| Failure::protocol("an entry without an id"))?;
                    form.clone().with("starting_after", id)
                }
            };
            let mut page = self.get(path, &form).await?;
            let has_more = page.get("has_more").and_then(Value::as_bool).unwrap_or_default();
            let Some(Value::Array(data)) = page.get_mut("data").map(Value::take) else {
                return Err(Failure::protocol("a list without data"));
            };
            if has_more && data.is_empty() {
                return Err(Failure::protocol("an empty page with more behind it"));
            }
            entries.extend(data);
            if !has_more {
                return Ok(Listed { entries, is_cut: false });
            }
        }
        Ok(Listed { entries, is_cut: true })
    }

    async fn call(&self, call: &Call<'_>) -> Result<Value, Failure> {
        let started = Instant::now();
        for pause in pauses() {
            let failure = match self.attempt(call, started).await {
                Err(failure) if failure.may_retry => failure,
                answer => return answer,
            };
            if started.elapsed().saturating_add(pause) >= TOTAL {
                return Err(failure);
            }
            sleep(pause).await;
        }
        self.attempt(call, started).await
    }

    async fn attempt(&self, call: &Call<'_>, started: Instant) -> Result<Value, Failure> {
        let request = self.request(call)?;
        let left = TOTAL.saturating_sub(started.elapsed());
        let attempt = timeout(ATTEMPT.min(left), self.answer(request)).await;
        attempt.unwrap_or_else(|_| Err(Failure::lost("it was too slow")))
    }

    fn request(&self, call: &Call<'_>) -> Result<RequestBuilder, Failure> {
        let key = self.key.clone();
        let key = key.ok_or_else(|| Failure::misconfigured("it holds characters that no header may hold"))?;
        let mut url = self.base_url.clone();
        url.path_segments_mut()
            .map_err(|()| Failure::misconfigured("the base URL cannot have a path"))?
            .pop_if_empty()
            .push("v1")
            .extend(call.path);
        let is_read = call.method == Method::GET;
        if is_read && !call.form.as_str().is_empty() {
            url.set_query(Some(call.form.as_str()));
        }
        let mut request = self.http.request(call.method.clone(), url);
        request = request.header(AUTHORIZATION, key).header("stripe-version", VERSION);
        if let Some(key) = call.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        if !is_read {
            let body = call.form.as_str().to_owned();
            request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body);
        }
        Ok(request)
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Value, Failure> {
        let response = request.send().await.map_err(|error| transport(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        if headers.contains_key(CONTENT_ENCODING) {
            return Err(Failure::protocol("a compressed answer, which was not asked for"));
        }
        let body = read(response).await?;
        let body: Option<Value> = serde_json::from_slice(&body).ok();
        if !status.is_success() {
            return Err(Failure::answered(status, &headers, &body.unwrap_or_default()));
        }
        let body =
            body.filter(Value::is_object).ok_or_else(|| Failure::protocol("a body that is no object"))?;
        if reading::mode(&body).is_some_and(|mode| mode != self.mode) {
            return Err(Failure::misconfigured("it is for the other mode"));
        }
        Ok(body)
    }
}

async fn read(mut response: Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| transport(&error))? {
        if body.len().saturating_add(piece.len()) > MAX_ANSWER {
            return Err(Failure::protocol("a body that is too long"));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// A failure below HTTP. The error itself names the address.
fn transport(error: &reqwest::Error) -> Failure {
    if error.is_timeout() {
        return Failure::lost("it was too slow");
    }
    Failure::lost(if error.is_connect() { "no connection" } else { "the connection broke" })
}

/// The pauses before each retry.
fn pauses() -> impl Iterator<Item = Duration> {
    let [jitter] = drawn();
    let jitter = PAUSE.saturating_mul(u32::from(jitter)).checked_div(u8::MAX.into()).unwrap_or_default();
    [PAUSE, PAUSE.saturating_add(jitter)].into_iter()
}

/// Random bytes for what has to differ and need not be a secret.
fn drawn<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom.fill(&mut bytes);
    bytes
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// A name of theirs, such as an error's code, as far as it is one.
fn named(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
        .take(MAX_NAME)
        .collect()
}
