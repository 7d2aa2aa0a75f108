use reqwest::header::HeaderMap;

use super::*;
use crate::chat::provider::{PromptMessage, Speaker};

fn provider(base_url: &str, auth: KeyPlace) -> OpenAi {
    let client = crate::platform::http_client::build(Duration::from_secs(1), Duration::from_secs(1)).unwrap();
    let settings = OpenAiSettings {
        base_url: base_url.parse().unwrap(),
        api_key: Some(SecretString::from("sk-test")),
        auth,
        model: Model { name: "m".into(), context_tokens: 1000, max_output_tokens: 100 },
        headers_timeout: Duration::from_secs(1),
    };
    OpenAi::new(settings, client).unwrap()
}

fn prompt() -> Prompt {
    Prompt {
        companion: "roz".into(),
        companion_name: "Roz".into(),
        system: "Be Roz.".into(),
        messages: vec![
            PromptMessage { speaker: Speaker::User, text: "a".into() },
            PromptMessage { speaker: Speaker::Companion, text: "b".into() },
            PromptMessage { speaker: Speaker::User, text: "c".into() },
        ],
        max_output_tokens: 50,
    }
}

#[test]
fn the_request_is_what_the_server_expects() {
    let compatible = provider("http://127.0.0.1:1/v1/", KeyPlace::Bearer);
    assert_eq!(compatible.endpoint.as_str(), "http://127.0.0.1:1/v1/chat/completions");
    insta::assert_json_snapshot!("compatible", compatible.body(&prompt()));
    let openai = provider("https://api.openai.com/v1", KeyPlace::Bearer);
    assert_eq!(openai.endpoint.as_str(), "https://api.openai.com/v1/chat/completions");
    insta::assert_json_snapshot!("openai", openai.body(&prompt()));
}

#[test]
fn azure_gets_its_version_its_header_and_its_name_for_the_limit() {
    let deployment =
        provider("https://r.openai.azure.com/openai/deployments/d?api-version=2024-10-21", KeyPlace::ApiKey);
    assert_eq!(
        deployment.endpoint.as_str(),
        "https://r.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21"
    );
    let (header, key) = deployment.key.as_ref().unwrap();
    assert_eq!((header.as_str(), key.to_str().unwrap()), ("api-key", "sk-test"));
    assert_eq!(format!("{key:?}"), "Sensitive");

    let limit = |base_url: &str| {
        let body = provider(base_url, KeyPlace::Bearer).body(&prompt());
        (body.get("max_tokens").is_some(), body.get("max_completion_tokens").is_some())
    };
    for base_url in ["https://r.openai.azure.com/openai/v1", "https://r.services.ai.azure.com/openai/v1/"] {
        assert_eq!(limit(base_url), (false, true), "{base_url}");
    }
    for base_url in ["https://r.services.ai.azure.com/models", "https://azure.com.example.com/openai/v1"] {
        assert_eq!(limit(base_url), (true, false), "{base_url}");
    }
}

#[test]
fn refusals_are_sorted_by_what_can_be_done() {
    let judge = |status: u16, body: Value| {
        ChatCompletions::judge(&Complaint::answered(status, &HeaderMap::new(), &body))
    };
    let coded = |code: &str| json!({"error": {"message": "key sk-test", "type": "t", "code": code}});
    let busy = |detail: &str| ProviderError::Busy { detail: detail.into(), retry_after: None };
    let misconfigured = |detail: &str| ProviderError::Misconfigured(detail.into());
    let forbidden = |detail: &str| ProviderError::Forbidden(detail.into());
    let failed = |detail: &str| ProviderError::Failed(detail.into());
    let rejected = |detail: &str| ProviderError::Rejected(detail.into());
    for (status, body, error) in [
        (400, coded("context_length_exceeded"), ProviderError::PromptTooLong),
        (413, coded("context_length_exceeded"), ProviderError::PromptTooLong),
        (400, coded("content_filter"), ProviderError::Declined),
        (422, coded("content_policy_violation"), ProviderError::Declined),
        (400, coded("unsupported_parameter"), rejected("HTTP 400 unsupported_parameter")),
        (401, coded("invalid_api_key"), misconfigured("HTTP 401 invalid_api_key")),
        (403, coded("unsupported_country"), forbidden("HTTP 403 unsupported_country")),
        (404, coded("model_not_found"), misconfigured("HTTP 404 model_not_found")),
        (429, coded("rate_limit_exceeded"), busy("HTTP 429 rate_limit_exceeded")),
        (429, coded("insufficient_quota"), ProviderError::OutOfCredit("HTTP 429 insufficient_quota".into())),
        (500, coded("server_error"), failed("HTTP 500 server_error")),
        (503, Value::Null, busy("HTTP 503 ")),
        (529, Value::Null, busy("HTTP 529 ")),
        (413, Value::Null, rejected("HTTP 413 ")),
        // llama.cpp
        (
            400,
            json!({"error": {"code": 400, "message": "x", "type": "exceed_context_size_error", "n_ctx": 4096}}),
            ProviderError::PromptTooLong,
        ),
        // vLLM
        (
            400,
            json!({"error": {"message": "This model's maximum context length is 4096 tokens. However, …",
                "type": "BadRequestError", "param": null, "code": 400}}),
            ProviderError::PromptTooLong,
        ),
        // OpenRouter
        (
            402,
            json!({"error": {"code": 402, "message": "x"}}),
            ProviderError::OutOfCredit("HTTP 402 402".into()),
        ),
        (403, json!({"error": {"code": 403, "message": "x"}}), forbidden("HTTP 403 403")),
        (
            403,
            json!({"error": {"code": 403, "message": "flagged", "metadata": {"reasons": ["r"], "flagged_input": "x"}}}),
            ProviderError::Declined,
        ),
        (502, json!({"error": {"code": 502, "message": "x"}}), failed("HTTP 502 502")),
        // Ollama
        (404, json!({"error": "model \"x\" not found, key sk-test"}), misconfigured("HTTP 404 ")),
    ] {
        assert_eq!(judge(status, body.clone()), error, "{status} {body}");
    }
}
