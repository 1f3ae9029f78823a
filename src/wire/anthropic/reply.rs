//! Puts a message together from the events of its stream, or from a whole body.
//!
//! Without `message_stop` and a stop reason that means a finished answer, it never gives a reply.

use std::borrow::Cow;

use crate::screen::is_blank;
use crate::types::{Class, Failure, Prompt, Reply};
use crate::wire::{Dialect, Progress, excerpt, structured, told};

use super::error;
use super::message::{Block, Counts, Delta, Event, Start, StopDetails, Whole};

/// Collects one message.
#[derive(Debug)]
pub struct Decoder {
    text: String,
    model: String,
    id: Option<String>,
    counts: Option<Counts>,
    stop: Option<StopReason>,
    details: Option<StopDetails>,
    began: bool,
    wrapped: bool,
    ended: bool,
}

impl Decoder {
    pub(in crate::wire) fn new(prompt: &Prompt, dialect: &Dialect) -> Self {
        Self {
            text: String::new(),
            model: String::new(),
            id: None,
            counts: None,
            stop: None,
            details: None,
            began: false,
            wrapped: structured::needs_wrapping(&prompt.shape, dialect.structured),
            ended: false,
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
        let event = Event::read(name, data)?;
        if let Some(error) = event.error {
            return Err(self.broken(error::classify(None, &error.value)));
        }
        match &*event.kind {
            "message_start" => {
                self.began = true;
                self.start(event.message.unwrap_or_default());
                Ok(Progress::Waiting)
            }
            "content_block_start" => self.open(&event.content_block.unwrap_or_default()),
            "content_block_delta" => self.append(&event.delta.unwrap_or_default()),
            "message_delta" => {
                let delta = event.delta.unwrap_or_default();
                self.stopped(delta.stop_reason, delta.stop_details);
                self.count(event.usage);
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
        let message: Whole<'_> =
            serde_json::from_slice(body).map_err(|error| told::unreadable(body, &error))?;
        if let Some(error) = message.error {
            return Err(error::classify(None, &error.value));
        }
        for block in &message.content {
            self.open(block)?;
        }
        self.stopped(message.stop_reason, message.stop_details);
        self.count(message.usage);
        self.start(Start { id: message.id, model: message.model, usage: None });
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
        let Self { text, model, id: request_id, stop, details, ended, wrapped, .. } = self;
        if !ended {
            return Err(unreadable("the stream ended without message_stop", None).used(usage));
        }
        let Some(stop) = stop else {
            return Err(unreadable("the message ended without a stop reason", None).used(usage));
        };
        let failed = match stop {
            StopReason::EndTurn | StopReason::StopSequence if is_blank(&text) => {
                unreadable("the answer is empty", Some("end_turn"))
            }
            StopReason::EndTurn | StopReason::StopSequence => {
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

    fn start(&mut self, start: Start<'_>) {
        self.id = start.id.map(|id| excerpt::word(&id)).or(self.id.take());
        if !start.model.is_empty() {
            self.model = excerpt::word(&start.model);
        }
        self.count(start.usage);
    }

    fn open(&mut self, block: &Block<'_>) -> Result<Progress, Failure> {
        Ok(match &*block.kind {
            "text" => return self.say(&block.text),
            // Reasoning that is not shown comes whole, in its opening.
            "redacted_thinking" => Progress::Answering,
            _ => Progress::Waiting,
        })
    }

    fn append(&mut self, delta: &Delta<'_>) -> Result<Progress, Failure> {
        Ok(match &*delta.kind {
            "text_delta" => return self.say(&delta.text),
            "thinking_delta" if !delta.thinking.is_empty() => Progress::Answering,
            "signature_delta" => Progress::Answering,
            "input_json_delta" if !delta.partial_json.is_empty() => Progress::Answering,
            _ => Progress::Waiting,
        })
    }

    fn say(&mut self, text: &str) -> Result<Progress, Failure> {
        if self.stop.is_some() && !is_blank(text) {
            return Err(unreadable("more of the answer came after its stop reason", None).maybe_charged());
        }
        if text.is_empty() {
            return Ok(Progress::Waiting);
        }
        self.text.push_str(text);
        Ok(Progress::Answering)
    }

    /// Of several reasons the worst counts.
    fn stopped(&mut self, reason: Option<Cow<'_, str>>, details: Option<StopDetails>) {
        self.stop = self.stop.take().max(reason.map(|reason| StopReason::read(&reason)));
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
