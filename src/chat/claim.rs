//! The transaction that claims a message: what it writes, and why it may refuse.

use jiff::Timestamp;
use uuid::Uuid;

use super::{
    ChatError, MessageRole, MessageStatus,
    pinning::Beginning,
    store::{self, Claimed, Places},
};
use crate::{
    billing::{Access, Billing, Charge},
    platform::{
        db::{self, Conn},
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

/// The transaction of a send. Rows are taken in the order user, conversation, message.
pub async fn claim(turn: &Turn, billing: &Billing, c: &Conn) -> Result<Places, NotClaimed> {
    let Turn { owner, conversation_id, conversation_key, generation, now, .. } = turn;
    if turn.charge.take(c, &turn.access).await?.is_none() {
        let quota = billing.quota_in(c, turn.charge).await?;
        return Err(ChatError::QuotaExhausted(billing.paywall(quota)).into());
    }
    if let Some(Beginning { companion, persona_version, model }) = &turn.begin {
        let (key, id) = (*conversation_key, conversation_id);
        store::add_conversation(key, *owner, id, companion, persona_version, model, None, *now)
            .exec(c)
            .await?;
    }
    let claimed = match &turn.question {
        Question::New { .. } => store::claim_turn(*owner, conversation_id, *generation, *now).opt(c).await?,
        Question::Again { failed_reply, .. } => {
            store::claim_retry(*owner, conversation_id, *generation, *failed_reply, *now).opt(c).await?
        }
    };
    let Some(Claimed { key, last_seq: reply_seq }) = claimed else {
        return Err(why_not(turn, c).await?);
    };
    // Only now: in a conversation that is answering already, that is what is in the way. The day's row is locked, so
    // nobody else counts at the same time.
    if store::count_running(*owner).one(c).await? >= turn.most_at_once {
        return Err(ChatError::TooManyGenerations.into());
    }
    if key != *conversation_key {
        return Err(NotClaimed::Overtaken); // Begun by another request, under another key.
    }
    let question_seq = place_question(turn, key, reply_seq, c).await?;
    let (role, status) = (MessageRole::Assistant, MessageStatus::Generating);
    store::add_message(*owner, key, reply_seq, &turn.reply_id, role, status, &turn.reply_body, *now)
        .exec(c)
        .await?;
    store::add_generation(
        *generation,
        key,
        *owner,
        question_seq,
        reply_seq,
        &turn.reply_id,
        turn.instance,
        turn.lease,
        turn.charge.day,
        *now,
    )
    .exec(c)
    .await?;
    Ok(Places { question_seq, reply_seq })
}

/// Stores a new question in front of its reply, or clears the failed reply of an old one away.
async fn place_question(turn: &Turn, key: Uuid, reply_seq: i64, c: &Conn) -> Result<i64, NotClaimed> {
    let Turn { owner, now, .. } = turn;
    match &turn.question {
        Question::New { id, body } => {
            let seq = reply_seq.saturating_sub(1);
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
        },
    })
}
