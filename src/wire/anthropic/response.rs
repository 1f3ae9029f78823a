//! Decodes a message from stream events or from a complete body.
//!
//! Returns a completion only after `message_stop` and a stop reason of a finished answer.

use crate::terminal_text::is_blank;
use crate::types::{Class, Completion, Failure, Prompt};
use crate::wire::lenient::{LenientObject, LenientText};
use crate::wire::surrogates::{self, JoinedText, Repaired};
use crate::wire::{Dialect, Progress, ReasoningTags, bounded_json, error_body, progress, structured_output};

use super::error;
use super::message::{Block, Counts, Delta, Event, FullMessage, MessageStart, StopDetails};
use super::request::DEFAULT_MAX_TOKENS;

/// Decodes one message.
#[derive(Debug)]
pub struct Decoder {
    text: JoinedText,
    model: String,
    id: Option<String>,
    counts: Option<Counts>,
    stop: Option<StopReason>,
    details: Option<StopDetails>,
    has_begun: bool,
    wrapped: bool,
    reasoning_tags: ReasoningTags,
    ended: bool,
    max_tokens: u32,
}

impl Decoder {
    pub(in crate::wire) fn new(prompt: &Prompt, dialect: &Dialect) -> Self {
        Self {
            text: JoinedText::default(),
            model: String::new(),
            id: None,
            counts: None,
            stop: None,
            details: None,
            has_begun: false,
            wrapped: structured_output::needs_wrapping(&prompt.response_format, dialect.structured_output),
            reasoning_tags: dialect.reasoning_tags,
            ended: false,
            max_tokens: prompt.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS),
        }
    }

    pub(in crate::wire) fn push_event(
        &mut self,
        name: Option<&str>,
        data: &str,
    ) -> Result<Progress, Failure> {
        if self.ended {
            return Ok(Progress::Ended);
        }
        if progress::is_filler(data) {
            return Ok(Progress::Waiting);
        }
        match Event::read(name, data) {
            Ok(event) => self.handle_event(event, None),
            Err(failure) => {
                // The cause may be a lone surrogate.
                let Repaired { json, mark } = surrogates::repair(data).ok_or(failure)?;
                self.handle_event(Event::read(name, &json)?, Some(mark))
            }
        }
    }

    fn handle_event(&mut self, event: Event<'_>, mark: Option<char>) -> Result<Progress, Failure> {
        if let Some(error) = event.error {
            return Err(self.charged_if_begun(error::classify(None, &error.value)));
        }
        match &*event.kind {
            "message_start" => {
                self.has_begun = true;
                self.record_start(event.message.unwrap_or_default(), mark);
                Ok(Progress::Waiting)
            }
            "content_block_start" => self.start_block(&event.content_block.unwrap_or_default(), mark),
            "content_block_delta" => self.push_delta(&event.delta.unwrap_or_default(), mark),
            "message_delta" => {
                let delta = event.delta.unwrap_or_default();
                self.record_stop(&delta.stop_reason, delta.stop_details.0);
                self.update_counts(event.usage.0);
                Ok(Progress::Waiting)
            }
            "message_stop" => {
                self.ended = true;
                Ok(Progress::Ended)
            }
            "error" => Err(self.charged_if_begun(
                Failure::new(Class::ServerError, "an error without a message").maybe_charged(),
            )),
            // `ping`, `content_block_stop`, and future types.
            _ => Ok(Progress::Waiting),
        }
    }

    pub(in crate::wire) fn push_body(&mut self, body: &[u8]) -> Result<(), Failure> {
        match serde_json::from_slice(body) {
            Ok(message) => self.take_message(message, None),
            Err(error) => {
                let Repaired { json, mark } =
                    surrogates::repair_body(body).ok_or_else(|| error_body::unreadable(body, &error))?;
                let message =
                    serde_json::from_str(&json).map_err(|error| error_body::unreadable(body, &error))?;
                self.take_message(message, Some(mark))
            }
        }
    }

    fn take_message(&mut self, message: FullMessage<'_>, mark: Option<char>) -> Result<(), Failure> {
        if let Some(error) = message.error {
            return Err(error::classify(None, &error.value));
        }
        for block in &message.content {
            self.start_block(block, mark)?;
        }
        self.record_stop(&message.stop_reason, message.stop_details.0);
        self.update_counts(message.usage.0);
        self.record_start(
            MessageStart { id: message.id, model: message.model, usage: LenientObject(None) },
            mark,
        );
        self.ended = true;
        Ok(())
    }

    /// Returns the number of buffered bytes of the answer.
    pub(in crate::wire) fn buffered_bytes(&self) -> usize {
        self.text.len() + self.model.len() + self.id.as_ref().map_or(0, String::len)
    }

    pub(in crate::wire) fn finish(self) -> Result<Completion, Failure> {
        // Before `message_delta` the counts are those of the opening event, so the usage is unknown.
        let usage = self.counts.filter(|_| self.stop.is_some()).and_then(Counts::usage);
        let Self {
            text,
            model,
            id: request_id,
            stop,
            details,
            ended,
            wrapped,
            reasoning_tags,
            max_tokens,
            ..
        } = self;
        let text = reasoning_tags.answer(text.into_string());
        if !ended {
            return Err(unreadable("the stream ended without message_stop").with_usage(usage));
        }
        let Some(stop) = stop else {
            return Err(unreadable("the message ended without a stop reason").with_usage(usage));
        };
        let is_at_limit = usage.is_some_and(|usage| usage.output.0 >= u64::from(max_tokens));
        let stop = if stop == StopReason::Number && is_at_limit { StopReason::MaxTokens } else { stop };
        let failed = match stop {
            StopReason::Number | StopReason::EndTurn | StopReason::StopSequence => {
                return Ok(Completion {
                    text: structured_output::unwrap_answer(text, wrapped),
                    usage,
                    model,
                    request_id,
                });
            }
            StopReason::MaxTokens => {
                let message = "the answer reached max_tokens and is cut; raise max_tokens or ask for less";
                Failure::new(Class::Truncated, message).with_code("max_tokens")
            }
            StopReason::ContextWindow => {
                let message = "prompt and answer together do not fit the model's context window";
                Failure::new(Class::TooLong, message).with_code("model_context_window_exceeded")
            }
            StopReason::Refusal => {
                let explanation = details.unwrap_or_default();
                let message = format!("the model refused{explanation}");
                Failure::new(Class::ContentFilter, message).with_code("refusal")
            }
            StopReason::ToolUse => {
                unreadable("the model requested a tool, and none was offered").with_code("tool_use")
            }
            StopReason::PauseTurn => {
                unreadable("the model paused before its answer was complete").with_code("pause_turn")
            }
            StopReason::Other(reason) => {
                unreadable(format!("the message ended with the unknown stop reason {reason:?}"))
                    .with_code(reason)
            }
        };
        let failure = failed.with_usage(usage);
        Err(if text.is_empty() { failure } else { failure.with_text(text) })
    }

    fn record_start(&mut self, start: MessageStart<'_>, mark: Option<char>) {
        self.id = start.id.label(mark).or(self.id.take());
        if let Some(model) = start.model.label(mark) {
            self.model = model;
        }
        self.update_counts(start.usage.0);
    }

    fn start_block(&mut self, block: &Block<'_>, mark: Option<char>) -> Result<Progress, Failure> {
        Ok(match &*block.kind {
            "text" => return self.push_text(&block.text, mark),
            // Redacted reasoning arrives completely in the opening event.
            "redacted_thinking" => Progress::Answering,
            _ => Progress::Waiting,
        })
    }

    fn push_delta(&mut self, delta: &Delta<'_>, mark: Option<char>) -> Result<Progress, Failure> {
        Ok(match &*delta.kind {
            "text_delta" => return self.push_text(&delta.text, mark),
            "thinking_delta" if !delta.thinking.is_empty() => Progress::Answering,
            "signature_delta" => Progress::Answering,
            "input_json_delta" if !delta.partial_json.is_empty() => Progress::Answering,
            _ => Progress::Waiting,
        })
    }

    fn push_text(&mut self, text: &str, mark: Option<char>) -> Result<Progress, Failure> {
        if self.stop.is_some() && !is_blank(text) {
            return Err(unreadable("the answer continued after its stop reason").maybe_charged());
        }
        if text.is_empty() {
            return Ok(Progress::Waiting);
        }
        self.text.push(text, mark);
        Ok(Progress::Answering)
    }

    /// Records a stop reason; of several reasons the worst is kept.
    fn record_stop(&mut self, reason: &LenientText<'_>, details: Option<StopDetails>) {
        let reason = match reason {
            LenientText::Missing => None,
            LenientText::Number(_) => Some(StopReason::Number),
            LenientText::Text(name) => Some(StopReason::read(name)),
        };
        self.stop = self.stop.take().max(reason);
        self.details = details.map(StopDetails::truncated).or(self.details.take());
    }

    fn update_counts(&mut self, counts: Option<Counts>) {
        if let Some(counts) = counts {
            self.counts.get_or_insert_default().update(counts);
        }
    }

    /// Marks a failure as possibly charged if the message had begun.
    fn charged_if_begun(&self, failure: Failure) -> Failure {
        if self.has_begun { failure.maybe_charged() } else { failure }
    }
}

fn unreadable(message: impl Into<Box<str>>) -> Failure {
    Failure::new(Class::Unreadable, message)
}

/// The stop reason. Later variants are worse.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum StopReason {
    /// A number, which states no reason.
    Number,
    EndTurn,
    StopSequence,
    ToolUse,
    PauseTurn,
    Other(Box<str>),
    ContextWindow,
    MaxTokens,
    Refusal,
}

impl StopReason {
    fn read(name: &str) -> Self {
        match name {
            "end_turn" => Self::EndTurn,
            "stop_sequence" => Self::StopSequence,
            "max_tokens" => Self::MaxTokens,
            "tool_use" => Self::ToolUse,
            "pause_turn" => Self::PauseTurn,
            "refusal" => Self::Refusal,
            "model_context_window_exceeded" => Self::ContextWindow,
            other => Self::Other(bounded_json::truncate_label(other).into()),
        }
    }
}

#[cfg(test)]
mod tests;
