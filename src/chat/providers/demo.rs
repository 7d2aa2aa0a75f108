//! A small companion that needs no vendor and no key: rules instead of a model.
//!
//! It answers in the voices of the companions that come with the program, streams at a human pace, and fails
//! on request ([`faults::Trigger`]), so that a frontend developer can build every state. It must not know HTTP,
//! storage or settings, and it keeps nothing: all it remembers stands in the prompt.

mod faults;
mod hearing;
mod memory;
mod pacing;
mod phrases;
mod reply;
mod rules;
mod variety;
mod voices;

use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, stream};

use self::pacing::{Step, Tempo};
use crate::chat::provider::{ChatProvider, Model, Prompt, ProviderError, ReplyPart, ReplyStream, Speaker};

/// What an operator can choose about the demo.
#[derive(Clone, Debug)]
pub struct DemoSettings {
    /// Its name, and how much the demo claims to take in; it reads everything that it is given. A reply is cut at
    /// `max_output_tokens`; that to `!long` needs about 1,100.
    pub model: Model,
    /// The usual pause between two words. Zero means none: then nothing waits, not even on request.
    pub pace: Duration,
}

/// The demo companion.
pub struct Demo {
    settings: DemoSettings,
}

impl Demo {
    /// Makes a demo; it holds no connection and no state, so one serves everybody.
    pub fn new(settings: DemoSettings) -> Demo {
        Demo { settings }
    }
}

#[async_trait]
impl ChatProvider for Demo {
    fn model(&self) -> &Model {
        &self.settings.model
    }

    async fn reply(&self, prompt: Prompt) -> Result<ReplyStream, ProviderError> {
        let newest = prompt.messages.iter().rev().find(|message| message.speaker == Speaker::User);
        let triggers = newest.map(|message| faults::triggers_in(&message.text)).unwrap_or_default();
        if let Some(refusal) = faults::refusal(&triggers) {
            return Err(refusal);
        }

        let text = reply::compose(&prompt, &triggers);
        let max_tokens = prompt.max_output_tokens.min(self.settings.model.max_output_tokens);
        let tempo = Tempo { pace: self.settings.pace, seed: variety::seed(&prompt), triggers: &triggers };
        let steps = pacing::steps(&prompt, &text, max_tokens, &tempo);
        Ok(stream::iter(steps).then(play).boxed())
    }
}

async fn play(step: Step) -> Result<ReplyPart, ProviderError> {
    if !step.wait.is_zero() {
        tokio::time::sleep(step.wait).await;
    }
    step.item
}

/// What the tests of several parts need.
#[cfg(test)]
mod testing {
    use crate::chat::provider::{Prompt, PromptMessage, Speaker};

    pub(super) fn said(speaker: Speaker, text: &str) -> PromptMessage {
        PromptMessage { speaker, text: text.to_owned() }
    }

    /// A prompt for a companion whose name is its id, capitalised.
    pub(super) fn prompt(companion: &str, messages: &[PromptMessage]) -> Prompt {
        let mut name = companion.to_owned();
        name.get_mut(..1).unwrap().make_ascii_uppercase();
        Prompt {
            companion: companion.to_owned(),
            companion_name: name,
            system: "Be kind.".to_owned(),
            messages: messages.to_vec(),
            max_output_tokens: 4_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::testing::{prompt, said};
    use super::*;
    use crate::chat::provider::FinishReason;

    const PACE: Duration = Duration::from_millis(40);

    fn demo(pace: Duration) -> Demo {
        let model = Model { name: "demo".to_owned(), context_tokens: 8_000, max_output_tokens: 2_000 };
        Demo::new(DemoSettings { model, pace })
    }

    async fn play_all(
        demo: &Demo,
        text: &str,
    ) -> Result<Vec<Result<ReplyPart, ProviderError>>, ProviderError> {
        let stream = demo.reply(prompt("tamsin", &[said(Speaker::User, text)])).await?;
        Ok(stream.collect().await)
    }

    fn text_of(parts: &[Result<ReplyPart, ProviderError>]) -> String {
        let text = |part: &_| if let Ok(ReplyPart::Text(text)) = part { Some(text.clone()) } else { None };
        parts.iter().filter_map(text).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_reply_streams_word_by_word_and_ends_properly() {
        let start = Instant::now();
        let parts = play_all(&demo(PACE), "Hello!").await.unwrap();
        assert!(start.elapsed() > PACE * 5);

        let expected = reply::compose(&prompt("tamsin", &[said(Speaker::User, "Hello!")]), &[]);
        assert_eq!(text_of(&parts), expected);
        assert_eq!(parts.len(), expected.split_whitespace().count() + 2);
        assert!(matches!(
            parts[parts.len() - 2..],
            [Ok(ReplyPart::Usage(_)), Ok(ReplyPart::Finish(FinishReason::Stop))]
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_pace_nothing_waits_even_when_slow_is_asked_for() {
        let start = Instant::now();
        play_all(&demo(Duration::ZERO), "!slow !long").await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_keeps_the_first_word_back_for_eight_seconds() {
        let start = Instant::now();
        let demo = demo(PACE);
        let mut stream = demo.reply(prompt("roz", &[said(Speaker::User, "!slow")])).await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert!(matches!(stream.next().await, Some(Ok(ReplyPart::Text(_)))));
        assert!((8..9).contains(&start.elapsed().as_secs()));
    }

    #[tokio::test(start_paused = true)]
    async fn error_breaks_off_after_a_dozen_words() {
        let parts = play_all(&demo(PACE), "!error please").await.unwrap();
        assert_eq!(text_of(&parts).split_whitespace().count(), 12);
        assert!(matches!(parts[..], [.., Ok(ReplyPart::Text(_)), Err(ProviderError::Failed(_))]));
    }

    #[tokio::test(start_paused = true)]
    async fn refuse_and_busy_fail_before_any_text() {
        let demo = demo(PACE);
        assert_eq!(play_all(&demo, "would you !refuse this").await, Err(ProviderError::Declined));
        let busy = play_all(&demo, "!busy").await;
        let wait = Some(Duration::from_secs(30));
        assert!(matches!(busy, Err(ProviderError::Busy { retry_after, .. }) if retry_after == wait));
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_newest_user_message_triggers() {
        let turns =
            [said(Speaker::User, "!refuse"), said(Speaker::Companion, "!busy"), said(Speaker::User, "hello")];
        assert!(demo(PACE).reply(prompt("roz", &turns)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_smaller_of_both_limits_cuts_the_reply() {
        let mut prompt = prompt("octavia", &[said(Speaker::User, "!long")]);
        prompt.max_output_tokens = 50;
        let parts: Vec<_> = demo(Duration::ZERO).reply(prompt).await.unwrap().collect().await;
        assert_eq!(parts.last(), Some(&Ok(ReplyPart::Finish(FinishReason::Length))));
        assert!(text_of(&parts).len() <= 50 * 3);
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in any::<String>(), companion in "[a-z][a-z0-9-]{1,31}") {
            prop_assume!(faults::triggers_in(&text).is_empty());
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let parts: Vec<_> = runtime.block_on(async {
                let prompt = prompt(&companion, &[said(Speaker::User, &text)]);
                demo(Duration::ZERO).reply(prompt).await.unwrap().collect().await
            });
            prop_assert!(!text_of(&parts).trim().is_empty());
            prop_assert_eq!(parts.last(), Some(&Ok(ReplyPart::Finish(FinishReason::Stop))));
        }
    }
}
