//! How Chat Completions says things, and streams as OpenAI and compatible servers are known to send them.

use serde_json::{Value, json};

use super::{Part, Script, Word, finish, script, text, usage};
use crate::chat::provider::{FinishReason, ProviderError, ReplyPart};

const DONE: &str = "data: [DONE]\n\n";

fn data(chunk: &Value) -> String {
    format!("data: {chunk}\n\n")
}

fn chunk(delta: &Value, finish_reason: &Value) -> String {
    data(&json!({"id": "c", "object": "chat.completion.chunk", "choices":
        [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason}], "usage": null}))
}

pub fn say(word: &Word) -> String {
    match word {
        Word::Begin => chunk(&json!({"role": "assistant", "content": ""}), &Value::Null),
        Word::Text(text) => chunk(&json!({"content": text}), &Value::Null),
        Word::Think => chunk(&json!({"content": null, "reasoning_content": "hm"}), &Value::Null),
        Word::Usage(input, output) => data(&json!({"choices": [],
            "usage": {"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output}})),
        Word::NullUsage => data(&json!({"choices": [], "usage": null})),
        Word::EmptyUsage => data(&json!({"choices": [], "usage": {"prompt_tokens": null}})),
        Word::Finish(reason) => {
            let reason = match reason {
                FinishReason::Stop => "stop",
                FinishReason::Length => "length",
                FinishReason::ContentFilter => "content_filter",
                FinishReason::Other => "tool_calls",
            };
            chunk(&json!({}), &reason.into())
        }
        Word::OddFinish => chunk(&json!({}), &"eos_of_some_kind".into()),
        Word::End => DONE.into(),
        Word::Error(name) => data(&json!({"error":
            {"message": "key sk-secret", "type": "t", "param": null, "code": name}})),
        Word::Unknown => [
            "event: weather\ndata: {\"wind\":[1,{\"from\":\"north\"}]}\n\n".into(),
            chunk(&json!({"audio": {"id": "a"}, "content": 7, "refusal": {}}), &json!(7)),
            data(&json!({"choices": [], "usage": 7, "moderation": {"flagged": false}})),
        ]
        .concat(),
    }
}

pub fn completes(event: &str) -> bool {
    event.contains("[DONE]")
        || event.split("\"finish_reason\":\"").nth(1).is_some_and(|value| !value.starts_with('"'))
}

pub fn recorded() -> Vec<Script> {
    [vendors(), oddities(), failures()].into_iter().flatten().collect()
}

fn ends(stream: &[&str]) -> String {
    format!("{}{DONE}", stream.concat())
}

fn stop() -> Part {
    finish(FinishReason::Stop)
}

fn vendors() -> Vec<Script> {
    vec![
        script(
            "OpenAI",
            include_str!("openai.txt"),
            vec![text("The tide"), text(" is out."), usage(24, 5), stop()],
        ),
        script(
            "Azure: prompt filter first, usage last",
            ends(&[
                "data: {\"choices\":[],\"created\":0,\"id\":\"\",\"model\":\"\",\"object\":\"\",\"prompt_filter_results\":[{\"prompt_index\":0,\"content_filter_results\":{\"hate\":{\"filtered\":false,\"severity\":\"safe\"}}}]}\n\n",
                "data: {\"choices\":[{\"content_filter_offsets\":{\"check_offset\":44},\"content_filter_results\":{},\"delta\":{\"content\":\"hi\"},\"finish_reason\":null,\"index\":0}]}\n\n",
                "data: {\"choices\":[{\"content_filter_results\":{},\"delta\":{},\"finish_reason\":\"content_filter\",\"index\":0}]}\n\n",
            ]),
            vec![text("hi"), finish(FinishReason::ContentFilter)],
        ),
        script(
            "OpenRouter: comments, reasoning, and an end with usage",
            ends(&[
                ": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n",
                "data: {\"id\":\"gen-1\",\"provider\":\"P\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"reasoning\":\"Let me\",\"reasoning_details\":[{\"type\":\"reasoning.text\"}]},\"finish_reason\":null,\"native_finish_reason\":null}]}\n\n",
                "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"},\"finish_reason\":null}]}\n\n",
                "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"},\"finish_reason\":\"stop\",\"native_finish_reason\":\"STOP\"}]}\n\n",
                "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"},\"finish_reason\":null}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4,\"cost\":0.1}}\n\n",
            ]),
            vec![Ok(ReplyPart::Reasoning), text("hi"), usage(3, 4), stop()],
        ),
        script(
            "Groq: usage in a place of its own",
            ends(&[
                "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}],\"x_groq\":{\"id\":\"req_1\"}}\n\n",
                "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"},\"finish_reason\":null}]}\n\n",
                "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"x_groq\":{\"id\":\"req_1\",\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":6}}}\n\n",
            ]),
            vec![text("hi"), usage(5, 6), stop()],
        ),
        script(
            "Mistral, Ollama: the last word with the finish reason, and no end mark",
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"},\"finish_reason\":\"length\"}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\n",
            vec![text("hi"), usage(1, 2), finish(FinishReason::Length)],
        ),
        script(
            "vLLM, llama.cpp: no role, no null, the empty text for no finish reason",
            ends(&[
                "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":\"\"}]}\n\n",
                "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"b\"}}]}\n\n",
                "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\",\"stop_reason\":null}],\"timings\":{\"prompt_n\":1}}\n\n",
            ]),
            vec![text("a"), text("b"), stop()],
        ),
    ]
}

fn oddities() -> Vec<Script> {
    vec![
        script(
            "text in parts, and a refusal",
            ends(&[
                "data: {\"choices\":[{\"delta\":{\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}]}}]}\n\n",
                "data: {\"choices\":[{\"delta\":{\"content\":[1,2],\"refusal\":\"No.\"}}]}\n\n",
            ]),
            vec![text("ab"), text("No."), stop()],
        ),
        script("an end mark with a tail, cut off", "data: [DONE] bye", vec![stop()]),
        script(
            "counts that are none",
            ends(&["data: {\"choices\":[],\"usage\":{\"prompt_tokens\":-5,\"completion_tokens\":1e40}}\n\n"]),
            vec![stop()],
        ),
    ]
}

fn failures() -> Vec<Script> {
    vec![
        script(
            "OpenRouter: an error in the middle",
            ends(&[
                "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"},\"finish_reason\":null}]}\n\n",
                "data: {\"error\":{\"code\":502,\"message\":\"Provider disconnected, sk-secret\",\"metadata\":{}},\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"},\"finish_reason\":\"error\"}]}\n\n",
            ]),
            vec![text("hi"), Err(ProviderError::Failed("502".into()))],
        ),
        script(
            "OpenRouter: a busy model in the middle",
            ends(&["data: {\"error\":{\"code\":429,\"message\":\"sk-secret\"}}\n\n"]),
            vec![Err(ProviderError::Busy { detail: "429".into(), retry_after: None })],
        ),
        script(
            "finish_reason error alone",
            ends(&["data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"error\"}]}\n\n"]),
            vec![text("a"), Err(ProviderError::Failed("finish_reason error".into()))],
        ),
        script(
            "an error that is a text",
            "data: {\"error\":\"key sk-secret\"}\n\n",
            vec![Err(ProviderError::Failed(String::new()))],
        ),
        script(
            "an error with an event's name",
            "event: error\ndata: {\"error\":{\"type\":\"overloaded\",\"message\":\"sk-secret\"}}\n\n",
            vec![Err(ProviderError::Failed("overloaded".into()))],
        ),
    ]
}
