//! The routes of the chat.

use std::{convert::Infallible, time::Duration};

use axum::{
    Extension, Json,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{
    Chat, ChatError, Conversation, MessageRole, MessageStatus, Outcome, Usage,
    companions::CompanionCard,
    generation::Event,
    message::{ChatBody, PathId, UiMessage, identifier},
    send::Reply,
    service::metadata,
    ui_stream::{Encoder, KEEP_ALIVE, PROTOCOL_HEADER},
};
use crate::{
    auth::CurrentUser,
    billing::Quota,
    platform::{
        edge::RequestId,
        extract::{ApiJson, ApiPath, ApiQuery, OptionalJson},
        json::Patch,
        keyring::{KeyError, Service},
        page::{Cursors, List, Page},
        problem::{Code, Faults, Problem},
        time,
    },
};

/// The largest body of a chat call: clients send their whole history.
const CHAT_BODY_LIMIT: usize = 256 * 1024;
/// How long a stream may be quiet before a comment is sent.
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(15);

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

/// The answer to a message where no stream was asked for.
#[derive(Serialize, ToSchema)]
struct ChatAnswer {
    message: UiMessage,
    usage: Usage,
    quota: Option<Quota>,
}

/// Send a message
///
/// Streams the reply as the AI SDK UI message stream, or waits for it with `accept: application/json`. The message's `id`
/// makes sending again harmless.
#[utoipa::path(post, path = "/v1/chat", tag = "chat", request_body = ChatBody, responses(
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
    ApiJson(body): ApiJson<ChatBody, CHAT_BODY_LIMIT>,
) -> Result<Response, Problem> {
    let form = Form::accepted(&headers)?;
    let message = body.parse().map_err(Faults::into_problem)?;
    let reply = chat.send(caller, message).await.map_err(|error| problem(error, &chat))?;
    match form {
        Form::Stream => Ok(stream_reply(reply, request_id.to_string())),
        Form::Json => wait_for(reply).await.map(|answer| Json(answer).into_response()),
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
    match chat.resume(caller, &id).await.map_err(|error| problem(error, &chat))? {
        Some(reply) => Ok(stream_reply(reply, request_id.to_string())),
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
    chat.stop(caller, &id, only).await.map_err(|error| problem(error, &chat))?;
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
    let owner = caller.user_id;
    let limit = query.limit()?;
    let cursors = cursors(&chat, "conversations")?;
    let before = match query.get("cursor") {
        None => (i64::MAX, Uuid::max()),
        Some(cursor) => {
            let position = u192(cursors.read(owner, "", cursor)?);
            (position.0, Uuid::from_u128(position.1))
        }
    };
    let found = chat.conversations(owner, before, limit.saturating_add(1)).await;
    let mut found = found.map_err(|error| problem(error, &chat))?;
    let next_cursor = cut(&mut found, limit)
        .map(|(time, key)| cursors.issue(owner, "", &[&time.to_be_bytes()[..], key.as_bytes()].concat()));
    Ok(Json(Page { data: found.into_iter().map(|(conversation, _)| conversation).collect(), next_cursor }))
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
    let created = chat.create(caller.user_id, id, body.companion_id, body.title).await;
    Ok((StatusCode::CREATED, Json(created.map_err(|error| problem(error, &chat))?)))
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
    Ok(Json(chat.conversation(caller.user_id, &id).await.map_err(|error| problem(error, &chat))?))
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
    Ok(Json(changed.map_err(|error| problem(error, &chat))?))
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
    chat.delete(caller.user_id, &id).await.map_err(|error| problem(error, &chat))?;
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
    let owner = caller.user_id;
    let limit = query.limit()?;
    let cursors = cursors(&chat, "messages")?;
    let before = match query.get("cursor") {
        None => i64::MAX,
        Some(cursor) => i64::from_be_bytes(cursors.read(owner, &id, cursor)?),
    };
    let found = chat.history(owner, &id, before, limit.saturating_add(1)).await;
    let mut found = found.map_err(|error| problem(error, &chat))?;
    let next_cursor = cut(&mut found, limit).map(|seq| cursors.issue(owner, &id, &seq.to_be_bytes()));
    Ok(Json(Page { data: found.into_iter().rev().map(|(message, _)| message).collect(), next_cursor }))
}

/// Cuts a list that was read one item too far; the position of the last item that stays, if more follow.
fn cut<T, P: Copy>(found: &mut Vec<(T, P)>, limit: i64) -> Option<P> {
    let limit = usize::try_from(limit).unwrap_or(0);
    let more = found.len() > limit;
    found.truncate(limit);
    found.last().filter(|_| more).map(|(_, position)| *position)
}

fn u192(bytes: [u8; 24]) -> (i64, u128) {
    let (time, key) = bytes.split_first_chunk::<8>().map_or(([0; 8], &[][..]), |(time, key)| (*time, key));
    (i64::from_be_bytes(time), u128::from_be_bytes(key.try_into().unwrap_or([0; 16])))
}

fn cursors<'c>(chat: &'c Chat, list: &'static str) -> Result<Cursors<'c>, Problem> {
    let key = chat.keyring.service(Service::Hashes).map_err(Problem::internal)?;
    Ok(Cursors::new(key, list))
}

/// The forms of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Stream,
    Json,
}

impl Form {
    /// The form that the caller accepts best; a stream if it does not care.
    fn accepted(headers: &HeaderMap) -> Result<Form, Problem> {
        let accept: Vec<&str> =
            headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
        let accept = accept.join(",");
        if accept.trim().is_empty() {
            return Ok(Form::Stream);
        }
        let stream = quality(&accept, "text/event-stream");
        let json = quality(&accept, "application/json");
        match (stream, json) {
            (0, 0) => {
                Err(Problem::new(Code::NotAcceptable, "Accept `text/event-stream` or `application/json`."))
            }
            _ if json > stream => Ok(Form::Json),
            _ => Ok(Form::Stream),
        }
    }
}

/// How much a media type is wanted, in thousandths (RFC 9110, 12.5.1). The most specific range decides.
fn quality(accept: &str, wanted: &str) -> u32 {
    let kind = wanted.split('/').next().unwrap_or_default();
    let mut best = (0, 0);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let specificity = match name.as_str() {
            name if name == wanted => 3,
            name if name.strip_suffix("/*") == Some(kind) => 2,
            "*/*" => 1,
            _ => continue,
        };
        let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(1000, thousandths);
        if specificity > best.0 {
            best = (specificity, weight);
        }
    }
    best.1
}

fn thousandths(q: &str) -> u32 {
    let (whole, fraction) = q.split_once('.').unwrap_or((q, ""));
    let fraction = format!("{fraction:0<3}");
    match (whole.trim(), fraction.get(..3).and_then(|digits| digits.parse::<u32>().ok())) {
        ("1", _) => 1000,
        ("0", Some(digits)) => digits,
        _ => 0,
    }
}

/// Streams a reply to one reader, with comments while nothing is said.
fn stream_reply(reply: Reply, request_id: String) -> Response {
    struct Reading {
        reply: Reply,
        encoder: Encoder,
        begun: bool,
        ended: bool,
    }

    let reading = Reading { encoder: Encoder::new(request_id), reply, begun: false, ended: false };
    let frames = stream::unfold(reading, |mut reading| async move {
        if !reading.begun {
            reading.begun = true;
            let start =
                reading.encoder.start(&reading.reply.generation_id.to_string(), &reading.reply.message_id);
            return Some((Ok::<Bytes, Infallible>(start), reading));
        }
        if reading.ended {
            return None;
        }
        let frame = match tokio::time::timeout(KEEP_ALIVE_AFTER, reading.reply.next()).await {
            Ok(event) => {
                let event = event?;
                reading.ended = matches!(event, Event::End(_));
                reading.encoder.encode(&event)
            }
            Err(_) => KEEP_ALIVE,
        };
        Some((Ok(frame), reading))
    });
    let (name, value) = PROTOCOL_HEADER;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store")),
        (header::HeaderName::from_static(name), HeaderValue::from_static(value)),
        // nginx would hold words back.
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, Body::from_stream(frames)).into_response()
}

/// Waits for a reply to be whole and stored.
async fn wait_for(mut reply: Reply) -> Result<ChatAnswer, Problem> {
    let is_stored = reply.is_stored();
    let mut text = String::new();
    while let Some(event) = reply.next().await {
        match event {
            Event::Text(more) => text.push_str(&more),
            Event::End(outcome) => return answer(reply.message_id, text, *outcome, is_stored),
        }
    }
    Err(Problem::new(Code::Unavailable, "The reply was interrupted on our side."))
}

/// A reply that failed just now is an error; one that was stored interrupted is what the caller asked to see again.
fn answer(id: String, text: String, outcome: Outcome, is_stored: bool) -> Result<ChatAnswer, Problem> {
    match outcome.status {
        MessageStatus::Complete | MessageStatus::Stopped => {}
        MessageStatus::Interrupted if is_stored => {}
        MessageStatus::Interrupted | MessageStatus::Failed | MessageStatus::Generating => {
            return Err(outcome.problem());
        }
    }
    let Outcome { status, model, usage, quota, created_at, .. } = outcome;
    let role = MessageRole::Assistant;
    let message = UiMessage::new(id, role, text, metadata(role, status, model, created_at));
    Ok(ChatAnswer { message, usage, quota })
}

/// What a caller is told. Payment problems carry what a paywall needs.
fn problem(error: ChatError, chat: &Chat) -> Problem {
    let paywall = |problem: Problem, quota: Quota| {
        problem
            .with("plan", quota.plan)
            .with("used", quota.used)
            .with("limit", quota.limit)
            .with("resets_at", time::rfc3339(quota.resets_at))
            .with("upgrade_url", chat.billing.upgrade_url())
    };
    match error {
        ChatError::NotFound => Problem::not_found(),
        ChatError::Invalid(errors) => Problem::validation(errors),
        ChatError::Taken => Problem::new(Code::Conflict, "This id was used for another conversation."),
        ChatError::IdempotencyMismatch => {
            Problem::new(Code::IdempotencyMismatch, "This message id was used for another text.")
        }
        ChatError::Superseded => Problem::new(
            Code::Conflict,
            "Newer messages came after this one; send its text as a new message.",
        ),
        ChatError::CompanionGone => Problem::new(Code::Conflict, "This companion is not available any more."),
        ChatError::GenerationInProgress => {
            Problem::new(Code::GenerationInProgress, "A reply is being made in this conversation.")
        }
        ChatError::TooManyGenerations => {
            Problem::new(Code::RateLimited, "Several replies are being made for you; wait for one of them.")
        }
        ChatError::Overloaded => {
            Problem::new(Code::Overloaded, "No more replies can be begun at the moment.")
        }
        ChatError::QuotaExhausted(quota) => {
            paywall(Problem::new(Code::QuotaExhausted, "Today's messages are used up."), quota)
        }
        ChatError::SubscriptionRequired(quota) => {
            paywall(Problem::new(Code::SubscriptionRequired, "This needs a subscription."), quota)
        }
        ChatError::Auth(error) => error.into(),
        ChatError::Storage(error) | ChatError::Key(KeyError::Storage(error)) => Problem::storage(error),
        ChatError::Key(KeyError::DoesNotOpen(_)) | ChatError::Job(_) => Problem::internal(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_accepted_form_is_chosen() {
        for (accept, form) in [
            (None, Some(Form::Stream)),
            (Some("*/*"), Some(Form::Stream)),
            (Some("text/event-stream"), Some(Form::Stream)),
            (Some("application/json"), Some(Form::Json)),
            (Some("application/*"), Some(Form::Json)),
            (Some("Application/JSON; charset=utf-8"), Some(Form::Json)),
            (Some("application/json, text/event-stream"), Some(Form::Stream)),
            (Some("application/json, */*;q=0.8"), Some(Form::Json)),
            (Some("application/json;q=0.5, text/event-stream;q=0.4"), Some(Form::Json)),
            (Some("application/json, text/plain, */*"), Some(Form::Stream)),
            (Some("text/event-stream;q=0, application/json"), Some(Form::Json)),
            (Some("text/html"), None),
            (Some("*/*;q=0"), None),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(header::ACCEPT, accept.parse().unwrap());
            }
            assert_eq!(Form::accepted(&headers).ok(), form, "{accept:?}");
        }
    }
}
