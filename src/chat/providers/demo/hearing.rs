//! What was said, in a form that rules can match: lower case, whole words, without apostrophes.
//!
//! People type "I'm", "I’m" and "im" and mean the same. A sentence's end is kept as a word of its own, so
//! that a rule can ask for something that was said last in a sentence.

use super::phrases::{each, lists};

/// Marks the beginning and the end of a sentence in [`Heard::says`].
const STOP: &str = ".";

/// One message as the rules hear it.
pub(super) struct Heard {
    /// ` . im tired . good night . `
    line: String,
    /// The same without the stops.
    words: Vec<String>,
    asks: bool,
}

impl Heard {
    pub(super) fn new(text: &str) -> Heard {
        let mut line = format!(" {STOP} ");
        let mut words = Vec::new();
        for token in text.split_whitespace() {
            for word in plain_words(token) {
                line.push_str(&word);
                line.push(' ');
                words.push(word);
            }
            if ends_sentence(token) {
                line.push_str(STOP);
                line.push(' ');
            }
        }
        line.push_str(STOP);
        line.push(' ');
        Heard { line, words, asks: text.contains(['?', '？']) }
    }

    /// Number of words.
    pub(super) fn len(&self) -> usize {
        self.words.len()
    }

    /// The words, lower case and without punctuation.
    pub(super) fn words(&self) -> &[String] {
        &self.words
    }

    /// Whether there is a question mark in it.
    pub(super) fn asks(&self) -> bool {
        self.asks
    }

    /// Whether it contains one of the phrases, as whole words; `.` stands for a sentence's beginning or end.
    pub(super) fn says(&self, phrases: &'static str) -> bool {
        each(phrases).any(|phrase| self.line.contains(&format!(" {phrase} ")))
    }

    /// Whether it consists of nothing but these words.
    pub(super) fn is_only(&self, words: &'static str) -> bool {
        !self.words.is_empty() && self.words.iter().all(|word| lists(words, word))
    }
}

/// The words of one whitespace-separated token: `Self-made,` is `self` and `made`, `don’t` is `dont`.
pub(super) fn plain_words(token: &str) -> Vec<String> {
    let token: String = token.chars().filter(|c| !['\'', '’'].contains(c)).collect();
    token
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

/// Whether a token is the last one of its sentence, closing quotes and brackets aside.
pub(super) fn ends_sentence(token: &str) -> bool {
    token
        .trim_end_matches(|c: char| {
            c.is_whitespace() || ['"', '\'', '”', '’', ')', ']', '»', '*', '_'].contains(&c)
        })
        .ends_with(['.', '!', '?', '…', ';', '。', '！', '？'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_match_as_whole_words_however_they_are_typed() {
        let table = [
            ("I'm tired. Good NIGHT", "im tired", true),
            ("I’m tired. Good night", "good night", true),
            ("im   tired", "im tired", true),
            ("self-harm", "self harm", true),
            ("skill myself", "kill myself", false),
            ("hi", ". hi .", true),
            ("hi there", ". hi .", false),
            ("I have to go. Bye", "have to go .", true),
            ("I have to go to work", "have to go .", false),
            ("so I said (quietly) hi!”", "hi .", true),
        ];
        for (text, phrase, expected) in table {
            assert_eq!(Heard::new(text).says(phrase), expected, "{text:?} / {phrase:?}");
        }
    }

    #[test]
    fn a_message_without_words_has_no_words() {
        for text in ["", " \n\t", "...", "🙂🙂", "?!", "\u{200b}"] {
            assert_eq!(Heard::new(text).len(), 0, "{text:?}");
            assert!(!Heard::new(text).is_only("no"));
        }
    }
}
