//! What a model is told: the persona, then the newest whole turns that fit. Pure.

use super::provider::{Model, Prompt, PromptMessage, Speaker};

/// What is left free of a model's window, because tokens are estimated.
const MARGIN_PERCENT: u32 = 10;

impl Model {
    /// Tokens that a prompt may have.
    pub fn budget(&self) -> u64 {
        let margin = u64::from(self.context_tokens).saturating_mul(u64::from(MARGIN_PERCENT)).div_euclid(100);
        u64::from(self.context_tokens)
            .saturating_sub(u64::from(self.max_output_tokens))
            .saturating_sub(margin)
    }
}

/// A guess at the tokens of a message, on the high side: no tokeniser fits every provider.
pub fn estimate(text: &str) -> u64 {
    u64::try_from(text.len().div_ceil(3)).unwrap_or(u64::MAX).saturating_add(4)
}

/// Estimates a whole prompt.
pub fn estimate_prompt(prompt: &Prompt) -> u64 {
    prompt
        .messages
        .iter()
        .map(|message| estimate(&message.text))
        .fold(estimate(&prompt.system), u64::saturating_add)
}

/// Chooses the messages that fit: the newest whole turns, never half of one, and always the newest message, which is the
/// one to be answered. `history` is in order and ends with that message; `budget` is in estimated tokens.
pub fn newest_turns(system: &str, history: Vec<PromptMessage>, budget: u64) -> Vec<PromptMessage> {
    let mut left = budget.saturating_sub(estimate(system));
    let mut turns = turns(history);
    let mut chosen: Vec<Vec<PromptMessage>> = Vec::new();
    while let Some(turn) = turns.pop() {
        let cost = turn.iter().map(|message| estimate(&message.text)).fold(0, u64::saturating_add);
        if cost > left && !chosen.is_empty() {
            break;
        }
        left = left.saturating_sub(cost);
        chosen.push(turn);
    }
    chosen.reverse();
    chosen.into_iter().flatten().collect()
}

/// Cuts a history into turns: each begins with a user's message and holds what was answered to it. A reply whose
/// question was not loaded is half a turn and left out.
fn turns(history: Vec<PromptMessage>) -> Vec<Vec<PromptMessage>> {
    let mut turns: Vec<Vec<PromptMessage>> = Vec::new();
    for message in history.into_iter().skip_while(|message| message.speaker == Speaker::Companion) {
        match turns.last_mut() {
            Some(turn) if message.speaker == Speaker::Companion => turn.push(message),
            _ => turns.push(vec![message]),
        }
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn said(speaker: Speaker, text: &str) -> PromptMessage {
        PromptMessage { speaker, text: text.to_owned() }
    }

    fn texts(messages: &[PromptMessage]) -> Vec<&str> {
        messages.iter().map(|message| message.text.as_str()).collect()
    }

    fn history() -> Vec<PromptMessage> {
        vec![
            said(Speaker::User, "one"),
            said(Speaker::Companion, "first"),
            said(Speaker::User, "two"), // Never answered.
            said(Speaker::User, "three"),
            said(Speaker::Companion, "third"),
            said(Speaker::User, "four"),
        ]
    }

    #[test]
    fn a_wide_window_takes_everything() {
        let wide = Model { name: String::new(), context_tokens: 8_000, max_output_tokens: 1_000 };
        assert_eq!(
            texts(&newest_turns("be kind", history(), wide.budget())),
            ["one", "first", "two", "three", "third", "four"]
        );
    }

    #[test]
    fn a_narrow_window_takes_whole_turns_from_the_newest() {
        // Each message costs 5 or 6 tokens; the budget after the margin is 27.
        let narrow = Model { name: String::new(), context_tokens: 30, max_output_tokens: 0 };
        assert_eq!(texts(&newest_turns("", history(), narrow.budget())), ["two", "three", "third", "four"]);
        let narrower = Model { name: String::new(), context_tokens: 20, max_output_tokens: 0 };
        assert_eq!(texts(&newest_turns("", history(), narrower.budget())), ["four"]);
    }

    #[test]
    fn the_newest_message_is_always_there() {
        let nothing = Model { name: String::new(), context_tokens: 10, max_output_tokens: 100 };
        assert_eq!(texts(&newest_turns("a long system prompt", history(), nothing.budget())), ["four"]);
    }

    proptest! {
        #[test]
        fn the_choice_is_a_suffix_of_whole_turns_within_the_budget(
            lengths in prop::collection::vec((any::<bool>(), 0usize..400), 1..30),
            context_tokens in 0u32..4_000, max_output_tokens in 0u32..1_000,
        ) {
            let mut history: Vec<_> = lengths
                .iter()
                .map(|(user, len)| said(if *user { Speaker::User } else { Speaker::Companion }, &"x".repeat(*len)))
                .collect();
            history.push(said(Speaker::User, "newest"));
            let model = Model { name: String::new(), context_tokens, max_output_tokens };
            let chosen = newest_turns("system", history.clone(), model.budget());

            let skipped = history.len() - chosen.len();
            prop_assert_eq!(texts(&chosen), texts(&history[skipped..]));
            prop_assert!(chosen[0].speaker == Speaker::User, "half a turn");
            let cost: u64 = chosen.iter().map(|message| estimate(&message.text)).sum();
            prop_assert!(chosen.len() == 1 || cost + estimate("system") <= model.budget());
        }
    }
}
