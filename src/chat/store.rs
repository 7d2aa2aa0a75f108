//! The queries of the chat. Each names the owner; rows of a conversation are reached through its owner's row. Only the two
//! that look for abandoned replies, and those of the personas, belong to nobody; `tests/api/layering.rs` has the list.
//!
//! Every transaction takes rows in the order user (the day's count), conversation, generation, message.

use jiff::Timestamp;
use uuid::Uuid;

use super::{Failure, MessageRole, MessageStatus, provider::FinishReason};
use crate::{platform::seal::Sealed, queries, record};

queries! {
    fn find_conversation(owner: Uuid, id: str) -> ConversationRow =
        "SELECT key, id, companion_id, persona_version, model, title, last_seq, message_count, generation_id, created_at, updated_at,
                deleted_at
           FROM conversation WHERE owner_id = $1 AND id = $2";

    fn conversations(owner: Uuid, before: i64, before_key: Uuid, limit: i64) -> ConversationRow =
        "SELECT key, id, companion_id, persona_version, model, title, last_seq, message_count, generation_id, created_at, updated_at,
                deleted_at
           FROM conversation
          WHERE owner_id = $1 AND deleted_at IS NULL AND (updated_at, key) < ($2, $3)
          ORDER BY updated_at DESC, key DESC LIMIT $4";

    /// Begins a conversation, unless its owner has used the id.
    fn add_conversation(
        key: Uuid, owner: Uuid, id: str, companion_id: str, persona_version: str, model: str, title: Option<Sealed>,
        now: Timestamp,
    ) =
        "INSERT INTO conversation (key, owner_id, id, companion_id, persona_version, model, title, last_seq,
                                   message_count, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 0, $8, $8)
         ON CONFLICT (owner_id, id) DO NOTHING";

    fn retitle(owner: Uuid, id: str, title: Option<Sealed>) =
        "UPDATE conversation SET title = $3 WHERE owner_id = $1 AND id = $2 AND deleted_at IS NULL";

    /// Empties a conversation; its row stays, so that the id stays taken. The messages go by a job.
    fn delete_conversation(owner: Uuid, id: str, now: Timestamp) =
        "UPDATE conversation SET deleted_at = $3, title = NULL, message_count = 0, generation_id = NULL
          WHERE owner_id = $1 AND id = $2 AND deleted_at IS NULL";

    fn purge_messages(owner: Uuid, conversation: Uuid, limit: i64) =
        "DELETE FROM message
          WHERE conversation_key = $2
            AND seq IN (SELECT seq FROM message WHERE conversation_key = $2 ORDER BY seq LIMIT $3)
            AND EXISTS (SELECT 1 FROM conversation WHERE key = $2 AND owner_id = $1)";

    /// Takes two places, for a question and its reply. No row: not the owner's, deleted, or a reply is being made.
    fn claim_turn(owner: Uuid, id: str, generation: Uuid, now: Timestamp) -> Claimed =
        "UPDATE conversation
            SET generation_id = $3, last_seq = last_seq + 2, message_count = message_count + 1, updated_at = $4
          WHERE owner_id = $1 AND id = $2 AND deleted_at IS NULL AND generation_id IS NULL
         RETURNING key, last_seq";

    /// Takes one place for another reply to a message that is there; `gone` messages go with it. No row: as above, or
    /// something was said since `last_seq` was read.
    fn claim_reply(owner: Uuid, id: str, generation: Uuid, last_seq: i64, gone: i64, now: Timestamp) -> Claimed =
        "UPDATE conversation
            SET generation_id = $3, last_seq = last_seq + 1, message_count = message_count - $5, updated_at = $6
          WHERE owner_id = $1 AND id = $2 AND deleted_at IS NULL AND generation_id IS NULL AND last_seq = $4
         RETURNING key, last_seq";

    fn edit_question(owner: Uuid, conversation: Uuid, seq: i64, body: Sealed) =
        "UPDATE message SET body = $4
          WHERE conversation_key = $2 AND seq = $3 AND role = 'user'
            AND EXISTS (SELECT 1 FROM conversation WHERE key = $2 AND owner_id = $1)";

    fn remove_failed_reply(owner: Uuid, conversation: Uuid, seq: i64) =
        "DELETE FROM message
          WHERE conversation_key = $2 AND seq = $3 AND status = 'failed'
            AND EXISTS (SELECT 1 FROM conversation WHERE key = $2 AND owner_id = $1)";

    /// A message that an edit has dropped is forgotten, whether or not the job has removed it: its id is free.
    fn forget_dropped(owner: Uuid, conversation: Uuid, id: str) =
        "DELETE FROM message
          WHERE conversation_key = $2 AND id = $3
            AND EXISTS (SELECT 1 FROM conversation WHERE key = $2 AND owner_id = $1)
            AND EXISTS (SELECT 1 FROM generation d
                         WHERE d.conversation_key = $2 AND d.drops
                           AND message.seq > d.question_seq AND message.seq < d.reply_seq)";

    /// Removes messages that an edit has dropped.
    fn remove_dropped(owner: Uuid, conversation: Uuid, generation: Uuid, limit: i64) =
        "DELETE FROM message
          WHERE conversation_key = $2
            AND seq IN (SELECT m.seq
                          FROM generation d
                          JOIN message m ON m.conversation_key = d.conversation_key
                                        AND m.seq > d.question_seq AND m.seq < d.reply_seq
                         WHERE d.owner_id = $1 AND d.id = $3 AND d.conversation_key = $2 AND d.drops
                         ORDER BY m.seq LIMIT $4)";

    /// All that an edit has dropped is removed.
    fn dropped_all(owner: Uuid, generation: Uuid) =
        "UPDATE generation SET drops = FALSE WHERE owner_id = $1 AND id = $2";

    /// Messages after a place, as their owner sees them.
    fn count_after(owner: Uuid, conversation: Uuid, seq: i64) -> i64 =
        "SELECT COUNT(*)
           FROM conversation c JOIN message m ON m.conversation_key = c.key
          WHERE c.owner_id = $1 AND c.key = $2 AND m.seq > $3 AND m.status <> 'generating'
            AND NOT EXISTS (SELECT 1 FROM generation d
                             WHERE d.conversation_key = m.conversation_key AND d.drops
                               AND m.seq > d.question_seq AND m.seq < d.reply_seq)";

    /// No row is added when the conversation has a message with this id.
    fn add_message(
        owner: Uuid, conversation: Uuid, seq: i64, id: str, role: MessageRole, status: MessageStatus, body: Sealed,
        now: Timestamp,
    ) =
        "INSERT INTO message (conversation_key, seq, id, role, status, body, created_at)
         SELECT key, $3, $4, $5, $6, $7, $8 FROM conversation WHERE owner_id = $1 AND key = $2
         ON CONFLICT (conversation_key, id) DO NOTHING";

    /// A message that was sent before, with the newest reply to it, which is one step of the index away. But a try for another
    /// reply that came to nothing has left no message: each of those is one step more.
    fn find_claim(owner: Uuid, conversation: Uuid, message_id: str) -> ClaimRow =
        "SELECT q.seq AS question_seq, q.body AS question, g.id AS generation_id, g.reply_id, g.reply_seq, g.status,
                r.body AS reply
           FROM conversation c
           JOIN message q ON q.conversation_key = c.key
           JOIN generation g ON g.conversation_key = c.key AND g.question_seq = q.seq
           JOIN message r ON r.conversation_key = c.key AND r.seq = g.reply_seq
          WHERE c.owner_id = $1 AND c.key = $2 AND q.id = $3
            AND NOT EXISTS (SELECT 1 FROM generation d
                             WHERE d.conversation_key = q.conversation_key AND d.drops
                               AND q.seq > d.question_seq AND q.seq < d.reply_seq)
          ORDER BY g.reply_seq DESC LIMIT 1";

    /// The last reply, made or being made, and what it answers. The newest row of a conversation is always a reply's, and
    /// never one that was dropped.
    fn last_turn(owner: Uuid, conversation: Uuid) -> TurnRow =
        "SELECT q.seq AS question_seq, q.id AS question_id, g.id AS generation_id, g.reply_id, g.reply_seq, g.status,
                g.regenerate_of, r.body AS reply
           FROM conversation c
           JOIN message r ON r.conversation_key = c.key
           JOIN generation g ON g.conversation_key = c.key AND g.reply_seq = r.seq
           JOIN message q ON q.conversation_key = c.key AND q.seq = g.question_seq
          WHERE c.owner_id = $1 AND c.key = $2
            AND r.seq = (SELECT MAX(m.seq) FROM message m WHERE m.conversation_key = $2)";

    /// The place of one of the replies to a message, whatever became of it.
    fn reply_place(owner: Uuid, conversation: Uuid, question_seq: i64, reply_id: str) -> i64 =
        "SELECT reply_seq FROM generation
          WHERE owner_id = $1 AND conversation_key = $2 AND question_seq = $3 AND reply_id = $4";

    /// What was begun under a key, with its text if that still stands.
    fn find_key(owner: Uuid, idempotency_key: str) -> KeyRow =
        "SELECT g.conversation_key, g.regenerate_of, g.id AS generation_id, g.reply_id, g.reply_seq, g.status,
                r.body AS reply
           FROM generation g
           LEFT JOIN message r ON r.conversation_key = g.conversation_key AND r.seq = g.reply_seq
                AND NOT EXISTS (SELECT 1 FROM generation d
                                 WHERE d.conversation_key = g.conversation_key AND d.drops
                                   AND g.reply_seq > d.question_seq AND g.reply_seq < d.reply_seq)
          WHERE g.owner_id = $1 AND g.idempotency_key = $2";

    /// A key under which nothing was delivered may be used again.
    fn free_key(owner: Uuid, idempotency_key: str) =
        "UPDATE generation SET idempotency_key = NULL
          WHERE owner_id = $1 AND idempotency_key = $2 AND status = 'failed'";

    fn newest_reply(owner: Uuid, conversation: Uuid, question_seq: i64) -> i64 =
        "SELECT reply_seq FROM generation
          WHERE owner_id = $1 AND conversation_key = $2 AND question_seq = $3
          ORDER BY reply_seq DESC LIMIT 1";

    /// Where a reply is being made.
    fn find_places(owner: Uuid, id: Uuid) -> Places =
        "SELECT question_seq, reply_seq FROM generation WHERE owner_id = $1 AND id = $2 AND status = 'generating'";

    /// How a reply ended.
    fn find_ending(owner: Uuid, id: Uuid) -> EndingRow =
        "SELECT status, finish_reason, failure, model, input_tokens, output_tokens, tokens_estimated, started_at,
                ended_at
           FROM generation WHERE owner_id = $1 AND id = $2";

    /// Messages before a place, newest first.
    fn messages(owner: Uuid, conversation: Uuid, before_seq: i64, limit: i64) -> MessageRow =
        "SELECT m.seq, m.id, m.role, m.status, m.body, m.model, m.created_at
           FROM conversation c JOIN message m ON m.conversation_key = c.key
          WHERE c.owner_id = $1 AND c.key = $2 AND m.seq < $3 AND m.status <> 'generating'
            AND NOT EXISTS (SELECT 1 FROM generation d
                             WHERE d.conversation_key = m.conversation_key AND d.drops
                               AND m.seq > d.question_seq AND m.seq < d.reply_seq)
          ORDER BY m.seq DESC LIMIT $4";

    fn count_running(owner: Uuid) -> i64 =
        "SELECT COUNT(*) FROM generation WHERE owner_id = $1 AND status = 'generating'";

    /// No row is added when its key is taken.
    fn add_generation(
        id: Uuid, conversation: Uuid, owner: Uuid, question_seq: i64, reply_seq: i64, reply_id: str, instance: Uuid,
        lease: Timestamp, quota_day: i64, now: Timestamp, replaces: Option<i64>, drops: bool,
        regenerate_of: Option<String>, idempotency_key: Option<String>,
    ) =
        "INSERT INTO generation (id, conversation_key, owner_id, question_seq, reply_seq, reply_id, instance, lease,
                                 partial, stop_requested, status, quota_day, quota_returned, input_tokens,
                                 output_tokens, tokens_estimated, started_at, replaces, drops, regenerate_of,
                                 idempotency_key)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, FALSE, FALSE, 'generating', $9, FALSE, 0, 0, TRUE, $10, $11, $12, $13,
                 $14)
         ON CONFLICT (owner_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING";

    /// Prolongs a lease and says whether a stop was asked for. No row: the reply was settled by another instance.
    fn renew_lease(
        owner: Uuid, id: Uuid, instance: Uuid, lease: Timestamp, partial: bool, input_tokens: i64,
        output_tokens: i64,
    ) -> bool =
        "UPDATE generation SET lease = $4, partial = (partial OR $5), input_tokens = $6, output_tokens = $7
          WHERE owner_id = $1 AND id = $2 AND instance = $3 AND status = 'generating'
         RETURNING stop_requested";

    fn store_partial(owner: Uuid, conversation: Uuid, seq: i64, body: Sealed) =
        "UPDATE message SET body = $4
          WHERE conversation_key = $2 AND seq = $3 AND status = 'generating'
            AND EXISTS (SELECT 1 FROM conversation WHERE key = $2 AND owner_id = $1)";

    /// Ends a reply that this instance was making. No row: another instance has ended it.
    fn settle(
        owner: Uuid, id: Uuid, instance: Uuid, status: MessageStatus, finish_reason: Option<FinishReason>,
        failure: Option<Failure>, provider: Option<String>, model: Option<String>, input_tokens: i64,
        output_tokens: i64, tokens_estimated: bool, quota_returned: bool, now: Timestamp,
    ) =
        "UPDATE generation
            SET status = $4, finish_reason = $5, failure = $6, provider = $7, model = $8, input_tokens = $9,
                output_tokens = $10, tokens_estimated = $11, quota_returned = $12, ended_at = $13
          WHERE owner_id = $1 AND id = $2 AND instance = $3 AND status = 'generating'";

    fn settle_message(
        owner: Uuid, conversation: Uuid, seq: i64, status: MessageStatus, body: Sealed, model: Option<String>,
    ) =
        "UPDATE message SET status = $4, body = $5, model = $6
          WHERE conversation_key = $2 AND seq = $3 AND status = 'generating'
            AND EXISTS (SELECT 1 FROM conversation WHERE key = $2 AND owner_id = $1)";

    /// Removes the reply that another one has taken the place of, or the one that has come to nothing in its stead.
    fn remove_reply(owner: Uuid, conversation: Uuid, seq: i64) =
        "DELETE FROM message
          WHERE conversation_key = $2 AND seq = $3 AND role = 'assistant'
            AND EXISTS (SELECT 1 FROM conversation WHERE key = $2 AND owner_id = $1)";

    /// Lets the next message in, when there are `more` messages than before. No row: the conversation was deleted
    /// meanwhile, or another instance has settled the reply.
    fn release_conversation(owner: Uuid, conversation: Uuid, generation: Uuid, more: i64, now: Timestamp) =
        "UPDATE conversation SET generation_id = NULL, message_count = message_count + $4, updated_at = $5
          WHERE owner_id = $1 AND key = $2 AND generation_id = $3";

    /// Replies that nobody works on any more.
    fn abandoned(now: Timestamp) -> AbandonedRow =
        "SELECT id, owner_id, conversation_key, reply_seq, replaces, quota_day, partial
           FROM generation WHERE status = 'generating' AND lease < $1 ORDER BY lease LIMIT 100";

    /// Replies that this instance worked on before it was restarted.
    scan fn abandoned_by(instance: Uuid) -> AbandonedRow =
        "SELECT id, owner_id, conversation_key, reply_seq, replaces, quota_day, partial
           FROM generation WHERE status = 'generating' AND instance = $1 LIMIT 100";

    /// Ends an abandoned reply. Its own instance may do so at once, others after its lease.
    fn settle_abandoned(
        owner: Uuid, id: Uuid, status: MessageStatus, failure: Failure, quota_returned: bool, instance: Uuid,
        now: Timestamp,
    ) =
        "UPDATE generation SET status = $3, failure = $4, quota_returned = $5, ended_at = $7
          WHERE owner_id = $1 AND id = $2 AND status = 'generating' AND (instance = $6 OR lease < $7)";

    fn settle_abandoned_message(owner: Uuid, conversation: Uuid, seq: i64, status: MessageStatus) =
        "UPDATE message SET status = $4
          WHERE conversation_key = $2 AND seq = $3 AND status = 'generating'
            AND EXISTS (SELECT 1 FROM conversation WHERE key = $2 AND owner_id = $1)";

    /// Asks whichever instance makes the reply to stop.
    fn request_stop(owner: Uuid, id: Uuid) =
        "UPDATE generation SET stop_requested = TRUE WHERE owner_id = $1 AND id = $2 AND status = 'generating'";

    /// The same for every reply that is being made in a conversation, with their ids.
    fn request_stops(owner: Uuid, conversation: Uuid) -> Uuid =
        "UPDATE generation SET stop_requested = TRUE
          WHERE owner_id = $1 AND conversation_key = $2 AND status = 'generating'
         RETURNING id";

    /// Keeps a persona. No row is added when the version is there already; none is ever changed.
    fn add_persona(companion_id: str, version: str, body: Sealed, now: Timestamp) =
        "INSERT INTO persona (companion_id, version, body, created_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (companion_id, version) DO NOTHING";

    fn find_persona(companion_id: str, version: str) -> PersonaRow =
        "SELECT body FROM persona WHERE companion_id = $1 AND version = $2";
}

record! {
    /// A conversation's row.
    #[derive(Clone)]
    pub struct ConversationRow {
        pub(super) key: Uuid,
        pub(super) id: String,
        pub(super) companion_id: String,
        pub(super) persona_version: Option<String>,
        pub(super) model: String,
        pub(super) title: Option<Sealed>,
        pub(super) last_seq: i64,
        pub(super) message_count: i64,
        pub(super) generation_id: Option<Uuid>,
        pub(super) created_at: Timestamp,
        pub(super) updated_at: Timestamp,
        pub(super) deleted_at: Option<Timestamp>,
    }
}

record! {
    /// A version of a companion's persona.
    pub struct PersonaRow {
        pub(super) body: Sealed,
    }
}

record! {
    /// The places of a question and of the reply that is being made to it.
    pub struct Places {
        pub(super) question_seq: i64,
        pub(super) reply_seq: i64,
    }
}

record! {
    /// Places in a conversation that were taken.
    pub struct Claimed {
        pub(super) key: Uuid,
        pub(super) last_seq: i64,
    }
}

record! {
    /// A message that was sent before, with the newest reply to it.
    pub struct ClaimRow {
        pub(super) question_seq: i64,
        pub(super) question: Sealed,
        pub(super) generation_id: Uuid,
        pub(super) reply_id: String,
        pub(super) reply_seq: i64,
        pub(super) status: MessageStatus,
        pub(super) reply: Sealed,
    }
}

record! {
    /// The last reply, and what it answers.
    pub struct TurnRow {
        pub(super) question_seq: i64,
        pub(super) question_id: String,
        pub(super) generation_id: Uuid,
        pub(super) reply_id: String,
        pub(super) reply_seq: i64,
        pub(super) status: MessageStatus,
        pub(super) regenerate_of: Option<String>,
        pub(super) reply: Sealed,
    }
}

record! {
    /// What was begun under a key.
    pub struct KeyRow {
        pub(super) conversation_key: Uuid,
        pub(super) regenerate_of: Option<String>,
        pub(super) generation_id: Uuid,
        pub(super) reply_id: String,
        pub(super) reply_seq: i64,
        pub(super) status: MessageStatus,
        pub(super) reply: Option<Sealed>,
    }
}

record! {
    /// How a reply ended.
    pub struct EndingRow {
        pub(super) status: MessageStatus,
        pub(super) finish_reason: Option<FinishReason>,
        pub(super) failure: Option<Failure>,
        pub(super) model: Option<String>,
        pub(super) input_tokens: i64,
        pub(super) output_tokens: i64,
        pub(super) tokens_estimated: bool,
        pub(super) started_at: Timestamp,
        pub(super) ended_at: Option<Timestamp>,
    }
}

record! {
    /// A message's row.
    pub struct MessageRow {
        pub(super) seq: i64,
        pub(super) id: String,
        pub(super) role: MessageRole,
        pub(super) status: MessageStatus,
        pub(super) body: Sealed,
        pub(super) model: Option<String>,
        pub(super) created_at: Timestamp,
    }
}

record! {
    /// A reply that nobody works on any more.
    #[derive(Clone)]
    pub struct AbandonedRow {
        pub(super) id: Uuid,
        pub(super) owner_id: Uuid,
        pub(super) conversation_key: Uuid,
        pub(super) reply_seq: i64,
        pub(super) replaces: Option<i64>,
        pub(super) quota_day: i64,
        pub(super) partial: bool,
    }
}
