//! OpenAI's Chat Completions stream, which most other servers speak too.
//!
//! Sources: the OpenAI API reference, and what compatible servers do in practice: text and finish reason in one chunk,
//! usage in an extra chunk after the end or in every chunk, errors inside a 200, no `[DONE]`. So every field is optional
//! and unknown ones pass by.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::{
    Client,
    header::{AUTHORIZATION, HeaderName, HeaderValue},
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

/// The header in which Azure's deployments want the key.
const AZURE_KEY: HeaderName = HeaderName::from_static("api-key");

/// Where a server is, and how it is to be spoken to.
#[derive(Clone, Debug)]
pub struct OpenAiSettings {
    /// With the version, as in the SDKs: `https://api.openai.com/v1`. A query, such as Azure's `api-version`, is kept.
    pub base_url: url::Url,
    /// The key; servers on this machine often need none.
    pub api_key: Option<SecretString>,
    /// Where the key goes.
    pub auth: KeyPlace,
    /// The model.
    pub model: Model,
    /// How long the response's headers may take.
    pub headers_timeout: Duration,
}

/// The header in which a server wants its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPlace {
    /// `Authorization: Bearer KEY`, nearly everywhere.
    Bearer,
    /// `api-key: KEY`, for Azure's deployments.
    ApiKey,
}

/// A server that speaks Chat Completions.
pub struct OpenAi {
    settings: OpenAiSettings,
    client: Client,
    endpoint: url::Url,
    key: Option<(HeaderName, HeaderValue)>,
}

impl OpenAi {
    /// Prepares the requests; connects when the first reply is asked for.
    ///
    /// # Errors
    ///
    /// A sentence that says which setting cannot be used, without showing it.
    pub fn new(settings: OpenAiSettings, client: Client) -> Result<OpenAi, String> {
        let endpoint = exchange::endpoint(&settings.base_url, &["chat", "completions"])?;
        let (header, prefix) = match settings.auth {
            KeyPlace::Bearer => (AUTHORIZATION, "Bearer "),
            KeyPlace::ApiKey => (AZURE_KEY, ""),
        };
        let key = settings.api_key.as_ref().map(|key| exchange::secret_header(prefix, key)).transpose()?;
        let key = key.map(|key| (header, key));
        Ok(OpenAi { settings, client, endpoint, key })
    }

    fn body(&self, prompt: &Prompt) -> Value {
        let system = json!({"role": "system", "content": prompt.system});
        let messages: Vec<Value> = std::iter::once(system).chain(alternating(&prompt.messages)).collect();
        let mut body = json!({
            "model": self.settings.model.name,
            "messages": messages,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        let host = Host::of(&self.endpoint);
        if let Some(fields) = body.as_object_mut() {
            let limit = if host == Host::Other { "max_tokens" } else { "max_completion_tokens" };
            fields.insert(limit.into(), prompt.max_output_tokens.into());
            if host == Host::OpenAi {
                let options = json!({"include_usage": true, "include_obfuscation": false});
                fields.insert("stream_options".into(), options);
            }
        }
        body
    }
}

/// Whose server it is. OpenAI's models refuse `max_tokens` by now; others know nothing else.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Host {
    OpenAi,
    Azure,
    Other,
}

impl Host {
    fn of(endpoint: &url::Url) -> Host {
        let host = endpoint.host_str().unwrap_or_default();
        if host == "api.openai.com" {
            Host::OpenAi
        } else if host.ends_with(".azure.com") && endpoint.path().starts_with("/openai/") {
            Host::Azure
        } else {
            Host::Other
        }
    }
}

#[async_trait]
impl ChatProvider for OpenAi {
    fn model(&self) -> &Model {
        &self.settings.model
    }

    async fn reply(&self, prompt: Prompt) -> Result<ReplyStream, ProviderError> {
        let mut request = self.client.post(self.endpoint.clone()).json(&self.body(&prompt));
        if let Some((header, key)) = &self.key {
            request = request.header(header, key.clone());
        }
        exchange::send::<ChatCompletions>(request, self.settings.headers_timeout).await
    }
}

/// The wire format.
#[derive(Default)]
pub struct ChatCompletions;

impl Wire for ChatCompletions {
    /// As the SDKs do: whatever stands behind the mark.
    fn is_end_mark(data: &str) -> bool {
        data.trim_start().starts_with("[DONE]")
    }

    fn chunk(&mut self, chunk: &Value, parts: &mut Parts) {
        if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
            parts.broken(Self::judge(&Complaint::inside(error)));
            return;
        }
        // Empty choices are legal anywhere; others than the first were not asked for.
        if let Some(choice) = chunk.get("choices").and_then(|choices| choices.get(0)) {
            // A whole answer, which is not a stream, has a message in place of the delta.
            if let Some(content) = choice.get("delta").or_else(|| choice.get("message")) {
                delta(content, parts);
            }
            match choice.get("finish_reason").and_then(Value::as_str) {
                Some("error") => return parts.broken(ProviderError::Failed("finish_reason error".into())),
                // Some servers write the empty text where others write null.
                None | Some("") => {}
                Some(reason) => parts.finish(finish_reason(reason)),
            }
        }
        let groq = || chunk.get("x_groq").and_then(|groq| groq.get("usage"));
        if let Some(count) = chunk.get("usage").and_then(usage).or_else(|| groq().and_then(usage)) {
            parts.usage(count);
        }
    }

    fn judge(complaint: &Complaint<'_>) -> ProviderError {
        match complaint.name().as_str() {
            // The first is OpenAI's, the second llama.cpp's.
            "context_length_exceeded" | "exceed_context_size_error" => ProviderError::PromptTooLong,
            "content_filter" | "content_policy_violation" => ProviderError::Declined,
            "insufficient_quota" => ProviderError::OutOfCredit(complaint.detail()),
            // vLLM and OpenRouter have no name for it.
            _ if complaint.says(&["maximum context length"]) => ProviderError::PromptTooLong,
            // OpenRouter says with the status of a refused key that a prompt was flagged.
            _ if complaint.status == Some(403) && complaint.has("/metadata/reasons") => {
                ProviderError::Declined
            }
            _ => complaint.by_status(),
        }
    }
}

fn delta(delta: &Value, parts: &mut Parts) {
    let text = |name: &str| delta.get(name).map(text_of).filter(|text| !text.is_empty());
    if text("reasoning_content").or_else(|| text("reasoning")).is_some() {
        parts.reasoning();
    }
    for text in [text("content"), text("refusal")].into_iter().flatten() {
        parts.text(&text);
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
fn usage(usage: &Value) -> Option<TokenCount> {
    let tokens = |name: &str| usage.get(name).and_then(Value::as_u64);
    let (input, output) = (tokens("prompt_tokens"), tokens("completion_tokens"));
    input.or(output)?;
    Some(TokenCount { input: input.unwrap_or(0), output: output.unwrap_or(0) })
}

fn finish_reason(name: &str) -> FinishReason {
    match name {
        "stop" => FinishReason::Stop,
        "length" => FinishReason::Length,
        "content_filter" => FinishReason::ContentFilter,
        _ => FinishReason::Other,
    }
}

#[cfg(test)]
mod tests;
