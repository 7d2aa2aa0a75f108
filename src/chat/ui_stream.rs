//! The AI SDK UI message stream: our events as its chunks. Pure.
//!
//! Only chunk types that the majors 5, 6 and 7 all know are sent, because an unknown one ends the client's stream; and
//! the stream always ends with `finish`, `error` or `abort`, because a clean end without one looks like success there.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{MessageStatus, Outcome, generation::Event, provider::FinishReason};
use crate::platform::problem::Problem;

/// The header that names the protocol.
pub const PROTOCOL_HEADER: (&str, &str) = ("x-vercel-ai-ui-message-stream", "v1");

/// Sent when nothing else is, so that proxies do not cut a quiet stream. Clients ignore comments.
pub const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// What the stream ends with.
const END_MARK: &[u8] = b"data: [DONE]\n\n";

/// The id of the one text part.
const TEXT_ID: &str = "text";

/// Encodes one reply for one reader.
pub struct Encoder {
    text_is_open: bool,
    request_id: String,
}

impl Encoder {
    /// An encoder; problems in the stream carry the request's id.
    pub fn new(request_id: String) -> Encoder {
        Encoder { text_is_open: false, request_id }
    }

    /// What comes first, before the provider has said anything.
    pub fn start(&self, generation_id: &str, reply_id: &str) -> Bytes {
        frames(&[
            json!({"type": "start", "messageId": reply_id, "messageMetadata": {"generation_id": generation_id}}),
            json!({"type": "start-step"}),
        ])
    }

    /// The chunks of one event.
    pub fn encode(&mut self, event: &Event) -> Bytes {
        let mut chunks = Vec::new();
        match event {
            Event::Text(text) => {
                if !self.text_is_open {
                    self.text_is_open = true;
                    chunks.push(json!({"type": "text-start", "id": TEXT_ID}));
                }
                chunks.push(json!({"type": "text-delta", "id": TEXT_ID, "delta": text}));
            }
            Event::End(outcome) => {
                if self.text_is_open {
                    chunks.push(json!({"type": "text-end", "id": TEXT_ID}));
                }
                self.end(outcome, &mut chunks);
            }
        }
        let mut out = frames(&chunks).to_vec();
        if matches!(event, Event::End(_)) {
            out.extend_from_slice(END_MARK);
        }
        out.into()
    }

    /// The last chunks for a reader who may not read on.
    pub fn refuse(&mut self, problem: &Problem) -> Bytes {
        let mut chunks = Vec::new();
        if self.text_is_open {
            chunks.push(json!({"type": "text-end", "id": TEXT_ID}));
        }
        chunks.push(error(problem, &self.request_id));
        [&frames(&chunks), END_MARK].concat().into()
    }

    fn end(&self, outcome: &Outcome, chunks: &mut Vec<Value>) {
        match outcome.status {
            MessageStatus::Complete => {
                let metadata = json!({
                    "usage": outcome.usage,
                    "quota": outcome.quota,
                    "model": outcome.model,
                    "ai_generated": true,
                });
                let reason = outcome.finish.unwrap_or(FinishReason::Other);
                chunks.push(json!({"type": "finish-step"}));
                chunks.push(
                    json!({"type": "finish", "finishReason": reason.as_str(), "messageMetadata": metadata}),
                );
            }
            MessageStatus::Stopped => chunks.push(json!({"type": "abort"})),
            MessageStatus::Interrupted | MessageStatus::Failed | MessageStatus::Generating => {
                chunks.push(error(&outcome.problem(), &self.request_id));
            }
        }
    }
}

impl FinishReason {
    /// The AI SDK's name for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::ContentFilter => "content-filter",
            FinishReason::Other => "other",
        }
    }

    /// The reason with this name.
    pub fn from_name(name: &str) -> FinishReason {
        match name {
            "stop" => FinishReason::Stop,
            "length" => FinishReason::Length,
            "content-filter" => FinishReason::ContentFilter,
            _ => FinishReason::Other,
        }
    }
}

impl Outcome {
    /// What went wrong, as a caller is told.
    pub fn problem(&self) -> Problem {
        use crate::platform::problem::Code;

        let code = self.error.unwrap_or(Code::ProviderFailed);
        let detail = match code {
            Code::ContentRefused => "The companion declined to answer this.",
            Code::ProviderTimeout => "The companion took too long.",
            Code::ProviderUnavailable => "The companion is busy at the moment.",
            Code::Unavailable => "The reply was interrupted on our side.",
            _ => "The companion could not finish the answer.",
        };
        let problem = Problem::new(code, detail);
        match self.retry_after {
            Some(wait) => problem.retry_after(wait),
            None => problem,
        }
    }
}

/// A problem as the chunk that ends a stream: the same object as text, so that one parser serves both.
fn error(problem: &Problem, request_id: &str) -> Value {
    json!({"type": "error", "errorText": problem.body(request_id).to_string()})
}

/// `data: {json}`, one event each (WHATWG server-sent events). JSON has no raw line ends, so text cannot forge a frame.
fn frames(chunks: &[Value]) -> Bytes {
    let mut text = String::new();
    for chunk in chunks {
        text.push_str("data: ");
        text.push_str(&chunk.to_string());
        text.push_str("\n\n");
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{billing::Quota, chat::Usage, platform::problem::Code};
    use jiff::Timestamp;
    use proptest::prelude::*;

    fn outcome(status: MessageStatus) -> Event {
        Event::End(Box::new(Outcome {
            status,
            finish: Some(FinishReason::Stop),
            error: Some(Code::ProviderTimeout),
            retry_after: None,
            model: Some("demo".into()),
            usage: Usage { input_tokens: 3, output_tokens: 4, estimated: true },
            quota: Some(Quota { plan: None, used: 1, limit: 20, resets_at: Timestamp::UNIX_EPOCH }),
            created_at: Timestamp::UNIX_EPOCH,
        }))
    }

    fn chunks(bytes: &[u8]) -> Vec<Value> {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        text.split_terminator("\n\n")
            .map(|frame| frame.strip_prefix("data: ").unwrap())
            .map(
                |data| {
                    if data == "[DONE]" {
                        json!({"type": "DONE"})
                    } else {
                        serde_json::from_str(data).unwrap()
                    }
                },
            )
            .collect()
    }

    fn types(events: &[Event]) -> Vec<String> {
        let mut encoder = Encoder::new("request".into());
        let mut all = chunks(&encoder.start("g", "r"));
        all.extend(events.iter().flat_map(|event| chunks(&encoder.encode(event))));
        all.iter().map(|chunk| chunk["type"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn each_ending_has_its_last_word() {
        let text = || Event::Text("hi".into());
        let spoken = ["start", "start-step", "text-start", "text-delta", "text-delta", "text-end"];
        for (status, last) in [
            (MessageStatus::Complete, &["finish-step", "finish", "DONE"][..]),
            (MessageStatus::Stopped, &["abort", "DONE"]),
            (MessageStatus::Interrupted, &["error", "DONE"]),
        ] {
            assert_eq!(types(&[text(), text(), outcome(status)]), [&spoken[..], last].concat());
        }
        assert_eq!(types(&[outcome(MessageStatus::Failed)]), ["start", "start-step", "error", "DONE"]);
        assert_eq!(types(&[outcome(MessageStatus::Stopped)]), ["start", "start-step", "abort", "DONE"]);
    }

    #[test]
    fn an_error_is_a_problem_as_text() {
        let encoded = Encoder::new("request-1".into()).encode(&outcome(MessageStatus::Failed));
        let problem: Value =
            serde_json::from_str(chunks(&encoded)[0]["errorText"].as_str().unwrap()).unwrap();
        assert_eq!((&problem["code"], &problem["status"]), (&json!("provider_timeout"), &json!(504)));
        assert_eq!(problem["request_id"], "request-1");
    }

    #[test]
    fn the_finish_carries_usage_and_quota() {
        let encoded = Encoder::new(String::new()).encode(&outcome(MessageStatus::Complete));
        insta::assert_json_snapshot!(chunks(&encoded)[1]);
    }

    proptest! {
        #[test]
        fn no_text_can_forge_a_frame(text: String) {
            let encoded = Encoder::new(String::new()).encode(&Event::Text(text.clone()));
            let chunks = chunks(&encoded);
            prop_assert_eq!(chunks.len(), 2);
            prop_assert_eq!(chunks[1]["delta"].as_str().unwrap(), text);
        }
    }
}
