//! Server-sent events, read from whatever pieces the network makes of them.
//!
//! Follows the WHATWG rules (HTML Standard, 9.2.6): CR, LF and CRLF end lines, comments and unknown fields pass by, a
//! leading byte order mark is dropped, broken UTF-8 becomes U+FFFD. Three limits are ours: the length of a line, the
//! number of events, and the bytes of the whole stream, comments included. By hand, because the common parser panics on
//! a split byte order mark and is quadratic on long lines.

/// The longest line that is read, in bytes.
pub const MAX_LINE: usize = 1024 * 1024;
/// The most events of one stream.
pub const MAX_EVENTS: usize = 20_000;
/// The most bytes of one stream: several times what [`MAX_EVENTS`] of the usual size have.
pub const MAX_STREAM: usize = 32 * 1024 * 1024;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// A limit was passed.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SseError {
    /// A line was longer than [`MAX_LINE`].
    #[error("a line of the stream is too long")]
    LineTooLong,
    /// There were more than [`MAX_EVENTS`] events.
    #[error("the stream has too many events")]
    TooManyEvents,
    /// There were more than [`MAX_STREAM`] bytes.
    #[error("the stream is too long")]
    StreamTooLong,
}

/// Takes bytes and gives the `data` of each event.
#[derive(Default)]
pub struct SseParser {
    /// The line that has not ended yet.
    line: Vec<u8>,
    /// The data of the event that has not ended yet.
    data: String,
    has_data: bool,
    /// The last byte was a CR: an LF that follows belongs to it.
    after_cr: bool,
    /// Bytes of a possible byte order mark were seen, and how many; `None` when it is too late for one.
    bom: BomState,
    events: usize,
    /// Bytes so far.
    bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum BomState {
    Matching(usize),
    Past,
}

impl Default for BomState {
    fn default() -> Self {
        BomState::Matching(0)
    }
}

impl SseParser {
    /// Takes the next bytes and adds the data of the events that they complete to `events`, also of those before an error.
    pub fn push(&mut self, bytes: &[u8], events: &mut Vec<String>) -> Result<(), SseError> {
        self.bytes = self.bytes.saturating_add(bytes.len());
        if self.bytes > MAX_STREAM {
            return Err(SseError::StreamTooLong);
        }
        let mut rest = self.skip_bom(bytes);
        while !rest.is_empty() {
            if self.after_cr {
                self.after_cr = false;
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
                continue;
            }
            let end = rest.iter().position(|b| *b == b'\n' || *b == b'\r');
            let (text, after) = rest.split_at(end.unwrap_or(rest.len()));
            if self.line.len().saturating_add(text.len()) > MAX_LINE {
                return Err(SseError::LineTooLong);
            }
            self.line.extend_from_slice(text);
            rest = match after.split_first() {
                Some((terminator, after)) => {
                    self.after_cr = *terminator == b'\r';
                    self.end_line(events)?;
                    after
                }
                None => &[],
            };
        }
        Ok(())
    }

    /// The data of an event that the end of the stream cut off, if it has any. The standard drops it; a caller may still
    /// recognise an end mark in it.
    pub fn finish(mut self) -> Option<String> {
        let mut events = Vec::new();
        if !self.line.is_empty() {
            self.end_line(&mut events).ok()?;
        }
        self.has_data.then(|| std::mem::take(&mut self.data))
    }

    /// Drops a byte order mark at the very beginning, in however many pieces it comes.
    fn skip_bom<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let BomState::Matching(seen) = self.bom else { return bytes };
        let expected = BOM.get(seen..).unwrap_or_default();
        let matched = bytes.iter().zip(expected).take_while(|(b, e)| b == e).count();
        let (_, rest) = bytes.split_at(matched);
        if matched == expected.len() {
            self.bom = BomState::Past;
        } else if rest.is_empty() {
            self.bom = BomState::Matching(seen.saturating_add(matched));
        } else {
            // It was none: what looked like one is text.
            self.bom = BomState::Past;
            self.line.extend_from_slice(BOM.get(..seen.saturating_add(matched)).unwrap_or_default());
        }
        rest
    }

    fn end_line(&mut self, events: &mut Vec<String>) -> Result<(), SseError> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            if std::mem::take(&mut self.has_data) {
                self.events = self.events.saturating_add(1);
                if self.events > MAX_EVENTS {
                    return Err(SseError::TooManyEvents);
                }
                events.push(std::mem::take(&mut self.data));
            }
            return Ok(());
        }
        let (field, value) = match line.iter().position(|b| *b == b':') {
            Some(colon) => {
                let (field, value) = line.split_at(colon);
                let value = value.strip_prefix(b":").unwrap_or(value);
                (field, value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (line.as_slice(), &[][..]),
        };
        if field == b"data" {
            if self.has_data {
                self.data.push('\n');
            }
            self.has_data = true;
            if self.data.len().saturating_add(value.len()) > MAX_LINE {
                return Err(SseError::LineTooLong);
            }
            self.data.push_str(&String::from_utf8_lossy(value));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(pieces: &[&[u8]]) -> Vec<String> {
        let mut parser = SseParser::default();
        let mut events = Vec::new();
        pieces.iter().for_each(|piece| parser.push(piece, &mut events).unwrap());
        events
    }

    #[test]
    fn the_rules_of_the_standard() {
        for (stream, events) in [
            ("data: a\n\n", vec!["a"]),
            ("data:a\r\rdata:b\r\n\r\n", vec!["a", "b"]),
            ("data:  two spaces\n\n", vec![" two spaces"]),
            ("data: one\ndata: two\n\n", vec!["one\ntwo"]),
            ("data\n\n", vec![""]),
            ("data:\ndata\n\n", vec!["\n"]),
            (": comment\nevent: x\nid: 7\nretry: 9\nunknown\ndata: a\n\n", vec!["a"]),
            ("event: x\n\n\n\ndata: a\n\n", vec!["a"]),
            ("\u{feff}data: a\n\n", vec!["a"]),
            ("\u{feff}\u{feff}data: a\n\n", vec![]),
            ("data: \u{2028}é😀\n\n", vec!["\u{2028}é😀"]),
            ("data: unfinished\n", vec![]),
            ("database: a\n\n", vec![]),
        ] {
            assert_eq!(parse(&[stream.as_bytes()]), events, "{stream:?}");
        }
        assert_eq!(parse(&[b"data: \xff\xfe\n\n"]), ["\u{fffd}\u{fffd}"]);
    }

    #[test]
    fn what_the_end_cut_off_can_be_asked_for() {
        let rest = |stream: &str| {
            let mut parser = SseParser::default();
            parser.push(stream.as_bytes(), &mut Vec::new()).unwrap();
            parser.finish()
        };
        assert_eq!(rest("data: [DONE]"), Some("[DONE]".into()));
        assert_eq!(rest("data: a\ndata: b"), Some("a\nb".into()));
        assert_eq!(rest("data: a\n\n"), None);
        assert_eq!(rest(": comment"), None);
        assert_eq!(rest("\u{feff}"), None);
    }

    #[test]
    fn limits_are_kept_whatever_the_pieces() {
        let mut parser = SseParser::default();
        let piece = [b'x'; 64];
        let pieces = MAX_LINE / piece.len();
        let refused = (0..=pieces).find_map(|_| parser.push(&piece, &mut Vec::new()).err());
        assert_eq!(refused, Some(SseError::LineTooLong));

        let verdict = |stream: String| {
            let mut events = Vec::new();
            let result = SseParser::default().push(stream.as_bytes(), &mut events);
            (events.len(), result)
        };
        assert_eq!(verdict("data:\n\n".repeat(MAX_EVENTS + 1)), (MAX_EVENTS, Err(SseError::TooManyEvents)));
        assert_eq!(verdict(":\n\n".repeat(MAX_EVENTS + 1)), (0, Ok(())));
        let lines = format!("data: {}\n", "x".repeat(1000)).repeat(2000);
        assert_eq!(verdict(lines), (0, Err(SseError::LineTooLong)), "one event of many lines");

        let mut parser = SseParser::default();
        let comments = b":\n\n".repeat(1024);
        let pieces = (0..).take_while(|_| parser.push(&comments, &mut Vec::new()).is_ok()).count();
        assert_eq!(pieces, MAX_STREAM / comments.len());
        assert_eq!(parser.push(&comments, &mut Vec::new()), Err(SseError::StreamTooLong));
    }

    proptest! {
        #[test]
        fn the_cuts_change_nothing(
            stream in r"(\x{feff})?(data: ?[a-zé😀:]{0,6}|: ?c|id: 1|data|)((\r\n|\r|\n)(data: ?[a-zé😀:]{0,6}|: ?c|data|)){0,12}",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        ) {
            let bytes = stream.as_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            let whole = parse(&[bytes]);
            prop_assert_eq!(&parse(&pieces), &whole);
            prop_assert_eq!(&parse(&single), &whole);
        }

        #[test]
        fn any_bytes_are_survived(pieces: Vec<Vec<u8>>) {
            let mut parser = SseParser::default();
            for piece in pieces {
                let _ = parser.push(&piece, &mut Vec::new());
            }
            let _ = parser.finish();
        }
    }
}
