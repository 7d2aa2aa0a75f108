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
    Chat, Companion,
    generation::Generation,
    provider::{FinishReason, ProviderError, TimeLimit},
    relay::Account,
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
pub enum Ending {
    /// The provider finished.
    Finished(FinishReason),
    /// The provider failed, or was too slow.
    Failed(ProviderError),
    /// We could not read what was said before, or we panicked.
    Fault,
    /// On request.
    Stopped,
    /// Nobody listened, or the program ends.
    Abandoned,
    /// Another instance has settled it.
    Lost,
}

impl Chat {
    /// Makes a reply in the background.
    pub(super) fn supervise(&self, task: Task) {
        let chat = self.clone();
        self.tasks.spawn(async move {
            let account = Mutex::new(Account::default());
            let ending =
                AssertUnwindSafe(chat.make(&task, &account)).catch_unwind().await.unwrap_or(Ending::Fault);
            let account = account.into_inner().unwrap_or_else(PoisonError::into_inner);
            chat.settle(&task, ending, account).await;
            chat.live.remove(task.generation.id);
        });
    }

    async fn make(&self, task: &Task, account: &Mutex<Account>) -> Ending {
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

    /// Prolongs the lease, stores the text so far now and then and when the last reader leaves, and ends when the reply is
    /// to be stopped or belongs to somebody else.
    async fn keep(&self, task: &Task) -> Ending {
        let generation = &task.generation;
        let mut upkeep = Upkeep::new(Instant::now(), self.settings.lease, self.settings.intervals.partial);
        let mut readers = generation.readers();
        loop {
            tokio::select! {
                () = sleep_until(upkeep.next()) => {}
                // Completes also for a change that came while the rows were being written.
                _ = readers.changed() => if *readers.borrow_and_update() == 0 {
                    upkeep.deserted(Instant::now());
                }
            }
            let len = generation.len();
            let Some(store) = upkeep.due(Instant::now(), len) else { continue };
            match self.renew(task, store).await {
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
    async fn renew(&self, task: &Task, store_text: bool) -> Result<Option<bool>, db::Error> {
        let Task { owner, conversation, reply_seq, .. } = *task;
        let (id, instance) = (task.generation.id, self.instance);
        let lease = time::after(self.clock.now(), self.settings.lease);
        let partial = store_text.then(|| self.seal_reply(task));
        self.db
            .write(async move |c| {
                let stop = store::renew_lease(owner, id, instance, lease, partial.is_some()).opt(&c).await?;
                if let (Some(_), Some(body)) = (stop, &partial) {
                    store::store_partial(owner, conversation, reply_seq, body).exec(&c).await?;
                }
                Ok(stop)
            })
            .await
    }

    pub(super) fn seal_reply(&self, task: &Task) -> Sealed {
        let place = body_place(&task.conversation, &task.generation.reply_id);
        task.data_key.seal(place, task.generation.text().as_bytes(), &*self.random)
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
