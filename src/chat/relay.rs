//! Between a provider and a reply: the prompt that goes out, the words that come back, and the next provider in the
//! route if none came.

use std::sync::{Mutex, PoisonError};

use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout_at};

use super::{
    Chat, ChatError, MessageRole, NamedProvider, Usage,
    prompt::{self, Window},
    provider::{
        FinishReason, Prompt, PromptMessage, ProviderError, ReplyPart, Speaker, TimeLimit, TokenCount,
    },
    service::body_place,
    store,
    supervisor::{Ending, Task},
};

/// The most messages that are loaded as context.
const MAX_HISTORY: i64 = 200;

/// What is known of a reply besides its text.
#[derive(Default)]
pub struct Account {
    /// Who answered last.
    pub provider: Option<String>,
    /// With which model.
    pub model: Option<String>,
    /// What the provider counted.
    pub counted: Option<TokenCount>,
    /// What we guess that the prompt has.
    pub prompt_estimate: u64,
}

impl Chat {
    /// Tries the providers in their order until one has said a word.
    pub(super) async fn read_route(&self, task: &Task, account: &Mutex<Account>) -> Ending {
        let history = match self.context(task).await {
            Ok(history) => history,
            Err(error) => {
                tracing::error!(%error, "the context of a reply could not be read");
                return Ending::Fault;
            }
        };
        let mut ending = Ending::Fault;
        let mut route = self.route.iter().peekable();
        while let Some(candidate) = route.next() {
            ending = self.read_provider(task, candidate, history.clone(), account).await;
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

    async fn read_provider(
        &self,
        task: &Task,
        candidate: &NamedProvider,
        history: Vec<PromptMessage>,
        account: &Mutex<Account>,
    ) -> Ending {
        let prompt = prompt_for(task, candidate, history);
        note(account, |account| *account = Account::with(candidate, &prompt));
        let started = Instant::now();
        let first_word_by = started.checked_add(self.settings.first_token_timeout).unwrap_or(started);
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
                Some(Ok(ReplyPart::Text(text))) if text.is_empty() => {}
                Some(Ok(ReplyPart::Text(text))) => {
                    if task.generation.len() == 0 {
                        let provider = candidate.name.clone();
                        metrics::histogram!("chat_first_token_seconds", "provider" => provider)
                            .record(started.elapsed());
                    }
                    has_begun = true;
                    if !task.generation.push(&text) {
                        return Ending::Finished(FinishReason::Length);
                    }
                }
                // A model that thinks is not silent; from here on only the whole reply is limited.
                Some(Ok(ReplyPart::Reasoning)) => has_begun = true,
                Some(Ok(ReplyPart::Usage(counted))) => {
                    note(account, |account| account.counted = Some(counted));
                }
                Some(Ok(ReplyPart::Finish(reason))) => return Ending::Finished(reason),
                Some(Err(error)) => return Ending::Failed(error),
                None => return Ending::Failed(ProviderError::Truncated),
            }
        }
    }

    /// What was said before, with the question at its end.
    async fn context(&self, task: &Task) -> Result<Vec<PromptMessage>, ChatError> {
        let (owner, conversation) = (task.owner, task.conversation);
        let before = task.question_seq.saturating_add(1);
        let rows = self
            .db
            .read(async |c| store::messages(owner, conversation, before, MAX_HISTORY).all(&c).await)
            .await?;
        let mut history = Vec::with_capacity(rows.len());
        for row in rows.into_iter().rev() {
            let text = task.data_key.open_text(body_place(&conversation, &row.id), &row.body)?;
            let speaker = match row.role {
                MessageRole::User => Speaker::User,
                MessageRole::Assistant => Speaker::Companion,
            };
            if !text.is_empty() {
                history.push(PromptMessage { speaker, text });
            }
        }
        Ok(history)
    }
}

fn prompt_for(task: &Task, candidate: &NamedProvider, history: Vec<PromptMessage>) -> Prompt {
    let provider = &candidate.provider;
    let window =
        Window { context_tokens: provider.context_tokens(), max_output_tokens: provider.max_output_tokens() };
    let system = task.companion.prompt.clone();
    Prompt {
        companion: task.companion.card.id.clone(),
        companion_name: task.companion.card.name.clone(),
        messages: prompt::newest_turns(&system, history, window),
        system,
        max_output_tokens: window.max_output_tokens,
    }
}

impl Account {
    fn with(candidate: &NamedProvider, prompt: &Prompt) -> Account {
        Account {
            provider: Some(candidate.name.clone()),
            model: Some(candidate.provider.model().to_owned()),
            counted: None,
            prompt_estimate: prompt::estimate_prompt(prompt),
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

fn note(account: &Mutex<Account>, change: impl FnOnce(&mut Account)) {
    change(&mut account.lock().unwrap_or_else(PoisonError::into_inner));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_estimated_only_where_nobody_counted() {
        let mut account = Account { prompt_estimate: 10, ..Account::default() };
        assert_eq!(account.usage("123456"), Usage { input_tokens: 10, output_tokens: 6, estimated: true });
        assert_eq!(account.usage("").output_tokens, 0);
        account.counted = Some(TokenCount { input: 1, output: 2 });
        assert_eq!(account.usage("123456"), Usage { input_tokens: 1, output_tokens: 2, estimated: false });
    }
}
