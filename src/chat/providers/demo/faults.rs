//! The trigger words: how a frontend developer asks for a state that a real vendor shows only on a bad day.
//!
//! This module recognises the words and knows the errors. What slow or long means is for those who do it.

use std::time::Duration;

use crate::chat::provider::ProviderError;

const BUSY_FOR: Duration = Duration::from_secs(30);

/// What a word in the newest message of the user asks for. Words may be combined with each other and with other words:
/// `!slow !error` fails slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trigger {
    /// `!slow`: the first word comes only after 8 seconds, the others slowly.
    Slow,
    /// `!long`: a reply of about 600 words.
    Long,
    /// `!error`: fails after a dozen words.
    Error,
    /// `!refuse`: the provider declines to answer, before any text.
    Refuse,
    /// `!busy`: the provider is busy and asks to be tried again in 30 seconds.
    Busy,
}

impl Trigger {
    /// Reads one whitespace-separated word. Phones capitalise, and people put a full stop after anything.
    fn from_word(word: &str) -> Option<Trigger> {
        let word = word
            .trim_start_matches(|c: char| !c.is_alphanumeric() && c != '!')
            .trim_end_matches(|c: char| !c.is_alphanumeric());
        match word.to_ascii_lowercase().as_str() {
            "!slow" => Some(Trigger::Slow),
            "!long" => Some(Trigger::Long),
            "!error" => Some(Trigger::Error),
            "!refuse" => Some(Trigger::Refuse),
            "!busy" => Some(Trigger::Busy),
            _ => None,
        }
    }
}

/// The triggers of a message, in its order.
pub(super) fn triggers_in(text: &str) -> Vec<Trigger> {
    text.split_whitespace().filter_map(Trigger::from_word).collect()
}

/// The message without its trigger words: they are addressed to the machinery, not to the companion.
pub(super) fn without_triggers(text: &str) -> String {
    let words: Vec<_> =
        text.split_inclusive(char::is_whitespace).filter(|word| Trigger::from_word(word).is_none()).collect();
    words.concat()
}

/// The error that comes instead of any reply, if the triggers ask for one.
pub(super) fn refusal(triggers: &[Trigger]) -> Option<ProviderError> {
    triggers.iter().find_map(|trigger| match trigger {
        Trigger::Refuse => Some(ProviderError::Declined),
        Trigger::Busy => Some(ProviderError::Busy {
            detail: "asked for with !busy".to_owned(),
            retry_after: Some(BUSY_FOR),
        }),
        Trigger::Slow | Trigger::Long | Trigger::Error => None,
    })
}

/// The error that ends a reply in the middle.
pub(super) fn breakdown() -> ProviderError {
    ProviderError::Failed("asked for with !error".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_are_whole_words_in_any_case_with_any_punctuation() {
        let table: &[(&str, &[Trigger])] = &[
            ("!slow", &[Trigger::Slow]),
            ("please be !Slow.", &[Trigger::Slow]),
            ("(!LONG), thanks", &[Trigger::Long]),
            ("!slow\n!error!", &[Trigger::Slow, Trigger::Error]),
            ("!slowly does it", &[]),
            ("not!slow", &[]),
            ("!!busy", &[]),
            ("slow long error refuse busy", &[]),
            ("! slow", &[]),
            ("", &[]),
        ];
        for (text, expected) in table {
            assert_eq!(triggers_in(text), *expected, "{text:?}");
        }
    }

    #[test]
    fn the_companion_does_not_hear_the_trigger_words() {
        assert_eq!(without_triggers("!slow hello there"), "hello there");
        assert_eq!(without_triggers("hello !long"), "hello ");
        assert_eq!(without_triggers("!error"), "");
        assert_eq!(without_triggers("I was !slowly\nwalking"), "I was !slowly\nwalking");
    }

    #[test]
    fn the_first_of_two_refusals_wins() {
        let busy = refusal(&[Trigger::Slow, Trigger::Busy, Trigger::Refuse]);
        assert!(matches!(busy, Some(ProviderError::Busy { retry_after: Some(BUSY_FOR), .. })));
        assert_eq!(refusal(&[Trigger::Refuse, Trigger::Busy]), Some(ProviderError::Declined));
        assert_eq!(refusal(&[Trigger::Slow, Trigger::Long, Trigger::Error]), None);
    }
}
