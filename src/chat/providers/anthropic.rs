//! Anthropic's Messages stream.
//!
//! Sources: Anthropic's API reference (Messages, streaming, errors), its TypeScript SDK for the shapes of events, and
//! public reports for what errors say. Each event names itself in `type`, so the name that the event stream gives it is not
//! needed. Unknown events, blocks and deltas pass by, as the reference asks.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::{
    Client,
    header::{HeaderName, HeaderValue},
};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::{
    alternating::alternating,
    complaint::Complaint,
    exchange,
    reading::{Parts, Wire},
};
use crate::chat::provider::{
    ChatProvider, FinishReason, Model, Prompt, ProviderError, ReplyStream, TokenCount,
};

const KEY_HEADER: HeaderName = HeaderName::from_static("x-api-key");
const VERSION_HEADER: HeaderName = HeaderName::from_static("anthropic-version");
/// The only version there is; what came later is announced by names that older readers pass by.
const VERSION: HeaderValue = HeaderValue::from_static("2023-06-01");

/// Where a server is, and how it is to be spoken to.
#[derive(Clone, Debug)]
pub struct AnthropicSettings {
    /// With the version or, as in the vendor's SDKs, without: `https://api.anthropic.com`.
    pub base_url: url::Url,
    /// The key.
    pub api_key: SecretString,
    /// The model.
    pub model: Model,
    /// How long the response's headers may take.
    pub headers_timeout: Duration,
}

/// A server that speaks Messages.
pub struct Anthropic {
    settings: AnthropicSettings,
    client: Client,
    endpoint: url::Url,
    key: HeaderValue,
}

impl Anthropic {
    /// Prepares the requests; connects when the first reply is asked for.
    ///
    /// # Errors
    ///
    /// A sentence that says which setting cannot be used, without showing it.
    pub fn new(settings: AnthropicSettings, client: Client) -> Result<Anthropic, String> {
        let names_version = settings.base_url.path().trim_end_matches('/').ends_with("/v1");
        let segments: &[&str] = if names_version { &["messages"] } else { &["v1", "messages"] };
        let endpoint = exchange::endpoint(&settings.base_url, segments)?;
        let key = exchange::secret_header("", &settings.api_key)?;
        Ok(Anthropic { settings, client, endpoint, key })
    }

    fn body(&self, prompt: &Prompt) -> Value {
        let mut body = json!({
            "model": self.settings.model.name,
            "max_tokens": prompt.max_output_tokens,
            "stream": true,
        });
        if let Some(fields) = body.as_object_mut() {
            // Empty texts are refused.
            if !prompt.system.trim().is_empty() {
                fields.insert("system".into(), prompt.system.as_str().into());
            }
            fields.insert("messages".into(), alternating(&prompt.messages).into());
        }
        body
    }
}

#[async_trait]
impl ChatProvider for Anthropic {
    fn model(&self) -> &Model {
        &self.settings.model
    }

    async fn reply(&self, prompt: Prompt) -> Result<ReplyStream, ProviderError> {
        let request = self.client.post(self.endpoint.clone()).json(&self.body(&prompt));
        let request = request.header(KEY_HEADER, self.key.clone()).header(VERSION_HEADER, VERSION);
        exchange::send::<Messages>(request, self.settings.headers_timeout).await
    }
}

/// The wire format.
#[derive(Default)]
pub struct Messages {
    /// What was counted so far: each field of a later count replaces its own, and null leaves it.
    input: Option<u64>,
    written_to_cache: Option<u64>,
    read_from_cache: Option<u64>,
    output: Option<u64>,
}

impl Wire for Messages {
    fn is_end_mark(_: &str) -> bool {
        false // It is an event like any other.
    }

    fn chunk(&mut self, chunk: &Value, parts: &mut Parts) {
        let field = |name: &str| chunk.get(name).unwrap_or(&Value::Null);
        // Servers that translate may send an error in the words of another wire, without a type.
        if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
            return parts.broken(Self::judge(&Complaint::inside(error)));
        }
        match chunk.get("type").and_then(Value::as_str).unwrap_or_default() {
            "message_start" => {
                self.count(field("message").get("usage"));
                // The reply has not begun: what is said of its length stands for nothing.
                self.output = None;
            }
            "content_block_start" => block(field("content_block"), parts),
            "content_block_delta" => block(field("delta"), parts),
            "message_delta" => {
                finish(field("delta").get("stop_reason"), parts);
                self.tell_count(chunk.get("usage"), parts);
            }
            "message_stop" => parts.end(),
            // A whole answer, which is not a stream.
            "message" => {
                for content in field("content").as_array().into_iter().flatten() {
                    block(content, parts);
                }
                finish(chunk.get("stop_reason"), parts);
                self.tell_count(chunk.get("usage"), parts);
            }
            "error" => parts.broken(ProviderError::Failed(String::new())),
            _ => {}
        }
    }

    fn judge(complaint: &Complaint<'_>) -> ProviderError {
        match complaint.name().as_str() {
            "overloaded_error" | "rate_limit_error" => complaint.busy(),
            "billing_error" => ProviderError::OutOfCredit(complaint.detail()),
            "authentication_error" | "not_found_error" => ProviderError::Misconfigured(complaint.detail()),
            "permission_error" => ProviderError::Forbidden(complaint.detail()),
            "request_too_large" => ProviderError::PromptTooLong,
            // One name for many things: only the message tells them apart.
            "invalid_request_error" if complaint.says(&["prompt is too long", "exceed context limit"]) => {
                ProviderError::PromptTooLong
            }
            "invalid_request_error"
                if complaint
                    .says(&["credit balance is too low", "reached your specified api usage limits"]) =>
            {
                ProviderError::OutOfCredit(complaint.detail())
            }
            "invalid_request_error" if complaint.says(&["blocked by content filtering policy"]) => {
                ProviderError::Declined
            }
            // What stands in front of the vendor refuses long bodies by itself, and not in JSON.
            _ if complaint.status == Some(413) => ProviderError::PromptTooLong,
            _ => complaint.by_status(),
        }
    }
}

impl Messages {
    fn count(&mut self, usage: Option<&Value>) {
        let Some(usage) = usage else { return };
        let tokens = |name: &str| usage.get(name).and_then(Value::as_u64);
        self.input = tokens("input_tokens").or(self.input);
        self.written_to_cache = tokens("cache_creation_input_tokens").or(self.written_to_cache);
        self.read_from_cache = tokens("cache_read_input_tokens").or(self.read_from_cache);
        self.output = tokens("output_tokens").or(self.output);
    }

    /// Only both counts together are one: half of it would pass for the whole.
    fn tell_count(&mut self, usage: Option<&Value>, parts: &mut Parts) {
        let usage = usage.filter(|usage| usage.is_object());
        self.count(usage);
        if let (Some(_), Some(input), Some(output)) = (usage, self.input, self.output) {
            let cached = [self.written_to_cache, self.read_from_cache].into_iter().flatten();
            parts.usage(TokenCount { input: cached.fold(input, u64::saturating_add), output });
        }
    }
}

/// The beginning of a block, a delta of one, or a whole one.
fn block(block: &Value, parts: &mut Parts) {
    match block.get("type").and_then(Value::as_str).unwrap_or_default() {
        "text" | "text_delta" => {
            parts.text(block.get("text").and_then(Value::as_str).unwrap_or_default());
        }
        // Signs of life, also where the thoughts themselves are left out.
        "thinking" | "redacted_thinking" | "thinking_delta" => parts.reasoning(),
        _ => {}
    }
}

fn finish(stop_reason: Option<&Value>, parts: &mut Parts) {
    let Some(stop_reason) = stop_reason.and_then(Value::as_str) else { return };
    parts.finish(match stop_reason {
        "end_turn" | "stop_sequence" => FinishReason::Stop,
        "max_tokens" | "model_context_window_exceeded" => FinishReason::Length,
        "refusal" => FinishReason::ContentFilter,
        _ => FinishReason::Other,
    });
}

#[cfg(test)]
mod tests;
