//! The words of Anthropic's Messages stream.

use serde_json::{Value, json};

use super::{Step, bytes, stream_head};

/// An event, which names itself twice.
pub fn event(name: &str, fields: &Value) -> Step {
    let mut data = json!({"type": name});
    data.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    bytes(format!("event: {name}\ndata: {data}\n\n"))
}

/// The head, and what stands before the first word: 9 tokens were sent, 5 of them from the cache.
pub fn begin() -> Vec<Step> {
    let usage = json!({"input_tokens": 4, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 5, "output_tokens": 1});
    let message = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "test-model", "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": usage});
    vec![stream_head(), event("message_start", &json!({"message": message})), event("ping", &json!({}))]
}

/// One piece of text.
pub fn delta(text: &str) -> Step {
    event("content_block_delta", &json!({"index": 0, "delta": {"type": "text_delta", "text": text}}))
}

/// One piece of the model's thinking.
pub fn thinking(text: &str) -> Step {
    event("content_block_delta", &json!({"index": 0, "delta": {"type": "thinking_delta", "thinking": text}}))
}

/// Why the reply ends, with the count of its tokens.
pub fn stop_reason(reason: &str) -> Step {
    let delta = json!({"stop_reason": reason, "stop_sequence": null});
    event("message_delta", &json!({"delta": delta, "usage": {"input_tokens": null, "output_tokens": 2}}))
}

/// An error inside the stream. Its message holds what must never be passed on.
pub fn error(name: &str) -> Step {
    event(
        "error",
        &json!({"error": {"type": name, "message": "key sk-test-key at 127.0.0.1"}, "request_id": "req_1"}),
    )
}

/// The end of a reply.
pub fn finish(reason: &str) -> Vec<Step> {
    vec![
        event("content_block_stop", &json!({"index": 0})),
        stop_reason(reason),
        event("message_stop", &json!({})),
    ]
}

/// A reply that ends in some way.
pub fn reply(text: &str, reason: &str) -> Vec<Step> {
    [begin(), vec![delta(text)], finish(reason)].concat()
}
