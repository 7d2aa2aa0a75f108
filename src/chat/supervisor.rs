//! Making a reply: one task that reads the provider, and settles whatever happens.
//!
//! The task belongs to the server. It ends when the provider does, when a stop is asked for, when nobody has listened
//! for a while, when the program ends, or when a limit is passed; and each of these is stored, counted and given back in
//! one transaction before any reader hears of it ([`super::settle`]).

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::FutureExt as _;
use jiff::Timestamp;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use super::{
    Chat, Companion, Outcome, Usage,
    generation::Generation,
    provider::{Cause, FinishReason, ProviderError, TimeLimit},
    relay::Tally,
    service::body_place,
    store,
    upkeep::Upkeep,
};
use crate::{
    billing::Charge,
    platform::{
        db,
        seal::{DataKey, Sealed},
        time,
    },
};

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
    /// The model that the conversation began with.
    pub model: String,
    /// What was charged for it.
    pub charge: Charge,
    /// The place of the message that is answered.
    pub question_seq: i64,
    /// The place of the reply.
    pub reply_seq: i64,
    /// The place of the reply that this one is to replace.
    pub replaces: Option<i64>,
    /// When it was claimed.
    pub started_at: Timestamp,
}

/// How making a reply ended.
pub enum Ending {
    /// The provider finished.
    Finished(FinishReason),
    /// The provider failed, or was too slow.
    Failed(ProviderError),
    /// We could not read what was said before, or we panicked.
    Fault,
    /// Our own filter did not let it go on.
    Refused,
    /// On request.
    Stopped,
    /// Nobody listened.
    Deserted,
    /// The program ends.
    Drained,
    /// Another instance has settled it.
    Lost,
}

impl Ending {
    /// Whether a message can be written so that its reply ends like this without a word.
    pub fn can_be_provoked(&self) -> bool {
        match self {
            Ending::Finished(_) | Ending::Refused => true,
            Ending::Failed(error) => match error.cause() {
                Cause::Message | Cause::Either => true,
                Cause::Provider => false,
            },
            Ending::Fault | Ending::Stopped | Ending::Deserted | Ending::Drained | Ending::Lost => false,
        }
    }
}

impl Chat {
    /// Makes a reply in the background.
    pub(super) fn supervise(&self, task: Task) {
        let chat = self.clone();
        self.parts().tasks.spawn(async move {
            let tally = Mutex::new(Tally::default());
            let ending = AssertUnwindSafe(Box::pin(chat.make(&task, &tally)))
                .catch_unwind()
                .await
                .unwrap_or(Ending::Fault);
            let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
            // What is awaited for moments is boxed, as `renew` is below and the context in `read_provider`: a task is as large as
            // the largest of what it awaits, and lives as long as the reply is made.
            let settled = AssertUnwindSafe(Box::pin(chat.settle(&task, ending, tally))).catch_unwind().await;
            if settled.is_err() {
                // Whatever is stored or not, nobody waits for ever.
                task.generation.end(Outcome::broken_off(task.started_at));
            }
            chat.live.remove(task.generation.id);
        });
    }

    async fn make(&self, task: &Task, tally: &Mutex<Tally>) -> Ending {
        let generation = &task.generation;
        tokio::select! {
            biased;
            () = generation.stopped() => Ending::Stopped,
            ending = self.read_route(task, tally) => ending,
            () = sleep(self.parts().settings.total_timeout) => Ending::Failed(ProviderError::TimedOut(TimeLimit::Total)),
            () = deserted_for(generation, self.parts().settings.detached_grace) => Ending::Deserted,
            ending = self.keep(task, tally) => ending,
            () = self.parts().tasks.must_end() => Ending::Drained,
        }
    }

    /// Prolongs the lease, stores the text so far now and then, when the last reader leaves and when the program begins to
    /// end. Ends when the reply is to be stopped or belongs to somebody else.
    async fn keep(&self, task: &Task, tally: &Mutex<Tally>) -> Ending {
        let generation = &task.generation;
        let mut upkeep =
            Upkeep::new(Instant::now(), self.parts().settings.lease, self.parts().settings.intervals.partial);
        let mut readers = generation.readers();
        let mut is_stopping = false;
        loop {
            tokio::select! {
                () = sleep_until(upkeep.next()) => {}
                // Completes also for a change that came while the rows were being written.
                _ = readers.changed() => if *readers.borrow_and_update() == 0 {
                    upkeep.store_now(Instant::now());
                },
                // Whoever ends the program may not have the patience to wait for the reply.
                () = self.parts().tasks.stopping(), if !is_stopping => {
                    is_stopping = true;
                    upkeep.store_now(Instant::now());
                }
            }
            let len = generation.len();
            let Some(store) = upkeep.due(Instant::now(), len) else { continue };
            match Box::pin(self.renew(task, tally, store)).await {
                Ok(Some(false)) => upkeep.done(Instant::now(), store.then_some(len)),
                Ok(Some(true)) => return Ending::Stopped,
                Ok(None) => return Ending::Lost,
                Err(error) => {
                    tracing::warn!(%error, "a lease could not be renewed");
                    upkeep.failed(Instant::now());
                }
            }
        }
    }

    /// Whether a stop was asked for; `None` when the reply is not ours any more.
    async fn renew(
        &self,
        task: &Task,
        tally: &Mutex<Tally>,
        store_text: bool,
    ) -> Result<Option<bool>, db::Error> {
        let Task { owner, conversation, reply_seq, .. } = *task;
        let (id, instance) = (task.generation.id, self.parts().instance);
        let lease = time::after(self.parts().clock.now(), self.parts().settings.lease);
        let partial = store_text.then(|| self.seal_reply(task));
        // Should nobody be able to settle it in the end, the tokens so far are known.
        let usage = tally.lock().unwrap_or_else(PoisonError::into_inner).usage(&task.generation.text());
        self.parts()
            .db
            .write(async move |c| {
                let Usage { input_tokens, output_tokens, .. } = usage;
                let is_partial = partial.is_some();
                let renewed =
                    store::renew_lease(owner, id, instance, lease, is_partial, input_tokens, output_tokens);
                let stop = renewed.opt(&c).await?;
                if let (Some(_), Some(body)) = (stop, &partial) {
                    store::store_partial(owner, conversation, reply_seq, body).exec(&c).await?;
                }
                Ok(stop)
            })
            .await
    }

    pub(super) fn seal_reply(&self, task: &Task) -> Sealed {
        let place = body_place(&task.conversation, &task.generation.reply_id);
        task.data_key.seal(place, task.generation.text().as_bytes(), &*self.parts().random)
    }
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
