use reqwest::header::HeaderMap;

use super::*;
use crate::chat::provider::{PromptMessage, Speaker};

fn provider(base_url: &str) -> Anthropic {
    let client = crate::platform::http_client::build(Duration::from_secs(1), Duration::from_secs(1)).unwrap();
    let settings = AnthropicSettings {
        base_url: base_url.parse().unwrap(),
        api_key: SecretString::from("sk-ant-test"),
        model: Model { name: "m".into(), context_tokens: 1000, max_output_tokens: 100 },
        headers_timeout: Duration::from_secs(1),
    };
    Anthropic::new(settings, client).unwrap()
}

fn said(speaker: Speaker, text: &str) -> PromptMessage {
    PromptMessage { speaker, text: text.into() }
}

fn prompt(system: &str, messages: Vec<PromptMessage>) -> Prompt {
    Prompt {
        companion: "roz".into(),
        companion_name: "Roz".into(),
        system: system.into(),
        messages,
        max_output_tokens: 50,
    }
}

#[test]
fn the_request_is_what_the_server_expects() {
    let anthropic = provider("https://api.anthropic.com");
    let messages = vec![
        said(Speaker::Companion, "left over"),
        said(Speaker::User, "a"),
        said(Speaker::Companion, "b"),
        said(Speaker::User, "never answered"),
        said(Speaker::User, "  \n"),
        said(Speaker::User, "c"),
    ];
    insta::assert_json_snapshot!("request", anthropic.body(&prompt("Be Roz.", messages)));
    let silent = anthropic.body(&prompt(" ", vec![said(Speaker::User, "a")]));
    assert_eq!(silent.get("system"), None, "an empty one would be refused");
    assert_eq!(format!("{:?}", anthropic.key), "Sensitive");
    assert!(!format!("{:?}", anthropic.settings).contains("sk-ant"));
}

#[test]
fn the_base_url_may_name_the_version_or_not() {
    for (base_url, endpoint) in [
        ("https://api.anthropic.com", "https://api.anthropic.com/v1/messages"),
        ("https://api.anthropic.com/", "https://api.anthropic.com/v1/messages"),
        ("https://api.anthropic.com/v1", "https://api.anthropic.com/v1/messages"),
        ("https://api.anthropic.com/v1/", "https://api.anthropic.com/v1/messages"),
        ("http://127.0.0.1:4000/anthropic", "http://127.0.0.1:4000/anthropic/v1/messages"),
        ("http://127.0.0.1:4000/tv1", "http://127.0.0.1:4000/tv1/v1/messages"),
    ] {
        assert_eq!(provider(base_url).endpoint.as_str(), endpoint, "{base_url}");
    }
}

#[test]
fn refusals_are_sorted_by_what_can_be_done() {
    let judge =
        |status: u16, body: Value| Messages::judge(&Complaint::answered(status, &HeaderMap::new(), &body));
    let named = |name: &str, message: &str| json!({"type": "error", "error": {"type": name, "message": format!("{message} sk-ant-test")}, "request_id": "r"});
    let detail = |status: u16, name: &str| format!("HTTP {status} {name}");
    let busy = |detail: String| ProviderError::Busy { detail, retry_after: None };
    for (status, name, error) in [
        (400, "invalid_request_error", ProviderError::Rejected(detail(400, "invalid_request_error"))),
        (401, "authentication_error", ProviderError::Misconfigured(detail(401, "authentication_error"))),
        (402, "billing_error", ProviderError::OutOfCredit(detail(402, "billing_error"))),
        (403, "permission_error", ProviderError::Forbidden(detail(403, "permission_error"))),
        (404, "not_found_error", ProviderError::Misconfigured(detail(404, "not_found_error"))),
        (413, "request_too_large", ProviderError::PromptTooLong),
        (429, "rate_limit_error", busy(detail(429, "rate_limit_error"))),
        (500, "api_error", ProviderError::Failed(detail(500, "api_error"))),
        (504, "timeout_error", ProviderError::Lost(detail(504, "timeout_error"))),
        (529, "overloaded_error", busy(detail(529, "overloaded_error"))),
    ] {
        assert_eq!(judge(status, named(name, "x")), error, "{status} {name}");
    }
    let unnamed = |status| judge(status, Value::Null);
    assert_eq!(unnamed(413), ProviderError::PromptTooLong);
    assert_eq!(unnamed(529), busy("HTTP 529 ".into()));
    assert_eq!(unnamed(502), ProviderError::Failed("HTTP 502 ".into()));

    let invalid = |message: &str| judge(400, named("invalid_request_error", message));
    let exhausted = ProviderError::OutOfCredit(detail(400, "invalid_request_error"));
    for (message, error) in [
        ("prompt is too long: 207791 tokens > 200000 maximum", ProviderError::PromptTooLong),
        (
            "input length and `max_tokens` exceed context limit: 178959 + 64000 > 200000",
            ProviderError::PromptTooLong,
        ),
        ("Your credit balance is too low to access the Anthropic API.", exhausted.clone()),
        ("You have reached your specified API usage limits.", exhausted),
        ("Output blocked by content filtering policy", ProviderError::Declined),
    ] {
        assert_eq!(invalid(message), error, "{message}");
    }
}
