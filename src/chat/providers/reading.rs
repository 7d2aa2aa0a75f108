//! Reads a vendor's stream: bytes become events, events become parts of a reply.
//!
//! What differs between vendors is a [`Wire`]. What is the same for all of them stands here: a reply is complete with a
//! finish reason or an end mark, else it was cut; after its end nothing counts; and whoever has given the finish reason
//! and only keeps the connection open is not waited for.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::{complaint::Complaint, sse::SseParser};
use crate::chat::provider::{FinishReason, ProviderError, ReplyPart, ReplyStream, TokenCount};

/// How long the count of tokens and the end mark may take after the finish reason.
const AFTER_FINISH: Duration = Duration::from_secs(3);

/// A wire format.
pub trait Wire: Default + Send + 'static {
    /// Whether the data of an event is a mark, other than JSON, that nothing follows.
    fn is_end_mark(data: &str) -> bool;

    /// Makes parts of the JSON of one event, or of an answer that came whole. What it does not know passes by.
    fn chunk(&mut self, chunk: &Value, parts: &mut Parts);

    /// What an error means to the caller.
    fn judge(complaint: &Complaint<'_>) -> ProviderError;
}

/// The parts of a reply that were read and not taken yet, and whether it has ended.
#[derive(Default)]
pub struct Parts {
    ready: VecDeque<Result<ReplyPart, ProviderError>>,
    finish: Option<FinishReason>,
    is_over: bool,
}

impl Parts {
    /// Visible text; none is none. Also after a finish reason: some servers repeat one in every chunk.
    pub fn text(&mut self, text: &str) {
        if !text.is_empty() {
            self.add(ReplyPart::Text(text.to_owned()));
        }
    }

    /// The model thinks.
    pub fn reasoning(&mut self) {
        self.add(ReplyPart::Reasoning);
    }

    /// What the vendor counted so far.
    pub fn usage(&mut self, count: TokenCount) {
        self.add(ReplyPart::Usage(count));
    }

    /// The finish reason. The count of tokens and the end mark may follow.
    pub fn finish(&mut self, reason: FinishReason) {
        self.finish = Some(reason);
    }

    /// The end mark.
    pub fn end(&mut self) {
        let reason = self.finish.unwrap_or(FinishReason::Stop);
        self.add(ReplyPart::Finish(reason));
        self.is_over = true;
    }

    /// The stream broke. After a finish reason nothing was lost but the usage.
    pub fn broken(&mut self, error: ProviderError) {
        if self.finish.is_some() {
            self.end();
        } else if !self.is_over {
            self.is_over = true;
            self.ready.push_back(Err(error));
        }
    }

    fn add(&mut self, part: ReplyPart) {
        if !self.is_over {
            self.ready.push_back(Ok(part));
        }
    }
}

/// Turns the bytes of a stream, in whatever pieces, into parts of a reply.
pub fn decode<W: Wire>(bytes: BoxStream<'static, Result<Bytes, ProviderError>>) -> ReplyStream {
    let reading = Reading {
        bytes,
        parser: Some(SseParser::default()),
        wire: W::default(),
        parts: Parts::default(),
        until: None,
    };
    stream::unfold(reading, |mut reading| async move {
        reading.next().await.map(|part| (part, reading)) // Boxed below, so the future may be large.
    })
    .boxed()
}

/// Reads an answer that came whole although a stream was asked for.
pub fn whole<W: Wire>(answer: &Value) -> Result<ReplyStream, ProviderError> {
    let mut parts = Parts::default();
    W::default().chunk(answer, &mut parts);
    parts.broken(ProviderError::Truncated);
    match parts.ready.pop_front() {
        Some(Err(error)) => Err(error),
        Some(first) => Ok(stream::iter(std::iter::once(first).chain(parts.ready)).boxed()),
        None => Err(ProviderError::Truncated),
    }
}

struct Reading<W> {
    bytes: BoxStream<'static, Result<Bytes, ProviderError>>,
    /// `None` when nothing more is to be read.
    parser: Option<SseParser>,
    wire: W,
    parts: Parts,
    /// How long the rest is waited for, once the finish reason is known.
    until: Option<Instant>,
}

impl<W: Wire> Reading<W> {
    async fn next(&mut self) -> Option<Result<ReplyPart, ProviderError>> {
        loop {
            if let Some(part) = self.parts.ready.pop_front() {
                return Some(part);
            }
            self.parser.as_ref()?;
            let next = match self.until {
                Some(until) => timeout_at(until, self.bytes.next()).await.unwrap_or(None),
                None => self.bytes.next().await,
            };
            match next {
                Some(Ok(piece)) => self.piece(&piece),
                Some(Err(error)) => self.parts.broken(error),
                None => self.end_of_bytes(),
            }
            let has_said_more = !self.parts.ready.is_empty();
            if self.parts.is_over {
                self.parser = None;
            } else if self.parts.finish.is_some() && (has_said_more || self.until.is_none()) {
                // A server that only keeps the connection open from here on has said everything.
                self.until = Instant::now().checked_add(AFTER_FINISH);
            }
        }
    }

    fn piece(&mut self, piece: &[u8]) {
        let Some(parser) = self.parser.as_mut() else { return };
        let mut events = Vec::new();
        let result = parser.push(piece, &mut events);
        for data in &events {
            self.event(data);
        }
        if let Err(error) = result {
            self.parts.broken(ProviderError::Protocol(error.to_string()));
        }
    }

    /// An event that the end of the stream cut off counts if it is the end mark or whole JSON.
    fn end_of_bytes(&mut self) {
        if let Some(data) = self.parser.take().and_then(SseParser::finish)
            && (W::is_end_mark(&data) || serde_json::from_str::<Value>(&data).is_ok())
        {
            self.event(&data);
        }
        self.parts.broken(ProviderError::Truncated);
    }

    fn event(&mut self, data: &str) {
        if self.parts.is_over || data.trim().is_empty() {
            return;
        }
        if W::is_end_mark(data) {
            self.parts.end();
            return;
        }
        match serde_json::from_str::<Value>(data) {
            Ok(chunk) => self.wire.chunk(&chunk, &mut self.parts),
            Err(_) => self.parts.broken(ProviderError::Protocol("an event that is not JSON".into())),
        }
    }
}
