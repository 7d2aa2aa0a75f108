//! Conversations with companions, and the relay to the AI providers that speak for them.
//!
//! A reply is a job of the server, not of a connection: sending a message claims it, charges it and starts a
//! *generation*; the connection only listens. ARCHITECTURE.md tells the way of one message.

pub(crate) mod breaker;
mod claim;
mod companions;
mod context;
mod filter;
mod generation;
pub(crate) mod http;
mod message;
mod pinning;
mod prompt;
pub(crate) mod provider;
pub(crate) mod providers;
mod relay;
mod reply;
mod request;
pub(crate) mod routing;
mod send;
mod service;
mod settle;
pub(crate) mod store;
mod supervisor;
mod tokens;
pub(crate) mod ui_stream;
mod upkeep;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{platform::time, text_column};

use self::{
    breaker::{BreakerSettings, SharedBreaker},
    provider::{ChatProvider, FinishReason},
    routing::RetrySettings,
};
pub use self::{
    companions::{Companion, CompanionCard, Companions},
    filter::{AllowAll, ReplyFilter, SharedReplyFilter},
    service::{Chat, ChatError, DROP_JOB, PURGE_JOB, Start},
};

/// The header whose key makes it harmless to ask for another reply twice (draft-ietf-httpapi-idempotency-key-header).
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// What the fuzz targets need.
#[cfg(fuzzing)]
pub mod fuzzing {
    pub use super::{
        provider::{ProviderError, ReplyPart},
        providers::{ChatCompletions, Messages, Wire, decode},
    };
}

/// What the operator decides about the chat.
#[derive(Clone, Debug)]
pub struct ChatSettings {
    /// How long each provider may take to its first token, all attempts together. A model that thinks is not silent: its thinking counts.
    pub first_token_timeout: Duration,
    /// How long a provider may go without visible text or thinking, once it has begun.
    pub idle_timeout: Duration,
    /// How often a provider is asked.
    pub retry: RetrySettings,
    /// When a provider is left alone.
    pub breaker: BreakerSettings,
    /// How long a whole reply may take.
    pub total_timeout: Duration,
    /// How long a reply goes on with nobody listening.
    pub detached_grace: Duration,
    /// How long another instance waits before it settles a dead one's replies.
    pub lease: Duration,
    /// Replies that one user may have made at once.
    pub generations_per_user: i64,
    /// Replies that one instance makes at once.
    pub max_generations: usize,
    /// What the operator does not decide.
    pub intervals: Intervals,
}

/// How often something is done while a reply is made. Not in the settings, because API.md promises it; tests are in more
/// of a hurry.
#[derive(Clone, Copy, Debug)]
pub struct Intervals {
    /// How long a stream may be quiet before a comment is sent, so that proxies do not cut it.
    pub keep_alive: Duration,
    /// How often a reader's session is looked at. An ended one stops hearing within 15 seconds, a slow look included.
    pub session_check: Duration,
    /// How often the text so far is stored.
    pub partial: Duration,
}

impl Default for Intervals {
    fn default() -> Self {
        Intervals {
            keep_alive: Duration::from_secs(15),
            session_check: Duration::from_secs(10),
            partial: Duration::from_secs(15),
        }
    }
}

/// A provider with the name that the settings give it.
#[derive(Clone)]
pub struct NamedProvider {
    /// The name.
    pub name: String,
    /// The codec.
    pub provider: Arc<dyn ChatProvider>,
    /// Whether it is asked at the moment; the same for every reply of this process.
    pub breaker: Arc<SharedBreaker>,
}

impl NamedProvider {
    /// One that is asked from the start.
    pub fn new(name: &str, provider: Arc<dyn ChatProvider>, breaker: BreakerSettings) -> NamedProvider {
        NamedProvider {
            name: name.to_owned(),
            provider,
            breaker: Arc::new(SharedBreaker::new(name, breaker)),
        }
    }
}

/// Who wrote a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MessageRole {
    /// The customer.
    User,
    /// The companion.
    Assistant,
}

text_column!(MessageRole { User = "user", Assistant = "assistant" });

/// How a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageStatus {
    /// Being made; never shown.
    Generating,
    /// Whole.
    Complete,
    /// Broken off by a failure, a shutdown, or because nobody listened any more.
    Interrupted,
    /// Stopped on request.
    Stopped,
    /// Failed without a word.
    Failed,
}

text_column!(MessageStatus {
    Generating = "generating",
    Complete = "complete",
    Interrupted = "interrupted",
    Stopped = "stopped",
    Failed = "failed",
});

text_column!(FinishReason { Stop = "stop", Length = "length", ContentFilter = "content-filter", Other = "other" });

/// Why there is no reply, or only half of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The provider failed.
    Failed,
    /// The provider has no time or no credit for us.
    Busy,
    /// A time limit passed.
    TooSlow,
    /// The provider would not answer this; or our own filter stopped it, and then the finish reason says so.
    Declined,
    /// The program ended, or nobody listened any more.
    BrokenOff,
    /// A fault of ours.
    Fault,
}

text_column!(Failure {
    Failed = "failed",
    Busy = "busy",
    TooSlow = "too_slow",
    Declined = "declined",
    BrokenOff = "broken_off",
    Fault = "fault",
});

/// Tokens that a reply used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Usage {
    /// Tokens of the prompt.
    pub input_tokens: i64,
    /// Tokens of the reply.
    pub output_tokens: i64,
    /// Whether we estimated them because the provider did not say.
    pub estimated: bool,
}

/// A conversation, as its owner sees it.
#[derive(Clone, Serialize, ToSchema)]
pub struct Conversation {
    /// Its id, unique among its owner's.
    #[schema(pattern = "^[A-Za-z0-9_-]{1,64}$")]
    pub id: String,
    /// What the owner calls it.
    pub title: Option<String>,
    /// Whom it is with.
    pub companion_id: String,
    /// The model that it was begun with.
    pub model: String,
    /// Messages in it, replies included.
    pub message_count: i64,
    /// When it was begun.
    #[serde(serialize_with = "time::serialize")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it was last used.
    #[serde(serialize_with = "time::serialize")]
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

/// How a reply ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it is stored.
    pub status: MessageStatus,
    /// Why it ended, where it ended by itself or our own filter stopped it.
    pub finish: Option<FinishReason>,
    /// What went wrong, where something did.
    pub failure: Option<Failure>,
    /// How long the provider asked us to wait, where it did.
    pub retry_after: Option<Duration>,
    /// The model that answered.
    pub model: Option<String>,
    /// Tokens.
    pub usage: Usage,
    /// How many messages the model was told, where older ones did not fit.
    pub cut_to: Option<usize>,
    /// The day's messages after it, where we know.
    pub quota: Option<crate::billing::Quota>,
    /// When it was begun, which is the message's time.
    pub created_at: Timestamp,
}
