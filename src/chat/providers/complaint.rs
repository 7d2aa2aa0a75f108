//! What vendors say of their failures, in an answer of its own or inside a stream.

use std::time::Duration;

use jiff::fmt::rfc2822;
use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};
use serde_json::Value;

use crate::chat::provider::ProviderError;

/// The longest wait that is passed on, whatever a provider asks for.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(1);

/// A vendor's error.
pub struct Complaint<'a> {
    /// The status of the answer, or the one that an error inside a stream says it would have had.
    pub status: Option<u16>,
    /// How long it asks to wait.
    pub retry_after: Option<Duration>,
    error: &'a Value,
    is_answer: bool,
}

impl<'a> Complaint<'a> {
    /// An answer with a status other than 200. `body` is null where it is not JSON.
    pub fn answered(status: u16, headers: &HeaderMap, body: &'a Value) -> Complaint<'a> {
        let error = body.get("error").unwrap_or(&Value::Null);
        Complaint { status: Some(status), retry_after: retry_after(headers), error, is_answer: true }
    }

    /// An error object inside a stream, or in an answer with status 200. Some servers send the status as the code.
    pub fn inside(error: &'a Value) -> Complaint<'a> {
        let number = |code: &Value| code.as_u64().or_else(|| code.as_str()?.parse().ok());
        let status = error.get("code").and_then(number).and_then(|code| code.try_into().ok());
        Complaint { status, retry_after: None, error, is_answer: false }
    }

    /// The code or type of the error. Its message is left out: it may quote the key or the prompt.
    pub fn name(&self) -> String {
        let text = |name: &str| self.error.get(name).and_then(Value::as_str);
        // Some servers repeat the status as the code; then the type says more.
        let code = text("code").filter(|code| code.parse::<u16>().is_err());
        let number = || self.error.get("code").and_then(Value::as_i64).map(|code| code.to_string());
        let name = code.or_else(|| text("type")).map(str::to_owned).or_else(number).unwrap_or_default();
        name.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')).take(64).collect()
    }

    /// Whether the message has one of these texts in it, given in lower case. It is looked at and not kept: it may quote the
    /// key or the prompt.
    pub fn says(&self, texts: &[&str]) -> bool {
        let message = self.error.get("message").and_then(Value::as_str).or_else(|| self.error.as_str());
        let message = message.unwrap_or_default().to_lowercase();
        texts.iter().any(|text| message.contains(text))
    }

    /// Whether the error has a field, by its JSON pointer (RFC 6901).
    pub fn has(&self, pointer: &str) -> bool {
        self.error.pointer(pointer).is_some_and(|value| !value.is_null())
    }

    /// Status and name, for the operator's log.
    pub fn detail(&self) -> String {
        match self.status {
            Some(status) if self.is_answer => format!("HTTP {status} {}", self.name()),
            _ => self.name(),
        }
    }

    /// What the status alone means, where the name does not say more.
    pub fn by_status(&self) -> ProviderError {
        match self.status {
            Some(401 | 404) => ProviderError::Misconfigured(self.detail()),
            Some(403) => ProviderError::Forbidden(self.detail()),
            Some(402) => ProviderError::OutOfCredit(self.detail()),
            Some(429 | 503 | 529) => self.busy(),
            // 524 is what Cloudflare says for 504.
            Some(408 | 504 | 524) => ProviderError::Lost(self.detail()),
            Some(400..=499) => ProviderError::Rejected(self.detail()),
            _ => ProviderError::Failed(self.detail()),
        }
    }

    /// The vendor asks to wait.
    pub fn busy(&self) -> ProviderError {
        ProviderError::Busy { detail: self.detail(), retry_after: self.retry_after }
    }
}

/// How long to wait, where the server says something usable: seconds, milliseconds in the header that OpenAI's SDKs
/// read, or a date (RFC 9110, 10.2.3), which is compared with the server's own clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: HeaderName| headers.get(name)?.to_str().ok().map(str::trim);
    let number = |name: HeaderName| text(name)?.parse::<f64>().ok();
    let date = |name: HeaderName| rfc2822::parse(text(name)?).ok().map(|zoned| zoned.timestamp());
    let milliseconds = number(HeaderName::from_static("retry-after-ms"));
    let seconds = milliseconds
        .map(|ms| ms / 1000.0)
        .or_else(|| number(RETRY_AFTER))
        .or_else(|| Some(date(RETRY_AFTER)?.duration_since(date(DATE)?).as_secs_f64()))?;
    let wait = Duration::try_from_secs_f64(seconds).ok()?;
    (!wait.is_zero()).then_some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_usable_waits_are_taken() {
        for (name, value, wait) in [
            ("retry-after", "7", Some(Duration::from_secs(7))),
            ("retry-after", "0.5", Some(Duration::from_millis(500))),
            ("retry-after-ms", "250", Some(Duration::from_millis(250))),
            ("retry-after", "0", None),
            ("retry-after", "-1", None),
            ("retry-after", "999999999", Some(MAX_RETRY_AFTER)),
            ("retry-after", "NaN", None),
            ("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT", Some(Duration::from_mins(28))),
            ("retry-after", "Wed, 21 Oct 2026 06:59:59 GMT", None),
            ("retry-after", "Thu, 21 Oct 2027 07:28:00 GMT", Some(MAX_RETRY_AFTER)),
            ("x-other", "7", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(DATE, "Wed, 21 Oct 2026 07:00:00 GMT".parse().unwrap());
            headers.insert(HeaderName::from_static(name), value.parse().unwrap());
            assert_eq!(retry_after(&headers), wait, "{name}: {value}");
        }
        let mut without_a_clock = HeaderMap::new();
        without_a_clock.insert(RETRY_AFTER, "Wed, 21 Oct 2026 07:28:00 GMT".parse().unwrap());
        assert_eq!(retry_after(&without_a_clock), None);
    }
}
