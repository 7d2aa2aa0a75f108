//! What vendors say of their failures, in an answer of its own or inside a stream.

use std::time::Duration;

use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::chat::provider::ProviderError;

/// The longest wait that a provider may ask for.
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

    /// Whether it is an answer of its own: then nothing was generated.
    pub fn is_answer(&self) -> bool {
        self.is_answer
    }

    /// The code or type of the error. Its message is left out: it may quote the key or the prompt.
    pub fn name(&self) -> String {
        let text = |name: &str| self.error.get(name).and_then(Value::as_str);
        // Some servers repeat the status as the code; then the type says more.
        let code = text("code").filter(|code| code.parse::<u16>().is_err());
        let number = || self.error.get("code").map(Value::to_string);
        let name = code.or_else(|| text("type")).map(str::to_owned).or_else(number).unwrap_or_default();
        name.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')).take(64).collect()
    }

    /// Status and name, for the operator's log.
    pub fn detail(&self) -> String {
        match self.status {
            Some(status) if self.is_answer => format!("HTTP {status} {}", self.name()),
            _ => self.name(),
        }
    }

    /// The vendor asks to wait.
    pub fn busy(&self) -> ProviderError {
        ProviderError::Busy { detail: self.detail(), retry_after: self.retry_after }
    }
}

/// How long to wait, where the server says something usable.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let seconds = number("retry-after-ms").map(|ms| ms / 1000.0).or_else(|| number("retry-after"))?;
    let wait = Duration::try_from_secs_f64(seconds).ok()?;
    (!wait.is_zero() && wait <= MAX_RETRY_AFTER).then_some(wait)
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
            ("retry-after", "999999999", None),
            ("retry-after", "NaN", None),
            ("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT", None),
            ("x-other", "7", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(reqwest::header::HeaderName::from_static(name), value.parse().unwrap());
            assert_eq!(retry_after(&headers), wait, "{name}: {value}");
        }
    }
}
