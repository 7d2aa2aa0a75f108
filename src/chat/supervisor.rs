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
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{
    Chat, Companion,
    generation::Generation,
    provider::{FinishReason, ProviderError, TimeLimit},
    relay::Account,
    service::body_place,
    store,
};
use crate::{
    billing::Charge,
    platform::{
        db,
        seal::{DataKey, Sealed},
        time,
    },
};

/// How often the text so far is stored while somebody listens.
const PARTIAL_INTERVAL: Duration = Duration::from_secs(15);

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
