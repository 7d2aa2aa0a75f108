//! What the relay needs from an AI vendor, in our words.
//!
//! This module must not know HTTP, a database or any vendor's names: a provider is a codec that turns a
//! [`Prompt`] into a stream of [`ReplyPart`]s and sorts its failures by what the caller may do next.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

/// Everything a provider may see of a conversation: no ids, no e-mail address, no other person's words.
#[derive(Clone)]
pub struct Prompt {
    /// The companion that is to speak, by its id in the settings.
    pub companion: String,
    /// The companion's display name.
    pub companion_name: String,
    /// The instructions that the user never sees.
    pub system: String,
    /// The newest whole turns, oldest first; the last one is the user's new message.
    pub messages: Vec<PromptMessage>,
    /// The most tokens that the reply may have.
    pub max_output_tokens: u32,
}

/// One message of a [`Prompt`].
#[derive(Clone)]
pub struct PromptMessage {
    /// Who said it.
    pub speaker: Speaker,
    /// What was said.
    pub text: String,
}

/// Who said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// The customer.
    User,
    /// The companion.
    Companion,
}

/// One piece of a reply on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyPart {
    /// Visible text, to be appended to what came before.
    Text(String),
    /// The model's thinking; counted as a sign of life, never shown.
    Reasoning,
    /// What the provider counted so far. A later one replaces an earlier one.
    Usage(TokenCount),
    /// The reply is whole. Nothing that follows is shown.
    Finish(FinishReason),
}

/// Tokens as the provider counted them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenCount {
    /// Tokens of the prompt.
    pub input: u64,
    /// Tokens of the reply, reasoning included.
    pub output: u64,
}

/// Why a reply ended, in the values that every major version of the AI SDK accepts; their texts are its.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The companion had said everything.
    Stop,
    /// The reply reached its longest permitted length.
    Length,
    /// The provider's own filter ended or replaced the reply.
    ContentFilter,
    /// Something this program does not know.
    Other,
}

/// A reply as it arrives.
///
/// Once it has yielded text, a failure is an `Err` item and ends the stream. A stream that ends without
/// [`ReplyPart::Finish`] was cut.
pub type ReplyStream = BoxStream<'static, Result<ReplyPart, ProviderError>>;

/// A model, and how much fits it.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its name, as the vendor knows it and as it is recorded beside the reply.
    pub name: String,
    /// Tokens that fit it, prompt and reply together.
    pub context_tokens: u32,
    /// The most tokens that one reply may have.
    pub max_output_tokens: u32,
}

/// One AI vendor.
#[async_trait]
pub trait ChatProvider: Send + Sync {
    /// The model that answers.
    fn model(&self) -> &Model;

    /// Starts a reply. `Err` means that nothing was generated and another provider may be tried.
    ///
    /// Dropping the future or the stream ends the request at the vendor.
    async fn reply(&self, prompt: Prompt) -> Result<ReplyStream, ProviderError>;
}

/// What went wrong at a provider. The texts are for the operator's log; they carry no prompt and no key.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProviderError {
    /// The provider asks us to wait (429, 503, 529).
    #[error("the provider is busy: {detail}")]
    Busy {
        /// What the provider said, shortened.
        detail: String,
        /// How long it asked us to wait, where it said so.
        retry_after: Option<Duration>,
    },
    /// A time limit passed.
    #[error("the provider was too slow: {0}")]
    TimedOut(TimeLimit),
    /// The provider did not accept the key, the model or the account (401, 404). Only an operator can mend it.
    #[error("the provider refused the configured account or model: {0}")]
    Misconfigured(String),
    /// The provider forbids it (403): the account may not use the model, or it does not like the message. Vendors use one
    /// status for both.
    #[error("the provider forbids the request: {0}")]
    Forbidden(String),
    /// The account at the provider is used up. Waiting does not help; only an operator can mend it.
    #[error("the account at the provider is used up: {0}")]
    OutOfCredit(String),
    /// The prompt was longer than the model's window.
    #[error("the prompt is too long for the model")]
    PromptTooLong,
    /// The provider would not answer this prompt.
    #[error("the provider declined to answer")]
    Declined,
    /// The provider did not take the request as it was (4xx without a meaning of its own). Sent again it is the same.
    #[error("the provider rejected the request: {0}")]
    Rejected(String),
    /// The reply ended without its end mark.
    #[error("the reply was cut off")]
    Truncated,
    /// The provider said something that its protocol does not allow, or more than we accept.
    #[error("the provider broke its protocol: {0}")]
    Protocol(String),
    /// The request was sent and its answer was lost: the connection broke, or a proxy gave up waiting (504). The provider
    /// may have worked, and bill it.
    #[error("the answer was lost: {0}")]
    Lost(String),
    /// The provider reported a failure of its own: it did not answer and does not bill it.
    #[error("the provider failed: {0}")]
    Failed(String),
    /// The provider could not be reached; nothing was sent.
    #[error("the provider could not be reached: {0}")]
    Unreachable(String),
}

/// Whose doing a failure can be, which decides what it says about the provider and whether it is free without end
/// (docs/adr/0023).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A message's: the provider is well and refuses it.
    Message,
    /// The provider's, or that of a message which was written so that its reply ends like this.
    Either,
    /// The provider's or its operator's, whatever was asked.
    Provider,
}

impl ProviderError {
    /// Whose doing it can be.
    pub fn cause(&self) -> Cause {
        match self {
            ProviderError::Declined
            | ProviderError::PromptTooLong
            | ProviderError::Rejected(_)
            | ProviderError::Forbidden(_) => Cause::Message,
            // Such as thoughts without end, and a prompt that a server breaks off at.
            ProviderError::TimedOut(
                TimeLimit::Headers | TimeLimit::FirstToken | TimeLimit::Idle | TimeLimit::Total,
            )
            | ProviderError::Truncated
            | ProviderError::Protocol(_)
            | ProviderError::Lost(_) => Cause::Either,
            ProviderError::TimedOut(TimeLimit::Connect)
            | ProviderError::Busy { .. }
            | ProviderError::OutOfCredit(_)
            | ProviderError::Misconfigured(_)
            | ProviderError::Failed(_)
            | ProviderError::Unreachable(_) => Cause::Provider,
        }
    }
}

/// The time limits of one reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeLimit {
    /// Connecting.
    Connect,
    /// Waiting for the response's headers.
    Headers,
    /// Waiting for the first token, be it of the model's thinking.
    FirstToken,
    /// Silence between two pieces.
    Idle,
    /// The whole reply.
    Total,
}

impl std::fmt::Display for TimeLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            TimeLimit::Connect => "connecting",
            TimeLimit::Headers => "response headers",
            TimeLimit::FirstToken => "first token",
            TimeLimit::Idle => "silence in the middle",
            TimeLimit::Total => "the whole reply",
        })
    }
}
