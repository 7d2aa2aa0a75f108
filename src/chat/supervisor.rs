//! Making a reply: one task that reads the provider, and settles whatever happens.
//!
//! The task belongs to the server. It ends when the provider does, when a stop is asked for, when nobody has listened
//! for a while, when the program ends, or when a limit is passed; and each of these is stored, counted and given back in
//! one transaction before any reader hears of it.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::{
    Chat, ChatError, Companion, MessageRole, MessageStatus, NamedProvider, Outcome, Usage,
    generation::Generation,
    prompt::{self, Window},
    provider::{
        FinishReason, Prompt, PromptMessage, ProviderError, ReplyPart, Speaker, TimeLimit, TokenCount,
    },
    service::body_place,
    store::{self, AbandonedRow},
};
use crate::{
    billing::Charge,
    platform::{db, problem::Code, seal::DataKey, time},
};

/// How often the text so far is stored while somebody listens.
const PARTIAL_INTERVAL: Duration = Duration::from_secs(15);
/// The most messages that are loaded as context.
const MAX_HISTORY: i64 = 200;

/// A reply that was claimed and is to be made.
pub struct Task {
    /// Its text and its readers.
    pub generation: Arc<Generation>,
    /// Whose it is.
    pub owner: Uuid,
    /// The conversation's inner key.
    pub conversation: Uuid,
    /// What its text is sealed with.
    pub data_key: DataKey,
    /// Who speaks.
    pub companion: Companion,
    /// What was charged for it.
    pub charge: Charge,
    /// The place of the message that is answered.
    pub question_seq: i64,
    /// The place of the reply.
    pub reply_seq: i64,
    /// When it was claimed.
    pub started_at: Timestamp,
}

/// How making a reply ended.
enum Ending {
    Finished(FinishReason),
    Failed(ProviderError),
    /// We could not read what was said before, or we panicked.
    Fault,
    Stopped,
    /// Nobody listened, or the program ends.
    Abandoned,
    /// Another instance has settled it.
    Lost,
}

/// What is known of a reply besides its text.
#[derive(Default)]
struct Account {
    provider: Option<String>,
    model: Option<String>,
    counted: Option<TokenCount>,
    prompt_estimate: u64,
}

impl Chat {
    /// Makes a reply in the background.
    pub(super) fn supervise(&self, task: Task) {
        let chat = self.clone();
        self.tasks.spawn(async move {
            let account = std::sync::Mutex::new(Account::default());
            let ending =
                AssertUnwindSafe(chat.make(&task, &account)).catch_unwind().await.unwrap_or(Ending::Fault);
            let account = account.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
            chat.settle(&task, ending, account).await;
            chat.live.remove(task.generation.id);
        });
    }

    async fn make(&self, task: &Task, account: &std::sync::Mutex<Account>) -> Ending {
        let generation = &task.generation;
        tokio::select! {
            biased;
            () = generation.stopped() => Ending::Stopped,
            ending = self.read_route(task, account) => ending,
            () = sleep(self.settings.total_timeout) => Ending::Failed(ProviderError::TimedOut(TimeLimit::Total)),
            () = deserted_for(generation, self.settings.detached_grace) => Ending::Abandoned,
            ending = self.keep(task) => ending,
            () = self.tasks.must_end() => Ending::Abandoned,
        }
    }

    /// Tries the providers in their order until one has said a word.
    async fn read_route(&self, task: &Task, account: &std::sync::Mutex<Account>) -> Ending {
        let history = match self.context(task).await {
            Ok(history) => history,
            Err(error) => {
                tracing::error!(%error, "the context of a reply could not be read");
                return Ending::Fault;
            }
        };
        let mut ending = Ending::Fault;
        for candidate in &self.route {
            ending = self.read_provider(task, candidate, history.clone(), account).await;
            match &ending {
                // Another provider may answer what this one could not, but not what this one would not.
                Ending::Failed(error) if task.generation.len() == 0 && *error != ProviderError::Declined => {
                    tracing::warn!(provider = candidate.name, %error, "a provider failed before its first word");
                }
                _ => break,
            }
        }
        ending
    }

    async fn read_provider(
        &self,
        task: &Task,
        NamedProvider { name, provider }: &NamedProvider,
        history: Vec<PromptMessage>,
        account: &std::sync::Mutex<Account>,
    ) -> Ending {
        let window = Window {
            context_tokens: provider.context_tokens(),
            max_output_tokens: provider.max_output_tokens(),
        };
        let system = task.companion.prompt.clone();
        let prompt = Prompt {
            companion: task.companion.card.id.clone(),
            companion_name: task.companion.card.name.clone(),
            messages: prompt::newest_turns(&system, history, window),
            system,
            max_output_tokens: window.max_output_tokens,
        };
        note(account, |account| {
            *account = Account {
                provider: Some(name.clone()),
                model: Some(provider.model().to_owned()),
                counted: None,
                prompt_estimate: prompt::estimate_prompt(&prompt),
            };
        });

        let started = Instant::now();
        let first_word_by = started.checked_add(self.settings.first_token_timeout).unwrap_or(started);
        let too_slow = Ending::Failed(ProviderError::TimedOut(TimeLimit::FirstToken));
        let mut stream = match timeout_at(first_word_by, provider.reply(prompt)).await {
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
                    if !has_begun {
                        metrics::histogram!("chat_first_token_seconds", "provider" => name.clone())
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
                    note(account, |account| account.counted = Some(counted))
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

    /// Prolongs the lease, stores the text so far now and then and when the last reader leaves, and ends when the reply is
    /// to be stopped or belongs to somebody else.
    async fn keep(&self, task: &Task) -> Ending {
        let renew_every = self.settings.lease.checked_div(3).unwrap_or(self.settings.lease);
        let mut stored_len = 0;
        let mut stored_at = Instant::now();
        loop {
            let left = tokio::select! {
                () = sleep(renew_every) => false,
                () = async { task.generation.attended().await; task.generation.deserted().await } => true,
            };
            let len = task.generation.len();
            let store = len > stored_len && (left || stored_at.elapsed() >= PARTIAL_INTERVAL);
            match self.renew(task, store).await {
                Ok(Some(false)) => {}
                Ok(Some(true)) => return Ending::Stopped,
                Ok(None) => return Ending::Lost,
                Err(error) => tracing::warn!(%error, "a lease could not be renewed"),
            }
            if store {
                (stored_len, stored_at) = (len, Instant::now());
            }
            if left {
                // Nothing to do until somebody is back, but the lease.
                tokio::select! {
                    () = task.generation.attended() => {}
                    () = sleep(renew_every) => {}
                }
            }
        }
    }

    /// Whether a stop was asked for; `None` when the reply is not ours any more.
    async fn renew(&self, task: &Task, store_text: bool) -> Result<Option<bool>, db::Error> {
        let Task { owner, conversation, reply_seq, .. } = *task;
        let (id, instance) = (task.generation.id, self.instance);
        let lease = time::after(self.clock.now(), self.settings.lease);
        let partial = store_text.then(|| self.seal_reply(task));
        self.db
            .write(async move |c| {
                let stop = store::renew_lease(owner, id, instance, lease, partial.is_some()).opt(&c).await?;
                if let (Some(_), Some(body)) = (stop, &partial) {
                    store::store_partial(conversation, reply_seq, body).exec(&c).await?;
                }
                Ok(stop)
            })
            .await
    }

    fn seal_reply(&self, task: &Task) -> crate::platform::seal::Sealed {
        let place = body_place(&task.conversation, &task.generation.reply_id);
        task.data_key.seal(place, task.generation.text().as_bytes(), &*self.random)
    }

    /// Stores how it ended, then tells the readers. Waits for the database as long as it takes.
    async fn settle(&self, task: &Task, ending: Ending, account: Account) {
        let verdict = Verdict::of(&ending, task.generation.len() > 0);
        if let Ending::Failed(error) = &ending {
            tracing::warn!(%error, provider = account.provider, status = verdict.status.as_str(), "a reply failed");
        }
        let usage = account.usage(&task.generation.text());
        let quota = match self.store_settled(task, &verdict, &account, usage).await {
            Ok(quota) => quota,
            Err(error) => {
                tracing::error!(%error, "a reply could not be settled");
                None
            }
        };
        metrics::counter!("chat_replies_total", "status" => verdict.status.as_str(),
            "provider" => account.provider.clone().unwrap_or_default())
        .increment(1);
        metrics::histogram!("chat_reply_seconds").record(seconds_since(task.started_at, self.clock.now()));
        // Without a quota it was settled by somebody else, or not at all: the history knows.
        let (status, error) = match quota {
            Some(_) => (verdict.status, verdict.error),
            None => (MessageStatus::Interrupted, Some(Code::Unavailable)),
        };
        task.generation.end(Outcome {
            status,
            finish: verdict.finish,
            error,
            retry_after: verdict.retry_after,
            model: account.model,
            usage,
            quota,
            created_at: task.started_at,
        });
    }

    /// `None` when another instance has settled it.
    async fn store_settled(
        &self,
        task: &Task,
        verdict: &Verdict,
        account: &Account,
        usage: Usage,
    ) -> Result<Option<crate::billing::Quota>, db::Error> {
        let Task { owner, conversation, reply_seq, charge, .. } = *task;
        let (id, instance, now) = (task.generation.id, self.instance, self.clock.now());
        let Verdict { status, finish, error, give_back, .. } = *verdict;
        let (provider, model) = (account.provider.clone(), account.model.clone());
        let body = self.seal_reply(task);
        let billing = self.billing.clone();
        self.db
            .write_patiently(async move |c| {
                let returned = match give_back {
                    GiveBack::No => false,
                    GiveBack::Always => charge.give_back(&c).await?,
                    GiveBack::AsAFreeStop => charge.give_back_stopped(&c).await?,
                };
                let settled = store::settle(
                    owner,
                    id,
                    instance,
                    status,
                    finish.map(FinishReason::as_str),
                    error.map(Code::as_str),
                    provider.as_deref(),
                    model.as_deref(),
                    usage.input_tokens,
                    usage.output_tokens,
                    usage.estimated,
                    returned,
                    now,
                );
                if settled.exec(&c).await? == 0 {
                    return Err(Settle::Elsewhere); // Rolls the quota back, too.
                }
                store::settle_message(conversation, reply_seq, status, &body, model.as_deref())
                    .exec(&c)
                    .await?;
                store::release_conversation(conversation, id, now).exec(&c).await?;
                Ok(billing.quota_in(&c, charge).await?)
            })
            .await
            .map(Some)
            .or_else(|settle| match settle {
                Settle::Elsewhere => Ok(None),
                Settle::Storage(error) => Err(error),
            })
    }

    /// Settles replies that this instance was making before it was restarted.
    pub async fn recover(&self) -> Result<(), db::Error> {
        let instance = self.instance;
        loop {
            let rows = self.db.read_slow(async move |c| store::abandoned_by(instance).all(&c).await).await?;
            if rows.is_empty() {
                return Ok(());
            }
            for row in rows {
                self.settle_abandoned(row, instance).await?;
            }
        }
    }

    /// Settles replies whose instance has died. Called once per lease.
    pub async fn sweep(&self) -> Result<(), db::Error> {
        let now = self.clock.now();
        let rows = self.db.read(async |c| store::abandoned(now).all(&c).await).await?;
        for row in rows.into_iter().filter(|row| self.live.get(row.id).is_none()) {
            self.settle_abandoned(row, Uuid::nil()).await?;
        }
        Ok(())
    }

    async fn settle_abandoned(&self, row: AbandonedRow, instance: Uuid) -> Result<(), db::Error> {
        let now = self.clock.now();
        let status = if row.partial { MessageStatus::Interrupted } else { MessageStatus::Failed };
        let charge = Charge { user_id: row.owner_id, day: row.quota_day };
        let give_back = !row.partial;
        self.db
            .write(async move |c| {
                let returned = give_back && charge.give_back(&c).await?;
                let code = Code::Unavailable.as_str();
                if store::settle_abandoned(row.id, status, code, returned, instance, now).exec(&c).await? == 0
                {
                    return Err(Settle::Elsewhere);
                }
                store::settle_abandoned_message(row.conversation_key, row.reply_seq, status).exec(&c).await?;
                store::release_conversation(row.conversation_key, row.id, now).exec(&c).await?;
                Ok(())
            })
            .await
            .or_else(|settle| match settle {
                Settle::Elsewhere => Ok(()),
                Settle::Storage(error) => Err(error),
            })
    }
}

/// Why a settling transaction was rolled back.
enum Settle {
    /// Somebody else was faster.
    Elsewhere,
    Storage(db::Error),
}

impl From<db::Error> for Settle {
    fn from(error: db::Error) -> Self {
        Settle::Storage(error)
    }
}

/// Whether a message is given back to its day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GiveBack {
    No,
    Always,
    /// Only so often a day.
    AsAFreeStop,
}

/// What an ending means.
struct Verdict {
    status: MessageStatus,
    finish: Option<FinishReason>,
    error: Option<Code>,
    retry_after: Option<Duration>,
    give_back: GiveBack,
}

impl Verdict {
    /// Nothing that was delivered is given back, and what was not delivered is.
    fn of(ending: &Ending, has_text: bool) -> Verdict {
        let failure = |code| {
            let status = if has_text { MessageStatus::Interrupted } else { MessageStatus::Failed };
            (status, None, Some(code))
        };
        let (status, finish, error) = match ending {
            Ending::Finished(reason) if has_text => (MessageStatus::Complete, Some(*reason), None),
            Ending::Finished(FinishReason::ContentFilter) => failure(Code::ContentRefused),
            Ending::Finished(_) => failure(Code::ProviderFailed),
            Ending::Failed(error) => failure(code_of(error)),
            Ending::Fault => failure(Code::Internal),
            Ending::Abandoned | Ending::Lost => failure(Code::Unavailable),
            Ending::Stopped => (MessageStatus::Stopped, None, None),
        };
        let give_back = match (has_text, ending) {
            (true, _) => GiveBack::No,
            (false, Ending::Stopped) => GiveBack::AsAFreeStop,
            (false, _) => GiveBack::Always,
        };
        let retry_after = match ending {
            Ending::Failed(ProviderError::Busy { retry_after, .. }) => *retry_after,
            _ => None,
        };
        Verdict { status, finish, error, retry_after, give_back }
    }
}

/// The code that callers see.
fn code_of(error: &ProviderError) -> Code {
    match error {
        ProviderError::TimedOut(_) => Code::ProviderTimeout,
        ProviderError::Busy { .. } => Code::ProviderUnavailable,
        ProviderError::Declined => Code::ContentRefused,
        ProviderError::Misconfigured(_)
        | ProviderError::PromptTooLong
        | ProviderError::Truncated
        | ProviderError::Protocol(_)
        | ProviderError::Failed(_)
        | ProviderError::Unreachable(_) => Code::ProviderFailed,
    }
}

impl Account {
    /// What the provider counted, or our estimate where it did not.
    fn usage(&self, text: &str) -> Usage {
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

fn note(account: &std::sync::Mutex<Account>, change: impl FnOnce(&mut Account)) {
    change(&mut account.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
}

/// Completes when nobody has listened for `grace`.
async fn deserted_for(generation: &Generation, grace: Duration) {
    loop {
        generation.deserted().await;
        tokio::select! {
            () = generation.attended() => {}
            () = sleep(grace) => return,
        }
    }
}

fn seconds_since(start: Timestamp, now: Timestamp) -> f64 {
    now.duration_since(start).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_ending_means() {
        use MessageStatus::{Complete, Failed, Interrupted, Stopped};

        let busy = || ProviderError::Busy { detail: String::new(), retry_after: None };
        for (ending, with_text, without_text, code) in [
            (Ending::Finished(FinishReason::Stop), Complete, Failed, Some(Code::ProviderFailed)),
            (Ending::Finished(FinishReason::ContentFilter), Complete, Failed, Some(Code::ContentRefused)),
            (Ending::Failed(busy()), Interrupted, Failed, Some(Code::ProviderUnavailable)),
            (Ending::Failed(ProviderError::Truncated), Interrupted, Failed, Some(Code::ProviderFailed)),
            (
                Ending::Failed(ProviderError::TimedOut(TimeLimit::Idle)),
                Interrupted,
                Failed,
                Some(Code::ProviderTimeout),
            ),
            (Ending::Abandoned, Interrupted, Failed, Some(Code::Unavailable)),
            (Ending::Stopped, Stopped, Stopped, None),
        ] {
            let spoken = Verdict::of(&ending, true);
            assert_eq!((spoken.status, spoken.give_back), (with_text, GiveBack::No));
            let silent = Verdict::of(&ending, false);
            assert_eq!((silent.status, silent.error), (without_text, code));
            let back =
                if matches!(ending, Ending::Stopped) { GiveBack::AsAFreeStop } else { GiveBack::Always };
            assert_eq!(silent.give_back, back);
        }
    }

    #[test]
    fn tokens_are_estimated_only_where_nobody_counted() {
        let mut account = Account { prompt_estimate: 10, ..Account::default() };
        assert_eq!(account.usage("123456"), Usage { input_tokens: 10, output_tokens: 6, estimated: true });
        assert_eq!(account.usage("").output_tokens, 0);
        account.counted = Some(TokenCount { input: 1, output: 2 });
        assert_eq!(account.usage("123456"), Usage { input_tokens: 1, output_tokens: 2, estimated: false });
    }
}
