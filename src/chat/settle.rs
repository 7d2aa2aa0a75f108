//! Settling a reply: how it ended is stored, counted and given back in one transaction, exactly once, whoever does it.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use uuid::Uuid;

use super::{
    Chat, Failure, MessageStatus, Outcome, Usage,
    provider::{FinishReason, ProviderError},
    relay::Tally,
    store::{self, AbandonedRow, EndingRow},
    supervisor::{Ending, Task},
};
use crate::{
    billing::{Charge, Quota},
    platform::{
        db::{self, Conn},
        seal::Sealed,
    },
};

/// What is written about a reply that has ended: sealed and counted before the transaction begins.
struct Settlement {
    owner: Uuid,
    conversation: Uuid,
    id: Uuid,
    instance: Uuid,
    reply_seq: i64,
    /// The reply that goes if this one has text, and stays if it has none.
    replaces: Option<i64>,
    has_text: bool,
    body: Sealed,
    verdict: Verdict,
    provider: Option<String>,
    model: Option<String>,
    usage: Usage,
    /// Told to readers, not stored.
    cut_to: Option<usize>,
    now: Timestamp,
}

impl Settlement {
    /// Writes it, and says how the reply stands then. Rows are taken in everybody's order.
    async fn store(&self, quota_returned: bool, c: &Conn) -> Result<MessageStatus, Settle> {
        let Settlement { owner, conversation, id, reply_seq, replaces, usage, now, .. } = *self;
        let Verdict { finish, failure, .. } = self.verdict;
        let more = more_messages(replaces);
        let released = store::release_conversation(owner, conversation, id, more, now).exec(c).await? > 0;
        // A conversation that was deleted meanwhile has let go of the reply already: nobody will find it there.
        let status = if released { self.verdict.status } else { MessageStatus::Stopped };
        let settled = store::settle(
            owner,
            id,
            self.instance,
            status,
            finish,
            failure,
            self.provider.as_deref(),
            self.model.as_deref(),
            usage.input_tokens,
            usage.output_tokens,
            usage.estimated,
            quota_returned,
            now,
        );
        if settled.exec(c).await? == 0 {
            let ending = store::find_ending(owner, id).opt(c).await?;
            return Err(Settle::elsewhere(ending)); // Rolls all of it back.
        }
        if clear_place(owner, conversation, reply_seq, replaces, self.has_text, c).await? {
            store::settle_message(owner, conversation, reply_seq, status, &self.body, self.model.as_deref())
                .exec(c)
                .await?;
        }
        Ok(status)
    }
}

/// How many messages a conversation has gained when a reply has ended: one that replaces another, or came to nothing in
/// its stead, is none more.
fn more_messages(replaces: Option<i64>) -> i64 {
    i64::from(replaces.is_none())
}

/// Of a reply and the one that it was to replace, only one stays: the new one if it has text. Says whether it does.
async fn clear_place(
    owner: Uuid,
    conversation: Uuid,
    reply_seq: i64,
    replaces: Option<i64>,
    has_text: bool,
    c: &Conn,
) -> db::Result<bool> {
    let Some(old_seq) = replaces else { return Ok(true) };
    let goes = if has_text { old_seq } else { reply_seq };
    store::remove_reply(owner, conversation, goes).exec(c).await?;
    Ok(has_text)
}

impl Chat {
    /// Stores how it ended, then tells the readers. Waits for the database as long as it takes.
    pub(super) async fn settle(&self, task: &Task, ending: Ending, tally: Tally) {
        let verdict = Verdict::of(&ending, task.generation.len() > 0, tally.is_provoked);
        if let Ending::Failed(error) = &ending {
            tracing::warn!(%error, provider = tally.provider, status = verdict.status.as_str(), "a reply failed");
        }
        let settlement = Arc::new(Settlement {
            owner: task.owner,
            conversation: task.conversation,
            id: task.generation.id,
            instance: self.parts().instance,
            reply_seq: task.reply_seq,
            replaces: task.replaces,
            has_text: task.generation.len() > 0,
            body: self.seal_reply(task),
            verdict,
            usage: tally.usage(&task.generation.text()),
            cut_to: tally.cut_to,
            provider: tally.provider,
            model: tally.model,
            now: self.parts().clock.now(),
        });
        let (outcome, by_us) = self.store_settled(&settlement, task).await;
        if by_us {
            let provider = settlement.provider.clone().unwrap_or_default();
            let Usage { input_tokens, output_tokens, .. } = settlement.usage;
            for (direction, tokens) in [("input", input_tokens), ("output", output_tokens)] {
                let provider = provider.clone();
                metrics::counter!("chat_tokens_total", "direction" => direction, "provider" => provider)
                    .increment(tokens.unsigned_abs());
            }
            metrics::counter!("chat_replies_total", "status" => outcome.status.as_str(), "provider" => provider)
                .increment(1);
            metrics::histogram!("chat_reply_seconds").record(seconds_since(task.started_at, settlement.now));
        }
        task.generation.end(outcome);
    }

    /// How it ended, and whether it was this instance that stored it.
    async fn store_settled(&self, settlement: &Arc<Settlement>, task: &Task) -> (Outcome, bool) {
        let stored = match self.settle_and_give_back(settlement, task.charge).await {
            Err(Settle::Storage(error)) => {
                tracing::error!(%error, "a reply could not be settled; its text is stored without its price");
                self.settle_alone(settlement).await
            }
            stored => stored,
        };
        match stored {
            Ok((status, quota)) => {
                let Settlement { verdict, model, usage, .. } = &**settlement;
                let outcome = Outcome {
                    status,
                    finish: verdict.finish,
                    failure: verdict.failure,
                    retry_after: verdict.retry_after,
                    model: model.clone(),
                    usage: *usage,
                    cut_to: settlement.cut_to,
                    quota,
                    created_at: task.started_at,
                };
                (outcome, true)
            }
            // Stored all the same, by somebody else or by a first try of ours whose answer was lost.
            Err(Settle::Elsewhere(Some(ending))) => {
                let by_us = ending.ended_at == Some(settlement.now);
                (
                    Outcome { quota: self.parts().billing.quota(task.owner).await.ok(), ..(*ending).into() },
                    by_us,
                )
            }
            Err(Settle::Elsewhere(None)) => (Outcome::broken_off(task.started_at), false),
            Err(Settle::Storage(error)) => {
                tracing::error!(%error, "a reply could not be settled");
                (Outcome::broken_off(task.started_at), false)
            }
        }
    }

    async fn settle_and_give_back(
        &self,
        settlement: &Arc<Settlement>,
        charge: Charge,
    ) -> Result<(MessageStatus, Option<Quota>), Settle> {
        let (settlement, billing) = (Arc::clone(settlement), self.parts().billing.clone());
        self.parts()
            .db
            .write_patiently(async move |c| {
                let returned = match settlement.verdict.give_back {
                    GiveBack::No => false,
                    GiveBack::Always => charge.give_back(&c).await?,
                    GiveBack::AsAFreeStop => charge.give_back_stopped(&c).await?,
                    GiveBack::AsAFreeFailure => charge.give_back_failed(&c).await?,
                };
                let status = settlement.store(returned, &c).await?;
                // Of the day on which it ends, which is the one that the reader asks about.
                let today = Charge::at(settlement.owner, settlement.now);
                Ok((status, Some(billing.quota_in(&c, today).await?)))
            })
            .await
    }

    /// Stores text and status and nothing else, when all of it together cannot be written.
    async fn settle_alone(
        &self,
        settlement: &Arc<Settlement>,
    ) -> Result<(MessageStatus, Option<Quota>), Settle> {
        let settlement = Arc::clone(settlement);
        self.parts().db.write_patiently(async move |c| Ok((settlement.store(false, &c).await?, None))).await
    }

    /// Settles replies that this instance was making before it was restarted.
    pub async fn recover(&self) -> Result<(), db::Error> {
        let instance = self.parts().instance;
        loop {
            let rows =
                self.parts().db.read_slow(async move |c| store::abandoned_by(instance).all(&c).await).await?;
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
        let now = self.parts().clock.now();
        let rows = self.parts().db.read(async |c| store::abandoned(now).all(&c).await).await?;
        for row in rows.into_iter().filter(|row| self.live.get(row.id).is_none()) {
            self.settle_abandoned(row, Uuid::nil()).await?;
        }
        Ok(())
    }

    async fn settle_abandoned(&self, row: AbandonedRow, instance: Uuid) -> Result<(), db::Error> {
        let now = self.parts().clock.now();
        let status = if row.partial { MessageStatus::Interrupted } else { MessageStatus::Failed };
        let (owner, conversation) = (row.owner_id, row.conversation_key);
        let charge = Charge { user_id: owner, day: row.quota_day };
        let give_back = !row.partial;
        self.parts()
            .db
            .write(async move |c| {
                let returned = give_back && charge.give_back(&c).await?;
                let more = more_messages(row.replaces);
                let released = store::release_conversation(owner, conversation, row.id, more, now);
                // A conversation that was deleted meanwhile has let go of the reply already.
                let status = if released.exec(&c).await? > 0 { status } else { MessageStatus::Stopped };
                let failure = Failure::BrokenOff;
                let settled =
                    store::settle_abandoned(owner, row.id, status, failure, returned, instance, now);
                if settled.exec(&c).await? == 0 {
                    return Err(Settle::Elsewhere(None));
                }
                if clear_place(owner, conversation, row.reply_seq, row.replaces, row.partial, &c).await? {
                    store::settle_abandoned_message(owner, conversation, row.reply_seq, status)
                        .exec(&c)
                        .await?;
                }
                Ok(())
            })
            .await
            .or_else(|settle| match settle {
                Settle::Elsewhere(_) => Ok(()),
                Settle::Storage(error) => Err(error),
            })
    }
}

/// Why a settling transaction was rolled back.
enum Settle {
    /// Somebody else was faster: how the reply ended, if its row is there and says so.
    Elsewhere(Option<Box<EndingRow>>),
    Storage(db::Error),
}

impl Settle {
    fn elsewhere(ending: Option<EndingRow>) -> Settle {
        let ended = ending.filter(|ending| ending.status != MessageStatus::Generating);
        Settle::Elsewhere(ended.map(Box::new))
    }
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
    /// Only so often a day, too: the message can have brought it about, and most such replies are paid for at the vendor.
    AsAFreeFailure,
}

/// What an ending means.
struct Verdict {
    status: MessageStatus,
    finish: Option<FinishReason>,
    failure: Option<Failure>,
    retry_after: Option<Duration>,
    give_back: GiveBack,
}

impl Verdict {
    /// Nothing that was delivered is given back. What was not delivered is, but only so often where the sender can bring that
    /// about: by this ending, or by that of an attempt before it, which `is_provoked` says.
    fn of(ending: &Ending, has_text: bool, is_provoked: bool) -> Verdict {
        let failed = |failure| {
            let status = if has_text { MessageStatus::Interrupted } else { MessageStatus::Failed };
            (status, None, Some(failure))
        };
        let (status, finish, failure) = match ending {
            Ending::Finished(reason) if has_text => (MessageStatus::Complete, Some(*reason), None),
            Ending::Finished(FinishReason::ContentFilter) => failed(Failure::Declined),
            Ending::Finished(_) => failed(Failure::Failed),
            Ending::Failed(error) => failed(failure_of(error)),
            Ending::Refused => {
                let (status, _, failure) = failed(Failure::Declined);
                (status, Some(FinishReason::ContentFilter), failure)
            }
            Ending::Fault => failed(Failure::Fault),
            Ending::Deserted | Ending::Drained | Ending::Lost => failed(Failure::BrokenOff),
            Ending::Stopped => (MessageStatus::Stopped, None, None),
        };
        let give_back = match (has_text, ending) {
            (true, _) => GiveBack::No,
            // Leaving is a way to stop.
            (false, Ending::Stopped | Ending::Deserted) => GiveBack::AsAFreeStop,
            (false, ending) if is_provoked || ending.can_be_provoked() => GiveBack::AsAFreeFailure,
            (false, _) => GiveBack::Always,
        };
        let retry_after = match ending {
            Ending::Failed(ProviderError::Busy { retry_after, .. }) => *retry_after,
            _ => None,
        };
        Verdict { status, finish, failure, retry_after, give_back }
    }
}

fn failure_of(error: &ProviderError) -> Failure {
    match error {
        ProviderError::TimedOut(_) => Failure::TooSlow,
        ProviderError::Busy { .. } | ProviderError::OutOfCredit(_) => Failure::Busy,
        ProviderError::Declined => Failure::Declined,
        ProviderError::Misconfigured(_)
        | ProviderError::Forbidden(_)
        | ProviderError::PromptTooLong
        | ProviderError::Rejected(_)
        | ProviderError::Truncated
        | ProviderError::Lost(_)
        | ProviderError::Protocol(_)
        | ProviderError::Failed(_)
        | ProviderError::Unreachable(_) => Failure::Failed,
    }
}

/// As it is stored; the day's messages are not known from it, nor what the model was told.
impl From<EndingRow> for Outcome {
    fn from(row: EndingRow) -> Self {
        Outcome {
            status: row.status,
            finish: row.finish_reason,
            failure: row.failure,
            retry_after: None,
            model: row.model,
            usage: Usage {
                input_tokens: row.input_tokens,
                output_tokens: row.output_tokens,
                estimated: row.tokens_estimated,
            },
            cut_to: None,
            quota: None,
            created_at: row.started_at,
        }
    }
}

impl Outcome {
    /// What readers are told when nobody knows how it ended: the history will.
    pub(super) fn broken_off(created_at: Timestamp) -> Outcome {
        Outcome {
            status: MessageStatus::Interrupted,
            finish: None,
            failure: Some(Failure::BrokenOff),
            retry_after: None,
            model: None,
            usage: Usage::default(),
            cut_to: None,
            quota: None,
            created_at,
        }
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
        use Failure::{BrokenOff, Busy, Declined, Failed as NoReply, Fault, TooSlow};
        use GiveBack::{Always, AsAFreeFailure, AsAFreeStop};
        use MessageStatus::{Complete, Failed, Interrupted, Stopped};
        use TimeLimit::{Connect, FirstToken, Headers, Idle, Total};

        let text = String::new;
        let finished =
            |reason, failure| (Ending::Finished(reason), Complete, Failed, failure, AsAFreeFailure);
        let failed = |error, failure, back| (Ending::Failed(error), Interrupted, Failed, failure, back);
        let broken = |ending, failure, back| (ending, Interrupted, Failed, failure, back);
        for (ending, with_text, without_text, failure, back) in [
            finished(FinishReason::Stop, Some(NoReply)),
            finished(FinishReason::ContentFilter, Some(Declined)),
            failed(ProviderError::Declined, Some(Declined), AsAFreeFailure),
            failed(ProviderError::PromptTooLong, Some(NoReply), AsAFreeFailure),
            failed(ProviderError::Rejected(text()), Some(NoReply), AsAFreeFailure),
            failed(ProviderError::Forbidden(text()), Some(NoReply), AsAFreeFailure),
            failed(ProviderError::Truncated, Some(NoReply), AsAFreeFailure),
            failed(ProviderError::Protocol(text()), Some(NoReply), AsAFreeFailure),
            failed(ProviderError::Lost(text()), Some(NoReply), AsAFreeFailure),
            failed(ProviderError::TimedOut(Headers), Some(TooSlow), AsAFreeFailure),
            failed(ProviderError::TimedOut(FirstToken), Some(TooSlow), AsAFreeFailure),
            failed(ProviderError::TimedOut(Idle), Some(TooSlow), AsAFreeFailure),
            failed(ProviderError::TimedOut(Total), Some(TooSlow), AsAFreeFailure),
            failed(ProviderError::TimedOut(Connect), Some(TooSlow), Always),
            failed(ProviderError::Unreachable(text()), Some(NoReply), Always),
            failed(ProviderError::Failed(text()), Some(NoReply), Always),
            failed(ProviderError::Misconfigured(text()), Some(NoReply), Always),
            failed(ProviderError::OutOfCredit(text()), Some(Busy), Always),
            failed(ProviderError::Busy { detail: text(), retry_after: None }, Some(Busy), Always),
            broken(Ending::Refused, Some(Declined), AsAFreeFailure),
            broken(Ending::Fault, Some(Fault), Always),
            broken(Ending::Drained, Some(BrokenOff), Always),
            broken(Ending::Deserted, Some(BrokenOff), AsAFreeStop),
            (Ending::Stopped, Stopped, Stopped, None, AsAFreeStop),
        ] {
            let spoken = Verdict::of(&ending, true, false);
            assert_eq!((spoken.status, spoken.give_back), (with_text, GiveBack::No));
            let silent = Verdict::of(&ending, false, false);
            assert_eq!((silent.status, silent.failure, silent.give_back), (without_text, failure, back));
            // After an attempt that a message can have brought to nothing, nothing is free without end.
            let provoked = Verdict::of(&ending, false, true);
            assert_eq!(provoked.give_back, if back == Always { AsAFreeFailure } else { back });
        }
    }
}
