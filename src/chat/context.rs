//! What a provider is told: read anew for each reply, trimmed to the model, and kept by nobody.

use super::{
    Chat, ChatError, MessageRole, NamedProvider, prompt,
    provider::{Prompt, PromptMessage, Speaker},
    service::body_place,
    store,
    supervisor::Task,
};
use crate::platform::db;

/// Messages that are read at once as context, and how often at most.
const HISTORY_PAGE: i64 = 20;
const MAX_HISTORY_PAGES: usize = 10;

impl Chat {
    /// The persona and what was said before, as far as it fits, with the question at its end. Read anew for each provider
    /// and kept by nobody: it is the customer's most private text.
    pub(super) async fn prompt(&self, task: &Task, candidate: &NamedProvider) -> Result<Prompt, ChatError> {
        let model = candidate.provider.model();
        let system = task.companion.prompt.clone();
        let history = self.history_within(task, model.budget()).await?;
        Ok(Prompt {
            companion: task.companion.card.id.clone(),
            companion_name: task.companion.card.name.clone(),
            messages: prompt::newest_turns(&system, history, model),
            system,
            max_output_tokens: model.max_output_tokens,
        })
    }

    /// The newest messages, oldest first, until there are more than fit `budget`.
    async fn history_within(&self, task: &Task, budget: u64) -> Result<Vec<PromptMessage>, ChatError> {
        let (owner, conversation) = (task.owner, task.conversation);
        let (mut before, mut tokens) = (task.question_seq.saturating_add(1), 0_u64);
        let mut history = Vec::new();
        for _ in 0..MAX_HISTORY_PAGES {
            let read = async |c| store::messages(owner, conversation, before, HISTORY_PAGE).all(&c).await;
            let rows = self.parts().db.read::<_, db::Error, _>(read).await?;
            let Some(oldest) = rows.last() else { break };
            before = oldest.seq;
            for row in rows {
                let text = task.data_key.open_text(body_place(&conversation, &row.id), &row.body)?;
                let speaker = match row.role {
                    MessageRole::User => Speaker::User,
                    MessageRole::Assistant => Speaker::Companion,
                };
                if !text.is_empty() {
                    tokens = tokens.saturating_add(prompt::estimate(&text));
                    history.push(PromptMessage { speaker, text });
                }
            }
            if tokens > budget {
                break;
            }
        }
        history.reverse();
        Ok(history)
    }
}
