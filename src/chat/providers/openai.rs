//! OpenAI's Chat Completions stream, which most other servers speak too.
//!
//! Sources: the OpenAI API reference, and what compatible servers do in practice: text and finish reason in one chunk,
//! usage in an extra chunk after the end or in every chunk, errors inside a 200, no `[DONE]`. So every field is optional,
//! unknown ones pass by, and a reply is complete with a finish reason or `[DONE]`, whichever comes.

use std::{collections::VecDeque, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use reqwest::{
    Client, Response, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout, timeout_at};

use super::sse::SseParser;
use crate::chat::provider::{
    ChatProvider, FinishReason, Model, Prompt, ProviderError, ReplyPart, ReplyStream, Speaker, TimeLimit,
    TokenCount,
};

/// The most of an error's body that is read.
const MAX_ERROR_BODY: usize = 16 * 1024;
/// The most of an answer that is not a stream.
const MAX_JSON_BODY: usize = 1024 * 1024;
/// How long an error's body may take: its status has said what matters.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the count of tokens and the end mark may take after the finish reason.
const AFTER_FINISH: Duration = Duration::from_secs(3);
/// The longest wait that is passed on, whatever a provider asks for.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(1);
/// OpenAI's own host wants some parameters that compatible servers do not know.
const OPENAI_HOST: &str = "api.openai.com";

/// Where a server is, and how it is to be spoken to.
#[derive(Clone, Debug)]
pub struct OpenAiSettings {
    /// With the version, as in the SDKs: `https://api.openai.com/v1`.
    pub base_url: url::Url,
    /// The key; servers on this machine often need none.
    pub api_key: Option<SecretString>,
    /// The model.
    pub model: Model,
    /// How long the response's headers may take.
    pub headers_timeout: Duration,
}

/// A server that speaks Chat Completions.
pub struct OpenAi {
    settings: OpenAiSettings,
    client: Client,
    endpoint: url::Url,
    authorization: Option<HeaderValue>,
}

impl OpenAi {
    /// Prepares the requests; connects when the first reply is asked for.
    ///
    /// # Errors
    ///
    /// A sentence that says which setting cannot be used, without showing it.
    pub fn new(settings: OpenAiSettings, client: Client) -> Result<OpenAi, String> {
        let mut endpoint = settings.base_url.clone();
        endpoint
            .path_segments_mut()
            .map_err(|()| "the base URL cannot have a path")?
            .pop_if_empty()
            .extend(["chat", "completions"]);
        let authorization = settings.api_key.as_ref().map(|key| {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret()))
                .map_err(|_| "the API key holds characters that no header may hold")?;
            value.set_sensitive(true);
            Ok::<_, String>(value)
        });
        Ok(OpenAi { authorization: authorization.transpose()?, settings, client, endpoint })
    }

    fn body(&self, prompt: &Prompt) -> Value {
        let system = json!({"role": "system", "content": prompt.system});
        let turns = prompt.messages.iter().map(|message| {
            let role = match message.speaker {
                Speaker::User => "user",
                Speaker::Companion => "assistant",
            };
            json!({"role": role, "content": message.text})
        });
        let messages: Vec<Value> = std::iter::once(system).chain(turns).collect();
        let mut body = json!({
            "model": self.settings.model.name,
            "messages": messages,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        let is_openai = self.endpoint.host_str() == Some(OPENAI_HOST);
        if let Some(fields) = body.as_object_mut() {
            let limit = if is_openai { "max_completion_tokens" } else { "max_tokens" };
            fields.insert(limit.into(), prompt.max_output_tokens.into());
            if is_openai {
                let options = json!({"include_usage": true, "include_obfuscation": false});
                fields.insert("stream_options".into(), options);
            }
        }
        body
    }
}

#[async_trait]
impl ChatProvider for OpenAi {
    fn model(&self) -> &Model {
        &self.settings.model
    }

    async fn reply(&self, prompt: Prompt) -> Result<ReplyStream, ProviderError> {
        let mut request = self.client.post(self.endpoint.clone()).json(&self.body(&prompt));
        if let Some(authorization) = &self.authorization {
            request = request.header(reqwest::header::AUTHORIZATION, authorization.clone());
        }
        let response = timeout(self.settings.headers_timeout, request.send())
            .await
            .map_err(|_| ProviderError::TimedOut(TimeLimit::Headers))?
            .map_err(|error| transport(&error, TimeLimit::Headers))?;
        if response.status() != StatusCode::OK {
            return Err(refusal(response).await);
        }
        if response.headers().contains_key(CONTENT_ENCODING) {
            return Err(ProviderError::Protocol("a compressed answer, which was not asked for".into()));
        }
        match content_type(response.headers()).as_str() {
            // Some servers and proxies do not name a stream one. What is none has no end mark and fails.
            "text/event-stream" | "text/plain" | "" => Ok(events(response)),
            "application/json" => whole(response).await,
            _ => Err(ProviderError::Protocol("neither a stream nor JSON".into())),
        }
    }
}

/// Reads the stream of a response.
fn events(response: Response) -> ReplyStream {
    let bytes =
        response.bytes_stream().map(|piece| piece.map_err(|error| transport(&error, TimeLimit::Idle)));
    decode(bytes.boxed())
}

/// Turns the bytes of a stream, in whatever pieces, into parts of a reply.
pub fn decode(bytes: BoxStream<'static, Result<Bytes, ProviderError>>) -> ReplyStream {
    struct Reading {
        bytes: BoxStream<'static, Result<Bytes, ProviderError>>,
        parser: Option<SseParser>,
        decoder: Decoder,
        until: Option<Instant>,
    }

    let reading =
        Reading { bytes, parser: Some(SseParser::default()), decoder: Decoder::default(), until: None };
    stream::unfold(reading, |mut reading| async move {
        loop {
            if let Some(part) = reading.decoder.ready.pop_front() {
                return Some((part, reading));
            }
            let parser = reading.parser.as_mut()?;
            let next = match reading.until {
                Some(until) => timeout_at(until, reading.bytes.next()).await.unwrap_or(None),
                None => reading.bytes.next().await,
            };
            match next {
                Some(Ok(piece)) => {
                    let mut events = Vec::new();
                    let result = parser.push(&piece, &mut events);
                    for data in &events {
                        reading.decoder.event(data);
                    }
                    if let Err(error) = result {
                        reading.decoder.broken(ProviderError::Protocol(error.to_string()));
                    }
                }
                Some(Err(error)) => reading.decoder.broken(error),
                None => {
                    if let Some(data) = reading.parser.take().and_then(SseParser::finish) {
                        reading.decoder.cut_off_event(&data);
                    }
                    reading.decoder.broken(ProviderError::Truncated);
                }
            }
            let has_said_more = !reading.decoder.ready.is_empty();
            if reading.decoder.is_over {
                reading.parser = None;
            } else if reading.decoder.finish.is_some() && (has_said_more || reading.until.is_none()) {
                // A server that only keeps the connection open from here on has said everything.
                reading.until = Instant::now().checked_add(AFTER_FINISH);
            }
        }
    })
    .boxed()
}

/// Makes parts of events.
#[derive(Default)]
struct Decoder {
    ready: VecDeque<Result<ReplyPart, ProviderError>>,
    finish: Option<FinishReason>,
    is_over: bool,
}

impl Decoder {
    fn event(&mut self, data: &str) {
        if self.is_over || data.trim().is_empty() {
            return;
        }
        // As the SDKs do: whatever stands behind the mark.
        if data.trim_start().starts_with("[DONE]") {
            self.over(self.finish.unwrap_or(FinishReason::Stop));
            return;
        }
        match serde_json::from_str::<Value>(data) {
            Ok(chunk) => self.chunk(&chunk),
            Err(_) => self.broken(ProviderError::Protocol("an event that is not JSON".into())),
        }
    }

    /// An event that the end of the stream cut off counts if it is the end mark or whole JSON.
    fn cut_off_event(&mut self, data: &str) {
        if data.starts_with("[DONE]") || serde_json::from_str::<Value>(data).is_ok() {
            self.event(data);
        }
    }

    fn chunk(&mut self, chunk: &Value) {
        if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
            self.broken(failure_inside(error));
            return;
        }
        // Empty choices are legal anywhere; others than the first were not asked for.
        if let Some(choice) = chunk.get("choices").and_then(|choices| choices.get(0)) {
            // A whole answer, which is not a stream, has a message in place of the delta.
            if let Some(delta) = choice.get("delta").or_else(|| choice.get("message")) {
                self.delta(delta);
            }
            match choice.get("finish_reason").and_then(Value::as_str) {
                Some("error") => return self.broken(ProviderError::Failed("finish_reason error".into())),
                // Some servers write the empty text where others write null.
                None | Some("") => {}
                Some(reason) => self.finish = Some(finish_reason(reason)),
            }
        }
        let groq = || chunk.get("x_groq").and_then(|groq| groq.get("usage"));
        self.ready.extend(chunk.get("usage").and_then(usage).or_else(|| groq().and_then(usage)).map(Ok));
    }

    fn delta(&mut self, delta: &Value) {
        let text = |name: &str| delta.get(name).map(text_of).filter(|text| !text.is_empty());
        if text("reasoning_content").or_else(|| text("reasoning")).is_some() {
            self.ready.push_back(Ok(ReplyPart::Reasoning));
        }
        // Also after a finish reason: some servers repeat one in every chunk.
        let parts = [text("content"), text("refusal")].into_iter().flatten();
        self.ready.extend(parts.map(|text| Ok(ReplyPart::Text(text))));
    }

    /// The stream broke. After a finish reason nothing was lost but the usage.
    fn broken(&mut self, error: ProviderError) {
        if self.is_over {
            return;
        }
        match self.finish {
            Some(reason) => self.over(reason),
            None => {
                self.is_over = true;
                self.ready.push_back(Err(error));
            }
        }
    }

    fn over(&mut self, reason: FinishReason) {
        self.is_over = true;
        self.ready.push_back(Ok(ReplyPart::Finish(reason)));
    }
}

/// Text, or the texts of a list of parts.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect()
        }
        _ => String::new(),
    }
}

/// A count of tokens. An object without one counts nothing, and must not pass for a count of zero.
fn usage(usage: &Value) -> Option<ReplyPart> {
    let tokens = |name: &str| usage.get(name).and_then(Value::as_u64);
    let (input, output) = (tokens("prompt_tokens"), tokens("completion_tokens"));
    input.or(output)?;
    Some(ReplyPart::Usage(TokenCount { input: input.unwrap_or(0), output: output.unwrap_or(0) }))
}

/// Reads an answer that came whole although a stream was asked for.
async fn whole(response: Response) -> Result<ReplyStream, ProviderError> {
    let body = limited(response, MAX_JSON_BODY).await?;
    let answer: Value = serde_json::from_slice(&body)
        .map_err(|_| ProviderError::Protocol("a body that is not JSON".into()))?;
    let mut decoder = Decoder::default();
    decoder.chunk(&answer);
    decoder.broken(ProviderError::Truncated);
    match decoder.ready.pop_front() {
        Some(Err(error)) => Err(error),
        Some(first) => Ok(stream::iter(std::iter::once(first).chain(decoder.ready)).boxed()),
        None => Err(ProviderError::Truncated),
    }
}

async fn limited(response: Response, most: usize) -> Result<Vec<u8>, ProviderError> {
    let mut pieces = response.bytes_stream();
    let mut body = Vec::new();
    while let Some(piece) = pieces.next().await {
        body.extend_from_slice(&piece.map_err(|error| transport(&error, TimeLimit::Idle))?);
        if body.len() > most {
            return Err(ProviderError::Protocol("a body that is too long".into()));
        }
    }
    Ok(body)
}

/// What a status other than 200 means to the caller.
async fn refusal(response: Response) -> ProviderError {
    let status = response.status();
    let retry_after = retry_after(response.headers());
    let body = timeout(ERROR_BODY_TIMEOUT, limited(response, MAX_ERROR_BODY)).await;
    let body = body.ok().and_then(Result::ok).unwrap_or_default();
    let error: Value = serde_json::from_slice(&body).unwrap_or_default();
    let name = error.get("error").map(error_name).unwrap_or_default();
    let detail = format!("HTTP {} {name}", status.as_u16());
    match (status.as_u16(), name.as_str()) {
        (400 | 413, "context_length_exceeded") => ProviderError::PromptTooLong,
        (400 | 403 | 422, "content_filter" | "content_policy_violation") => ProviderError::Declined,
        (401..=404, _) => ProviderError::Misconfigured(detail),
        (429, "insufficient_quota") => ProviderError::OutOfCredit(detail),
        (429 | 503 | 529, _) => ProviderError::Busy { detail, retry_after },
        (300..=399, _) => ProviderError::Protocol("a redirect".into()),
        // 524 is what Cloudflare says for 504.
        (408 | 504 | 524, _) => ProviderError::Lost(detail),
        (400..=499, _) => ProviderError::Rejected(detail),
        _ => ProviderError::Failed(detail),
    }
}

/// What an error inside a stream means. Some servers send the status that it would have had as the code.
fn failure_inside(error: &Value) -> ProviderError {
    let code = error.get("code");
    let status = code.and_then(|code| code.as_u64().or_else(|| code.as_str()?.parse().ok()));
    let detail = error_name(error);
    match status {
        Some(429 | 503 | 529) => ProviderError::Busy { detail, retry_after: None },
        _ => ProviderError::Failed(detail),
    }
}

/// The code or type of an error object. Its message is left out: it may quote the key or the prompt.
fn error_name(error: &Value) -> String {
    let text = |name: &str| error.get(name).and_then(Value::as_str);
    // Some servers repeat the status as the code; then the type says more.
    let code = text("code").filter(|code| code.parse::<u16>().is_err());
    let number = || error.get("code").map(Value::to_string);
    let name = code.or_else(|| text("type")).map(str::to_owned).or_else(number).unwrap_or_default();
    name.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')).take(64).collect()
}

fn finish_reason(name: &str) -> FinishReason {
    match name {
        "stop" => FinishReason::Stop,
        "length" => FinishReason::Length,
        "content_filter" => FinishReason::ContentFilter,
        _ => FinishReason::Other,
    }
}

fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// How long to wait, where the server says something usable.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let seconds = number("retry-after-ms").map(|ms| ms / 1000.0).or_else(|| number("retry-after"))?;
    let wait = Duration::try_from_secs_f64(seconds).ok()?;
    (!wait.is_zero()).then_some(wait.min(MAX_RETRY_AFTER))
}

/// A failure below HTTP. The text names no address: it may hold a password.
fn transport(error: &reqwest::Error, limit: TimeLimit) -> ProviderError {
    if error.is_timeout() {
        return ProviderError::TimedOut(if error.is_connect() { TimeLimit::Connect } else { limit });
    }
    if error.is_connect() {
        return ProviderError::Unreachable("no connection".into());
    }
    ProviderError::Lost("the connection broke".into())
}

#[cfg(test)]
mod tests;
