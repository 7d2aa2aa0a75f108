//! The chat's shared parts, conversations and history.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    ChatSettings, Companion, Companions, Conversation, MessageRole, NamedProvider, SharedReplyFilter,
    generation::Live,
    message::{Metadata, UiMessage},
    pinning::Beginning,
    store::{self, ConversationRow, MessageRow},
    tokens::Ratios,
};
use crate::{
    auth::{Auth, AuthError},
    billing::{Billing, Paywall},
    platform::{
        clock::SharedClock,
        db::{self, Db},
        job::{Jobs, NewJob, PrepareError},
        keyring::{KeyError, Keyring, Service},
        limits::Limit,
        page::{Cursors, Page, Position},
        problem::{FieldError, Invalid},
        random::SharedRandom,
        seal::{DataKey, DoesNotOpen, Place, Sealed},
        tasks::Tasks,
        valid::single_line,
    },
};

/// The kind of job that removes the messages of a deleted conversation.
pub const PURGE_JOB: &str = "purge_conversation";
/// The kind of job that removes the messages that an edit has dropped.
pub const DROP_JOB: &str = "remove_dropped_messages";
/// Messages that one transaction removes.
const PURGE_BATCH: i64 = 500;
/// The longest title, in characters.
const MAX_TITLE: usize = 200;

/// The chat.
#[derive(Clone)]
pub struct Chat {
    parts: Arc<Start>,
    /// The replies that are made here.
    pub(super) live: Arc<Live>,
    /// How models count tokens.
    pub(super) ratios: Arc<Ratios>,
    /// Whether a persona was not found: that is logged once.
    pub(super) persona_missed: Arc<AtomicBool>,
}

/// Why the chat refuses, named for what a caller can do.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// No such conversation, or somebody else's.
    #[error("no such conversation")]
    NotFound,
    /// A cursor that we did not make for this caller and list.
    #[error("the cursor is not valid")]
    InvalidCursor,
    /// Fields that are not valid.
    #[error("the request is not valid")]
    Invalid(Vec<FieldError>),
    /// The id was used already.
    #[error("the id is taken")]
    Taken,
    /// The message id was used for another text.
    #[error("the message id was used for another text")]
    IdempotencyMismatch,
    /// The reply that is to be replaced is not the last one, or there is none.
    #[error("not the last reply")]
    NotLastReply,
    /// The idempotency key was used for another reply.
    #[error("the key was used for another reply")]
    KeyReused,
    /// Newer messages came after the one that is to be tried again.
    #[error("the message is not the newest one")]
    Superseded,
    /// The companion is not there any more.
    #[error("the companion is not available")]
    CompanionGone,
    /// A reply is being made in this conversation.
    #[error("a reply is being made")]
    GenerationInProgress,
    /// The caller has as many replies being made as they may.
    #[error("too many replies at once")]
    TooManyGenerations,
    /// This instance makes as many replies as it may, or is about to end.
    #[error("no more replies can be begun")]
    Overloaded,
    /// Messages come faster than a user may send them.
    #[error("messages come too fast")]
    TooFast {
        /// How long to wait.
        wait: Duration,
    },
    /// Nothing that the user has pays for this.
    #[error("a payment is needed")]
    PaymentRequired(Box<Paywall>),
    /// Identity refuses.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// A key or sealed value does not open.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Work that is left for later could not be written down.
    #[error(transparent)]
    Job(#[from] PrepareError),
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] db::Error),
}

impl From<DoesNotOpen> for ChatError {
    fn from(error: DoesNotOpen) -> Self {
        ChatError::Key(error.into())
    }
}

/// Everything that the chat stands on.
pub struct Start {
    /// Storage.
    pub db: Db,
    /// Keys.
    pub keyring: Keyring,
    /// Time.
    pub clock: SharedClock,
    /// Randomness.
    pub random: SharedRandom,
    /// Background tasks.
    pub tasks: Tasks,
    /// Work after commit.
    pub jobs: Jobs,
    /// Who users are.
    pub auth: Auth,
    /// What they may use.
    pub billing: Billing,
    /// Whom they can talk to.
    pub companions: Companions,
    /// Who answers, in the order in which they are tried.
    pub route: Vec<NamedProvider>,
    /// Who sees a reply before anybody else does.
    pub filter: SharedReplyFilter,
    /// How fast a user's messages may come.
    pub messages: Limit,
    /// The operator's decisions.
    pub settings: ChatSettings,
    /// This instance's id, the same after a restart.
    pub instance: Uuid,
}

#[derive(Serialize, Deserialize)]
struct Purge {
    owner: Uuid,
    conversation: Uuid,
}

#[derive(Serialize, Deserialize)]
struct DroppedBy {
    owner: Uuid,
    conversation: Uuid,
    generation: Uuid,
}

impl Chat {
    /// Builds the service.
    pub fn new(start: Start) -> Chat {
        let live = Arc::new(Live::new(start.settings.max_generations));
        Chat { parts: Arc::new(start), live, ratios: Arc::default(), persona_missed: Arc::default() }
    }

    /// What the service works with. For the files of the service; handlers call it.
    pub(super) fn parts(&self) -> &Start {
        &self.parts
    }

    /// How long a stream may be quiet.
    pub fn keep_alive(&self) -> Duration {
        self.parts.settings.intervals.keep_alive
    }

    /// Whom one can talk to.
    pub fn companions(&self) -> &Companions {
        &self.parts.companions
    }

    /// A page of a caller's conversations, by last use.
    ///
    /// # Errors
    ///
    /// [`ChatError::InvalidCursor`] for a cursor that is not from this list and for this caller.
    pub async fn conversations(
        &self,
        owner: Uuid,
        cursor: Option<&str>,
        limit: i64,
    ) -> Result<Page<Conversation>, ChatError> {
        let cursors = self.cursors("conversations")?;
        let (time, key) = match cursor {
            None => (i64::MAX, Uuid::max()),
            Some(cursor) => read_cursor(cursors, owner, "", cursor)?,
        };
        let read = limit.saturating_add(1);
        let rows =
            self.parts.db.read(async |c| store::conversations(owner, time, key, read).all(&c).await).await?;
        let placed = |row: ConversationRow| {
            let position = (row.updated_at.as_microsecond(), row.key);
            (row, position)
        };
        let (rows, last) = Page::cut(rows.into_iter().map(placed).collect(), limit);
        let next_cursor = last.map(|position| cursors.after(owner, "", &position));
        let data_key = self.parts.keyring.user(owner).await?;
        let data = rows.into_iter().map(|row| open_conversation(row, &data_key)).collect::<Result<_, _>>()?;
        Ok(Page { data, next_cursor })
    }

    /// One conversation.
    pub async fn conversation(&self, owner: Uuid, id: &str) -> Result<Conversation, ChatError> {
        let row = self.find(owner, id).await?;
        open_conversation(row, &self.parts.keyring.user(owner).await?)
    }

    /// Begins a conversation.
    pub async fn create(
        &self,
        owner: Uuid,
        id: Option<String>,
        companion: Option<String>,
        title: Option<String>,
    ) -> Result<Conversation, ChatError> {
        let begin = self.beginning(self.choose(companion.as_deref())?);
        let title = parse_title(title.as_deref())?;
        let now = self.parts.clock.now();
        let key = self.parts.random.uuid(now);
        let id = id.unwrap_or_else(|| self.parts.random.uuid(now).to_string());
        let data_key = self.parts.keyring.user(owner).await?;
        let sealed = self.seal_title(&data_key, key, title);
        let new_id = id.clone();
        let added = self
            .parts
            .db
            .write(async move |c| {
                let Beginning { companion, persona_version, model } = &begin;
                let title = sealed.as_ref();
                store::add_conversation(key, owner, &new_id, companion, persona_version, model, title, now)
                    .exec(&c)
                    .await
            })
            .await?;
        if added == 0 {
            return Err(ChatError::Taken);
        }
        self.conversation(owner, &id).await
    }

    /// Changes or removes a title.
    pub async fn retitle(
        &self,
        owner: Uuid,
        id: &str,
        title: Option<String>,
    ) -> Result<Conversation, ChatError> {
        let title = parse_title(title.as_deref())?;
        let row = self.find(owner, id).await?;
        let data_key = self.parts.keyring.user(owner).await?;
        let sealed = self.seal_title(&data_key, row.key, title);
        let id = id.to_owned();
        let changed = {
            let id = id.clone();
            self.parts
                .db
                .write(async move |c| store::retitle(owner, &id, sealed.as_ref()).exec(&c).await)
                .await?
        };
        if changed == 0 {
            return Err(ChatError::NotFound);
        }
        self.conversation(owner, &id).await
    }

    /// Deletes a conversation. It is gone at once; its messages are removed by a job, because there may be many.
    pub async fn delete(&self, owner: Uuid, id: &str) -> Result<(), ChatError> {
        let conversation = self.find(owner, id).await?.key;
        let job = self.parts.jobs.prepare(PURGE_JOB, &Purge { owner, conversation })?;
        let now = self.parts.clock.now();
        let id = id.to_owned();
        let stopped = self
            .parts
            .db
            .write(async move |c| {
                if store::delete_conversation(owner, &id, now).exec(&c).await? == 0 {
                    return Err(ChatError::NotFound);
                }
                // Asked in here, so that a reply cannot be begun between the question and the end.
                let running = store::request_stops(owner, conversation).all(&c).await?;
                job.store(&c).await?;
                Ok(running)
            })
            .await?;
        for generation in stopped.into_iter().filter_map(|id| self.live.get(id)) {
            generation.stop();
        }
        self.parts.jobs.wake();
        Ok(())
    }

    /// The job behind [`Chat::delete`].
    pub async fn purge(&self, job: &crate::platform::job::Job) -> Result<(), crate::platform::job::JobError> {
        let Purge { owner, conversation } = job.payload()?;
        loop {
            let purge = async move |c| store::purge_messages(owner, conversation, PURGE_BATCH).exec(&c).await;
            if self.parts.db.write::<_, db::Error, _>(purge).await? == 0 {
                return Ok(());
            }
        }
    }

    /// What is to be done after an edit, whose reply is that generation.
    pub(super) fn removal_of_dropped(
        &self,
        owner: Uuid,
        conversation: Uuid,
        generation: Uuid,
    ) -> Result<NewJob, PrepareError> {
        self.parts.jobs.prepare(DROP_JOB, &DroppedBy { owner, conversation, generation })
    }

    /// The job behind an edit: removes what nobody sees any more.
    pub async fn remove_dropped(
        &self,
        job: &crate::platform::job::Job,
    ) -> Result<(), crate::platform::job::JobError> {
        let DroppedBy { owner, conversation, generation } = job.payload()?;
        loop {
            let remove = async move |c| {
                let remove = store::remove_dropped(owner, conversation, generation, PURGE_BATCH);
                let removed = remove.exec(&c).await?;
                if removed == 0 {
                    store::dropped_all(owner, generation).exec(&c).await?;
                }
                Ok(removed)
            };
            if self.parts.db.write::<_, db::Error, _>(remove).await? == 0 {
                return Ok(());
            }
        }
    }

    /// A page of a conversation's messages. The first page holds the newest; each is in order.
    ///
    /// # Errors
    ///
    /// [`ChatError::InvalidCursor`] for a cursor that is not from this list and for this caller.
    pub async fn history(
        &self,
        owner: Uuid,
        id: &str,
        cursor: Option<&str>,
        limit: i64,
    ) -> Result<Page<UiMessage>, ChatError> {
        let cursors = self.cursors("messages")?;
        let before = match cursor {
            None => i64::MAX,
            Some(cursor) => read_cursor(cursors, owner, id, cursor)?,
        };
        let conversation = self.find(owner, id).await?.key;
        let read = limit.saturating_add(1);
        let rows = self
            .parts
            .db
            .read(async |c| store::messages(owner, conversation, before, read).all(&c).await)
            .await?;
        let placed = rows.into_iter().map(|row| {
            let seq = row.seq;
            (row, seq)
        });
        let (rows, last) = Page::cut(placed.collect(), limit);
        let next_cursor = last.map(|seq| cursors.after(owner, id, &seq));
        let data_key = self.parts.keyring.user(owner).await?;
        let messages = rows.into_iter().rev().map(|row| open_message(row, conversation, &data_key));
        Ok(Page { data: messages.collect::<Result<_, _>>()?, next_cursor })
    }

    fn cursors(&self, list: &'static str) -> Result<Cursors<'_>, ChatError> {
        Ok(Cursors::new(self.parts.keyring.service(Service::Hashes)?, list))
    }

    /// A conversation that is there.
    pub(super) async fn find(&self, owner: Uuid, id: &str) -> Result<ConversationRow, ChatError> {
        let row = self.parts.db.read(async |c| store::find_conversation(owner, id).opt(&c).await).await?;
        row.filter(|row| row.deleted_at.is_none()).ok_or(ChatError::NotFound)
    }

    /// The companion that was asked for, or the default one; it must be available.
    pub(super) fn choose(&self, companion: Option<&str>) -> Result<&Companion, ChatError> {
        let found = match companion {
            Some(id) => self.parts.companions.get(id).filter(|companion| companion.card.available),
            None => self.parts.companions.default(),
        };
        let unknown = || Invalid::new("unknown_value", "There is no such companion, or it is not available.");
        found.ok_or_else(|| invalid_field("/companion_id", unknown()))
    }

    /// The model that new conversations begin with.
    pub(super) fn model(&self) -> &str {
        self.parts.route.first().map_or("", |first| &first.provider.model().name)
    }

    fn seal_title(&self, key: &DataKey, conversation: Uuid, title: Option<String>) -> Option<Sealed> {
        title.map(|title| key.seal(title_place(&conversation), title.as_bytes(), &*self.parts.random))
    }
}

fn read_cursor<P: Position>(
    cursors: Cursors<'_>,
    owner: Uuid,
    scope: &str,
    cursor: &str,
) -> Result<P, ChatError> {
    cursors.position(owner, scope, cursor).map_err(|_| ChatError::InvalidCursor)
}

fn open_conversation(row: ConversationRow, key: &DataKey) -> Result<Conversation, ChatError> {
    let title = row.title.as_ref().map(|title| key.open_text(title_place(&row.key), title)).transpose()?;
    Ok(Conversation {
        id: row.id,
        title,
        companion_id: row.companion_id,
        model: row.model,
        message_count: row.message_count,
        created_at: row.created_at,
        updated_at: row.updated_at,
    })
}

fn open_message(row: MessageRow, conversation: Uuid, key: &DataKey) -> Result<UiMessage, ChatError> {
    let text = key.open_text(body_place(&conversation, &row.id), &row.body)?;
    let metadata = metadata(row.role, row.status, row.model, row.created_at);
    Ok(UiMessage::new(row.id, row.role, text, metadata))
}

pub(super) fn metadata(
    role: MessageRole,
    status: super::MessageStatus,
    model: Option<String>,
    created_at: Timestamp,
) -> Metadata {
    Metadata { created_at, status, model, ai_generated: role == MessageRole::Assistant }
}

pub(super) fn body_place<'a>(conversation: &'a Uuid, message: &'a str) -> Place<'a> {
    Place::inside("message.body", conversation.as_bytes(), message.as_bytes())
}

fn title_place(conversation: &Uuid) -> Place<'_> {
    Place::new("conversation.title", conversation.as_bytes())
}

pub(super) fn invalid_field(pointer: &'static str, invalid: Invalid) -> ChatError {
    ChatError::Invalid(vec![FieldError {
        pointer: pointer.into(),
        code: invalid.code,
        detail: invalid.detail,
    }])
}

fn parse_title(title: Option<&str>) -> Result<Option<String>, ChatError> {
    let parsed = title.map(|title| single_line(title, MAX_TITLE)).transpose();
    parsed.map_err(|invalid| invalid_field("/title", invalid))
}
