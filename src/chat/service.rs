//! The chat's shared parts, conversations and history.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    ChatSettings, Companion, Companions, Conversation, MessageRole, NamedProvider,
    generation::Live,
    message::{Metadata, UiMessage},
    store::{self, ConversationRow, MessageRow},
};
use crate::{
    auth::{Auth, AuthError},
    billing::{Billing, Quota},
    platform::{
        clock::SharedClock,
        db::{self, Db},
        job::{Jobs, PrepareError},
        keyring::{KeyError, Keyring},
        problem::{FieldError, Invalid},
        random::SharedRandom,
        seal::{DataKey, DoesNotOpen, Place, Sealed},
        tasks::Tasks,
    },
};

/// The kind of job that removes the messages of a deleted conversation.
pub const PURGE_JOB: &str = "purge_conversation";
/// Messages that one transaction removes.
const PURGE_BATCH: i64 = 500;
/// The longest title, in characters.
const MAX_TITLE: usize = 200;

/// The chat.
#[derive(Clone)]
pub struct Chat(Arc<Parts>);

/// What the service works with.
pub struct Parts {
    pub(super) db: Db,
    pub(super) keyring: Keyring,
    pub(super) clock: SharedClock,
    pub(super) random: SharedRandom,
    pub(super) tasks: Tasks,
    pub(super) jobs: Jobs,
    pub(super) auth: Auth,
    pub(super) billing: Billing,
    pub(super) companions: Companions,
    /// The providers in the order in which they are tried; never empty.
    pub(super) route: Vec<NamedProvider>,
    pub(super) settings: ChatSettings,
    pub(super) live: Live,
    /// Who makes the replies that are made here.
    pub(super) instance: Uuid,
}

impl std::ops::Deref for Chat {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// Why the chat refuses, named for what a caller can do.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// No such conversation, or somebody else's.
    #[error("no such conversation")]
    NotFound,
    /// Fields that are not valid.
    #[error("the request is not valid")]
    Invalid(Vec<FieldError>),
    /// The id was used already.
    #[error("the id is taken")]
    Taken,
    /// The message id was used for another text.
    #[error("the message id was used for another text")]
    IdempotencyMismatch,
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
    /// The day's messages are used up.
    #[error("the quota is used up")]
    QuotaExhausted(Quota),
    /// The plan does not include this.
    #[error("a subscription is needed")]
    SubscriptionRequired(Quota),
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
    /// The operator's decisions.
    pub settings: ChatSettings,
    /// This instance's id, the same after a restart.
    pub instance: Uuid,
}

#[derive(Serialize, Deserialize)]
struct Purge {
    conversation: Uuid,
}

/// A title, or a change of one.
pub type Title = Option<String>;

impl Chat {
    /// Builds the service.
    pub fn new(start: Start) -> Chat {
        let Start {
            db,
            keyring,
            clock,
            random,
            tasks,
            jobs,
            auth,
            billing,
            companions,
            route,
            settings,
            instance,
        } = start;
        let live = Live::new(settings.max_generations);
        Chat(Arc::new(Parts {
            db,
            keyring,
            clock,
            random,
            tasks,
            jobs,
            auth,
            billing,
            companions,
            route,
            settings,
            live,
            instance,
        }))
    }

    /// Whom one can talk to.
    pub fn companions(&self) -> &Companions {
        &self.companions
    }

    /// A caller's conversations before a place in the list, by last use.
    pub async fn conversations(
        &self,
        owner: Uuid,
        before: (i64, Uuid),
        limit: i64,
    ) -> Result<Vec<(Conversation, (i64, Uuid))>, ChatError> {
        let (time, key) = before;
        let rows =
            self.db.read(async |c| store::conversations(owner, time, key, limit).all(&c).await).await?;
        let data_key = self.keyring.user(owner).await?;
        rows.into_iter()
            .map(|row| {
                let position = (row.updated_at.as_microsecond(), row.key);
                Ok((open_conversation(row, &data_key)?, position))
            })
            .collect()
    }

    /// One conversation.
    pub async fn conversation(&self, owner: Uuid, id: &str) -> Result<Conversation, ChatError> {
        let row = self.find(owner, id).await?;
        open_conversation(row, &self.keyring.user(owner).await?)
    }

    /// Begins a conversation.
    pub async fn create(
        &self,
        owner: Uuid,
        id: Option<String>,
        companion: Option<String>,
        title: Title,
    ) -> Result<Conversation, ChatError> {
        let companion = self.choose(companion.as_deref())?.card.id.clone();
        let title = title
            .as_deref()
            .map(parse_title)
            .transpose()
            .map_err(|invalid| invalid_field("/title", invalid))?;
        let now = self.clock.now();
        let key = self.random.uuid(now);
        let id = id.unwrap_or_else(|| self.random.uuid(now).to_string());
        let data_key = self.keyring.user(owner).await?;
        let sealed = self.seal_title(&data_key, key, title);
        let model = self.model().to_owned();
        let new_id = id.clone();
        let added = self
            .db
            .write(async move |c| {
                store::add_conversation(key, owner, &new_id, &companion, &model, sealed.as_ref(), now)
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
    pub async fn retitle(&self, owner: Uuid, id: &str, title: Title) -> Result<Conversation, ChatError> {
        let title = title
            .as_deref()
            .map(parse_title)
            .transpose()
            .map_err(|invalid| invalid_field("/title", invalid))?;
        let row = self.find(owner, id).await?;
        let data_key = self.keyring.user(owner).await?;
        let sealed = self.seal_title(&data_key, row.key, title);
        let id = id.to_owned();
        let changed = {
            let id = id.clone();
            self.db.write(async move |c| store::retitle(owner, &id, sealed.as_ref()).exec(&c).await).await?
        };
        if changed == 0 {
            return Err(ChatError::NotFound);
        }
        self.conversation(owner, &id).await
    }

    /// Deletes a conversation. It is gone at once; its messages are removed by a job, because there may be many.
    pub async fn delete(&self, owner: Uuid, id: &str) -> Result<(), ChatError> {
        let row = self.find(owner, id).await?;
        let job = self.jobs.prepare(PURGE_JOB, &Purge { conversation: row.key })?;
        let now = self.clock.now();
        let id = id.to_owned();
        self.db
            .write(async move |c| {
                if store::delete_conversation(owner, &id, now).exec(&c).await? == 0 {
                    return Err(ChatError::NotFound);
                }
                if let Some(running) = row.generation_id {
                    store::request_stop(owner, running).exec(&c).await?;
                }
                job.store(&c).await?;
                Ok::<_, ChatError>(())
            })
            .await?;
        if let Some(generation) = row.generation_id.and_then(|id| self.live.get(id)) {
            generation.stop();
        }
        self.jobs.wake();
        Ok(())
    }

    /// The job behind [`Chat::delete`].
    pub async fn purge(&self, job: &crate::platform::job::Job) -> Result<(), crate::platform::job::JobError> {
        let Purge { conversation } = job.payload()?;
        loop {
            let purge = async move |c| store::purge_messages(conversation, PURGE_BATCH).exec(&c).await;
            if self.db.write::<_, db::Error, _>(purge).await? == 0 {
                return Ok(());
            }
        }
    }

    /// Messages of a conversation before a place, newest first.
    pub async fn history(
        &self,
        owner: Uuid,
        id: &str,
        before: i64,
        limit: i64,
    ) -> Result<Vec<(UiMessage, i64)>, ChatError> {
        let conversation = self.find(owner, id).await?.key;
        let rows =
            self.db.read(async |c| store::messages(owner, conversation, before, limit).all(&c).await).await?;
        let data_key = self.keyring.user(owner).await?;
        rows.into_iter()
            .map(|row| {
                let seq = row.seq;
                Ok((open_message(row, conversation, &data_key)?, seq))
            })
            .collect()
    }

    /// A conversation that is there.
    pub(super) async fn find(&self, owner: Uuid, id: &str) -> Result<ConversationRow, ChatError> {
        let row = self.db.read(async |c| store::find_conversation(owner, id).opt(&c).await).await?;
        row.filter(|row| row.deleted_at.is_none()).ok_or(ChatError::NotFound)
    }

    /// The companion that was asked for, or the default one; it must be available.
    pub(super) fn choose(&self, companion: Option<&str>) -> Result<&Companion, ChatError> {
        let found = match companion {
            Some(id) => self.companions.get(id).filter(|companion| companion.card.available),
            None => self.companions.default(),
        };
        let unknown = || Invalid::new("unknown_value", "There is no such companion, or it is not available.");
        found.ok_or_else(|| invalid_field("/companion_id", unknown()))
    }

    /// The model that new conversations begin with.
    pub(super) fn model(&self) -> &str {
        self.route.first().map_or("", |first| first.provider.model())
    }

    fn seal_title(&self, key: &DataKey, conversation: Uuid, title: Title) -> Option<Sealed> {
        title.map(|title| key.seal(title_place(&conversation), title.as_bytes(), &*self.random))
    }
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

fn parse_title(title: &str) -> Result<String, Invalid> {
    let title = title.trim();
    if title.is_empty() {
        return Err(Invalid::new("too_short", "A title has at least one character; `null` removes it."));
    }
    if title.chars().count() > MAX_TITLE {
        return Err(Invalid::new("too_long", "A title has at most 200 characters."));
    }
    if title.chars().any(char::is_control) {
        return Err(Invalid::new("invalid_format", "A title has no control characters."));
    }
    Ok(title.to_owned())
}
