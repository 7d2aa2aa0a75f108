//! Between a provider and a reply: the words that come back, and the next provider in the route if none came.

use std::sync::{Mutex, PoisonError};

use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout_at};

use super::{
    Chat, NamedProvider, Usage,
    context::Context,
    pinning, prompt,
    provider::{FinishReason, Prompt, ProviderError, ReplyPart, TimeLimit, TokenCount},
    supervisor::{Ending, Task},
};

/// What is known of a reply besides its text.
#[derive(Default)]
pub struct Tally {
    /// Who answered last.
    pub provider: Option<String>,
    /// With which model.
    pub model: Option<String>,
    /// What the provider counted.
    pub counted: Option<TokenCount>,
    /// What we guess that the prompt has.
    pub prompt_estimate: u64,
    /// How many messages the prompt holds, where older ones were left out.
    pub cut_to: Option<usize>,
}

impl Chat {
    /// Tries the providers until one has said a word; those that offer the model that the conversation began with first.
    pub(super) async fn read_route(&self, task: &Task, tally: &Mutex<Tally>) -> Ending {
        let mut ending = Ending::Fault;
        let mut route = pinning::route_for(&self.parts().route, &task.model).into_iter().peekable();
        while let Some(candidate) = route.next() {
            ending = self.read_provider(task, candidate, tally).await;
            match (&ending, route.peek()) {
                // Another provider may answer what this one could not, but not what this one would not.
                (Ending::Failed(error), Some(next))
                    if task.generation.len() == 0 && *error != ProviderError::Declined =>
                {
                    let (provider, next) = (&candidate.name, &next.name);
                    tracing::warn!(provider, next, %error, "a provider failed before its first word");
                }
                _ => break, // What is final is logged by whoever settles it.
            }
        }
        ending
    }

    /// Asks one provider; once more and with half as much, if it says that the prompt is too long for it.
    async fn read_provider(&self, task: &Task, candidate: &NamedProvider, tally: &Mutex<Tally>) -> Ending {
        let mut room = None;
        loop {
            let context = match self.context(task, candidate, room).await {
                Ok(context) => context,
                Err(error) => {
                    tracing::error!(%error, "the context of a reply could not be read");
                    return Ending::Fault;
                }
            };
            note(tally, |tally| *tally = Tally::with(candidate, &context));
            let (estimate, less) = (context.estimate, context.less().filter(|_| room.is_none()));
            let ending = self.read_reply(task, candidate, context.prompt, tally).await;
            self.learn(candidate, estimate, tally);
            match (&ending, less) {
                (Ending::Failed(ProviderError::PromptTooLong), Some(_)) if task.generation.len() == 0 => {
                    let (provider, model) = (&candidate.name, &candidate.provider.model().name);
                    tracing::warn!(provider, model, estimate, "a prompt was too long; half of it is tried");
                    room = less;
                }
                _ => return ending,
            }
        }
    }

    /// Remembers how far the provider's count is from our estimate.
    fn learn(&self, candidate: &NamedProvider, estimate: u64, tally: &Mutex<Tally>) {
        let counted = tally.lock().unwrap_or_else(PoisonError::into_inner).counted;
        if let Some(TokenCount { input, .. }) = counted {
            self.ratios.learn(&candidate.provider.model().name, estimate, input);
        }
    }

    async fn read_reply(
        &self,
        task: &Task,
        candidate: &NamedProvider,
        prompt: Prompt,
        tally: &Mutex<Tally>,
    ) -> Ending {
        let started = Instant::now();
        let first_word_by = started.checked_add(self.parts().settings.first_token_timeout).unwrap_or(started);
        let too_slow = Ending::Failed(ProviderError::TimedOut(TimeLimit::FirstToken));
        let mut stream = match timeout_at(first_word_by, candidate.provider.reply(prompt)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Ending::Failed(error),
            Err(_) => return too_slow,
        };
        let mut has_begun = false;
        loop {
            let part = if has_begun {
                stream.next().await
            } else {
                match timeout_at(first_word_by, stream.next()).await {
                    Ok(part) => part,
                    Err(_) => return too_slow,
                }
            };
            match part {
                Some(Ok(ReplyPart::Text(text))) => {
                    let is_first = task.generation.len() == 0;
                    // White space is no word: a reply does not begin with it.
                    let text = if is_first { text.trim_start() } else { &text };
                    if text.is_empty() {
                        continue;
                    }
                    if is_first {
                        let provider = candidate.name.clone();
                        metrics::histogram!("chat_first_token_seconds", "provider" => provider)
                            .record(started.elapsed());
                    }
                    has_begun = true;
                    if !task.generation.push(text) {
                        return Ending::Finished(FinishReason::Length);
                    }
                }
                // A model that thinks is not silent; from here on only the whole reply is limited.
                Some(Ok(ReplyPart::Reasoning)) => has_begun = true,
                Some(Ok(ReplyPart::Usage(counted))) => {
                    note(tally, |tally| tally.counted = Some(counted));
                }
                Some(Ok(ReplyPart::Finish(reason))) => return Ending::Finished(reason),
                Some(Err(error)) => return Ending::Failed(error),
                None => return Ending::Failed(ProviderError::Truncated),
            }
        }
    }
}

impl Tally {
    fn with(candidate: &NamedProvider, context: &Context) -> Tally {
        Tally {
            provider: Some(candidate.name.clone()),
            model: Some(candidate.provider.model().name.clone()),
            counted: None,
            prompt_estimate: context.estimate,
            cut_to: context.cut_to,
        }
    }

    /// What the provider counted, or our estimate where it did not.
    pub fn usage(&self, text: &str) -> Usage {
        let number = |tokens: u64| i64::try_from(tokens).unwrap_or(i64::MAX);
        match self.counted {
            Some(counted) => Usage {
                input_tokens: number(counted.input),
                output_tokens: number(counted.output),
                estimated: false,
            },
            None => Usage {
                input_tokens: number(self.prompt_estimate),
                output_tokens: if text.is_empty() { 0 } else { number(prompt::estimate(text)) },
                estimated: true,
            },
        }
    }
}

fn note(tally: &Mutex<Tally>, change: impl FnOnce(&mut Tally)) {
    change(&mut tally.lock().unwrap_or_else(PoisonError::into_inner));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_estimated_only_where_nobody_counted() {
        let mut tally = Tally { prompt_estimate: 10, ..Tally::default() };
        assert_eq!(tally.usage("123456"), Usage { input_tokens: 10, output_tokens: 6, estimated: true });
        assert_eq!(tally.usage("").output_tokens, 0);
        tally.counted = Some(TokenCount { input: 1, output: 2 });
        assert_eq!(tally.usage("123456"), Usage { input_tokens: 1, output_tokens: 2, estimated: false });
    }
}
