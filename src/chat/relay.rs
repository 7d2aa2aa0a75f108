//! Between a provider and a reply: the words that come back.

use std::sync::{Mutex, PoisonError};

use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument as _;

use super::{
    Chat, ChatError, NamedProvider, Usage,
    breaker::Pass,
    context::Context,
    prompt,
    provider::{FinishReason, Prompt, ProviderError, ReplyPart, TimeLimit, TokenCount},
    supervisor::{Ending, Task},
};

/// What is known of a reply besides its text.
#[derive(Default)]
pub struct Tally {
    /// Who answered last.
    pub provider: Option<String>,
    /// With which model.
    pub model: Option<String>,
    /// What the provider counted.
    pub counted: Option<TokenCount>,
    /// What we guess that the prompt has.
    pub prompt_estimate: u64,
    /// How many messages the prompt holds, where older ones were left out.
    pub cut_to: Option<usize>,
    /// Whether some attempt ended as a message can make it end: it may have been paid for, whoever was asked afterwards.
    pub is_provoked: bool,
}

impl Chat {
    /// Asks a provider once. Text goes to the readers as it comes; what is known besides goes to the tally.
    ///
    /// Until the first sign of life, `first_word_by` limits it, and from then on `idle_timeout` from one to the next. Signs of
    /// life are visible text and thinking. Comments, empty events and counts of tokens are none: a provider that only keeps the
    /// connection warm has stalled.
    ///
    /// `room` is what the prompt may have, in tokens as we estimate them, where that is less than fits the model. Says also what
    /// room a shorter prompt would have.
    pub(super) async fn read_provider(
        &self,
        task: &Task,
        candidate: &NamedProvider,
        tally: &Mutex<Tally>,
        first_word_by: Instant,
        pass: &mut Pass<'_>,
        room: Option<u64>,
    ) -> (Ending, Option<u64>) {
        // In a box of its own, as in `supervise`: it is there for a moment.
        let context = match Box::pin(self.context(task, candidate, room)).await {
            Ok(context) => context,
            Err(ChatError::NotFound) => return (Ending::Stopped, None),
            Err(error) => {
                tracing::error!(%error, "the context of a reply could not be read");
                return (Ending::Fault, None);
            }
        };
        note(tally, |tally| *tally = Tally::with(candidate, &context, tally.is_provoked));
        let (estimate, less) = (context.estimate, context.less());
        let span = attempt_span(candidate);
        let reading = self.read_reply(task, candidate, context.prompt, tally, first_word_by, pass);
        let ending = reading.instrument(span.clone()).await;
        note_attempt(&span, &ending, tally);
        note(tally, |tally| tally.is_provoked |= ending.can_be_provoked());
        self.learn(candidate, estimate, tally);
        (ending, less)
    }

    /// Remembers how far the provider's count is from our estimate.
    fn learn(&self, candidate: &NamedProvider, estimate: u64, tally: &Mutex<Tally>) {
        let counted = tally.lock().unwrap_or_else(PoisonError::into_inner).counted;
        if let Some(TokenCount { input, .. }) = counted {
            self.ratios.learn(&candidate.provider.model().name, estimate, input);
        }
    }

    async fn read_reply(
        &self,
        task: &Task,
        candidate: &NamedProvider,
        prompt: Prompt,
        tally: &Mutex<Tally>,
        first_word_by: Instant,
        pass: &mut Pass<'_>,
    ) -> Ending {
        let mut pace = Pace::of(&candidate.name);
        let mut stream = match timeout_at(first_word_by, candidate.provider.reply(prompt)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Ending::Failed(error),
            Err(_) => return Ending::Failed(ProviderError::TimedOut(TimeLimit::FirstToken)),
        };
        let (mut quiet_by, mut limit) = (first_word_by, TimeLimit::FirstToken);
        loop {
            let Ok(part) = timeout_at(quiet_by, stream.next()).await else {
                return Ending::Failed(ProviderError::TimedOut(limit));
            };
            match part {
                Some(Ok(ReplyPart::Text(text))) => {
                    let is_first = task.generation.len() == 0;
                    // White space is no word: a reply does not begin with it.
                    let text = if is_first { text.trim_start() } else { &text };
                    if text.is_empty() {
                        continue;
                    }
                    pace.has_spoken();
                    if !task.generation.is_allowed(text, &*self.parts().filter) {
                        return Ending::Refused;
                    }
                    if !task.generation.push(text) {
                        return Ending::Finished(FinishReason::Length);
                    }
                }
                // A model that thinks is not silent.
                Some(Ok(ReplyPart::Reasoning)) => {}
                Some(Ok(ReplyPart::Usage(counted))) => {
                    note(tally, |tally| tally.counted = Some(counted));
                    continue;
                }
                Some(Ok(ReplyPart::Finish(reason))) => return Ending::Finished(reason),
                Some(Err(error)) => return Ending::Failed(error),
                None => return Ending::Failed(ProviderError::Truncated),
            }
            pass.has_answered();
            let now = Instant::now();
            limit = TimeLimit::Idle;
            quiet_by = now.checked_add(self.parts().settings.idle_timeout).unwrap_or(now);
        }
    }
}

/// How fast a provider speaks, for the metrics. Each word counts, so the histogram of the gaps is looked up once.
struct Pace<'a> {
    provider: &'a str,
    newest_text: Instant,
    gaps: Option<metrics::Histogram>,
}

impl Pace<'_> {
    /// It has been asked, and has said nothing.
    fn of(provider: &str) -> Pace<'_> {
        Pace { provider, newest_text: Instant::now(), gaps: None }
    }

    fn has_spoken(&mut self) {
        let now = Instant::now();
        let gap = now.saturating_duration_since(std::mem::replace(&mut self.newest_text, now));
        if let Some(gaps) = &self.gaps {
            gaps.record(gap);
            return;
        }
        let provider = self.provider.to_owned();
        metrics::histogram!("chat_first_token_seconds", "provider" => provider.clone()).record(gap);
        self.gaps = Some(metrics::histogram!("chat_text_gap_seconds", "provider" => provider));
    }
}

impl Tally {
    fn with(candidate: &NamedProvider, context: &Context, is_provoked: bool) -> Tally {
        Tally {
            provider: Some(candidate.name.clone()),
            model: Some(candidate.provider.model().name.clone()),
            counted: None,
            prompt_estimate: context.estimate,
            cut_to: context.cut_to,
            is_provoked,
        }
    }

    /// What the provider counted, or our estimate where it did not.
    pub fn usage(&self, text: &str) -> Usage {
        let number = |tokens: u64| i64::try_from(tokens).unwrap_or(i64::MAX);
        match self.counted {
            Some(counted) => Usage {
                input_tokens: number(counted.input),
                output_tokens: number(counted.output),
                estimated: false,
            },
            None => Usage {
                input_tokens: number(self.prompt_estimate),
                output_tokens: if text.is_empty() { 0 } else { number(prompt::estimate(text)) },
                estimated: true,
            },
        }
    }
}

/// One attempt at a provider, in the terms of OpenTelemetry's semantic conventions for generative AI. It never has a prompt
/// or a reply in it.
fn attempt_span(candidate: &NamedProvider) -> tracing::Span {
    let model = candidate.provider.model();
    tracing::info_span!(
        "chat",
        gen_ai.operation.name = "chat",
        gen_ai.provider.name = candidate.name,
        gen_ai.request.model = model.name,
        gen_ai.request.max_tokens = model.max_output_tokens,
        gen_ai.response.finish_reasons = tracing::field::Empty,
        gen_ai.usage.input_tokens = tracing::field::Empty,
        gen_ai.usage.output_tokens = tracing::field::Empty,
    )
}

/// What is known once an attempt is over.
fn note_attempt(span: &tracing::Span, ending: &Ending, tally: &Mutex<Tally>) {
    if let Ending::Finished(reason) = ending {
        span.record("gen_ai.response.finish_reasons", reason.as_str());
    }
    if let Some(TokenCount { input, output }) = tally.lock().unwrap_or_else(PoisonError::into_inner).counted {
        span.record("gen_ai.usage.input_tokens", input);
        span.record("gen_ai.usage.output_tokens", output);
    }
}

fn note(tally: &Mutex<Tally>, change: impl FnOnce(&mut Tally)) {
    change(&mut tally.lock().unwrap_or_else(PoisonError::into_inner));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_estimated_only_where_nobody_counted() {
        let mut tally = Tally { prompt_estimate: 10, ..Tally::default() };
        assert_eq!(tally.usage("123456"), Usage { input_tokens: 10, output_tokens: 6, estimated: true });
        assert_eq!(tally.usage("").output_tokens, 0);
        tally.counted = Some(TokenCount { input: 1, output: 2 });
        assert_eq!(tally.usage("123456"), Usage { input_tokens: 1, output_tokens: 2, estimated: false });
    }
}
