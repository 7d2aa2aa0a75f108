//! How Messages says things, and streams as Anthropic and those who speak its wire are known to send them.

use serde_json::{Value, json};

use super::{Part, Script, Word, finish, script, text, usage};
use crate::chat::provider::{FinishReason, ProviderError, ReplyPart};

fn event(name: &str, data: Value) -> String {
    let mut event = json!({"type": name});
    event.as_object_mut().unwrap().extend(data.as_object().unwrap().clone());
    format!("event: {name}\ndata: {event}\n\n")
}

fn delta(delta: &Value) -> String {
    event("content_block_delta", json!({"index": 0, "delta": delta}))
}

fn stop_reason(reason: &str) -> String {
    event("message_delta", json!({"delta": {"stop_reason": reason, "stop_sequence": null}}))
}

fn counted(usage: &Value) -> String {
    event("message_delta", json!({"delta": {"stop_reason": null}, "usage": usage}))
}

pub fn say(word: &Word) -> String {
    match word {
        Word::Begin => [
            event(
                "message_start",
                json!({"message": {"id": "msg_1", "type": "message", "role": "assistant", "model": "m",
                "content": [], "stop_reason": null, "stop_sequence": null,
                "usage": {"input_tokens": 400, "output_tokens": 1}}}),
            ),
            event("content_block_start", json!({"index": 0, "content_block": {"type": "text", "text": ""}})),
            event("ping", json!({})),
        ]
        .concat(),
        Word::Text(text) => delta(&json!({"type": "text_delta", "text": text})),
        Word::Think => delta(&json!({"type": "thinking_delta", "thinking": "hm"})),
        Word::Usage(input, output) => counted(&json!({"input_tokens": input, "output_tokens": output})),
        Word::NullUsage => counted(&Value::Null),
        Word::EmptyUsage => counted(&json!({"output_tokens": null})),
        Word::Finish(reason) => stop_reason(match reason {
            FinishReason::Stop => "end_turn",
            FinishReason::Length => "max_tokens",
            FinishReason::ContentFilter => "refusal",
            FinishReason::Other => "tool_use",
        }),
        Word::OddFinish => stop_reason("end_of_some_kind"),
        Word::End => event("message_stop", json!({})),
        Word::Error(name) => event(
            "error",
            json!({"error": {"type": name, "message": "key sk-secret"}, "request_id": "req_1"}),
        ),
        Word::Unknown => [
            event("weather", json!({"wind": [1, {"from": "north"}]})),
            event(
                "content_block_start",
                json!({"index": 7, "content_block": {"type": "hologram", "text": "no"}}),
            ),
            delta(&json!({"type": "smell_delta", "smell": "salt", "text": "no"})),
            delta(&json!({"type": "text_delta", "text": 7})),
            event("message_delta", json!({"delta": {"stop_reason": 7, "mood": "calm"}, "usage": 7})),
            event("content_block_stop", json!({"index": 7, "why": {}})),
        ]
        .concat(),
    }
}

pub fn completes(event: &str) -> bool {
    event.contains("\"stop_reason\":\"") || event.contains("message_stop")
}

pub fn recorded() -> Vec<Script> {
    [replies(), counts(), failures()].into_iter().flatten().collect()
}

fn hi() -> String {
    say(&Word::Text("hi"))
}

fn start(usage: Value) -> String {
    event("message_start", json!({"message": {"id": "m", "content": [], "usage": usage}}))
}

fn ends(stop_reason: &str, usage: &Value) -> String {
    let delta = json!({"delta": {"stop_reason": stop_reason, "stop_sequence": null}, "usage": usage});
    event("message_delta", delta) + &say(&Word::End)
}

fn stop() -> Part {
    finish(FinishReason::Stop)
}

fn replies() -> Vec<Script> {
    let thinking = || Ok(ReplyPart::Reasoning);
    vec![
        script("a reply", include_str!("anthropic.txt"), vec![text("The tide"), text(" is out."), usage(25, 15), stop()]),
        script(
            "a reply with thinking",
            include_str!("anthropic-thinking.txt"),
            vec![thinking(), thinking(), thinking(), text("It is out."), usage(61, 40), stop()],
        ),
        script(
            "a refusal",
            [
                start(json!({"input_tokens": 3, "output_tokens": 1})),
                event("message_delta", json!({"delta": {"stop_reason": "refusal", "stop_details":
                    {"type": "refusal", "category": "c", "explanation": "sk-secret"}}, "usage": {"output_tokens": 0}})),
                say(&Word::End),
            ]
            .concat(),
            vec![usage(3, 0), finish(FinishReason::ContentFilter)],
        ),
        script(
            "the window is full",
            hi() + &ends("model_context_window_exceeded", &Value::Null),
            vec![text("hi"), finish(FinishReason::Length)],
        ),
        script("a pause", hi() + &ends("pause_turn", &Value::Null), vec![text("hi"), finish(FinishReason::Other)]),
        script(
            "no names of events, a text in the start of its block",
            [
                "data: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"h\"}}\n\n",
                "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"i\"}}\n\n",
                "data: {\"type\":\"message_stop\"}\n\n",
            ]
            .concat(),
            vec![text("h"), text("i"), stop()],
        ),
    ]
}

fn counts() -> Vec<Script> {
    vec![
        script(
            "what was read from and written to the cache was sent, too",
            [
                start(json!({"input_tokens": 3, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 100, "output_tokens": 1})),
                hi(),
                ends("end_turn", &json!({"input_tokens": null, "cache_creation_input_tokens": null, "output_tokens": 7})),
            ]
            .concat(),
            vec![text("hi"), usage(123, 7), stop()],
        ),
        script(
            "later counts replace earlier ones, field by field",
            [
                start(json!({"input_tokens": 3, "cache_read_input_tokens": 100, "output_tokens": 1})),
                hi(),
                counted(&json!({"output_tokens": 5})),
                counted(&json!({"input_tokens": 4, "output_tokens": 6})),
                ends("stop_sequence", &json!({"cache_read_input_tokens": 0, "output_tokens": 7, "server_tool_use": {"x": 1}})),
            ]
            .concat(),
            vec![text("hi"), usage(103, 5), usage(104, 6), usage(4, 7), stop()],
        ),
        script(
            "the first event's count of the reply is none",
            [start(json!({"input_tokens": 3, "output_tokens": 1})), hi(), stop_reason("end_turn"), say(&Word::End)].concat(),
            vec![text("hi"), stop()],
        ),
        script(
            "a count of half is none",
            [start(json!({})), hi(), ends("end_turn", &json!({"output_tokens": 7}))].concat(),
            vec![text("hi"), stop()],
        ),
    ]
}

fn failures() -> Vec<Script> {
    vec![
        script(
            "overloaded in the middle",
            hi() + &say(&Word::Error("overloaded_error")),
            vec![
                text("hi"),
                Err(ProviderError::Busy { detail: "overloaded_error".into(), retry_after: None }),
            ],
        ),
        script(
            "blocked in the middle",
            hi() + &event(
                "error",
                json!({"error": {"details": null, "type": "invalid_request_error",
                    "message": "Output blocked by content filtering policy"}}),
            ),
            vec![text("hi"), Err(ProviderError::Declined)],
        ),
        script(
            "an error in another wire's words",
            hi() + "data: {\"error\":{\"message\":\"sk-secret\",\"type\":\"None\",\"code\":\"429\"}}\n\n",
            vec![text("hi"), Err(ProviderError::Busy { detail: "None".into(), retry_after: None })],
        ),
        script(
            "an error that says nothing",
            hi() + &event("error", json!({})),
            vec![text("hi"), Err(ProviderError::Failed(String::new()))],
        ),
    ]
}
