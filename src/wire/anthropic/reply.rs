//! Puts a message together from the events of its stream, or from a whole body.
//!
//! Without `message_stop` and a stop reason that means a finished answer, it never gives a reply.

use crate::screen::is_blank;
use crate::types::{Class, Failure, Prompt, Reply};
use crate::wire::halves::{self, Repaired, Text};
use crate::wire::lenient::{Label, Object};
use crate::wire::{Dialect, Progress, ReasoningTags, excerpt, structured, told};

use super::error;
use super::message::{Block, Counts, Delta, Event, Start, StopDetails, Whole};
use super::request::DEFAULT_MAX_TOKENS;

/// Collects one message.
#[derive(Debug)]
pub struct Decoder {
    text: Text,
    model: String,
    id: Option<String>,
    counts: Option<Counts>,
    stop: Option<StopReason>,
    details: Option<StopDetails>,
    began: bool,
    wrapped: bool,
    tags: ReasoningTags,
    ended: bool,
    max_tokens: u32,
}

impl Decoder {
    pub(in crate::wire) fn new(prompt: &Prompt, dialect: &Dialect) -> Self {
        Self {
            text: Text::default(),
            model: String::new(),
            id: None,
            counts: None,
            stop: None,
            details: None,
            began: false,
            wrapped: structured::needs_wrapping(&prompt.shape, dialect.structured),
            tags: dialect.reasoning_tags,
            ended: false,
            max_tokens: prompt.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS),
        }
    }

    pub(in crate::wire) fn event(&mut self, name: Option<&str>, data: &str) -> Result<Progress, Failure> {
        if self.ended {
            return Ok(Progress::Ended);
        }
        // Some gateways send empty keep-alives, and some close with OpenAI's mark, which proves nothing here.
        if data.trim().is_empty() || data == "[DONE]" {
            return Ok(Progress::Waiting);
        }
        match Event::read(name, data) {
            Ok(event) => self.take(event, None),
            Err(failure) => {
                // Only half a character may be the reason.
                let Repaired { json, mark } = halves::repair(data).ok_or(failure)?;
                self.take(Event::read(name, &json)?, Some(mark))
            }
        }
    }

    fn take(&mut self, event: Event<'_>, mark: Option<char>) -> Result<Progress, Failure> {
        if let Some(error) = event.error {
            return Err(self.broken(error::classify(None, &error.value)));
        }
        match &*event.kind {
            "message_start" => {
                self.began = true;
                self.start(event.message.unwrap_or_default(), mark);
                Ok(Progress::Waiting)
            }
            "content_block_start" => self.open(&event.content_block.unwrap_or_default(), mark),
            "content_block_delta" => self.append(&event.delta.unwrap_or_default(), mark),
            "message_delta" => {
                let delta = event.delta.unwrap_or_default();
                self.stopped(&delta.stop_reason, delta.stop_details.0);
                self.count(event.usage.0);
                Ok(Progress::Waiting)
            }
            "message_stop" => {
                self.ended = true;
                Ok(Progress::Ended)
            }
            "error" => {
                Err(self
                    .broken(Failure::new(Class::ServerError, "an error without a message").maybe_charged()))
            }
            // `ping`, `content_block_stop`, and whatever is added later.
            _ => Ok(Progress::Waiting),
        }
    }

    pub(in crate::wire) fn whole(&mut self, body: &[u8]) -> Result<(), Failure> {
        match serde_json::from_slice(body) {
            Ok(message) => self.take_whole(message, None),
            Err(error) => {
                let repaired = str::from_utf8(body).ok().and_then(halves::repair);
                let Repaired { json, mark } = repaired.ok_or_else(|| told::unreadable(body, &error))?;
                let message = serde_json::from_str(&json).map_err(|error| told::unreadable(body, &error))?;
                self.take_whole(message, Some(mark))
            }
        }
    }

    fn take_whole(&mut self, message: Whole<'_>, mark: Option<char>) -> Result<(), Failure> {
        if let Some(error) = message.error {
            return Err(error::classify(None, &error.value));
        }
        for block in &message.content {
            self.open(block, mark)?;
        }
        self.stopped(&message.stop_reason, message.stop_details.0);
        self.count(message.usage.0);
        self.start(Start { id: message.id, model: message.model, usage: Object(None) }, mark);
        self.ended = true;
        Ok(())
    }

    /// Returns how many bytes of the answer are held.
    pub(in crate::wire) fn held_bytes(&self) -> usize {
        self.text.len() + self.model.len() + self.id.as_ref().map_or(0, String::len)
    }

    pub(in crate::wire) fn finish(self) -> Result<Reply, Failure> {
        // Until `message_delta` has come the counts are those of the opening: unknown, not small.
        let usage = self.counts.filter(|_| self.stop.is_some()).and_then(Counts::usage);
        let Self { text, model, id: request_id, stop, details, ended, wrapped, tags, max_tokens, .. } = self;
        let text = tags.answer(text.into_string());
        if !ended {
            return Err(unreadable("the stream ended without message_stop", None).used(usage));
        }
        let Some(stop) = stop else {
            return Err(unreadable("the message ended without a stop reason", None).used(usage));
        };
        let is_at_limit = usage.is_some_and(|usage| usage.output.0 >= u64::from(max_tokens));
        let stop = if stop == StopReason::Number && is_at_limit { StopReason::MaxTokens } else { stop };
        let failed = match stop {
            StopReason::Number | StopReason::EndTurn | StopReason::StopSequence => {
                return Ok(Reply { text: structured::unwrap(text, wrapped), usage, model, request_id });
            }
            StopReason::MaxTokens => failure(
                Class::Truncated,
                "the answer reached max_tokens and is cut; raise max_tokens or ask for less",
                Some("max_tokens"),
            ),
            StopReason::ContextWindow => failure(
                Class::TooLong,
                "prompt and answer together do not fit the model's context window",
                Some("model_context_window_exceeded"),
            ),
            StopReason::Refusal => {
                let why = details.unwrap_or_default().to_string();
                failure(Class::ContentFilter, format!("the model refused{why}"), Some("refusal"))
            }
            StopReason::ToolUse => {
                unreadable("the model asked for a tool, and none was offered", Some("tool_use"))
            }
            StopReason::PauseTurn => {
                unreadable("the model paused before its answer was whole", Some("pause_turn"))
            }
            StopReason::Other(reason) => unreadable(
                format!("the message ended with the unknown stop reason {reason:?}"),
                Some(&reason),
            ),
        };
        let failure = failed.used(usage);
        Err(if text.is_empty() { failure } else { failure.with_text(text) })
    }

    fn start(&mut self, start: Start<'_>, mark: Option<char>) {
        let word = |label: &Label<'_>| label.as_str().map(|text| excerpt::word(&halves::alone(text, mark)));
        self.id = word(&start.id).or(self.id.take());
        if let Some(model) = word(&start.model) {
            self.model = model;
        }
        self.count(start.usage.0);
    }

    fn open(&mut self, block: &Block<'_>, mark: Option<char>) -> Result<Progress, Failure> {
        Ok(match &*block.kind {
            "text" => return self.say(&block.text, mark),
            // Reasoning that is not shown comes whole, in its opening.
            "redacted_thinking" => Progress::Answering,
            _ => Progress::Waiting,
        })
    }

    fn append(&mut self, delta: &Delta<'_>, mark: Option<char>) -> Result<Progress, Failure> {
        Ok(match &*delta.kind {
            "text_delta" => return self.say(&delta.text, mark),
            "thinking_delta" if !delta.thinking.is_empty() => Progress::Answering,
            "signature_delta" => Progress::Answering,
            "input_json_delta" if !delta.partial_json.is_empty() => Progress::Answering,
            _ => Progress::Waiting,
        })
    }

    fn say(&mut self, text: &str, mark: Option<char>) -> Result<Progress, Failure> {
        if self.stop.is_some() && !is_blank(text) {
            return Err(unreadable("more of the answer came after its stop reason", None).maybe_charged());
        }
        if text.is_empty() {
            return Ok(Progress::Waiting);
        }
        self.text.push(text, mark);
        Ok(Progress::Answering)
    }

    /// Of several reasons the worst counts.
    fn stopped(&mut self, reason: &Label<'_>, details: Option<StopDetails>) {
        let reason = match reason {
            Label::Missing => None,
            Label::Number(_) => Some(StopReason::Number),
            Label::Text(word) => Some(StopReason::read(word)),
        };
        self.stop = self.stop.take().max(reason);
        self.details = details.map(StopDetails::cut).or(self.details.take());
    }

    fn count(&mut self, counts: Option<Counts>) {
        if let Some(counts) = counts {
            self.counts.get_or_insert_default().update(counts);
        }
    }

    /// What breaks off a message that had begun may have been charged, whatever it is.
    fn broken(&self, failure: Failure) -> Failure {
        if self.began { failure.maybe_charged() } else { failure }
    }
}

fn failure(class: Class, message: impl Into<Box<str>>, code: Option<&str>) -> Failure {
    let mut failure = Failure::new(class, message);
    failure.code = code.map(Box::from);
    failure
}

fn unreadable(message: impl Into<Box<str>>, code: Option<&str>) -> Failure {
    failure(Class::Unreadable, message, code)
}

/// Why the model stopped. The later of two is the worse.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum StopReason {
    /// A number, which names no reason.
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
    fn read(word: &str) -> Self {
        match word {
            "end_turn" => Self::EndTurn,
            "stop_sequence" => Self::StopSequence,
            "max_tokens" => Self::MaxTokens,
            "tool_use" => Self::ToolUse,
            "pause_turn" => Self::PauseTurn,
            "refusal" => Self::Refusal,
            "model_context_window_exceeded" => Self::ContextWindow,
            other => Self::Other(excerpt::word(other).into()),
        }
    }
}

#[cfg(test)]
mod tests;
