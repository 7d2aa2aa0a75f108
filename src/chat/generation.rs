//! A reply in the making: its text so far, and whoever listens to it.
//!
//! The text is kept once and every reader has a place in it, so a slow reader costs nothing and misses nothing, and one
//! that comes late reads from the first word. This module must not know the database or the provider.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{ChatError, Outcome, ReplyFilter};
use crate::billing::Quota;

/// The longest reply, in bytes. What a provider sends beyond is cut.
pub const MAX_REPLY: usize = 64 * 1024;

/// A reply in the making.
pub struct Generation {
    /// The generation's id.
    pub id: Uuid,
    /// The id that the reply will have as a message.
    pub reply_id: String,
    state: watch::Sender<State>,
    readers: watch::Sender<usize>,
    stop: CancellationToken,
    quota: OnceLock<Quota>,
}

#[derive(Default)]
struct State {
    text: String,
    outcome: Option<Outcome>,
}

/// What a reader gets.
#[derive(Clone, Debug)]
pub enum Event {
    /// More of the text.
    Text(String),
    /// The reply is over and stored.
    End(Box<Outcome>),
}

impl Generation {
    /// A reply that has no text yet.
    pub fn new(id: Uuid, reply_id: String) -> Arc<Generation> {
        Arc::new(Generation {
            id,
            reply_id,
            state: watch::Sender::default(),
            readers: watch::Sender::new(0),
            stop: CancellationToken::new(),
            quota: OnceLock::new(),
        })
    }

    /// Notes what the day had left when it was charged.
    pub fn charged(&self, quota: Quota) {
        let _ = self.quota.set(quota); // It is charged once.
    }

    /// What the day had left when it was charged, where that is known here.
    pub fn quota(&self) -> Option<&Quota> {
        self.quota.get()
    }

    /// Whether a filter lets more text in. Only one task adds text, so nothing comes between the answer and
    /// [`Generation::push`].
    pub fn is_allowed(&self, text: &str, filter: &dyn ReplyFilter) -> bool {
        filter.allows(&self.state.borrow().text, text)
    }

    /// Adds text; `false` when the reply is as long as it may get, and the rest was cut.
    pub fn push(&self, text: &str) -> bool {
        let mut is_whole = true;
        self.state.send_modify(|state| {
            let room = MAX_REPLY.saturating_sub(state.text.len());
            let end = text.floor_char_boundary(room.min(text.len()));
            state.text.push_str(text.get(..end).unwrap_or_default());
            is_whole = end == text.len();
        });
        is_whole
    }

    /// The text so far.
    pub fn text(&self) -> String {
        self.state.borrow().text.clone()
    }

    /// Bytes of text so far.
    pub fn len(&self) -> usize {
        self.state.borrow().text.len()
    }

    /// Tells every reader how it ended.
    pub fn end(&self, outcome: Outcome) {
        self.state.send_modify(|state| state.outcome = Some(outcome));
    }

    /// Asks for the reply to be stopped.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Completes when a stop was asked for.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// How many listen, and whether that has changed.
    pub fn readers(&self) -> watch::Receiver<usize> {
        self.readers.subscribe()
    }

    /// Completes when nobody listens.
    pub async fn deserted(&self) {
        // The sender lives in `self`, so this cannot fail.
        let _ = self.readers.subscribe().wait_for(|readers| *readers == 0).await;
    }

    /// Completes when somebody listens.
    pub async fn attended(&self) {
        let _ = self.readers.subscribe().wait_for(|readers| *readers > 0).await;
    }

    /// Listens, from the first word.
    pub fn read(self: &Arc<Self>) -> Reader {
        self.readers.send_modify(|readers| *readers = readers.saturating_add(1));
        Reader { state: self.state.subscribe(), generation: Arc::clone(self), at: 0, ended: false }
    }
}

/// Somebody who listens to a reply.
pub struct Reader {
    generation: Arc<Generation>,
    state: watch::Receiver<State>,
    at: usize,
    ended: bool,
}

impl Reader {
    /// What comes next; `None` after the end. All text that has arrived since comes as one piece.
    pub async fn next(&mut self) -> Option<Event> {
        while !self.ended {
            if let Some(event) = self.look() {
                return Some(event);
            }
            if self.state.changed().await.is_err() {
                return None;
            }
        }
        None
    }

    fn look(&mut self) -> Option<Event> {
        let state = self.state.borrow_and_update();
        let new = state.text.get(self.at..).unwrap_or_default();
        if !new.is_empty() {
            let text = new.to_owned();
            self.at = state.text.len();
            return Some(Event::Text(text));
        }
        let outcome = state.outcome.clone()?;
        self.ended = true;
        Some(Event::End(Box::new(outcome)))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.generation.readers.send_modify(|readers| *readers = readers.saturating_sub(1));
    }
}

/// The replies that this instance is making. Which one a conversation waits for says the conversation's row.
pub struct Live {
    generations: Mutex<HashMap<Uuid, (Uuid, Arc<Generation>)>>,
    most: usize,
}

/// Places that one user may hold here. Far more than replies at once: the same message may be sent by many connections
/// at the same moment, and each holds a place until the claim has told which one won.
const PLACES_PER_USER: usize = 32;

impl Live {
    /// At most `most` at once.
    pub fn new(most: usize) -> Live {
        Live { generations: Mutex::default(), most }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Uuid, (Uuid, Arc<Generation>)>> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a reply, if there is room, here and for its owner.
    pub fn add(&self, owner: Uuid, generation: &Arc<Generation>) -> Result<(), ChatError> {
        let mut all = self.all();
        if all.len() >= self.most {
            return Err(ChatError::Overloaded);
        }
        if all.values().filter(|(of, _)| *of == owner).count() >= PLACES_PER_USER {
            return Err(ChatError::TooManyGenerations);
        }
        all.insert(generation.id, (owner, Arc::clone(generation)));
        report(all.len());
        Ok(())
    }

    /// Removes a reply that has ended or was never begun.
    pub fn remove(&self, generation: Uuid) {
        let mut all = self.all();
        all.remove(&generation);
        report(all.len());
    }

    /// A reply that is being made here.
    pub fn get(&self, generation: Uuid) -> Option<Arc<Generation>> {
        self.all().get(&generation).map(|(_, generation)| Arc::clone(generation))
    }
}

fn report(live: usize) {
    metrics::gauge!("chat_live_generations").set(f64::from(u32::try_from(live).unwrap_or(u32::MAX)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        billing::Quota,
        chat::{MessageStatus, Usage},
    };
    use jiff::Timestamp;

    fn outcome() -> Outcome {
        Outcome {
            status: MessageStatus::Complete,
            finish: None,
            failure: None,
            retry_after: None,
            model: None,
            usage: Usage::default(),
            cut_to: None,
            quota: Some(Quota { plan: None, used: 0, limit: 0, resets_at: Timestamp::UNIX_EPOCH }),
            created_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn generation() -> Arc<Generation> {
        Generation::new(Uuid::from_u128(1), "r".into())
    }

    async fn rest(mut reader: Reader) -> (Vec<String>, bool) {
        let (mut texts, mut ended) = (Vec::new(), false);
        while let Some(event) = reader.next().await {
            match event {
                Event::Text(text) => texts.push(text),
                Event::End(_) => ended = true,
            }
        }
        (texts, ended)
    }

    #[tokio::test]
    async fn everybody_reads_the_whole_text_whenever_they_come() {
        let generation = generation();
        let mut early = generation.read();
        generation.push("Good ");
        assert!(matches!(early.next().await, Some(Event::Text(text)) if text == "Good "));
        generation.push("eve");
        generation.push("ning");
        generation.end(outcome());

        assert_eq!(rest(early).await, (vec!["evening".into()], true), "what piled up comes as one piece");
        assert_eq!(rest(generation.read()).await, (vec!["Good evening".into()], true));
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken() {
        let generation = generation();
        let mut reader = generation.read();
        let mut next = Box::pin(reader.next());
        assert!(futures_util::poll!(next.as_mut()).is_pending());
        generation.push("word");
        assert!(matches!(next.await, Some(Event::Text(text)) if text == "word"));
    }

    #[tokio::test]
    async fn presence_is_counted() {
        let generation = generation();
        let reader = generation.read();
        assert!(futures_util::poll!(Box::pin(generation.deserted())).is_pending());
        assert!(futures_util::poll!(Box::pin(generation.attended())).is_ready());
        drop(reader);
        assert!(futures_util::poll!(Box::pin(generation.deserted())).is_ready());
    }

    #[test]
    fn one_user_cannot_take_every_place() {
        let live = Live::new(PLACES_PER_USER + 1);
        let (ann, bob) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let add = |owner, n| live.add(owner, &Generation::new(Uuid::from_u128(n), "r".into()));
        for n in 0..PLACES_PER_USER {
            assert!(add(ann, n as u128).is_ok());
        }
        assert!(matches!(add(ann, 100), Err(ChatError::TooManyGenerations)));
        assert!(add(bob, 101).is_ok());
        assert!(matches!(add(bob, 102), Err(ChatError::Overloaded)));
        live.remove(Uuid::from_u128(0));
        assert!(add(ann, 103).is_ok());
    }

    #[test]
    fn a_reply_that_is_too_long_is_cut_at_a_character() {
        let generation = generation();
        assert!(generation.push(&"a".repeat(MAX_REPLY - 1)));
        assert!(!generation.push("é"));
        assert_eq!(generation.len(), MAX_REPLY - 1);
        assert!(!generation.push("too late, and longer than what is left"));
        assert_eq!(generation.len(), MAX_REPLY);
        assert!(!generation.push("x"));
    }
}
