//! Messages as vendors take them.

use serde_json::{Value, json};

use crate::chat::provider::{PromptMessage, Speaker};

/// The messages as every vendor takes them: the user's first, then the speakers by turns, none of them empty. A message whose
/// reply never came stands next to another of the user's; some vendors join such neighbours themselves, some models' templates
/// fail.
pub fn alternating(messages: &[PromptMessage]) -> Vec<Value> {
    let mut joined: Vec<(Speaker, String)> = Vec::new();
    for message in messages.iter().filter(|message| !message.text.trim().is_empty()) {
        match joined.last_mut() {
            Some((speaker, text)) if *speaker == message.speaker => {
                text.push_str("\n\n");
                text.push_str(&message.text);
            }
            None if message.speaker == Speaker::Companion => {}
            _ => joined.push((message.speaker, message.text.clone())),
        }
    }
    let role = |speaker| match speaker {
        Speaker::User => "user",
        Speaker::Companion => "assistant",
    };
    joined.into_iter().map(|(speaker, text)| json!({"role": role(speaker), "content": text})).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Some vendors refuse anything else.
        #[test]
        fn the_user_begins_and_speakers_take_turns(
            messages in prop::collection::vec((any::<bool>(), "[ a]{0,3}"), 0..12),
        ) {
            let said = |speaker, text: &str| PromptMessage { speaker, text: text.to_owned() };
            let mut history: Vec<_> = messages
                .iter()
                .map(|(user, text)| said(if *user { Speaker::User } else { Speaker::Companion }, text))
                .collect();
            history.push(said(Speaker::User, "newest"));
            let joined = alternating(&history);
            for (n, message) in joined.iter().enumerate() {
                prop_assert_eq!(&message["role"], if n % 2 == 0 { "user" } else { "assistant" });
                prop_assert!(!message["content"].as_str().unwrap().trim().is_empty());
            }
            let last = joined.last().unwrap();
            prop_assert_eq!(&last["role"], "user");
            prop_assert!(last["content"].as_str().unwrap().ends_with("newest"));
        }
    }
}
