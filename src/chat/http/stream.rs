//! A reply on its way out: as a stream of frames, or whole as JSON.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::{
    Failure, MessageRole, MessageStatus, Outcome, Usage,
    generation::Event,
    message::UiMessage,
    provider::FinishReason,
    reply::Reply,
    service::metadata,
    ui_stream::{Encoder, KEEP_ALIVE, PROTOCOL_HEADER},
};
use crate::{
    billing::Quota,
    platform::problem::{Code, Problem},
};

/// The answer to a message where no stream was asked for.
#[derive(Serialize, ToSchema)]
pub(super) struct ChatAnswer {
    message: UiMessage,
    usage: Usage,
    quota: Option<Quota>,
}

/// A reply on its way to one reader.
struct Reading {
    reply: Reply,
    encoder: Encoder,
    request_id: String,
    keep_alive: Duration,
    at: Place,
}

/// How far a reader is.
#[derive(PartialEq, Eq)]
enum Place {
    Start,
    Middle,
    End,
}

/// Streams a reply to one reader, with comments while nothing is said.
pub(super) fn stream_reply(reply: Reply, keep_alive: Duration, request_id: String) -> Response {
    let reading = Reading { reply, encoder: Encoder::default(), request_id, keep_alive, at: Place::Start };
    let frames = stream::unfold(reading, |mut reading| async move {
        let frame = reading.next().await?;
        Some((Ok::<Bytes, Infallible>(frame), reading))
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

impl Reading {
    async fn next(&mut self) -> Option<Bytes> {
        match self.at {
            Place::Start => {
                self.at = Place::Middle;
                let generation_id = self.reply.generation_id.to_string();
                let quota = self.reply.quota.as_ref();
                return Some(Encoder::start(&generation_id, &self.reply.message_id, quota));
            }
            Place::Middle => {}
            Place::End => return None,
        }
        let Ok(heard) = tokio::time::timeout(self.keep_alive, self.reply.next()).await else {
            return Some(KEEP_ALIVE);
        };
        Some(match heard {
            Ok(Some(Event::Text(text))) => self.encoder.text(&text),
            Ok(Some(Event::End(outcome))) => {
                self.at = Place::End;
                self.end(&outcome)
            }
            Ok(None) => return None,
            Err(error) => {
                self.at = Place::End;
                self.encoder.fail(&Problem::from(error).body(&self.request_id))
            }
        })
    }

    fn end(&mut self, outcome: &Outcome) -> Bytes {
        match outcome.status {
            MessageStatus::Complete => self.encoder.finish(outcome),
            MessageStatus::Stopped => self.encoder.abort(),
            MessageStatus::Interrupted | MessageStatus::Failed | MessageStatus::Generating => {
                let mut problem = problem(outcome).body(&self.request_id);
                if let (true, Some(fields)) = (self.reply.is_stored(), problem.as_object_mut()) {
                    // It will be the same however long one waits.
                    fields.remove("retry_after_s");
                }
                self.encoder.fail(&problem)
            }
        }
    }
}

/// Waits for a reply to be whole and stored.
pub(super) async fn wait_for(mut reply: Reply) -> Result<ChatAnswer, Problem> {
    let is_stored = reply.is_stored();
    let mut text = String::new();
    while let Some(event) = reply.next().await? {
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
            return Err(problem(&outcome));
        }
    }
    let Outcome { status, model, usage, quota, created_at, .. } = outcome;
    let role = MessageRole::Assistant;
    let message = UiMessage::new(id, role, text, metadata(role, status, model, created_at));
    Ok(ChatAnswer { message, usage, quota })
}

/// What a caller is told about a reply that is not whole. API.md: 429, 503, 529 are `provider_unavailable`, a passed time
/// limit `provider_timeout`, everything else of a provider `provider_failed`; a refusal too, because `content_refused` is
/// what our own rules say.
fn problem(outcome: &Outcome) -> Problem {
    let (code, detail) = match outcome.failure.unwrap_or(Failure::Fault) {
        Failure::Declined if outcome.finish == Some(FinishReason::ContentFilter) => {
            (Code::ContentRefused, "The companion cannot say this.")
        }
        Failure::Failed => (Code::ProviderFailed, "The companion could not finish the answer."),
        Failure::Busy => (Code::ProviderUnavailable, "The companion is busy at the moment."),
        Failure::TooSlow => (Code::ProviderTimeout, "The companion took too long."),
        Failure::Declined => (Code::ProviderFailed, "The companion declined to answer this."),
        Failure::BrokenOff => (Code::Unavailable, "The reply was interrupted on our side."),
        Failure::Fault => (Code::Internal, "The fault was recorded."),
    };
    let problem = Problem::new(code, detail);
    match outcome.retry_after {
        Some(wait) => problem.retry_after(wait),
        None => problem,
    }
}
