//! What the database says about a request: its reply is there or being made, or this is what has to be answered. The three
//! actions come to one claim.

use uuid::Uuid;

use super::{
    Chat, ChatError, MessageStatus,
    message::{Action, ChatRequest, Regenerate, SentText},
    service::body_place,
    store::{self, ClaimRow, ConversationRow, KeyRow, TurnRow},
};
use crate::platform::{
    db,
    seal::{DataKey, Sealed},
};

/// What was found.
pub enum Found {
    /// The reply was begun before, in the conversation with this key.
    Reply(Uuid, Box<Made>),
    /// There is something to answer.
    ToAnswer(Box<ToAnswer>),
}

/// What has to be answered, and where.
pub struct ToAnswer {
    /// The conversation; `None` if it is to be begun.
    pub conversation: Option<ConversationRow>,
    /// What has to be answered.
    pub plan: Plan,
}

/// A reply that was begun before.
pub struct Made {
    /// The generation's id.
    pub generation_id: Uuid,
    /// The reply's id as a message.
    pub reply_id: String,
    /// How it stands.
    pub status: MessageStatus,
    /// Its text; `None` if it was stopped without a word and the one before it has stayed.
    pub reply: Option<Sealed>,
}

/// What has to be answered; see [`super::claim::Question`].
pub enum Plan {
    /// A message that was not sent before.
    New(SentText),
    /// One whose reply failed without a word.
    Again {
        /// Its place.
        seq: i64,
        /// The failed reply's place.
        failed_reply: i64,
    },
    /// The last one, another time.
    Anew {
        /// Its place.
        seq: i64,
        /// The place of its reply.
        replaces: i64,
        /// The last place that was taken.
        last_seq: i64,
    },
    /// One that has another text now.
    Edited {
        /// Its place.
        seq: i64,
        /// What it says now.
        sent: SentText,
        /// How many messages came after it.
        dropped: i64,
        /// The last place that was taken.
        last_seq: i64,
    },
}

/// The reply that a request for another one meant when we first looked. If a newer one is there at a later look, somebody
/// asked for the same at the same moment, and that one is the answer.
#[derive(Clone, Copy)]
pub struct Meant {
    question_seq: i64,
    reply_seq: i64,
}

impl Chat {
    /// Looks for what a request is about.
    ///
    /// Several statements, each with a snapshot of its own: what is planned on them holds only if nothing was said since
    /// the conversation's row was read, which is the first of them. The claim sees to that.
    pub(super) async fn look_up(
        &self,
        owner: Uuid,
        key: &DataKey,
        request: &ChatRequest,
        meant: &mut Option<Meant>,
    ) -> Result<Found, ChatError> {
        let id = &request.conversation_id;
        let row = self.parts().db.read(async |c| store::find_conversation(owner, id).opt(&c).await).await?;
        if row.as_ref().is_some_and(|row| row.deleted_at.is_some()) {
            return Err(ChatError::NotFound);
        }
        let (sent, edits) = match &request.action {
            Action::Regenerate(regenerate) => {
                return self.look_for_reply(owner, key, row, regenerate, meant).await;
            }
            Action::Send(sent) => (sent, false),
            Action::Edit(sent) => (sent, true),
        };
        let Some(row) = row else { return Ok(to_answer(None, Plan::New(sent.clone()))) };
        let Some(claim) = self.sent_before(owner, row.key, sent).await? else {
            return Ok(to_answer(Some(row), Plan::New(sent.clone())));
        };
        if is_same(key, row.key, sent, &claim)? {
            return Ok(sent_again(row, claim));
        }
        if !edits {
            return Err(ChatError::IdempotencyMismatch);
        }
        let (seq, conversation, last_seq) = (claim.question_seq, row.key, row.last_seq);
        let count = async |c| store::count_after(owner, conversation, seq).one(&c).await;
        let dropped = self.parts().db.read(count).await?;
        Ok(to_answer(Some(row), Plan::Edited { seq, sent: sent.clone(), dropped, last_seq }))
    }

    /// A message that was sent before, with the newest reply to it.
    async fn sent_before(
        &self,
        owner: Uuid,
        conversation: Uuid,
        sent: &SentText,
    ) -> Result<Option<ClaimRow>, db::Error> {
        let find = async |c| store::find_claim(owner, conversation, &sent.id).opt(&c).await;
        self.parts().db.read(find).await
    }

    async fn look_for_reply(
        &self,
        owner: Uuid,
        key: &DataKey,
        row: Option<ConversationRow>,
        asked: &Regenerate,
        meant: &mut Option<Meant>,
    ) -> Result<Found, ChatError> {
        let begun = self.begun_under(owner, asked, row.as_ref()).await?;
        let Some(row) = row else { return new_after_all(None, asked).ok_or(ChatError::NotFound) };
        let conversation = row.key;
        let last =
            self.parts().db.read(async |c| store::last_turn(owner, conversation).opt(&c).await).await?;
        let question = match &asked.question {
            Some(sent) => Some(self.known_question(owner, key, conversation, sent).await?),
            None => None,
        };
        if let Some(begun) = begun
            && let Some(made) = begun.outcome(last.as_ref())?
        {
            return Ok(Found::Reply(conversation, Box::new(made)));
        }
        let Some(last) = last else { return new_after_all(Some(row), asked).ok_or(ChatError::NotLastReply) };
        if let Some(None) = question {
            return new_after_all(Some(row), asked).ok_or_else(|| last.refusal());
        }
        let (seq, reply_seq) = (last.question_seq, last.reply_seq);
        // Being made, or it was when this look began, or it was begun and has ended since.
        let is_new = last.status == MessageStatus::Generating
            || row.generation_id == Some(last.generation_id)
            || row.last_seq < reply_seq
            || meant.is_some_and(|meant| meant.reply_seq < reply_seq);
        if question.flatten().is_some_and(|question| question != seq)
            || !self.is_meant(owner, conversation, &last, is_new, asked, *meant).await?
        {
            return Err(last.refusal());
        }
        let plan = match last.status {
            MessageStatus::Failed => Plan::Again { seq, failed_reply: reply_seq },
            _ if is_new => return Ok(Found::Reply(conversation, Box::new(last.into()))),
            _ => Plan::Anew { seq, replaces: reply_seq, last_seq: row.last_seq },
        };
        *meant = Some(Meant { question_seq: seq, reply_seq });
        Ok(to_answer(Some(row), plan))
    }

    /// What was begun under the request's key.
    async fn begun_under(
        &self,
        owner: Uuid,
        asked: &Regenerate,
        row: Option<&ConversationRow>,
    ) -> Result<Option<KeyRow>, ChatError> {
        let Some(key) = &asked.key else { return Ok(None) };
        let begun = self.parts().db.read(async |c| store::find_key(owner, key).opt(&c).await).await?;
        let is_the_same = |begun: &KeyRow| {
            row.is_some_and(|row| row.key == begun.conversation_key)
                && begun.regenerate_of.as_deref() == Some(&asked.target())
        };
        if begun.as_ref().is_some_and(|begun| !is_the_same(begun)) {
            return Err(ChatError::KeyReused);
        }
        Ok(begun)
    }

    /// The place of a message that has to have the same text, if it was sent before.
    async fn known_question(
        &self,
        owner: Uuid,
        key: &DataKey,
        conversation: Uuid,
        sent: &SentText,
    ) -> Result<Option<i64>, ChatError> {
        match self.sent_before(owner, conversation, sent).await? {
            Some(claim) if is_same(key, conversation, sent, &claim)? => Ok(Some(claim.question_seq)),
            Some(_) => Err(ChatError::IdempotencyMismatch),
            None => Ok(None),
        }
    }

    /// Whether the last reply is the one that a request means.
    async fn is_meant(
        &self,
        owner: Uuid,
        conversation: Uuid,
        last: &TurnRow,
        is_new: bool,
        asked: &Regenerate,
        meant: Option<Meant>,
    ) -> Result<bool, ChatError> {
        if let Some(meant) = meant {
            return Ok(meant.question_seq == last.question_seq && meant.reply_seq <= last.reply_seq);
        }
        let Some(named) = &asked.named else {
            // Whoever names nothing does not mean the reply to a message that somebody has just sent.
            return Ok(!is_new || asked.question.is_some() || last.regenerate_of.is_some());
        };
        if *named == last.question_id || *named == last.reply_id {
            return Ok(true);
        }
        let question = last.question_seq;
        let place = async |c| store::reply_place(owner, conversation, question, named).opt(&c).await;
        let place: Option<i64> = self.parts().db.read(place).await?;
        // Those after it came to nothing; clients know their ids. A new one is the answer to all of them.
        Ok(place.is_some_and(|place| is_new || place > last.reply_seq))
    }
}

impl TurnRow {
    /// Why another reply is not to be had in its place.
    fn refusal(&self) -> ChatError {
        match self.status {
            MessageStatus::Generating => ChatError::GenerationInProgress,
            _ => ChatError::NotLastReply,
        }
    }
}

impl KeyRow {
    /// The reply, being made or stored; `None` if it failed without a word and may be tried again.
    fn outcome(self, last: Option<&TurnRow>) -> Result<Option<Made>, ChatError> {
        let is_last = last.is_some_and(|last| last.reply_seq <= self.reply_seq);
        match self.status {
            MessageStatus::Failed if is_last => return Ok(None),
            // Without a word, and the one that it was to replace has stayed.
            MessageStatus::Stopped if is_last => {}
            _ if self.reply.is_some() => {}
            _ => return Err(ChatError::NotLastReply), // Replaced or dropped since.
        }
        let KeyRow { generation_id, reply_id, status, reply, .. } = self;
        Ok(Some(Made { generation_id, reply_id, status, reply }))
    }
}

impl From<TurnRow> for Made {
    fn from(row: TurnRow) -> Self {
        let TurnRow { generation_id, reply_id, status, reply, .. } = row;
        Made { generation_id, reply_id, status, reply: Some(reply) }
    }
}

fn to_answer(conversation: Option<ConversationRow>, plan: Plan) -> Found {
    Found::ToAnswer(Box::new(ToAnswer { conversation, plan }))
}

/// A message that never arrived, whose reply is asked for again: clients retry so. It is simply sent.
fn new_after_all(row: Option<ConversationRow>, asked: &Regenerate) -> Option<Found> {
    let question = asked.question.as_ref()?;
    let names_a_reply = asked.named.as_ref().is_some_and(|named| *named != question.id);
    (!names_a_reply).then(|| to_answer(row, Plan::New(question.clone())))
}

/// The reply to a message that is sent again, or another try if it failed without a word.
fn sent_again(row: ConversationRow, claim: ClaimRow) -> Found {
    let ClaimRow { question_seq: seq, generation_id, reply_id, reply_seq, status, reply, .. } = claim;
    if status == MessageStatus::Failed {
        return to_answer(Some(row), Plan::Again { seq, failed_reply: reply_seq });
    }
    Found::Reply(row.key, Box::new(Made { generation_id, reply_id, status, reply: Some(reply) }))
}

/// Whether a message has the text that was stored under its id.
fn is_same(key: &DataKey, conversation: Uuid, sent: &SentText, claim: &ClaimRow) -> Result<bool, ChatError> {
    Ok(key.open_text(body_place(&conversation, &sent.id), &claim.question)? == sent.text)
}
