//! Sending a message: claimed once, charged once, answered by a generation that outlives the connection.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::timeout};
use uuid::Uuid;

use super::{
    Chat, ChatError, Companion, MessageStatus, Outcome,
    claim::{NotClaimed, Question, Turn, claim},
    generation::Generation,
    message::SendMessage,
    prompt,
    reply::{Reply, SessionWatch},
    service::body_place,
    store::{self, ClaimRow, ConversationRow, Places},
    supervisor::Task,
};
use crate::{
    auth::Caller,
    billing::{Access, Charge},
    platform::{db, problem::FieldError, seal::DataKey, time},
};

/// How often a send is begun anew after another one got in between.
const TRIES: u32 = 8;
/// How long a caller waits for word of a claim whose answer was lost.
const LOOK_BEFORE_ANSWER: Duration = Duration::from_secs(5);

/// Who answers, as the conversation began, and with which key the answer is sealed.
struct Speaker {
    data_key: DataKey,
    companion: Companion,
    model: String,
}

/// What the database says about a message that is to be sent.
enum Found {
    /// It was sent before.
    Claim(ConversationRow, Box<ClaimRow>),
    /// It is new, in a conversation that is there.
    New(ConversationRow),
    /// It is the first of a conversation.
    First,
}

impl Chat {
    /// Stores a message and begins the reply, or finds the reply to a message that was sent before.
    ///
    /// No connection to the database is held while the provider talks. The reply goes on when the caller leaves; it is
    /// found again by sending the same message, by [`Chat::resume`], or in the history.
    ///
    /// # Errors
    ///
    /// In the order of API.md. After an error nothing is stored and nothing is charged.
    pub async fn send(&self, caller: Caller, message: SendMessage) -> Result<Reply, ChatError> {
        for _ in 0..TRIES {
            match self.try_send(caller, &message).await {
                Ok(reply) => return Ok(reply),
                Err(NotClaimed::Overtaken) => {}
                Err(NotClaimed::Refused(error)) => {
                    // Sent twice at the same moment: who lost joins the one that won, and is refused nothing.
                    if !self.comes_from_a_double(&error, caller.user_id, &message).await? {
                        return Err(error);
                    }
                }
            }
        }
        Err(ChatError::GenerationInProgress)
    }

    /// Whether a refusal only says that the same message was sent by another connection: then it has a reply, or it had
    /// one in the making that has failed since.
    async fn comes_from_a_double(
        &self,
        refusal: &ChatError,
        owner: Uuid,
        message: &SendMessage,
    ) -> Result<bool, ChatError> {
        let is_possible = matches!(
            refusal,
            ChatError::GenerationInProgress | ChatError::QuotaExhausted(_) | ChatError::TooManyGenerations
        );
        if !is_possible {
            return Ok(false);
        }
        Ok(match self.look_up(owner, message).await? {
            // Also when it has failed: the try that was in the way may have been one of this very message. If it was
            // another message's, the next round says so again.
            Found::Claim(_, claim) => {
                claim.status != MessageStatus::Failed || matches!(refusal, ChatError::GenerationInProgress)
            }
            Found::New(_) | Found::First => false,
        })
    }

    async fn try_send(&self, caller: Caller, message: &SendMessage) -> Result<Reply, NotClaimed> {
        let owner = caller.user_id;
        let data_key = self.parts().keyring.user(owner).await.map_err(ChatError::from)?;
        let (again, conversation) = match self.look_up(owner, message).await? {
            Found::Claim(conversation, claim) => {
                compare(&data_key, conversation.key, message, &claim)?;
                if claim.status != MessageStatus::Failed {
                    return Ok(self.rejoin(caller, &data_key, conversation.key, *claim).await?);
                }
                let again = Question::Again { seq: claim.question_seq, failed_reply: claim.reply_seq };
                (Some(again), Some(conversation))
            }
            Found::New(conversation) => (None, Some(conversation)),
            Found::First => (None, None),
        };
        self.parts().auth.require_consents(owner).await.map_err(ChatError::from)?;
        let companion = match &conversation {
            Some(conversation) => self.as_it_was(self.still_there(conversation)?, conversation).await?,
            None => self.choose(message.companion.as_deref())?.clone(),
        };
        let access = self.check_access(owner, &companion.card.id).await?;
        self.check_room(owner, conversation.as_ref()).await?;
        self.check_length(&companion, message)?;

        let now = self.parts().clock.now();
        let conversation_key = conversation
            .as_ref()
            .map_or_else(|| self.parts().random.uuid(now), |conversation| conversation.key);
        let seal = |id: &str, text: &str| {
            data_key.seal(body_place(&conversation_key, id), text.as_bytes(), &*self.parts().random)
        };
        let reply_id = self.parts().random.uuid(now).to_string();
        let generation = Generation::new(self.parts().random.uuid(now), reply_id.clone());
        let turn = Turn {
            owner,
            conversation_id: message.conversation_id.clone(),
            conversation_key,
            begin: conversation.is_none().then(|| self.beginning(&companion)),
            question: again.unwrap_or_else(|| Question::New {
                id: message.id.clone(),
                body: seal(&message.id, &message.text),
            }),
            charge: Charge::at(owner, now),
            access,
            generation: generation.id,
            reply_body: seal(&reply_id, ""),
            reply_id,
            instance: self.parts().instance,
            lease: time::after(now, self.parts().settings.lease),
            most_at_once: self.parts().settings.generations_per_user,
            now,
        };
        let model = conversation.map_or_else(|| self.model().to_owned(), |conversation| conversation.model);
        let speaker = Speaker { data_key, companion, model };
        self.claim_and_begin(turn, generation, speaker, self.watch(caller)).await
    }

    /// The companion of a conversation that was begun before.
    fn still_there(&self, conversation: &ConversationRow) -> Result<&Companion, ChatError> {
        let companion = self.parts().companions.get(&conversation.companion_id);
        companion.filter(|companion| companion.card.available).ok_or(ChatError::CompanionGone)
    }

    /// Refuses what the claim would refuse, before a place of this instance is taken for it. The claim decides.
    async fn check_room(&self, owner: Uuid, conversation: Option<&ConversationRow>) -> Result<(), ChatError> {
        if conversation.is_some_and(|conversation| conversation.generation_id.is_some()) {
            return Err(ChatError::GenerationInProgress);
        }
        let running = self.parts().db.read(async |c| store::count_running(owner).one(&c).await).await?;
        if running >= self.parts().settings.generations_per_user {
            return Err(ChatError::TooManyGenerations);
        }
        Ok(())
    }

    /// Refuses a message that fits no model beside the persona: it would fail each time that it is tried.
    fn check_length(&self, companion: &Companion, message: &SendMessage) -> Result<(), ChatError> {
        let tokens = prompt::estimate(&companion.prompt).saturating_add(prompt::estimate(&message.text));
        let widest = self.parts().route.iter().map(|candidate| candidate.provider.model().budget()).max();
        if widest.is_some_and(|widest| tokens <= widest) {
            return Ok(());
        }
        let errors = vec![FieldError {
            pointer: message.pointer.clone(),
            code: "too_long",
            detail: "The message is too long for the companion; send it in parts.".into(),
        }];
        Err(ChatError::Invalid(errors))
    }

    /// Claims in a task of its own, so that a caller who leaves between the commit and the start cannot leave a claim
    /// behind that nobody works on.
    async fn claim_and_begin(
        &self,
        turn: Turn,
        generation: Arc<Generation>,
        speaker: Speaker,
        session: SessionWatch,
    ) -> Result<Reply, NotClaimed> {
        // Before the claim: whoever finds the claim finds the generation.
        self.live.add(turn.owner, &generation)?;
        let chat = self.clone();
        let (send, claimed) = oneshot::channel();
        self.parts().tasks.spawn(async move {
            let mut send = Some(send);
            // If the caller has left, dropping a reply is what it would have done itself.
            let mut answer = |result| {
                if let Some(send) = send.take() {
                    drop(send.send(result));
                }
            };
            let turn = Arc::new(turn);
            let (writing, billing) = (Arc::clone(&turn), chat.parts().billing.clone());
            let result = chat.parts().db.write(async move |c| claim(&writing, &billing, &c).await).await;
            let places = match result {
                Ok(places) => Some(places),
                // The connection was lost: the claim may be written all the same, and is worked on then.
                Err(NotClaimed::Refused(ChatError::Storage(error @ db::Error::Unavailable(_)))) => {
                    let mut look = pin!(chat.claimed_after_all(turn.owner, generation.id));
                    let found = timeout(LOOK_BEFORE_ANSWER, &mut look).await;
                    if !matches!(found, Ok(Some(_))) {
                        answer(Err(ChatError::Storage(error).into()));
                    }
                    match found {
                        Ok(found) => found,
                        Err(_) => look.await,
                    }
                }
                Err(refused) => {
                    answer(Err(refused));
                    None
                }
            };
            let Some(places) = places else {
                chat.live.remove(generation.id);
                return;
            };
            answer(Ok(Reply::live(&generation, session)));
            chat.supervise(Task {
                generation,
                owner: turn.owner,
                conversation: turn.conversation_key,
                data_key: speaker.data_key,
                companion: speaker.companion,
                model: speaker.model,
                charge: turn.charge,
                question_seq: places.question_seq,
                reply_seq: places.reply_seq,
                started_at: turn.now,
            });
        });
        claimed.await.unwrap_or(Err(NotClaimed::Refused(ChatError::Overloaded)))
    }

    /// The places of a claim whose answer was lost, if it was written. Waits for the database as long as it takes.
    async fn claimed_after_all(&self, owner: Uuid, generation: Uuid) -> Option<Places> {
        let look = async move |c| store::find_places(owner, generation).opt(&c).await;
        tokio::select! {
            found = self.parts().db.write_patiently(look) => found.unwrap_or_else(|error: db::Error| {
                tracing::error!(%error, "whether a claim was written is not known");
                None
            }),
            () = self.parts().tasks.must_end() => None, // Settled at the next start.
        }
    }

    /// Listens to the reply that is being made in a conversation. `None` if there is none here.
    pub async fn resume(&self, caller: Caller, conversation: &str) -> Result<Option<Reply>, ChatError> {
        let owner = caller.user_id;
        let row = self
            .parts()
            .db
            .read(async |c| store::find_conversation(owner, conversation).opt(&c).await)
            .await?;
        let live = row.and_then(|row| row.generation_id).and_then(|id| self.live.get(id));
        Ok(live.as_ref().map(|live| Reply::live(live, self.watch(caller))))
    }

    /// Stops the reply that is being made, wherever it is made; with another generation's id, nothing.
    pub async fn stop(
        &self,
        caller: Caller,
        conversation: &str,
        only: Option<Uuid>,
    ) -> Result<(), ChatError> {
        let owner = caller.user_id;
        let row = self
            .parts()
            .db
            .read(async |c| store::find_conversation(owner, conversation).opt(&c).await)
            .await?;
        let Some(running) = row.and_then(|row| row.generation_id) else { return Ok(()) };
        if only.is_some_and(|only| only != running) {
            return Ok(());
        }
        match self.live.get(running) {
            Some(live) => live.stop(),
            // Another instance makes it; that one looks at the row when it renews its lease.
            None => {
                self.parts()
                    .db
                    .write(async move |c| store::request_stop(owner, running).exec(&c).await)
                    .await?;
            }
        }
        Ok(())
    }

    async fn look_up(&self, owner: Uuid, message: &SendMessage) -> Result<Found, ChatError> {
        self.parts()
            .db
            .read(async |c| {
                let Some(row) = store::find_conversation(owner, &message.conversation_id).opt(&c).await?
                else {
                    return Ok(Found::First);
                };
                if row.deleted_at.is_some() {
                    return Err(ChatError::NotFound);
                }
                let claim = store::find_claim(owner, row.key, &message.id).opt(&c).await?;
                Ok(match claim {
                    Some(claim) => Found::Claim(row, Box::new(claim)),
                    None => Found::New(row),
                })
            })
            .await
    }

    /// The reply to a message that was sent before: joined while it is made, else as it was stored.
    async fn rejoin(
        &self,
        caller: Caller,
        key: &DataKey,
        conversation: Uuid,
        claim: ClaimRow,
    ) -> Result<Reply, ChatError> {
        if claim.status == MessageStatus::Generating {
            let live = self.live.get(claim.generation_id);
            // Made by another instance, or settled since we looked.
            let reply = live.as_ref().map(|live| Reply::live(live, self.watch(caller)));
            return reply.ok_or(ChatError::GenerationInProgress);
        }
        let text = key.open_text(body_place(&conversation, &claim.reply_id), &claim.reply)?;
        let (owner, id) = (caller.user_id, claim.generation_id);
        let ending = self.parts().db.read(async |c| store::find_ending(owner, id).one(&c).await).await?;
        let outcome = Outcome { quota: Some(self.parts().billing.quota(owner).await?), ..ending.into() };
        Ok(Reply::stored(claim.generation_id, claim.reply_id, text, outcome, self.watch(caller)))
    }

    /// Access, then limits, before anything is written.
    async fn check_access(&self, owner: Uuid, companion: &str) -> Result<Access, ChatError> {
        let access = self.parts().billing.access();
        let quota = self.parts().billing.quota(owner).await?;
        if access.messages_per_day == 0 || !access.companions.include(companion) {
            return Err(ChatError::SubscriptionRequired(self.parts().billing.paywall(quota)));
        }
        if quota.used >= quota.limit {
            return Err(ChatError::QuotaExhausted(self.parts().billing.paywall(quota)));
        }
        if self.parts().tasks.is_stopping() {
            return Err(ChatError::Overloaded);
        }
        Ok(access)
    }
}

/// The same id must mean the same text.
fn compare(
    key: &DataKey,
    conversation: Uuid,
    message: &SendMessage,
    claim: &ClaimRow,
) -> Result<(), ChatError> {
    let text = key.open_text(body_place(&conversation, &message.id), &claim.question)?;
    if text == message.text { Ok(()) } else { Err(ChatError::IdempotencyMismatch) }
}
