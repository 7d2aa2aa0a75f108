use super::*;
use crate::chat::provider::PromptMessage;
use proptest::prelude::*;

/// Text, and how it ended.
type Read = (String, Result<FinishReason, ProviderError>, Option<TokenCount>);

fn read(pieces: Vec<Vec<u8>>) -> Read {
    let pieces = stream::iter(pieces.into_iter().map(|piece| Ok(Bytes::from(piece)))).boxed();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let parts: Vec<_> = runtime.block_on(decode(pieces).collect());
    let (mut text, mut end, mut usage) = (String::new(), Err(ProviderError::Truncated), None);
    for part in parts {
        match part {
            Ok(ReplyPart::Text(more)) => text.push_str(&more),
            Ok(ReplyPart::Usage(counted)) => usage = Some(counted),
            Ok(ReplyPart::Finish(reason)) => end = Ok(reason),
            Ok(ReplyPart::Reasoning) => {}
            Err(error) => end = Err(error),
        }
    }
    (text, end, usage)
}

fn whole_read(stream: &str) -> Read {
    read(vec![stream.as_bytes().to_vec()])
}

fn delta(text: &str) -> String {
    format!(
        "data: {}\n\n",
        json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}], "usage": null})
    )
}

const FIRST: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
const STOP: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const USAGE: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2,\"total_tokens\":11}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

fn ordinary() -> String {
    [FIRST, &delta("Good "), &delta("evening 😀é"), STOP, USAGE, DONE].concat()
}

#[test]
fn an_ordinary_stream_gives_its_text_its_end_and_its_usage() {
    let (text, end, usage) = whole_read(&ordinary());
    assert_eq!((text.as_str(), end), ("Good evening 😀é", Ok(FinishReason::Stop)));
    assert_eq!(usage, Some(TokenCount { input: 9, output: 2 }));
}

#[test]
fn what_compatible_servers_do_differently() {
    let together = r#"data: {"choices":[{"delta":{"content":"hi"},"finish_reason":"stop"}]}"#;
    let filtered = r#"data: {"choices":[],"prompt_filter_results":[{"a":1}]}"#;
    for (stream, text, end) in [
        (format!("{together}\n\n"), "hi", Ok(FinishReason::Stop)),
        (format!("{filtered}\n\n{together}\n\n{DONE}"), "hi", Ok(FinishReason::Stop)),
        (format!("{}{DONE}", delta("hi")), "hi", Ok(FinishReason::Stop)),
        (format!("{}data: [DONE]", delta("hi")), "hi", Ok(FinishReason::Stop)),
        (format!("{}{STOP}", delta("hi")), "hi", Ok(FinishReason::Stop)),
        (delta("hi"), "hi", Err(ProviderError::Truncated)),
        (String::new(), "", Err(ProviderError::Truncated)),
        (format!("{}{STOP}{DONE}{DONE}{}", delta("hi"), delta("late")), "hi", Ok(FinishReason::Stop)),
        (format!("{}{}", delta("hi"), STOP.replace("stop", "length")), "hi", Ok(FinishReason::Length)),
        (
            format!("{}{}", delta("hi"), STOP.replace("stop", "content_filter")),
            "hi",
            Ok(FinishReason::ContentFilter),
        ),
        (
            format!("{}{}", delta("hi"), STOP.replace("stop", "eos_of_some_kind")),
            "hi",
            Ok(FinishReason::Other),
        ),
        (
            format!("{}{}", delta("hi"), STOP.replace("stop", "error")),
            "hi",
            Err(ProviderError::Failed("finish_reason error".into())),
        ),
        (format!(": OPENROUTER PROCESSING\n\nevent: x\n{}{DONE}", delta("hi")), "hi", Ok(FinishReason::Stop)),
        (
            format!("{}data: {{not json\n\n", delta("hi")),
            "hi",
            Err(ProviderError::Protocol("an event that is not JSON".into())),
        ),
        (format!("{}{STOP}data: {{not json\n\n", delta("hi")), "hi", Ok(FinishReason::Stop)),
        (
            r#"data: {"choices":[{"delta":{"reasoning_content":"hm"}}]}"#.to_owned() + "\n\n" + DONE,
            "",
            Ok(FinishReason::Stop),
        ),
        (
            r#"data: {"choices":[{"delta":{"refusal":"No."}}]}"#.to_owned() + "\n\n" + DONE,
            "No.",
            Ok(FinishReason::Stop),
        ),
        (
            r#"data: {"choices":[{"delta":{"content":[1,2]}}],"usage":7}"#.to_owned() + "\n\n" + DONE,
            "",
            Ok(FinishReason::Stop),
        ),
    ] {
        let (found, ending, _) = whole_read(&stream);
        assert_eq!((found.as_str(), ending), (text, end), "{stream}");
    }
}

#[test]
fn what_servers_do_that_only_look_alike() {
    for (stream, text, end) in [
        (format!("{}{STOP}{}{STOP}{DONE}", delta("hi"), delta(" ho")), "hi ho", Ok(FinishReason::Stop)),
        (
            format!("{}{}data:\n\n{DONE}", delta("hi").replace("null", "\"\""), delta(" ho").replace("null", "\"\"")),
            "hi ho",
            Ok(FinishReason::Stop),
        ),
        (
            r#"data: {"choices":[{"delta":{"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}}]}"#
                .to_owned()
                + "\n\n"
                + DONE,
            "ab",
            Ok(FinishReason::Stop),
        ),
    ] {
        let (found, ending, _) = whole_read(&stream);
        assert_eq!((found.as_str(), ending), (text, end), "{stream}");
    }
}

#[test]
fn errors_inside_a_stream_are_named_but_never_quoted() {
    for (error, name) in [
        (r#"{"code":"server_error","message":"key sk-secret"}"#, "server_error"),
        (r#"{"code":502,"message":"key sk-secret"}"#, "502"),
        (r#"{"type":"overloaded","message":"key sk-secret"}"#, "overloaded"),
        (r#""key sk-secret""#, ""),
    ] {
        let stream = format!("{}data: {{\"error\":{error}}}\n\n", delta("hi"));
        let (text, end, _) = whole_read(&stream);
        assert_eq!((text.as_str(), end), ("hi", Err(ProviderError::Failed(name.into()))));
    }
}

#[test]
fn usage_in_every_chunk_is_not_summed() {
    let chunk = |n: u64| {
        format!(
            "data: {}\n\n",
            json!({"choices": [{"delta": {"content": "a"}}], "usage": {"prompt_tokens": 5, "completion_tokens": n}})
        )
    };
    let (_, _, usage) = whole_read(&[chunk(1), chunk(2), DONE.to_owned()].concat());
    assert_eq!(usage, Some(TokenCount { input: 5, output: 2 }));
    let negative = r#"data: {"choices":[],"usage":{"prompt_tokens":-5,"completion_tokens":1e40}}"#;
    for nothing in [negative, r#"data: {"choices":[],"usage":{}}"#] {
        let (_, _, usage) = whole_read(&format!("{nothing}\n\n{DONE}"));
        assert_eq!(usage, None, "nothing that counts");
    }
}

#[test]
fn an_endless_line_is_refused() {
    let (text, end, _) = whole_read(&format!("{}data: {}", delta("hi"), "x".repeat(2 * 1024 * 1024)));
    assert_eq!(
        (text.as_str(), end),
        ("hi", Err(ProviderError::Protocol("a line of the stream is too long".into())))
    );
}

proptest! {
    #[test]
    fn cut_anywhere_it_gives_the_same(cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12), crlf: bool, bom: bool) {
        let mut stream = ordinary();
        if crlf {
            stream = stream.replace('\n', "\r\n");
        }
        if bom {
            stream.insert(0, '\u{feff}');
        }
        let bytes = stream.as_bytes();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| bytes[cut[0]..cut[1]].to_vec()).collect();
        prop_assert_eq!(read(pieces), whole_read(&ordinary()));
        prop_assert_eq!(read(bytes.chunks(1).map(<[u8]>::to_vec).collect()), whole_read(&ordinary()));
    }

    /// Cut off at any byte, a reply is whole or an error, and its text is a beginning of the text.
    #[test]
    fn cut_off_anywhere_it_is_never_taken_for_whole(at in any::<prop::sample::Index>()) {
        let stream = ordinary();
        let at = at.index(stream.len());
        let (text, end, _) = read(vec![stream.as_bytes()[..at].to_vec()]);
        prop_assert!("Good evening 😀é".starts_with(&text));
        // The finish reason stands once its event is whole, even if the blank line after it was cut off.
        let finished = at + 2 >= stream.find(STOP).unwrap() + STOP.len();
        prop_assert_eq!(end, if finished { Ok(FinishReason::Stop) } else { Err(ProviderError::Truncated) });
    }

    #[test]
    fn any_events_are_survived(events in prop::collection::vec(r#"\{?["a-z:\[\]{}0-9,]{0,30}\}?"#, 0..8)) {
        let stream: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
        let _ = whole_read(&stream);
    }
}

fn provider(base_url: &str) -> OpenAi {
    let client = crate::platform::http_client::build(Duration::from_secs(1), Duration::from_secs(1)).unwrap();
    let settings = OpenAiSettings {
        base_url: base_url.parse().unwrap(),
        api_key: Some(SecretString::from("sk-test")),
        model: Model { name: "m".into(), context_tokens: 1000, max_output_tokens: 100 },
        headers_timeout: Duration::from_secs(1),
    };
    OpenAi::new(settings, client).unwrap()
}

#[test]
fn the_request_is_what_the_server_expects() {
    let prompt = Prompt {
        companion: "roz".into(),
        companion_name: "Roz".into(),
        system: "Be Roz.".into(),
        messages: vec![
            PromptMessage { speaker: Speaker::User, text: "a".into() },
            PromptMessage { speaker: Speaker::Companion, text: "b".into() },
            PromptMessage { speaker: Speaker::User, text: "c".into() },
        ],
        max_output_tokens: 50,
    };
    let compatible = provider("http://127.0.0.1:1/v1/");
    assert_eq!(compatible.endpoint.as_str(), "http://127.0.0.1:1/v1/chat/completions");
    insta::assert_json_snapshot!("compatible", compatible.body(&prompt));
    let openai = provider("https://api.openai.com/v1");
    assert_eq!(openai.endpoint.as_str(), "https://api.openai.com/v1/chat/completions");
    insta::assert_json_snapshot!("openai", openai.body(&prompt));
}

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
        ("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("x-other", "7", None),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(reqwest::header::HeaderName::from_static(name), value.parse().unwrap());
        assert_eq!(retry_after(&headers), wait, "{name}: {value}");
    }
}
