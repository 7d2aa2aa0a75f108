//! The transaction that claims a message: what it writes, and why it may refuse.

use jiff::Timestamp;
use uuid::Uuid;

use super::{
    ChatError, MessageRole, MessageStatus,
    pinning::Beginning,
    store::{self, Claimed, Places},
};
use crate::{
    billing::{Access, Billing, Charge, Quota},
    platform::{
        db::{self, Conn},
        job::NewJob,
        seal::Sealed,
    },
};

/// What is written when a message is claimed: sealed and numbered before the transaction begins.
pub struct Turn {
    /// Whose message it is.
    pub owner: Uuid,
    /// The conversation's id, as its owner knows it.
    pub conversation_id: String,
    /// The conversation's inner key.
    pub conversation_key: Uuid,
    /// What the conversation keeps, when it is begun with this message.
    pub begin: Option<Beginning>,
    /// What is answered.
    pub question: Question,
    /// What a request for another reply named, and its key.
    pub regenerate: Option<(String, Option<String>)>,
    /// What it costs.
    pub charge: Charge,
    /// What the owner may use.
    pub access: Access,
    /// The id of the reply in the making.
    pub generation: Uuid,
    /// The id of the reply as a message.
    pub reply_id: String,
    /// The reply's text, empty.
    pub reply_body: Sealed,
    /// Who makes the reply.
    pub instance: Uuid,
    /// Until when nobody else may settle it.
    pub lease: Timestamp,
    /// Replies that the owner may have made at once.
    pub most_at_once: i64,
    /// When it was sent.
    pub now: Timestamp,
}

/// The message that a reply is made for.
pub enum Question {
    /// One that was not sent before.
    New {
        /// Its id.
        id: String,
        /// Its text.
        body: Sealed,
    },
    /// One whose reply failed without a word.
    Again {
        /// Its place.
        seq: i64,
        /// The failed reply's place.
        failed_reply: i64,
    },
    /// The last one, whose reply stays until the new one has words.
    Anew {
        /// Its place.
        seq: i64,
        /// The place of the reply that is to be replaced.
        replaces: i64,
        /// The last place when we looked.
        last_seq: i64,
    },
    /// One that has another text now. What came after it is hidden at once and removed by a job: there may be more than
    /// one transaction should touch.
    Edited {
        /// Its place.
        seq: i64,
        /// Its new text.
        body: Sealed,
        /// How many messages are dropped with it.
        dropped: i64,
        /// The last place when we looked.
        last_seq: i64,
        /// The job that removes them.
        job: NewJob,
    },
}

impl Question {
    /// The place of the reply that is to be replaced.
    pub fn replaces(&self) -> Option<i64> {
        match self {
            Question::Anew { replaces, .. } => Some(*replaces),
            Question::New { .. } | Question::Again { .. } | Question::Edited { .. } => None,
        }
    }
}

/// Why a claim was not made.
pub enum NotClaimed {
    /// For a reason that the caller is told.
    Refused(ChatError),
    /// Somebody else wrote in between; look again.
    Overtaken,
}

impl From<db::Error> for NotClaimed {
    fn from(error: db::Error) -> Self {
        NotClaimed::Refused(error.into())
    }
}

impl From<ChatError> for NotClaimed {
    fn from(error: ChatError) -> Self {
        NotClaimed::Refused(error)
    }
}

/// The transaction of a send; says also what the day has left after it. Rows are taken in everybody's order: user (the day's
/// count), conversation, message; the new generation's row comes last, and nobody can hold it yet.
pub async fn claim(turn: &Turn, billing: &Billing, c: &Conn) -> Result<(Places, Quota), NotClaimed> {
    let Turn { owner, conversation_id, conversation_key, now, .. } = turn;
    let Some(used) = turn.charge.take(c, &turn.access).await? else {
        let quota = billing.quota_in(c, turn.charge).await?;
        let wall = turn.access.wall_at_the_end();
        return Err(ChatError::PaymentRequired(billing.paywall(wall, quota)).into());
    };
    if let Some(Beginning { companion, persona_version, model }) = &turn.begin {
        let (key, id) = (*conversation_key, conversation_id);
        store::add_conversation(key, *owner, id, companion, persona_version, model, None, *now)
            .exec(c)
            .await?;
    }
    let Some(Claimed { key, last_seq: reply_seq }) = take_places(turn, c).await? else {
        return Err(why_not(turn, c).await?);
    };
    // Only now: in a conversation that is answering already, that is what is in the way. The day's row is locked, so
    // nobody else counts at the same time; but at midnight two days have a row each, and one reply more may be made.
    if store::count_running(*owner).one(c).await? >= turn.most_at_once {
        return Err(ChatError::TooManyGenerations.into());
    }
    if key != *conversation_key {
        return Err(NotClaimed::Overtaken); // Begun by another request, under another key.
    }
    if let Some((_, Some(idempotency_key))) = &turn.regenerate {
        store::free_key(*owner, idempotency_key).exec(c).await?;
    }
    let question_seq = place_question(turn, key, reply_seq, c).await?;
    let (role, status) = (MessageRole::Assistant, MessageStatus::Generating);
    store::add_message(*owner, key, reply_seq, &turn.reply_id, role, status, &turn.reply_body, *now)
        .exec(c)
        .await?;
    add_generation(turn, key, question_seq, reply_seq, c).await?;
    Ok((Places { question_seq, reply_seq }, billing.quota_after(turn.charge, used, &turn.access)))
}

/// Takes the places that the message needs. None are given where something stands in the way, or has come in between.
async fn take_places(turn: &Turn, c: &Conn) -> db::Result<Option<Claimed>> {
    let Turn { owner, conversation_id, generation, now, .. } = turn;
    let (last_seq, gone) = match &turn.question {
        Question::New { .. } => {
            return store::claim_turn(*owner, conversation_id, *generation, *now).opt(c).await;
        }
        Question::Again { failed_reply, .. } => (*failed_reply, 1), // Nothing came after it.
        Question::Anew { last_seq, .. } => (*last_seq, 0),
        Question::Edited { last_seq, dropped, .. } => (*last_seq, *dropped),
    };
    store::claim_reply(*owner, conversation_id, *generation, last_seq, gone, *now).opt(c).await
}

async fn add_generation(
    turn: &Turn,
    key: Uuid,
    question_seq: i64,
    reply_seq: i64,
    c: &Conn,
) -> Result<(), NotClaimed> {
    let (target, idempotency_key) = match &turn.regenerate {
        Some((target, idempotency_key)) => (Some(target.as_str()), idempotency_key.as_deref()),
        None => (None, None),
    };
    let added = store::add_generation(
        turn.generation,
        key,
        turn.owner,
        question_seq,
        reply_seq,
        &turn.reply_id,
        turn.instance,
        turn.lease,
        turn.charge.day,
        turn.now,
        turn.question.replaces(),
        matches!(turn.question, Question::Edited { .. }),
        target,
        idempotency_key,
    );
    // The key was taken in between, for another conversation.
    if added.exec(c).await? > 0 { Ok(()) } else { Err(NotClaimed::Overtaken) }
}

/// Stores a new question in front of its reply, clears the failed reply of an old one away, or gives an old one its new
/// text.
async fn place_question(turn: &Turn, key: Uuid, reply_seq: i64, c: &Conn) -> Result<i64, NotClaimed> {
    let Turn { owner, now, .. } = turn;
    match &turn.question {
        Question::New { id, body } => {
            let seq = reply_seq.saturating_sub(1);
            store::forget_dropped(*owner, key, id).exec(c).await?;
            let (role, status) = (MessageRole::User, MessageStatus::Complete);
            if store::add_message(*owner, key, seq, id, role, status, body, *now).exec(c).await? > 0 {
                return Ok(seq);
            }
            // Sent by another request in between; or it is the id of a reply.
            let sent_before = store::find_claim(*owner, key, id).opt(c).await?.is_some();
            Err(if sent_before { NotClaimed::Overtaken } else { ChatError::IdempotencyMismatch.into() })
        }
        Question::Again { seq, failed_reply } => {
            store::remove_failed_reply(*owner, key, *failed_reply).exec(c).await?;
            Ok(*seq)
        }
        Question::Anew { seq, .. } => Ok(*seq),
        Question::Edited { seq, body, job, .. } => {
            if store::edit_question(*owner, key, *seq, body).exec(c).await? == 0 {
                return Err(NotClaimed::Overtaken);
            }
            job.store(c).await?;
            Ok(*seq)
        }
    }
}

/// Why a conversation did not let the message in.
async fn why_not(turn: &Turn, c: &Conn) -> Result<NotClaimed, NotClaimed> {
    let row = store::find_conversation(turn.owner, &turn.conversation_id).opt(c).await?;
    Ok(match row {
        None => NotClaimed::Overtaken,
        Some(row) if row.deleted_at.is_some() => ChatError::NotFound.into(),
        Some(row) if row.generation_id.is_some() => ChatError::GenerationInProgress.into(),
        Some(row) => match turn.question {
            // Tried again by another request in between, and ended already.
            Question::Again { seq, failed_reply }
                if store::newest_reply(turn.owner, row.key, seq).opt(c).await? != Some(failed_reply) =>
            {
                NotClaimed::Overtaken
            }
            Question::Again { .. } | Question::New { .. } => ChatError::Superseded.into(),
            // Another one was faster, and has ended already.
            Question::Anew { .. } | Question::Edited { .. } => NotClaimed::Overtaken,
        },
    })
}
