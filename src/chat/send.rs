//! Sending a message: claimed once, charged once, answered by a generation that outlives the connection.

use std::sync::Arc;

use uuid::Uuid;

use super::{
    Chat, ChatError, Companion, MessageStatus, Outcome, Usage,
    claim::{NotClaimed, Question, Turn, claim},
    generation::{Event, Generation, Reader},
    message::SendMessage,
    provider::FinishReason,
    service::body_place,
    store::{self, ClaimRow, ConversationRow},
    supervisor::Task,
};
use crate::{
    auth::Caller,
    billing::{Access, Charge},
    platform::{problem::Code, seal::DataKey, time},
};

/// How often a send is begun anew after another one got in between.
const TRIES: u32 = 4;

/// A reply that can be listened to, whether it is being made or was made long ago.
pub struct Reply {
    /// The generation's id.
    pub generation_id: Uuid,
    /// The id of the reply as a message.
    pub message_id: String,
    source: Source,
}

enum Source {
    Live(Reader),
    Stored { text: Option<String>, outcome: Option<Box<Outcome>> },
}

impl Reply {
    /// Listens to a reply that is being made.
    pub(super) fn live(generation: &Arc<Generation>) -> Reply {
        Reply {
            generation_id: generation.id,
            message_id: generation.reply_id.clone(),
            source: Source::Live(generation.read()),
        }
    }

    /// What comes next; `None` after the end.
    pub async fn next(&mut self) -> Option<Event> {
        match &mut self.source {
            Source::Live(reader) => reader.next().await,
            Source::Stored { text, outcome } => match text.take().filter(|text| !text.is_empty()) {
                Some(text) => Some(Event::Text(text)),
                None => outcome.take().map(Event::End),
            },
        }
    }

    /// Whether it was made before this request.
    pub fn is_stored(&self) -> bool {
        matches!(self.source, Source::Stored { .. })
    }
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
                    let overtaken =
                        error.may_come_from_a_double() && self.is_answered(caller, &message).await?;
                    if !overtaken {
                        return Err(error);
                    }
                }
            }
        }
        Err(ChatError::GenerationInProgress)
    }

    /// Whether the message has a reply, made or being made.
    async fn is_answered(&self, caller: Caller, message: &SendMessage) -> Result<bool, ChatError> {
        let found = self.look_up(caller.user_id, message).await?;
        Ok(matches!(found, Found::Claim(_, claim) if claim.status != MessageStatus::Failed))
    }

    async fn try_send(&self, caller: Caller, message: &SendMessage) -> Result<Reply, NotClaimed> {
        let owner = caller.user_id;
        let data_key = self.keyring.user(owner).await.map_err(ChatError::from)?;
        let (again, conversation) = match self.look_up(owner, message).await? {
            Found::Claim(conversation, claim) => {
                compare(&data_key, conversation.key, message, &claim)?;
                if claim.status != MessageStatus::Failed {
                    return Ok(self.rejoin(owner, &data_key, conversation.key, *claim).await?);
                }
                let again = Question::Again { seq: claim.question_seq, failed_reply: claim.reply_seq };
                (Some(again), Some(conversation))
            }
            Found::New(conversation) => (None, Some(conversation)),
            Found::First => (None, None),
        };
        let companion = match &conversation {
            Some(conversation) => self.still_there(conversation)?,
            None => self.choose(message.companion.as_deref())?,
        };
        let access = self.check_access(caller, &companion.card.id).await?;

        let turn =
            self.turn(owner, &data_key, message, conversation.map(|row| row.key), companion, access, again);
        let task = Task {
            generation: Generation::new(turn.generation, turn.reply_id.clone()),
            owner,
            conversation: turn.conversation_key,
            data_key,
            companion: companion.clone(),
            charge: turn.charge,
            question_seq: 0,
            reply_seq: 0,
            started_at: turn.now,
        };
        self.claim_and_begin(turn, task).await
    }

    /// Everything that the claim writes, sealed and numbered before the transaction begins.
    #[expect(clippy::too_many_arguments, reason = "it gathers what was found out before")]
    fn turn(
        &self,
        owner: Uuid,
        data_key: &DataKey,
        message: &SendMessage,
        conversation: Option<Uuid>,
        companion: &Companion,
        access: Access,
        again: Option<Question>,
    ) -> Turn {
        let now = self.clock.now();
        let conversation_key = conversation.unwrap_or_else(|| self.random.uuid(now));
        let seal = |id: &str, text: &str| {
            data_key.seal(body_place(&conversation_key, id), text.as_bytes(), &*self.random)
        };
        let reply_id = self.random.uuid(now).to_string();
        Turn {
            owner,
            conversation_id: message.conversation.clone(),
            conversation_key,
            begin: conversation.is_none().then(|| (companion.card.id.clone(), self.model().to_owned())),
            question: again.unwrap_or_else(|| Question::New {
                id: message.message.clone(),
                body: seal(&message.message, &message.text),
            }),
            charge: Charge::at(owner, now),
            access,
            generation: self.random.uuid(now),
            reply_body: seal(&reply_id, ""),
            reply_id,
            instance: self.instance,
            lease: time::after(now, self.settings.lease),
            most_at_once: self.settings.generations_per_user,
            now,
        }
    }

    /// The companion of a conversation that was begun before.
    fn still_there(&self, conversation: &ConversationRow) -> Result<&Companion, ChatError> {
        let companion = self.companions.get(&conversation.companion_id);
        companion.filter(|companion| companion.card.available).ok_or(ChatError::CompanionGone)
    }

    /// Claims in a task of its own, so that a caller who leaves between the commit and the start cannot leave a claim
    /// behind that nobody works on.
    async fn claim_and_begin(&self, turn: Turn, task: Task) -> Result<Reply, NotClaimed> {
        // Before the claim: whoever finds the claim finds the generation.
        if !self.live.add(&task.generation) {
            return Err(ChatError::Overloaded.into());
        }
        let chat = self.clone();
        let (send, claimed) = tokio::sync::oneshot::channel();
        self.tasks.spawn(async move {
            let billing = chat.billing.clone();
            let result = chat.db.write(async move |c| claim(&turn, &billing, &c).await).await;
            let begun = match result {
                Ok((question_seq, reply_seq)) => {
                    let reply = Reply::live(&task.generation);
                    chat.supervise(Task { question_seq, reply_seq, ..task });
                    Ok(reply)
                }
                Err(refused) => {
                    chat.live.remove(task.generation.id);
                    Err(refused)
                }
            };
            // If the caller has left, dropping the reply is what it would have done itself.
            let _ = send.send(begun);
        });
        claimed.await.unwrap_or(Err(NotClaimed::Refused(ChatError::Overloaded)))
    }

    /// Listens to the reply that is being made in a conversation. `None` if there is none here.
    pub async fn resume(&self, caller: Caller, conversation: &str) -> Result<Option<Reply>, ChatError> {
        let owner = caller.user_id;
        let row = self.db.read(async |c| store::find_conversation(owner, conversation).opt(&c).await).await?;
        let live = row.and_then(|row| row.generation_id).and_then(|id| self.live.get(id));
        Ok(live.as_ref().map(Reply::live))
    }

    /// Whether a caller may go on reading: their session has not ended. Nobody is cut off because that cannot be found out.
    pub async fn may_listen(&self, caller: Caller) -> bool {
        let live = self.auth.is_live(caller).await;
        live.inspect_err(|error| tracing::warn!(%error, "a stream goes on unchecked")).unwrap_or(true)
    }

    /// Stops the reply that is being made, wherever it is made; with another generation's id, nothing.
    pub async fn stop(
        &self,
        caller: Caller,
        conversation: &str,
        only: Option<Uuid>,
    ) -> Result<(), ChatError> {
        let owner = caller.user_id;
        let row = self.db.read(async |c| store::find_conversation(owner, conversation).opt(&c).await).await?;
        let Some(running) = row.and_then(|row| row.generation_id) else { return Ok(()) };
        if only.is_some_and(|only| only != running) {
            return Ok(());
        }
        match self.live.get(running) {
            Some(live) => live.stop(),
            // Another instance makes it; that one looks at the row when it renews its lease.
            None => {
                self.db.write(async move |c| store::request_stop(owner, running).exec(&c).await).await?;
            }
        }
        Ok(())
    }

    async fn look_up(&self, owner: Uuid, message: &SendMessage) -> Result<Found, ChatError> {
        self.db
            .read(async |c| {
                let Some(row) = store::find_conversation(owner, &message.conversation).opt(&c).await? else {
                    return Ok(Found::First);
                };
                if row.deleted_at.is_some() {
                    return Err(ChatError::NotFound);
                }
                let claim = store::find_claim(owner, row.key, &message.message).opt(&c).await?;
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
        owner: Uuid,
        key: &DataKey,
        conversation: Uuid,
        claim: ClaimRow,
    ) -> Result<Reply, ChatError> {
        if claim.status == MessageStatus::Generating {
            let live = self.live.get(claim.generation_id);
            // Made by another instance, or settled since we looked.
            return live.as_ref().map(Reply::live).ok_or(ChatError::GenerationInProgress);
        }
        let text = key.open_text(body_place(&conversation, &claim.reply_id), &claim.reply)?;
        let outcome = Outcome {
            status: claim.status,
            finish: claim.finish_reason.as_deref().map(FinishReason::from_name),
            error: claim.error_code.as_deref().and_then(Code::from_name),
            retry_after: None,
            model: claim.model,
            usage: Usage {
                input_tokens: claim.input_tokens,
                output_tokens: claim.output_tokens,
                estimated: claim.tokens_estimated,
            },
            quota: Some(self.billing.quota(owner).await?),
            created_at: claim.started_at,
        };
        Ok(Reply {
            generation_id: claim.generation_id,
            message_id: claim.reply_id,
            source: Source::Stored { text: Some(text), outcome: Some(Box::new(outcome)) },
        })
    }

    /// Consents, access, limits: in this order, before anything is written.
    async fn check_access(&self, caller: Caller, companion: &str) -> Result<Access, ChatError> {
        self.auth.require_consents(caller.user_id).await?;
        let access = self.billing.access();
        let quota = self.billing.quota(caller.user_id).await?;
        if access.messages_per_day == 0 || !access.companions.include(companion) {
            return Err(ChatError::SubscriptionRequired(quota));
        }
        if quota.used >= quota.limit {
            return Err(ChatError::QuotaExhausted(quota));
        }
        if self.tasks.is_stopping() {
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
    let text = key.open_text(body_place(&conversation, &message.message), &claim.question)?;
    if text == message.text { Ok(()) } else { Err(ChatError::IdempotencyMismatch) }
}
