//! What a provider is told: read anew for each try, trimmed to the model, and kept by nobody.

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

/// A prompt, and what is known of it.
pub struct Context {
    /// What the provider is told.
    pub prompt: Prompt,
    /// The tokens that we guess it has.
    pub estimate: u64,
    /// How many messages it holds, where older ones were left out.
    pub cut_to: Option<usize>,
}

impl Context {
    /// The room that is left to a prompt after the provider has said that this one is too long. `None` where it holds
    /// nothing but the question: then nothing more can be left out.
    pub fn less(&self) -> Option<u64> {
        (self.prompt.messages.len() > 1).then(|| self.estimate.div_euclid(2))
    }
}

impl Chat {
    /// The persona and what was said before, as far as it fits, with the question at its end. What fits is `room`, in
    /// tokens as we estimate them, or what the model's window leaves. Read anew for each try and kept by nobody: it is
    /// the customer's most private text.
    ///
    /// # Errors
    ///
    /// [`ChatError::NotFound`] when the question is gone: the conversation was deleted.
    pub(super) async fn context(
        &self,
        task: &Task,
        candidate: &NamedProvider,
        room: Option<u64>,
    ) -> Result<Context, ChatError> {
        let model = candidate.provider.model();
        let room = room.unwrap_or_else(|| self.ratios.of(&model.name).estimated(model.budget()));
        let system = task.companion.prompt.clone();
        let (history, is_whole) = self.history_within(task, room).await?;
        if history.last().is_none_or(|newest| newest.speaker != Speaker::User) {
            return Err(ChatError::NotFound);
        }
        let read = history.len();
        let messages = prompt::newest_turns(&system, history, room);
        let cut_to = (!is_whole || messages.len() < read).then_some(messages.len());
        let prompt = Prompt {
            companion: task.companion.card.id.clone(),
            companion_name: task.companion.card.name.clone(),
            messages,
            system,
            max_output_tokens: model.max_output_tokens,
        };
        Ok(Context { estimate: prompt::estimate_prompt(&prompt), prompt, cut_to })
    }

    /// The newest messages, oldest first, until there are more than fit `budget`; and whether these are all.
    async fn history_within(
        &self,
        task: &Task,
        budget: u64,
    ) -> Result<(Vec<PromptMessage>, bool), ChatError> {
        let (owner, conversation) = (task.owner, task.conversation);
        let (mut before, mut tokens) = (task.question_seq.saturating_add(1), 0_u64);
        let (mut history, mut is_whole) = (Vec::new(), false);
        for _ in 0..MAX_HISTORY_PAGES {
            // One more than is used, to know whether there is more.
            let limit = HISTORY_PAGE.saturating_add(1);
            let read = async |c| store::messages(owner, conversation, before, limit).all(&c).await;
            let mut rows = self.parts().db.read::<_, db::Error, _>(read).await?;
            is_whole = i64::try_from(rows.len()).is_ok_and(|rows| rows < limit);
            if !is_whole {
                rows.pop();
            }
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
            if is_whole || tokens > budget {
                break;
            }
        }
        history.reverse();
        Ok((history, is_whole))
    }
}
