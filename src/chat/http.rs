//! The routes of the chat.

mod accept;
mod stream;

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use self::{
    accept::Form,
    stream::{ChatAnswer, stream_reply, wait_for},
};
use super::{
    Chat, ChatError, Conversation, IDEMPOTENCY_KEY,
    companions::CompanionCard,
    message::{ChatBody, PathId, UiMessage, identifier},
};
use crate::{
    auth::CurrentUser,
    platform::{
        edge::RequestId,
        extract::{ApiJson, ApiPath, ApiQuery, LARGEST_BODY, OptionalJson},
        json::Patch,
        keyring::KeyError,
        page::{List, Page},
        problem::{Code, Faults, Problem},
    },
};

/// The routes.
pub fn routes() -> OpenApiRouter<Chat> {
    OpenApiRouter::new()
        .routes(routes!(companions))
        .routes(routes!(send_message))
        .routes(routes!(resume))
        .routes(routes!(stop))
        .routes(routes!(conversations, create_conversation))
        .routes(routes!(conversation, change_conversation, delete_conversation))
        .routes(routes!(messages))
}

/// The companions
#[utoipa::path(get, path = "/v1/companions", tag = "chat", responses(
    (status = 200, description = "Whom one can talk to.", body = List<CompanionCard>),
))]
async fn companions(State(chat): State<Chat>) -> Json<List<CompanionCard>> {
    Json(List { data: chat.companions().cards() })
}

/// Send a message
///
/// Streams the reply as the AI SDK UI message stream, or waits for it with `accept: application/json`. The message's `id`
/// makes sending again harmless. With `messageId` it edits the message and drops what came after it; with the trigger
/// `regenerate-message` another reply takes the place of the last one, which stays until the new one has text.
#[utoipa::path(post, path = "/v1/chat", tag = "chat", params(
    ("Idempotency-Key" = Option<String>, Header, description = "Makes it harmless to ask for another reply twice: the same \
        key again joins the reply or gets the stored one. 1 to 64 letters, digits, `-` or `_`, in quotes or not; each \
        key for one reply. Without `regenerate-message` it is ignored: a message has its id.")
), request_body = ChatBody, responses(
    (status = 200, description = "The reply.", content(
        (String = "text/event-stream"),
        (ChatAnswer = "application/json"),
    )),
))]
async fn send_message(
    State(chat): State<Chat>,
    CurrentUser(caller): CurrentUser,
    Extension(RequestId(request_id)): Extension<RequestId>,
    headers: HeaderMap,
    ApiJson(body): ApiJson<ChatBody, LARGEST_BODY>,
) -> Result<Response, Problem> {
    let form = Form::accepted(&headers)?;
    let key = if body.regenerates() { idempotency_key(&headers)? } else { None };
    let request = body.parse(key).map_err(Faults::into_problem)?;
    let reply = chat.send(caller, request).await?;
    match form {
        Form::Stream => Ok(stream_reply(reply, chat.keep_alive(), request_id.to_string())),
        Form::Json => wait_for(reply).await.map(|answer| Json(answer).into_response()),
    }
}

/// The key of a request: a string as in RFC 8941, which the draft asks for, or bare, which most clients send.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let bare = value.to_str().ok().map(|value| {
        value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value).to_owned()
    });
    match (bare.and_then(|key| identifier(key).ok()), values.next()) {
        (Some(key), None) => Ok(Some(key)),
        _ => Err(Problem::new(Code::BadRequest, "An idempotency key is 1 to 64 letters, digits, - or _.")),
    }
}

/// Join a running reply
///
/// From its first chunk, then live. 204 as soon as nothing runs: then the reply, if there is one, is in the history.
#[utoipa::path(get, path = "/v1/chat/{id}/stream", tag = "chat", params(
    ("id" = String, Path, description = "The conversation.")
), responses(
    (status = 200, description = "The running reply.", content((String = "text/event-stream"))),
    (status = 204, description = "Nothing runs."),
))]
async fn resume(
    State(chat): State<Chat>,
    CurrentUser(caller): CurrentUser,
    Extension(RequestId(request_id)): Extension<RequestId>,
    ApiPath(PathId(id)): ApiPath<PathId>,
) -> Result<Response, Problem> {
    match chat.resume(caller, &id).await? {
        Some(reply) => Ok(stream_reply(reply, chat.keep_alive(), request_id.to_string())),
        None => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct StopBody {
    /// Stop only this one.
    #[serde(default)]
    generation_id: Option<String>,
}

/// Stop a running reply
///
/// What was said so far is kept. Harmless when nothing runs, or another generation does.
#[utoipa::path(post, path = "/v1/chat/{id}/stop", tag = "chat", params(
    ("id" = String, Path, description = "The conversation.")
), request_body = Option<StopBody>, responses(
    (status = 204, description = "Nothing runs any more, or will soon."),
))]
async fn stop(
    State(chat): State<Chat>,
    CurrentUser(caller): CurrentUser,
    ApiPath(PathId(id)): ApiPath<PathId>,
    OptionalJson(body): OptionalJson<StopBody>,
) -> Result<StatusCode, Problem> {
    // An id that is none of ours cannot be the running one.
    let only = body.and_then(|body| body.generation_id).map(|id| id.parse().unwrap_or_else(|_| Uuid::nil()));
    chat.stop(caller, &id, only).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The conversations
///
/// By last use, newest first.
#[utoipa::path(get, path = "/v1/conversations", tag = "chat", params(
    ("limit" = Option<i64>, Query, description = "1 to 100; 20 if left out."),
    ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before."),
), responses(
    (status = 200, description = "A page.", body = Page<Conversation>),
))]
async fn conversations(
    State(chat): State<Chat>,
    CurrentUser(caller): CurrentUser,
    query: ApiQuery,
) -> Result<Json<Page<Conversation>>, Problem> {
    Ok(Json(chat.conversations(caller.user_id, query.get("cursor"), query.limit()?).await?))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewConversationBody {
    /// Made by the client; we make one if it is left out.
    #[serde(default)]
    #[schema(pattern = "^[A-Za-z0-9_-]{1,64}$")]
    id: Option<String>,
    /// Whom it is with; the default companion if left out.
    #[serde(default)]
    companion_id: Option<String>,
    #[serde(default)]
    #[schema(max_length = 200)]
    title: Option<String>,
}

/// Begin a conversation
///
/// Not needed before `POST /v1/chat`, which begins one with the first message.
#[utoipa::path(post, path = "/v1/conversations", tag = "chat", request_body = NewConversationBody, responses(
    (status = 201, description = "The conversation.", body = Conversation),
))]
async fn create_conversation(
    State(chat): State<Chat>,
    CurrentUser(caller): CurrentUser,
    ApiJson(body): ApiJson<NewConversationBody>,
) -> Result<(StatusCode, Json<Conversation>), Problem> {
    let mut faults = Faults::new();
    let Some(id) = faults.take("/id", body.id.map(identifier).transpose()) else {
        return Err(faults.into_problem());
    };
    let created = chat.create(caller.user_id, id, body.companion_id, body.title).await?;
    Ok((StatusCode::CREATED, Json(created)))
}

/// One conversation
#[utoipa::path(get, path = "/v1/conversations/{id}", tag = "chat", params(
    ("id" = String, Path, description = "The conversation.")
), responses(
    (status = 200, description = "The conversation.", body = Conversation),
))]
async fn conversation(
    State(chat): State<Chat>,
    CurrentUser(caller): CurrentUser,
    ApiPath(PathId(id)): ApiPath<PathId>,
) -> Result<Json<Conversation>, Problem> {
    Ok(Json(chat.conversation(caller.user_id, &id).await?))
}

/// A JSON Merge Patch: `null` clears, absent leaves.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ConversationPatch {
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 200)]
    title: Patch<String>,
}

/// Change a conversation
#[utoipa::path(patch, path = "/v1/conversations/{id}", tag = "chat", params(
    ("id" = String, Path, description = "The conversation.")
), request_body = ConversationPatch, responses(
    (status = 200, description = "The conversation, changed.", body = Conversation),
))]
async fn change_conversation(
    State(chat): State<Chat>,
    CurrentUser(caller): CurrentUser,
    ApiPath(PathId(id)): ApiPath<PathId>,
    ApiJson(body): ApiJson<ConversationPatch>,
) -> Result<Json<Conversation>, Problem> {
    let owner = caller.user_id;
    let changed = match body.title {
        Patch::Leave => chat.conversation(owner, &id).await,
        Patch::Clear => chat.retitle(owner, &id, None).await,
        Patch::Set(title) => chat.retitle(owner, &id, Some(title)).await,
    };
    Ok(Json(changed?))
}

/// Delete a conversation
///
/// Its messages go with it, and its id stays taken.
#[utoipa::path(delete, path = "/v1/conversations/{id}", tag = "chat", params(
    ("id" = String, Path, description = "The conversation.")
), responses(
    (status = 204, description = "It is gone."),
))]
async fn delete_conversation(
    State(chat): State<Chat>,
    CurrentUser(caller): CurrentUser,
    ApiPath(PathId(id)): ApiPath<PathId>,
) -> Result<StatusCode, Problem> {
    chat.delete(caller.user_id, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The messages of a conversation
///
/// The first page holds the newest messages, each page is in order, and `next_cursor` leads to older ones.
#[utoipa::path(get, path = "/v1/conversations/{id}/messages", tag = "chat", params(
    ("id" = String, Path, description = "The conversation."),
    ("limit" = Option<i64>, Query, description = "1 to 100; 20 if left out."),
    ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before."),
), responses(
    (status = 200, description = "A page.", body = Page<UiMessage>),
))]
async fn messages(
    State(chat): State<Chat>,
    CurrentUser(caller): CurrentUser,
    ApiPath(PathId(id)): ApiPath<PathId>,
    query: ApiQuery,
) -> Result<Json<Page<UiMessage>>, Problem> {
    Ok(Json(chat.history(caller.user_id, &id, query.get("cursor"), query.limit()?).await?))
}

/// What a caller is told.
impl From<ChatError> for Problem {
    fn from(error: ChatError) -> Self {
        match error {
            ChatError::NotFound => Problem::not_found(),
            ChatError::InvalidCursor => {
                Problem::new(Code::InvalidCursor, "This cursor was not given to you for this list.")
            }
            ChatError::Invalid(errors) => Problem::validation(errors),
            ChatError::Taken => Problem::new(Code::Conflict, "This id was used for another conversation."),
            ChatError::IdempotencyMismatch => {
                Problem::new(Code::IdempotencyMismatch, "This message id was used for another text.")
            }
            ChatError::KeyReused => {
                Problem::new(Code::IdempotencyMismatch, "This key was used for another reply.")
            }
            ChatError::NotLastReply => {
                Problem::new(Code::Conflict, "Only the last reply can be replaced; read the history again.")
            }
            ChatError::Superseded => Problem::new(
                Code::Conflict,
                "Newer messages came after this one; send its text as a new message.",
            ),
            ChatError::CompanionGone => {
                Problem::new(Code::Conflict, "This companion is not available any more.")
            }
            ChatError::GenerationInProgress => {
                Problem::new(Code::GenerationInProgress, "A reply is being made in this conversation.")
            }
            ChatError::TooManyGenerations => Problem::new(
                Code::RateLimited,
                "Several replies are being made for you; wait for one of them.",
            ),
            ChatError::Overloaded => {
                Problem::new(Code::Overloaded, "No more replies can be begun at the moment.")
            }
            ChatError::TooFast { wait } => {
                Problem::new(Code::RateLimited, "Messages come too fast.").retry_after(wait)
            }
            ChatError::PaymentRequired(paywall) => (&*paywall).into(),
            ChatError::Auth(error) => error.into(),
            ChatError::Storage(error) | ChatError::Key(KeyError::Storage(error)) => Problem::storage(error),
            ChatError::Key(KeyError::DoesNotOpen(_)) | ChatError::Job(_) => Problem::internal(error),
        }
    }
}
