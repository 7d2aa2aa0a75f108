//! The AI SDK UI message stream: our events as its chunks. Pure.
//!
//! Only chunk types that the majors 5, 6 and 7 all know are sent, because an unknown one ends the client's stream; and
//! the stream always ends with `finish`, `error` or `abort`, because a clean end without one looks like success there.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Outcome, provider::FinishReason};
use crate::billing::Quota;

/// The header that names the protocol.
pub const PROTOCOL_HEADER: (&str, &str) = ("x-vercel-ai-ui-message-stream", "v1");

/// Sent when nothing else is, so that proxies do not cut a quiet stream. Clients ignore comments.
pub const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// The id of the one text part.
const TEXT_ID: &str = "text";

/// The chunk that each word comes in. Not a [`Value`], which would cost more than everything else that is done for a word here.
#[derive(Serialize)]
struct TextDelta<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'static str,
    delta: &'a str,
}

/// Encodes one reply for one reader.
#[derive(Default)]
pub struct Encoder {
    text_is_open: bool,
}

impl Encoder {
    /// What comes first, before the provider has said anything; with what the day has left, where that is known. That is for the
    /// page and not for the message (`transient`).
    pub fn start(generation_id: &str, reply_id: &str, quota: Option<&Quota>) -> Bytes {
        let metadata = json!({"generation_id": generation_id});
        let start = json!({"type": "start", "messageId": reply_id, "messageMetadata": metadata});
        let quota = quota.map(|quota| json!({"type": "data-quota", "data": quota, "transient": true}));
        frames(&[start, json!({"type": "start-step"})].into_iter().chain(quota).collect::<Vec<_>>())
    }

    /// More of the text.
    pub fn text(&mut self, text: &str) -> Bytes {
        let delta = TextDelta { kind: "text-delta", id: TEXT_ID, delta: text };
        if self.text_is_open {
            return frames(&[delta]);
        }
        self.text_is_open = true;
        [frames(&[json!({"type": "text-start", "id": TEXT_ID})]), frames(&[delta])].concat().into()
    }

    /// The end of a reply that is whole, with a notice where the model was not told the whole conversation.
    pub fn finish(&mut self, outcome: &Outcome) -> Bytes {
        let metadata = json!({
            "usage": outcome.usage,
            "quota": outcome.quota,
            "model": outcome.model,
            "ai_generated": true,
        });
        let reason = outcome.finish.unwrap_or(FinishReason::Other).as_str();
        let cut = outcome.cut_to.map(|messages| {
            json!({"type": "data-context", "data": {"truncated": true, "messages_used": messages}})
        });
        let end = [
            json!({"type": "finish-step"}),
            json!({"type": "finish", "finishReason": reason, "messageMetadata": metadata}),
        ];
        self.last(&cut.into_iter().chain(end).collect::<Vec<_>>())
    }

    /// The end of a reply that was stopped on request.
    pub fn abort(&mut self) -> Bytes {
        self.last(&[json!({"type": "abort"})])
    }

    /// The end of a reply that failed, or of one that this reader may not hear any more: a problem object, as text.
    pub fn fail(&mut self, problem: &Value) -> Bytes {
        self.last(&[json!({"type": "error", "errorText": problem.to_string()})])
    }

    fn last(&mut self, chunks: &[Value]) -> Bytes {
        let text_end = json!({"type": "text-end", "id": TEXT_ID});
        let open = if std::mem::take(&mut self.text_is_open) { &[text_end][..] } else { &[] };
        let mut out = frames(open).to_vec();
        out.extend_from_slice(&frames(chunks));
        out.extend_from_slice(b"data: [DONE]\n\n");
        out.into()
    }
}

/// `data: {json}`, one event each (WHATWG server-sent events). JSON has no raw line ends, so text cannot forge a frame.
fn frames(chunks: &[impl Serialize]) -> Bytes {
    let mut out = Vec::new();
    for chunk in chunks {
        out.extend_from_slice(b"data: ");
        // Writing text and numbers to memory does not fail; if it did, the client would see an event that it cannot read.
        let _ = serde_json::to_writer(&mut out, chunk);
        out.extend_from_slice(b"\n\n");
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{MessageStatus, Usage};
    use jiff::Timestamp;
    use proptest::prelude::*;

    fn outcome() -> Outcome {
        Outcome {
            status: MessageStatus::Complete,
            finish: Some(FinishReason::Stop),
            failure: None,
            retry_after: None,
            model: Some("demo".into()),
            usage: Usage { input_tokens: 3, output_tokens: 4, estimated: true },
            cut_to: None,
            quota: Some(Quota { plan: None, used: 1, limit: 20, resets_at: Timestamp::UNIX_EPOCH }),
            created_at: Timestamp::UNIX_EPOCH,
        }
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

    #[test]
    fn each_ending_has_its_last_word() {
        type End = fn(&mut Encoder) -> Bytes;
        let endings: [(End, &[&str]); 3] = [
            (|encoder| encoder.finish(&outcome()), &["finish-step", "finish", "DONE"]),
            (|encoder| encoder.abort(), &["abort", "DONE"]),
            (|encoder| encoder.fail(&json!({"code": "internal"})), &["error", "DONE"]),
        ];
        for (end, last) in endings {
            for (texts, spoken) in
                [(0, &[][..]), (2, &["text-start", "text-delta", "text-delta", "text-end"])]
            {
                let mut encoder = Encoder::default();
                let mut bytes = Encoder::start("g", "r", None).to_vec();
                (0..texts).for_each(|_| bytes.extend(encoder.text("hi")));
                bytes.extend(end(&mut encoder));
                let chunks = chunks(&bytes);
                let types: Vec<&str> = chunks.iter().map(|chunk| chunk["type"].as_str().unwrap()).collect();
                assert_eq!(types, [&["start", "start-step"], spoken, last].concat());
            }
        }
    }

    #[test]
    fn an_error_is_a_problem_as_text() {
        let problem = json!({"code": "provider_timeout", "detail": "\n\ndata: {}"});
        let encoded = Encoder::default().fail(&problem);
        let text: Value = serde_json::from_str(chunks(&encoded)[0]["errorText"].as_str().unwrap()).unwrap();
        assert_eq!(text, problem);
    }

    #[test]
    fn the_finish_carries_usage_and_quota() {
        insta::assert_json_snapshot!(chunks(&Encoder::default().finish(&outcome()))[1]);
    }

    #[test]
    fn a_notice_that_messages_were_left_out_stands_before_the_end_of_the_step() {
        let cut = Outcome { cut_to: Some(3), ..outcome() };
        let mut encoder = Encoder::default();
        let bytes = [encoder.text("hi"), encoder.finish(&cut)].concat();
        let chunks = chunks(&bytes);
        let types: Vec<&str> = chunks[2..].iter().map(|chunk| chunk["type"].as_str().unwrap()).collect();
        assert_eq!(types, ["text-end", "data-context", "finish-step", "finish", "DONE"]);
        assert_eq!(
            chunks[3],
            json!({"type": "data-context", "data": {"truncated": true, "messages_used": 3}})
        );
    }

    proptest! {
        #[test]
        fn no_text_can_forge_a_frame(text: String) {
            let chunks = chunks(&Encoder::default().text(&text));
            prop_assert_eq!(chunks.len(), 2);
            prop_assert_eq!(chunks[1]["delta"].as_str().unwrap(), text);
        }
    }
}
