//! Whatever a provider sends, in whatever wire and pieces: no panic, and the pieces change nothing.
#![no_main]

use bytes::Bytes;
use digitalmistress::chat::fuzzing::{ChatCompletions, Messages, ProviderError, ReplyPart, Wire, decode};
use futures_util::{StreamExt as _, stream};
use libfuzzer_sys::fuzz_target;

/// The visible text, and what came last.
fn read<W: Wire>(pieces: Vec<Bytes>) -> (String, Option<Result<ReplyPart, ProviderError>>) {
    let pieces = stream::iter(pieces.into_iter().map(Ok)).boxed();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut parts: Vec<_> = runtime.block_on(decode::<W>(pieces).collect());
    let text = parts
        .iter()
        .filter_map(|part| if let Ok(ReplyPart::Text(text)) = part { Some(text.as_str()) } else { None })
        .collect();
    (text, parts.pop())
}

fn check<W: Wire>(stream: &[u8], cuts: &[u8]) {
    let whole = read::<W>(vec![Bytes::copy_from_slice(stream)]);
    let mut rest = stream;
    let mut pieces = Vec::new();
    for cut in cuts {
        let (piece, after) = rest.split_at(usize::from(*cut).min(rest.len()));
        pieces.push(Bytes::copy_from_slice(piece));
        rest = after;
    }
    pieces.push(Bytes::copy_from_slice(rest));
    assert_eq!(read::<W>(pieces), whole);
    // An ending is always said: finished or failed.
    assert!(matches!(whole.1, Some(Ok(ReplyPart::Finish(_)) | Err(_))));
}

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (stream, cuts) = input;
    check::<ChatCompletions>(&stream, &cuts);
    check::<Messages>(&stream, &cuts);
});
