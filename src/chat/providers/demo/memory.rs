//! What the demo remembers: the messages of the prompt, and nothing else.

use super::faults::without_triggers;
use super::hearing::{Heard, ends_sentence, plain_words};
use super::phrases::{self, lists};
use super::rules::{Topic, is_feeling, topic_of};
use crate::chat::provider::{Prompt, PromptMessage, Speaker};

/// The longest quotation, in characters, without the ellipsis.
const QUOTE_CHARS: usize = 80;
/// The shortest word by which two messages can be said to be about the same thing.
const TELLING_CHARS: usize = 5;
/// The longest name; what is longer was not meant as one.
const NAME_CHARS: usize = 30;
/// How many words before a name decide whether it is one.
const LEAD_WORDS: usize = 3;

/// The user's newest message, empty if there is none, without the words meant for the machinery.
pub(super) fn newest(prompt: &Prompt) -> String {
    user_messages(prompt).next_back().map(|message| without_triggers(&message.text)).unwrap_or_default()
}

/// What the user said before the newest message, newest first.
pub(super) fn earlier(prompt: &Prompt) -> impl Iterator<Item = String> {
    user_messages(prompt).rev().skip(1).map(|message| without_triggers(&message.text))
}

/// Whether the companion has said this in the conversation.
pub(super) fn has_said(prompt: &Prompt, line: &str) -> bool {
    prompt.messages.iter().any(|message| message.speaker == Speaker::Companion && message.text.contains(line))
}

/// Whether the companion has spoken at all.
pub(super) fn has_spoken(prompt: &Prompt) -> bool {
    prompt.messages.iter().any(|message| message.speaker == Speaker::Companion)
}

/// The name that the user goes by, by the newest message that tells one.
pub(super) fn name(prompt: &Prompt) -> Option<String> {
    user_messages(prompt).rev().find_map(|message| name_in(&message.text))
}

/// Something worth quoting back from before the newest message: the last thing that shares a word with
/// `question`, or else simply the last. A statement rather than a nod, and never distress.
pub(super) fn something_said(prompt: &Prompt, question: &str) -> Option<String> {
    let question = Heard::new(question);
    let telling = |word: &&String| word.chars().count() >= TELLING_CHARS && !lists(phrases::COMMON, word);
    let worth_quoting = |heard: &Heard| {
        let topic = topic_of(heard);
        heard.len() > 2
            && !matches!(topic, Topic::Distress | Topic::Recall | Topic::OwnName | Topic::Boundary)
    };

    let mut last = None;
    for text in earlier(prompt) {
        let heard = Heard::new(&text);
        if !worth_quoting(&heard) {
            continue;
        }
        if heard.words().iter().filter(telling).any(|word| question.words().contains(word)) {
            return Some(quote(&text));
        }
        last = last.or_else(|| Some(quote(&text)));
    }
    last
}

/// The most telling phrase of a message: of its questions, or else of all its sentences, the longest.
///
/// Cut at a word to fit into a line, and never inside a character. Empty only if there is no word in the
/// message.
pub(super) fn quote(text: &str) -> String {
    let sentences = sentences(text);
    let longest = |asking: bool| {
        sentences
            .iter()
            .filter(|sentence| !asking || sentence.ends_with('?'))
            .max_by_key(|sentence| sentence.split_whitespace().count())
    };
    let phrase = longest(true).or_else(|| longest(false)).map(String::as_str).unwrap_or_default();
    shorten(phrase)
}

/// Sentences without their punctuation, question marks excepted; white space becomes single spaces.
fn sentences(text: &str) -> Vec<String> {
    let mut sentences = Vec::new();
    let mut words = Vec::new();
    let mut tokens = text.split_whitespace().peekable();
    while let Some(token) = tokens.next() {
        words.push(token);
        if ends_sentence(token) || tokens.peek().is_none() {
            let sentence = words.join(" ");
            words.clear();
            let asks = ends_sentence(token) && token.contains('?');
            let bare = sentence.trim_matches(|c: char| !c.is_alphanumeric());
            if !bare.is_empty() {
                sentences.push(if asks { format!("{bare}?") } else { bare.to_owned() });
            }
        }
    }
    sentences
}

fn shorten(phrase: &str) -> String {
    if phrase.chars().count() <= QUOTE_CHARS {
        return phrase.to_owned();
    }
    let start: String = phrase.chars().take(QUOTE_CHARS).collect();
    let whole_words = start.rsplit_once(' ').map_or(start.as_str(), |(words, _)| words);
    format!("{}…", whole_words.trim_end_matches(|c: char| !c.is_alphanumeric()))
}

fn user_messages(prompt: &Prompt) -> impl DoubleEndedIterator<Item = &PromptMessage> {
    prompt.messages.iter().filter(|message| message.speaker == Speaker::User)
}

/// The last name that a message gives for its writer.
///
/// "My name is" and "call me" may be followed by a name in any case; after "I'm" only a capital letter makes
/// it one.
pub(super) fn name_in(text: &str) -> Option<String> {
    let mut found = None;
    let mut lead: Vec<String> = Vec::new(); // The words before, within the sentence.
    for token in text.split_whitespace() {
        let words: Vec<&str> = lead.iter().map(String::as_str).collect();
        let name = match words.as_slice() {
            [.., "dont" | "not" | "never" | "stop" | "didnt" | "isnt", "call", "me"] => None,
            [.., "my", "name", "is"] | [.., "my", "names"] | [.., "call", "me"] => as_name(token),
            [.., "im"] | [.., "i", "am"] if is_capitalised(token) => as_name(token),
            _ => None,
        };
        found = name.or(found);

        if lead.len() == LEAD_WORDS {
            lead.remove(0);
        }
        lead.push(plain_words(token).concat());
        if ends_sentence(token) {
            lead.clear();
        }
    }
    found
}

/// A word as a name, if it can be one: letters, with hyphens and apostrophes inside.
fn as_name(token: &str) -> Option<String> {
    let name = token.trim_matches(|c: char| !c.is_alphanumeric());
    let plain = plain_words(name).concat();
    let is_word = name.chars().all(|c| c.is_alphabetic() || ['-', '\'', '’'].contains(&c));
    let is_possessive = name.ends_with("'s") || name.ends_with("’s");
    let is_something_else = lists(phrases::NOT_NAMES, &plain) || is_feeling(&plain);
    if name.is_empty() || !is_word || is_possessive || is_something_else || name.chars().count() > NAME_CHARS
    {
        return None;
    }
    let mut letters = name.chars();
    let first = letters.next()?;
    Some(first.to_uppercase().chain(letters).collect())
}

/// "Anna", but neither "anna" nor the "TIRED" of somebody who shouts.
fn is_capitalised(token: &str) -> bool {
    let letters: Vec<char> = token.chars().filter(|c| c.is_alphabetic()).collect();
    let shouted = letters.len() > 1 && letters.iter().all(|c| c.is_uppercase());
    !shouted && letters.first().is_some_and(|c| !c.is_lowercase())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_taken_from_what_people_say_of_themselves() {
        let table = [
            ("My name is Anna.", Some("Anna")),
            ("hi, my name's jo!", Some("Jo")),
            ("Call me Ishmael.", Some("Ishmael")),
            ("please call me anna-lena, ok?", Some("Anna-lena")),
            ("Hello, I'm Zoë and I like tea", Some("Zoë")),
            ("I am Ann. Actually, call me Nan", Some("Nan")),
            ("I’m O’Neil", Some("O’Neil")),
            ("I'm 李", Some("李")),
            ("I'm tired", None),
            ("I'm Tired", None),
            ("I'M TIRED", None),
            ("I'm 42", None),
            ("I'm British", None),
            ("I'm Anna's friend", None),
            ("don't call me Bob", None),
            ("That is who I am. Bob left", None),
            ("call me later", None),
            ("call me when you can", None),
            ("my name is not important", None),
            ("my name is", None),
            ("my name is {quote}", Some("Quote")),
            ("my name is <b>Bob</b>", None),
            ("What is my name?", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(name_in(text).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn quotes_take_the_question_or_else_the_longest_sentence() {
        let table = [
            ("I planted beans.", "I planted beans"),
            ("Well. I planted beans today! Nice.", "I planted beans today"),
            ("I planted three rows of beans. Will it freeze?", "Will it freeze?"),
            ("“Really?”", "Really?"),
            ("one\n two\tthree", "one two three"),
            ("...", ""),
            ("", ""),
            (
                "I walked all the way down to the harbour, and then, of course, the rain came in sideways",
                "I walked all the way down to the harbour, and then, of course, the rain came in…",
            ),
        ];
        for (text, expected) in table {
            assert_eq!(quote(text), expected, "{text:?}");
        }
        assert_eq!(quote(&"ü".repeat(200)), format!("{}…", "ü".repeat(QUOTE_CHARS)));
    }

    proptest! {
        #[test]
        fn a_quote_is_short_and_has_a_word_if_the_text_has_one(text in any::<String>()) {
            let quote = quote(&text);
            prop_assert!(quote.chars().count() <= QUOTE_CHARS + 1);
            prop_assert_eq!(quote.is_empty(), Heard::new(&text).len() == 0);
        }
    }
}
