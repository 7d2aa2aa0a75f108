//! A reply as one caller hears it, for as long as the caller's session lives.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::{
    Chat, ChatError, Outcome,
    generation::{Event, Generation, Reader},
};
use crate::{
    auth::{Auth, AuthError, Caller},
    billing::Quota,
};

/// A reply that can be listened to, whether it is being made or was made long ago.
pub struct Reply {
    /// The generation's id.
    pub generation_id: Uuid,
    /// The id of the reply as a message.
    pub message_id: String,
    /// What the day had left when it was charged; unknown for one that was made before.
    pub quota: Option<Quota>,
    source: Source,
    session: SessionWatch,
}

enum Source {
    Live(Reader),
    Stored { text: Option<String>, outcome: Option<Box<Outcome>> },
}

impl Reply {
    /// Listens to a reply that is being made.
    pub(super) fn live(generation: &Arc<Generation>, session: SessionWatch) -> Reply {
        Reply {
            generation_id: generation.id,
            message_id: generation.reply_id.clone(),
            quota: generation.quota().cloned(),
            source: Source::Live(generation.read()),
            session,
        }
    }

    /// Gives a reply that was made before.
    pub(super) fn stored(
        generation_id: Uuid,
        message_id: String,
        text: String,
        outcome: Outcome,
        session: SessionWatch,
    ) -> Reply {
        let source = Source::Stored { text: Some(text), outcome: Some(Box::new(outcome)) };
        Reply { generation_id, message_id, quota: None, source, session }
    }

    /// What comes next; `None` after the end. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    ///
    /// [`AuthError::Unauthenticated`] once the caller's session has ended. The reply goes on without this caller.
    pub async fn next(&mut self) -> Result<Option<Event>, ChatError> {
        loop {
            tokio::select! {
                biased; // However much there is to say, the session is looked at.
                () = sleep_until(self.session.check_at) => self.session.check().await?,
                event = self.source.next() => return Ok(event),
            }
        }
    }

    /// Whether it was made before this request.
    pub fn is_stored(&self) -> bool {
        matches!(self.source, Source::Stored { .. })
    }
}

impl Source {
    async fn next(&mut self) -> Option<Event> {
        match self {
            Source::Live(reader) => reader.next().await,
            Source::Stored { text, outcome } => match text.take().filter(|text| !text.is_empty()) {
                Some(text) => Some(Event::Text(text)),
                None => outcome.take().map(Event::End),
            },
        }
    }
}

/// Looks now and then whether a caller's session still lives.
pub struct SessionWatch {
    auth: Auth,
    caller: Caller,
    every: Duration,
    check_at: Instant,
}

impl Chat {
    /// Watches a caller's session from now on.
    pub(super) fn watch(&self, caller: Caller) -> SessionWatch {
        let every = self.parts().settings.intervals.session_check;
        SessionWatch { auth: self.parts().auth.clone(), caller, every, check_at: from_now(every) }
    }
}

impl SessionWatch {
    async fn check(&mut self) -> Result<(), ChatError> {
        match self.auth.is_live(self.caller).await {
            Ok(true) => {}
            Ok(false) => return Err(AuthError::Unauthenticated.into()),
            // The next look tells; a database that is away for a moment ends no stream.
            Err(error) => tracing::warn!(%error, "a session could not be looked at"),
        }
        self.check_at = from_now(self.every);
        Ok(())
    }
}

fn from_now(by: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(by).unwrap_or(now)
}
