//! Settling a reply: how it ended is stored, counted and given back in one transaction, exactly once, whoever does it.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::{
    Chat, MessageStatus, Outcome, Usage,
    provider::{FinishReason, ProviderError},
    relay::Account,
    store::{self, AbandonedRow},
    supervisor::{Ending, Task},
};
use crate::{
    billing::{Charge, Quota},
    platform::{db, problem::Code},
};

impl Chat {
    /// Stores how it ended, then tells the readers. Waits for the database as long as it takes.
    pub(super) async fn settle(&self, task: &Task, ending: Ending, account: Account) {
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
    ) -> Result<Option<Quota>, db::Error> {
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
                // Before the generation, as everybody takes them. A conversation that was deleted meanwhile has let go of
                // the reply already; what follows happens all the same.
                store::release_conversation(owner, conversation, id, now).exec(&c).await?;
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
                    return Err(Settle::Elsewhere); // Rolls all of it back.
                }
                store::settle_message(owner, conversation, reply_seq, status, &body, model.as_deref())
                    .exec(&c)
                    .await?;
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
        let (owner, conversation) = (row.owner_id, row.conversation_key);
        let charge = Charge { user_id: owner, day: row.quota_day };
        let give_back = !row.partial;
        self.db
            .write(async move |c| {
                let returned = give_back && charge.give_back(&c).await?;
                store::release_conversation(owner, conversation, row.id, now).exec(&c).await?;
                let code = Code::Unavailable.as_str();
                let settled = store::settle_abandoned(owner, row.id, status, code, returned, instance, now);
                if settled.exec(&c).await? == 0 {
                    return Err(Settle::Elsewhere);
                }
                store::settle_abandoned_message(owner, conversation, row.reply_seq, status).exec(&c).await?;
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

fn seconds_since(start: Timestamp, now: Timestamp) -> f64 {
    now.duration_since(start).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::provider::TimeLimit;

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
}
