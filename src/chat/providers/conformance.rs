//! What every codec has to get right, played to each of them byte by byte.
//!
//! Two kinds of script: those that follow what a vendor documents or is known to send, and those that are made of words
//! which each codec has in its own wire ([`Word`]), so that no codec is forgotten. Each script is played in every framing
//! that an event stream allows, whole, cut in two at every byte, byte by byte, and cut at random; the parts have to be the
//! same. Each is also broken off at every byte; that has to be noticed.

mod anthropic;
mod openai;

use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::reading;
use crate::chat::provider::{FinishReason, ProviderError, ReplyPart, ReplyStream, TokenCount};

type Part = Result<ReplyPart, ProviderError>;
type Pieces = BoxStream<'static, Result<Bytes, ProviderError>>;

/// A codec, and how its vendor says things.
struct Codec {
    name: &'static str,
    decode: fn(Pieces) -> ReplyStream,
    /// The events, with LF as line ends, that say a word.
    say: fn(&Word) -> String,
    /// Streams as vendors are known to send them.
    recorded: fn() -> Vec<Script>,
    /// Whether an event makes a reply complete.
    completes: fn(&str) -> bool,
}

const CODECS: &[Codec] = &[
    Codec {
        name: "openai",
        decode: reading::decode::<super::openai::ChatCompletions>,
        say: openai::say,
        recorded: openai::recorded,
        completes: openai::completes,
    },
    Codec {
        name: "anthropic",
        decode: reading::decode::<super::anthropic::Messages>,
        say: anthropic::say,
        recorded: anthropic::recorded,
        completes: anthropic::completes,
    },
];

/// Something that every wire can say.
enum Word {
    /// What stands before the first text.
    Begin,
    Text(&'static str),
    Think,
    /// What was counted, in an event of its own.
    Usage(u64, u64),
    /// The same event with a count that is null, and one that is empty.
    NullUsage,
    EmptyUsage,
    Finish(FinishReason),
    /// A finish reason from the future.
    OddFinish,
    /// The end mark.
    End,
    /// An error by its name. Its message, which must not be passed on, is a key.
    Error(&'static str),
    /// Events, fields and values that nobody has heard of.
    Unknown,
}

struct Script {
    name: String,
    /// With LF as line ends.
    stream: String,
    parts: Vec<Part>,
}

fn text(text: &str) -> Part {
    Ok(ReplyPart::Text(text.into()))
}

fn usage(input: u64, output: u64) -> Part {
    Ok(ReplyPart::Usage(TokenCount { input, output }))
}

fn finish(reason: FinishReason) -> Part {
    Ok(ReplyPart::Finish(reason))
}

fn script(name: &str, stream: impl Into<String>, parts: Vec<Part>) -> Script {
    Script { name: name.into(), stream: stream.into(), parts }
}

/// A script that is made of words.
type Spoken = (&'static str, Vec<Word>, Vec<Part>);

/// Replies that end as they should.
fn replies() -> Vec<Spoken> {
    use FinishReason::{ContentFilter, Length, Other, Stop};
    use Word::{Begin, End, Finish, OddFinish, Text, Think, Usage};

    let thinking = || Ok(ReplyPart::Reasoning);
    vec![
        (
            "ordinary",
            vec![Begin, Text("Good "), Text("evening 😀é"), Finish(Stop), Usage(9, 2), End],
            vec![text("Good "), text("evening 😀é"), usage(9, 2), finish(Stop)],
        ),
        (
            "thinking first",
            vec![Begin, Think, Think, Text("hi"), Finish(Stop), End],
            vec![thinking(), thinking(), text("hi"), finish(Stop)],
        ),
        ("without a word", vec![Begin, Finish(Stop), End], vec![finish(Stop)]),
        (
            "white space",
            vec![Begin, Text("\n\n"), Text(" a\r\n"), End],
            vec![text("\n\n"), text(" a\r\n"), finish(Stop)],
        ),
        ("cut at the limit", vec![Begin, Text("a"), Finish(Length), End], vec![text("a"), finish(Length)]),
        (
            "filtered",
            vec![Begin, Text("a"), Finish(ContentFilter), End],
            vec![text("a"), finish(ContentFilter)],
        ),
        ("filtered at once", vec![Begin, Finish(ContentFilter), End], vec![finish(ContentFilter)]),
        ("ended for some reason", vec![Begin, Text("a"), OddFinish, End], vec![text("a"), finish(Other)]),
        ("no end mark", vec![Begin, Text("a"), Finish(Stop)], vec![text("a"), finish(Stop)]),
        ("no finish reason", vec![Begin, Text("a"), End], vec![text("a"), finish(Stop)]),
    ]
}

/// Replies that end, but say things more often than needed, or things that are none.
fn odd_replies() -> Vec<Spoken> {
    use FinishReason::{Length, Stop};
    use Word::{Begin, EmptyUsage, End, Error, Finish, NullUsage, Text, Unknown, Usage};

    vec![
        (
            "two end marks, and more",
            vec![Begin, Text("a"), Finish(Stop), End, End, Text("late"), Usage(1, 1), Error("late"), End],
            vec![text("a"), finish(Stop)],
        ),
        (
            "text after the finish reason",
            vec![Begin, Text("a"), Finish(Stop), Text("b"), Finish(Length), End],
            vec![text("a"), text("b"), finish(Length)],
        ),
        (
            "counted again and again",
            vec![Begin, Usage(9, 1), Text("a"), Usage(9, 2), Text("b"), Usage(9, 3), Finish(Stop), End],
            vec![usage(9, 1), text("a"), usage(9, 2), text("b"), usage(9, 3), finish(Stop)],
        ),
        (
            "counted in the middle only",
            vec![Begin, Usage(9, 1), Text("a"), NullUsage, Finish(Stop), NullUsage, End],
            vec![usage(9, 1), text("a"), finish(Stop)],
        ),
        (
            "counted as nothing",
            vec![Begin, NullUsage, Text("a"), EmptyUsage, Finish(Stop), End],
            vec![text("a"), finish(Stop)],
        ),
        (
            "what nobody has heard of",
            vec![
                Unknown,
                Begin,
                Unknown,
                Text("a"),
                Unknown,
                Finish(Stop),
                Unknown,
                Usage(1, 2),
                Unknown,
                End,
            ],
            vec![text("a"), usage(1, 2), finish(Stop)],
        ),
    ]
}

/// Replies that fail, or would.
fn failures() -> Vec<Spoken> {
    use FinishReason::Stop;
    use Word::{Begin, End, Error, Finish, Text};

    let truncated = || Err(ProviderError::Truncated);
    let failed = |name: &str| Err(ProviderError::Failed(name.into()));
    vec![
        ("neither", vec![Begin, Text("a")], vec![text("a"), truncated()]),
        ("nothing", vec![], vec![truncated()]),
        ("only a beginning", vec![Begin], vec![truncated()]),
        ("an error at once", vec![Error("some_error")], vec![failed("some_error")]),
        (
            "an error in the middle",
            vec![Begin, Text("a"), Error("some_error"), Text("late"), Finish(Stop), End],
            vec![text("a"), failed("some_error")],
        ),
        (
            "an error after the finish reason",
            vec![Begin, Text("a"), Finish(Stop), Error("some_error"), Text("late")],
            vec![text("a"), finish(Stop)],
        ),
    ]
}

/// What is no JSON, or is, but not what a wire is made of; in the middle of a reply and after its finish reason.
fn odd_data(codec: &Codec) -> Vec<Script> {
    let say = |words: &[Word]| words.iter().map(codec.say).collect::<String>();
    let middle = say(&[Word::Begin, Word::Text("a")]);
    let finished = say(&[Word::Finish(FinishReason::Stop)]);
    let broken = || Err(ProviderError::Protocol("an event that is not JSON".into()));
    let mut scripts = vec![
        script(
            "half an object",
            format!("{middle}data: {{not json\n\n{finished}"),
            vec![text("a"), broken()],
        ),
        script("no JSON", format!("{middle}data: hello\n\n{finished}"), vec![text("a"), broken()]),
        script(
            "no JSON after the finish reason",
            format!("{middle}{finished}data: {{not json\n\n"),
            vec![text("a"), finish(FinishReason::Stop)],
        ),
    ];
    for other in ["", " ", "7", "null", "[]", "\"x\"", "{}", "{\"choices\":7,\"type\":[],\"error\":null}"] {
        let stream = format!("{middle}data: {other}\n\n{finished}");
        let name = format!("other data {other}");
        scripts.push(Script { name, stream, parts: vec![text("a"), finish(FinishReason::Stop)] });
    }
    scripts
}

fn scripts(codec: &Codec) -> Vec<Script> {
    let spoken = [replies(), odd_replies(), failures()]
        .into_iter()
        .flatten()
        .map(|(name, words, parts)| script(name, words.iter().map(codec.say).collect::<String>(), parts));
    spoken.chain(odd_data(codec)).chain((codec.recorded)()).collect()
}

/// A way in which the same events may be written.
type Framing = (&'static str, fn(&str) -> String);

const FRAMINGS: &[Framing] = &[
    ("LF", str::to_owned),
    ("CRLF", |stream| stream.replace('\n', "\r\n")),
    ("CR", |stream| stream.replace('\n', "\r")),
    ("a byte order mark", |stream| format!("\u{feff}{stream}")),
    ("comments", |stream| {
        format!(
            ": hello\n\n{}",
            stream.replace("data:", ": PROCESSING\n:\ndata:").replace("\n\n", "\n: x\n\n: y\n\n")
        )
    }),
    ("no space, other fields", |stream| {
        stream.replace("data: ", "id: 7\nretry: 10\nunknown\nevent:x\ndata:").replace("\n\n", "\nid\n\n\n\n")
    }),
    ("many lines of data", |stream| {
        let pretty = |line: &str| {
            let value: Option<serde_json::Value> =
                line.strip_prefix("data: ").and_then(|data| serde_json::from_str(data).ok());
            let Some(value) = value else { return format!("{line}\n") };
            let text = serde_json::to_string_pretty(&value).unwrap();
            text.lines().map(|line| format!("data: {line}\n")).collect()
        };
        stream.lines().map(pretty).collect()
    }),
];

fn play(runtime: &Runtime, codec: &Codec, pieces: Vec<Vec<u8>>) -> Vec<Part> {
    let pieces = stream::iter(pieces.into_iter().map(|piece| Ok(Bytes::from(piece)))).boxed();
    runtime.block_on((codec.decode)(pieces).collect())
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

/// Pieces of a stream that is cut at some places.
fn cut(bytes: &[u8], mut at: Vec<usize>) -> Vec<Vec<u8>> {
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|cut| bytes[cut[0]..cut[1]].to_vec()).collect()
}

#[test]
fn every_script_gives_its_parts_however_it_is_framed() {
    let runtime = runtime();
    for codec in CODECS {
        for script in scripts(codec) {
            for (framing, frame) in FRAMINGS {
                let bytes = frame(&script.stream).into_bytes();
                let what = format!("{}: {}, {framing}", codec.name, script.name);
                assert_eq!(play(&runtime, codec, vec![bytes.clone()]), script.parts, "{what}, whole");
                let single = bytes.chunks(1).map(<[u8]>::to_vec).collect();
                assert_eq!(play(&runtime, codec, single), script.parts, "{what}, byte by byte");
            }
        }
    }
}

#[test]
fn a_cut_at_any_byte_changes_nothing() {
    let runtime = runtime();
    for codec in CODECS {
        for script in scripts(codec) {
            // The other framings are cut at random; CRLF is where a cut may fall between two bytes of one line end.
            let framings = if script.name == "ordinary" { &FRAMINGS[..2] } else { &FRAMINGS[..1] };
            for (framing, frame) in framings {
                let bytes = frame(&script.stream).into_bytes();
                for at in 0..=bytes.len() {
                    let parts = play(&runtime, codec, cut(&bytes, vec![at]));
                    assert_eq!(
                        parts, script.parts,
                        "{}: {}, {framing}, cut at {at}",
                        codec.name, script.name
                    );
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn cuts_at_random_change_nothing(
        which: prop::sample::Index,
        framing: prop::sample::Index,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let runtime = runtime();
        for codec in CODECS {
            let scripts = scripts(codec);
            let script = which.get(&scripts);
            let (_, frame) = framing.get(FRAMINGS);
            let bytes = frame(&script.stream).into_bytes();
            let at = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            prop_assert_eq!(&play(&runtime, codec, cut(&bytes, at)), &script.parts);
        }
    }

    /// Whatever is sent, an ending is said, once and last.
    #[test]
    fn any_events_are_survived(
        events in prop::collection::vec(r#"\{?["a-z:\[\]{}0-9,]{0,30}\}?"#, 0..8),
        bytes: Vec<u8>,
    ) {
        let stream: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
        let runtime = runtime();
        for codec in CODECS {
            for stream in [stream.as_bytes(), &bytes] {
                let mut parts = play(&runtime, codec, vec![stream.to_vec()]);
                let end = parts.pop();
                prop_assert!(matches!(end, Some(Ok(ReplyPart::Finish(_)) | Err(_))));
                prop_assert!(!parts.iter().any(|part| matches!(part, Ok(ReplyPart::Finish(_)) | Err(_))));
            }
        }
    }
}

/// Broken off at any byte, a reply has a beginning of its parts, and is complete only if what completes it was whole.
#[test]
fn what_is_broken_off_is_never_taken_for_whole() {
    let runtime = runtime();
    for codec in CODECS {
        for script in scripts(codec) {
            let Some((Ok(ReplyPart::Finish(_)), said)) = script.parts.split_last() else { continue };
            let mut ends = script.stream.match_indices("\n\n").map(|(at, _)| at);
            let mut start = 0;
            // An event counts once it is whole, even if the blank line after it was cut off. One script has no whole event.
            let complete_from = ends.find(|end| {
                let event = &script.stream[start..*end];
                start = end + 2;
                (codec.completes)(event)
            });
            let Some(complete_from) = complete_from else { continue };
            for at in 0..script.stream.len() {
                let what = format!("{}: {}, broken off at {at}", codec.name, script.name);
                let mut parts = play(&runtime, codec, vec![script.stream.as_bytes()[..at].to_vec()]);
                match parts.pop() {
                    Some(Ok(ReplyPart::Finish(_))) => assert!(at >= complete_from, "{what} is complete"),
                    end => assert!(
                        at < complete_from && end == Some(Err(ProviderError::Truncated)),
                        "{what} ends as {end:?}"
                    ),
                }
                assert!(said.starts_with(&parts), "{what} says {parts:?}");
            }
        }
    }
}

/// A connection that breaks is what it is, unless the finish reason was there.
#[test]
fn a_connection_that_breaks_loses_nothing_after_the_finish_reason() {
    let runtime = runtime();
    for codec in CODECS {
        for (words, end) in [
            (vec![Word::Begin, Word::Text("a")], Err(ProviderError::Unreachable("broken".into()))),
            (
                vec![Word::Begin, Word::Text("a"), Word::Finish(FinishReason::Stop)],
                finish(FinishReason::Stop),
            ),
        ] {
            let said: String = words.iter().map(codec.say).collect();
            let pieces = [Ok(Bytes::from(said)), Err(ProviderError::Unreachable("broken".into()))];
            let parts: Vec<Part> = runtime.block_on((codec.decode)(stream::iter(pieces).boxed()).collect());
            assert_eq!(parts, [text("a"), end], "{}", codec.name);
        }
    }
}

/// The limits are those of the reader; that every codec is behind it is shown here.
#[test]
fn endless_lines_and_endless_events_are_refused() {
    let runtime = runtime();
    for codec in CODECS {
        let begun: String = [Word::Begin, Word::Text("a")].iter().map(codec.say).collect();
        for (endless, error) in [
            (format!("data: {}", "x".repeat(2 * 1024 * 1024)), "a line of the stream is too long"),
            ("data: {}\n\n".repeat(20_001), "the stream has too many events"),
        ] {
            let parts = play(&runtime, codec, vec![format!("{begun}{endless}").into_bytes()]);
            assert_eq!(parts, [text("a"), Err(ProviderError::Protocol(error.into()))], "{}", codec.name);
        }
    }
}

/// One that only keeps the connection open after its finish reason has said everything.
#[tokio::test(start_paused = true)]
async fn a_server_that_lingers_after_its_finish_reason_is_not_waited_for() {
    for codec in CODECS {
        let words = [Word::Begin, Word::Text("a"), Word::Finish(FinishReason::Stop)];
        let said: String = words.iter().map(codec.say).collect();
        let pieces = stream::iter([Ok(Bytes::from(said))]).chain(stream::pending()).boxed();
        let read = (codec.decode)(pieces).collect::<Vec<Part>>();
        let parts = tokio::time::timeout(std::time::Duration::from_mins(1), read).await;
        assert_eq!(parts.unwrap(), [text("a"), finish(FinishReason::Stop)], "{}", codec.name);
    }
}
