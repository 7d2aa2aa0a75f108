//! Sending a message: claimed once, charged once, answered by a generation that outlives the connection.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::timeout};
use uuid::Uuid;

use super::{
    Chat, ChatError, Companion, MessageStatus, NamedProvider, Outcome,
    claim::{NotClaimed, Question, Turn, claim},
    generation::Generation,
    message::{Action, ChatRequest, SentText},
    prompt,
    reply::{Reply, SessionWatch},
    request::{Found, Made, Meant, Plan, ToAnswer},
    service::body_place,
    store::{self, ConversationRow, Places},
    supervisor::Task,
};
use crate::{
    auth::Caller,
    billing::{Access, Charge, Wall},
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

impl Chat {
    /// Answers a message, or finds the reply to one that was sent before; answers one anew, whose reply is to be replaced,
    /// or that has another text now.
    ///
    /// No connection to the database is held while the provider talks. The reply goes on when the caller leaves; it is
    /// found again by sending the same message, by [`Chat::resume`], or in the history.
    ///
    /// # Errors
    ///
    /// In the order of API.md. After an error nothing is stored and nothing is charged.
    pub async fn send(&self, caller: Caller, request: ChatRequest) -> Result<Reply, ChatError> {
        let data_key = self.parts().keyring.user(caller.user_id).await?;
        let (mut meant, mut is_counted) = (None, false);
        for _ in 0..TRIES {
            match self.try_send(caller, &data_key, &request, &mut meant, &mut is_counted).await {
                Ok(reply) => return Ok(reply),
                Err(NotClaimed::Overtaken) => {}
                Err(NotClaimed::Refused(error)) => {
                    // Sent twice at the same moment: who lost joins the one that won, and is refused nothing.
                    let owner = caller.user_id;
                    if !self.comes_from_a_double(&error, owner, &data_key, &request, &mut meant).await? {
                        return Err(error);
                    }
                }
            }
        }
        Err(ChatError::GenerationInProgress)
    }

    /// Whether a refusal only says that the same was asked for by another connection: then it has a reply, or it had one in
    /// the making that has failed since.
    async fn comes_from_a_double(
        &self,
        refusal: &ChatError,
        owner: Uuid,
        key: &DataKey,
        request: &ChatRequest,
        meant: &mut Option<Meant>,
    ) -> Result<bool, ChatError> {
        let is_possible = match refusal {
            ChatError::GenerationInProgress | ChatError::TooManyGenerations | ChatError::TooFast { .. } => {
                true
            }
            ChatError::PaymentRequired(paywall) => paywall.wall != Wall::SubscriptionRequired,
            _ => false,
        };
        if !is_possible {
            return Ok(false);
        }
        Ok(match self.look_up(owner, key, request, meant).await? {
            Found::Reply(_, made) if self.can_be_had(&made) => true,
            // It was stored before it left `live`, so one that was made here has an end by now. One that another instance makes
            // cannot be joined here, however often we look.
            Found::Reply(..) => match self.look_up(owner, key, request, meant).await? {
                Found::Reply(_, made) => self.can_be_had(&made),
                Found::ToAnswer(_) => true,
            },
            // The try that was in the way may have been one for this very message. If it was another message's, the next
            // round says so again.
            Found::ToAnswer(found) => match found.plan {
                Plan::Again { .. } | Plan::Anew { .. } => matches!(refusal, ChatError::GenerationInProgress),
                Plan::New(_) | Plan::Edited { .. } => false,
            },
        })
    }

    /// Whether a reply is stored, or is being made here.
    fn can_be_had(&self, made: &Made) -> bool {
        made.status != MessageStatus::Generating || self.live.get(made.generation_id).is_some()
    }

    async fn try_send(
        &self,
        caller: Caller,
        data_key: &DataKey,
        request: &ChatRequest,
        meant: &mut Option<Meant>,
        is_counted: &mut bool,
    ) -> Result<Reply, NotClaimed> {
        let owner = caller.user_id;
        let ToAnswer { conversation, plan } = match self.look_up(owner, data_key, request, meant).await? {
            Found::Reply(key, made) => return Ok(self.rejoin(caller, data_key, key, *made).await?),
            Found::ToAnswer(found) => *found,
        };
        self.parts().auth.require_consents(owner).await.map_err(ChatError::from)?;
        let companion = match &conversation {
            Some(conversation) => self.as_it_was(self.still_there(conversation)?, conversation).await?,
            None => self.choose(request.companion.as_deref())?.clone(),
        };
        let access = self.check_access(owner, &companion.card.id).await?;
        if !*is_counted && let Some(wait) = self.parts().messages.take(owner.as_u128()).wait {
            return Err(ChatError::TooFast { wait }.into());
        }
        *is_counted = true;
        let most_at_once = access.generations.unwrap_or(self.parts().settings.generations_per_user);
        self.check_room(owner, most_at_once, conversation.as_ref()).await?;
        if let Some(sent) = request.sent() {
            self.check_length(&companion, sent)?;
        }
        let model =
            conversation.as_ref().map_or_else(|| self.model(), |conversation| &conversation.model).to_owned();
        let speaker = Speaker { data_key: data_key.clone(), companion, model };
        let (turn, generation) =
            self.prepare(owner, request, conversation.as_ref(), plan, access, &speaker)?;
        self.claim_and_begin(turn, generation, speaker, self.watch(caller)).await
    }

    /// Numbers and seals everything that the claim will write.
    fn prepare(
        &self,
        owner: Uuid,
        request: &ChatRequest,
        conversation: Option<&ConversationRow>,
        plan: Plan,
        access: Access,
        speaker: &Speaker,
    ) -> Result<(Turn, Arc<Generation>), ChatError> {
        let now = self.parts().clock.now();
        let conversation_key =
            conversation.map_or_else(|| self.parts().random.uuid(now), |conversation| conversation.key);
        let seal = |id: &str, text: &str| {
            let place = body_place(&conversation_key, id);
            speaker.data_key.seal(place, text.as_bytes(), &*self.parts().random)
        };
        let reply_id = self.parts().random.uuid(now).to_string();
        let generation = Generation::new(self.parts().random.uuid(now), reply_id.clone());
        let question = match plan {
            Plan::New(SentText { id, text, .. }) => Question::New { body: seal(&id, &text), id },
            Plan::Again { seq, failed_reply } => Question::Again { seq, failed_reply },
            Plan::Anew { seq, replaces, last_seq } => Question::Anew { seq, replaces, last_seq },
            Plan::Edited { seq, sent, dropped, last_seq } => {
                let job = self.removal_of_dropped(owner, conversation_key, generation.id)?;
                Question::Edited { seq, body: seal(&sent.id, &sent.text), dropped, last_seq, job }
            }
        };
        let begin = conversation.is_none();
        let turn = Turn {
            owner,
            conversation_id: request.conversation_id.clone(),
            conversation_key,
            begin: begin.then(|| self.beginning(&speaker.companion)),
            question,
            regenerate: match &request.action {
                Action::Regenerate(regenerate) => Some((regenerate.target(), regenerate.key.clone())),
                Action::Send(_) | Action::Edit(_) => None,
            },
            charge: Charge::at(owner, now),
            most_at_once: access.generations.unwrap_or(self.parts().settings.generations_per_user),
            access,
            generation: generation.id,
            reply_body: seal(&reply_id, ""),
            reply_id,
            instance: self.parts().instance,
            lease: time::after(now, self.parts().settings.lease),
            now,
        };
        Ok((turn, generation))
    }

    /// The companion of a conversation that was begun before.
    fn still_there(&self, conversation: &ConversationRow) -> Result<&Companion, ChatError> {
        let companion = self.parts().companions.get(&conversation.companion_id);
        companion.filter(|companion| companion.card.available).ok_or(ChatError::CompanionGone)
    }

    /// Refuses what the claim would refuse, before a place of this instance is taken for it. The claim decides.
    async fn check_room(
        &self,
        owner: Uuid,
        most_at_once: i64,
        conversation: Option<&ConversationRow>,
    ) -> Result<(), ChatError> {
        if conversation.is_some_and(|conversation| conversation.generation_id.is_some()) {
            return Err(ChatError::GenerationInProgress);
        }
        let running = self.parts().db.read(async |c| store::count_running(owner).one(&c).await).await?;
        if running >= most_at_once {
            return Err(ChatError::TooManyGenerations);
        }
        Ok(())
    }

    /// Refuses a message that fits no model beside the persona: it would fail each time that it is tried.
    fn check_length(&self, companion: &Companion, message: &SentText) -> Result<(), ChatError> {
        let tokens = prompt::estimate(&companion.prompt).saturating_add(prompt::estimate(&message.text));
        let budget = |candidate: &NamedProvider| {
            let model = candidate.provider.model();
            // What others wrote may let a longer message through, and never has one refused.
            self.ratios.of(&model.name).estimated(model.budget()).max(model.budget())
        };
        let widest = self.parts().route.iter().map(budget).max();
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
                Ok((places, quota)) => {
                    generation.charged(quota);
                    Some(places)
                }
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
            chat.begin(&turn, &places, generation, speaker);
        });
        claimed.await.unwrap_or(Err(NotClaimed::Refused(ChatError::Overloaded)))
    }

    /// Begins what was claimed.
    fn begin(&self, turn: &Turn, places: &Places, generation: Arc<Generation>, speaker: Speaker) {
        if matches!(turn.question, Question::Edited { .. }) {
            self.parts().jobs.wake();
        }
        self.supervise(Task {
            generation,
            owner: turn.owner,
            conversation: turn.conversation_key,
            data_key: speaker.data_key,
            companion: speaker.companion,
            model: speaker.model,
            charge: turn.charge,
            question_seq: places.question_seq,
            reply_seq: places.reply_seq,
            replaces: turn.question.replaces(),
            started_at: turn.now,
        });
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

    /// The reply to a message that was sent before: joined while it is made, else as it was stored.
    async fn rejoin(
        &self,
        caller: Caller,
        key: &DataKey,
        conversation: Uuid,
        made: Made,
    ) -> Result<Reply, ChatError> {
        if made.status == MessageStatus::Generating {
            let live = self.live.get(made.generation_id);
            // Made by another instance, or settled since we looked.
            let reply = live.as_ref().map(|live| Reply::live(live, self.watch(caller)));
            return reply.ok_or(ChatError::GenerationInProgress);
        }
        let text = match &made.reply {
            Some(sealed) => key.open_text(body_place(&conversation, &made.reply_id), sealed)?,
            None => String::new(),
        };
        let (owner, id) = (caller.user_id, made.generation_id);
        let ending = self.parts().db.read(async |c| store::find_ending(owner, id).one(&c).await).await?;
        let outcome = Outcome { quota: Some(self.parts().billing.quota(owner).await?), ..ending.into() };
        Ok(Reply::stored(made.generation_id, made.reply_id, text, outcome, self.watch(caller)))
    }

    /// Access, then limits, before anything is written.
    async fn check_access(&self, owner: Uuid, companion: &str) -> Result<Access, ChatError> {
        let billing = &self.parts().billing;
        let (access, quota) = billing.standing(owner).await?;
        let is_used_up = quota.used >= quota.limit;
        let wall = access.wall_before(companion).or_else(|| is_used_up.then(|| access.wall_at_the_end()));
        if let Some(wall) = wall {
            billing.ask_after_refusal(owner).await?;
            return Err(ChatError::PaymentRequired(billing.paywall(wall, quota)));
        }
        if self.parts().tasks.is_stopping() {
            return Err(ChatError::Overloaded);
        }
        Ok(access)
    }
}
