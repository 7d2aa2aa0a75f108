//! How a reply is played: words, pauses and the end.
//!
//! A whole performance is worked out beforehand as a list of [`Step`]s, so everything but the sleeping itself
//! is pure.

use std::time::Duration;

use super::faults::{Trigger, breakdown};
use super::hearing::ends_sentence;
use super::variety::hash;
use crate::chat::provider::{FinishReason, Prompt, ProviderError, ReplyPart, TokenCount};

/// Before the first word of a slow reply.
const SLOW_START: Duration = Duration::from_secs(8);
const SLOW_FACTOR: u32 = 5;
/// How much longer the pause after a sentence is.
const SENTENCE_FACTOR: u32 = 4;
/// How many words come before a failure.
const WORDS_BEFORE_BREAKDOWN: usize = 12;
const BYTES_PER_TOKEN: usize = 3;
const TOKENS_PER_MESSAGE: u64 = 4;

/// One item of the stream, and the silence before it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) wait: Duration,
    pub(super) item: Result<ReplyPart, ProviderError>,
}

/// What decides over a performance besides its text.
pub(super) struct Tempo<'a> {
    /// The usual pause between two words; zero means that nothing waits.
    pub(super) pace: Duration,
    /// Varies the pauses.
    pub(super) seed: u64,
    pub(super) triggers: &'a [Trigger],
}

/// The performance of a reply that may have at most `max_tokens`.
pub(super) fn steps(prompt: &Prompt, reply: &str, max_tokens: u32, tempo: &Tempo) -> Vec<Step> {
    let (reply, finish) = fit(reply, u64::from(max_tokens));
    let mut steps = words(&reply, tempo);
    if tempo.triggers.contains(&Trigger::Error) {
        steps.truncate(WORDS_BEFORE_BREAKDOWN);
        steps.push(Step { wait: tempo.pace, item: Err(breakdown()) });
        return steps;
    }

    let input = prompt.messages.iter().map(|message| message.text.as_str()).chain([prompt.system.as_str()]);
    let input = input.map(tokens).fold(0, u64::saturating_add);
    let usage = TokenCount { input, output: tokens(&reply) };
    steps.extend(
        [ReplyPart::Usage(usage), ReplyPart::Finish(finish)]
            .map(|part| Step { wait: Duration::ZERO, item: Ok(part) }),
    );
    steps
}

/// Pieces that end where a word begins: together they are the text, white space and all.
pub(super) fn split(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for piece in text.split_inclusive(char::is_whitespace) {
        match words.last_mut() {
            Some(word) if piece.trim().is_empty() || word.trim().is_empty() => word.push_str(piece),
            _ => words.push(piece.to_owned()),
        }
    }
    words
}

/// A text's tokens, estimated as a message of its own.
fn tokens(text: &str) -> u64 {
    u64::try_from(text.len().div_ceil(BYTES_PER_TOKEN)).unwrap_or(u64::MAX).saturating_add(TOKENS_PER_MESSAGE)
}

/// Cuts the reply at a word where it would become too long. One word always remains: a reply without text is
/// a failure.
fn fit(reply: &str, max_tokens: u64) -> (String, FinishReason) {
    if tokens(reply) <= max_tokens {
        return (reply.to_owned(), FinishReason::Stop);
    }
    let mut fitting = String::new();
    for word in split(reply) {
        let longer = format!("{fitting}{word}");
        if !fitting.is_empty() && tokens(longer.trim_end()) > max_tokens {
            break;
        }
        fitting = longer;
    }
    (fitting.trim_end().to_owned(), FinishReason::Length)
}

/// The words of a reply, each with the pause that the word before it left.
fn words(reply: &str, tempo: &Tempo) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut wait = tempo.before_first();
    for (number, word) in (0..).zip(split(reply)) {
        let pause = tempo.after(&word, number);
        steps.push(Step { wait, item: Ok(ReplyPart::Text(word)) });
        wait = pause;
    }
    steps
}

impl Tempo<'_> {
    fn is_slow(&self) -> bool {
        self.triggers.contains(&Trigger::Slow)
    }

    fn before_first(&self) -> Duration {
        if self.is_slow() && !self.pace.is_zero() { SLOW_START } else { Duration::ZERO }
    }

    /// The pause after a word: half to one and a half of the pace, longer at the end of a sentence.
    fn after(&self, word: &str, number: u64) -> Duration {
        let variation = hash(word, self.seed.wrapping_add(number)) % 101;
        let percent = u32::try_from(variation).unwrap_or_default().saturating_add(50);
        let pace = if self.is_slow() { self.pace.saturating_mul(SLOW_FACTOR) } else { self.pace };
        let pause = pace.saturating_mul(percent).checked_div(100).unwrap_or(pace);
        if ends_sentence(word) { pause.saturating_mul(SENTENCE_FACTOR) } else { pause }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::chat::provider::Speaker;
    use crate::chat::providers::demo::testing::{prompt, said};

    const PACE: Duration = Duration::from_millis(100);

    fn play(reply: &str, max_tokens: u32, pace: Duration, triggers: &[Trigger]) -> Vec<Step> {
        let prompt = prompt("roz", &[said(Speaker::User, "12345")]);
        steps(&prompt, reply, max_tokens, &Tempo { pace, seed: 7, triggers })
    }

    fn text(steps: &[Step]) -> String {
        let text =
            |step: &Step| if let Ok(ReplyPart::Text(text)) = &step.item { Some(text.clone()) } else { None };
        steps.iter().filter_map(text).collect()
    }

    #[test]
    fn words_keep_the_white_space_behind_them() {
        assert_eq!(split("One  two.\n\nThree"), ["One  ", "two.\n\n", "Three"]);
        assert_eq!(split("  lead"), ["  lead"]);
        assert!(split("").is_empty());
    }

    #[test]
    fn a_whole_reply_ends_with_its_usage_and_a_stop() {
        let steps = play("One two.\n\nThree", 100, PACE, &[]);
        assert_eq!(text(&steps), "One two.\n\nThree");
        let end: Vec<_> = steps.iter().rev().take(2).map(|step| step.item.clone()).collect();
        // Input: "12345" is 2 + 4 and the system text "Be kind." is 3 + 4. Output: 15 bytes are 5 + 4.
        let usage = TokenCount { input: 13, output: 9 };
        assert_eq!(end, [Ok(ReplyPart::Finish(FinishReason::Stop)), Ok(ReplyPart::Usage(usage))]);
    }

    #[test]
    fn a_reply_that_is_too_long_is_cut_at_a_word() {
        let steps = play("One two.\n\nThree", 7, PACE, &[]);
        assert_eq!(text(&steps), "One two.");
        assert_eq!(steps.last().map(|step| &step.item), Some(&Ok(ReplyPart::Finish(FinishReason::Length))));
        assert_eq!(text(&play("One two.\n\nThree", 0, PACE, &[])), "One");
    }

    #[test]
    fn pauses_vary_around_the_pace_and_are_longer_after_a_sentence() {
        let reply = "word ".repeat(200) + "end. after";
        let steps = play(&reply, 10_000, PACE, &[]);
        let waits: Vec<_> = steps.iter().map(|step| step.wait).take(202).collect();
        assert_eq!(waits[0], Duration::ZERO);
        for wait in &waits[1..201] {
            assert!((PACE / 2..=PACE * 3 / 2).contains(wait), "{wait:?}");
        }
        assert_ne!(waits[1], waits[2]);
        assert!((PACE * 2..=PACE * 6).contains(&waits[201]));
    }

    #[test]
    fn slow_replies_start_late_and_no_pace_means_no_pause_at_all() {
        let slow = play("One two", 100, PACE, &[Trigger::Slow]);
        assert_eq!(slow[0].wait, Duration::from_secs(8));
        assert!(slow[1].wait >= PACE * 5 / 2);
        let hurried = play("One. Two. Three", 100, Duration::ZERO, &[Trigger::Slow]);
        assert!(hurried.iter().all(|step| step.wait.is_zero()));
    }

    #[test]
    fn a_failure_comes_after_a_dozen_words_and_ends_everything() {
        let steps = play(&"word ".repeat(40), 1_000, PACE, &[Trigger::Error]);
        assert_eq!(steps.len(), 13);
        assert_eq!(text(&steps), "word ".repeat(12));
        assert!(matches!(steps.last(), Some(Step { item: Err(ProviderError::Failed(_)), .. })));
    }

    proptest! {
        #[test]
        fn words_make_up_the_text(text in any::<String>()) {
            prop_assert_eq!(split(&text).concat(), text);
        }
    }
}
