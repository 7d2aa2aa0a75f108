//! Messages as vendors take them.

use serde_json::{Value, json};

use crate::chat::provider::{PromptMessage, Speaker};

/// The messages as every vendor takes them: the user's first, then by turns, none of them empty. A message whose reply never
/// came stands next to another of the user's; some vendors join such neighbours themselves, some models' templates fail.
pub fn turns(messages: &[PromptMessage]) -> Vec<Value> {
    let mut turns: Vec<(Speaker, String)> = Vec::new();
    for message in messages.iter().filter(|message| !message.text.trim().is_empty()) {
        match turns.last_mut() {
            Some((speaker, text)) if *speaker == message.speaker => {
                text.push_str("\n\n");
                text.push_str(&message.text);
            }
            None if message.speaker == Speaker::Companion => {}
            _ => turns.push((message.speaker, message.text.clone())),
        }
    }
    let role = |speaker| match speaker {
        Speaker::User => "user",
        Speaker::Companion => "assistant",
    };
    turns.into_iter().map(|(speaker, text)| json!({"role": role(speaker), "content": text})).collect()
}
