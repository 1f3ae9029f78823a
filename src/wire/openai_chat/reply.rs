//! Puts a reply together from its pieces, and decides whether it is one.
//!
//! An answer needs three things: text, a finish reason that says it is whole, and the end mark.
//! Whatever lacks one is a failure; a piece of an answer is never passed on as a [`Reply`]. Of several finish reasons the
//! worst counts, and nothing of an answer comes after one.

use std::mem;

use crate::screen::is_blank;
use crate::types::{Class, Failure, Prompt, Reply, Usage};
use crate::wire::structured::{needs_wrapping, unwrap};
use crate::wire::{Dialect, Progress, excerpt, told};

use super::chunk::{Choice, Chunk, Said, Words};
use super::error;

/// Puts the pieces of one reply together.
#[derive(Debug, Default)]
pub struct Decoder {
    text: String,
    refusal: String,
    finish: Option<Finish>,
    ended: bool,
    /// The model has begun to work, so that the call may cost.
    began: bool,
    usage: Option<Usage>,
    model: String,
    id: String,
    wrapped: bool,
    max_tokens: Option<u32>,
}

/// Why the model stopped. The later of two is the worse.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Finish {
    Stop,
    ToolCalls,
    /// A word that is not known here, kept for the message.
    Unknown(Box<str>),
    Error,
    Overloaded,
    Length,
    ContentFilter,
}

impl Finish {
    fn read(word: &str) -> Self {
        match word.to_ascii_lowercase().as_str() {
            // Besides OpenAI's own words, those of servers that pass their engine's on.
            "stop" | "eos" | "eos_token" | "end_turn" | "stop_sequence" | "complete" => Self::Stop,
            "length" | "max_tokens" | "model_length" => Self::Length,
            "tool_calls" | "function_call" | "tool_use" => Self::ToolCalls,
            "content_filter" | "safety" | "recitation" | "prohibited_content" | "blocklist" | "spii"
            | "refusal" => Self::ContentFilter,
            "insufficient_system_resource" => Self::Overloaded,
            "error" => Self::Error,
            _ => Self::Unknown(excerpt::word(word).into()),
        }
    }
}

impl Decoder {
    /// Makes a decoder for the reply to `prompt`.
    pub(in crate::wire) fn new(prompt: &Prompt, dialect: &Dialect) -> Self {
        Self {
            wrapped: needs_wrapping(&prompt.shape, dialect.structured),
            max_tokens: prompt.max_tokens,
            ..Self::default()
        }
    }

    /// Takes one event of the stream.
    pub(in crate::wire) fn event(&mut self, name: Option<&str>, data: &str) -> Result<Progress, Failure> {
        let data = data.trim();
        if self.ended || data.starts_with("[DONE]") {
            self.ended = true;
            return Ok(Progress::Ended);
        }
        if data.is_empty() {
            return Ok(Progress::Waiting);
        }
        if name == Some("error") {
            return Err(self.broken_by(error::in_band_text(data)));
        }
        self.take(serde_json::from_str(data), data.as_bytes())
    }

    /// Takes a whole JSON body. Its own end is the end mark.
    pub(in crate::wire) fn whole(&mut self, body: &[u8]) -> Result<(), Failure> {
        self.take(serde_json::from_slice(body), body)?;
        self.ended = true;
        Ok(())
    }

    /// Returns how many bytes of the answer are held.
    pub(in crate::wire) fn held_bytes(&self) -> usize {
        self.text.len() + self.refusal.len() + self.id.len() + self.model.len()
    }

    /// Gives the reply.
    pub(in crate::wire) fn finish(mut self) -> Result<Reply, Failure> {
        let finish = match self.finish.take() {
            Some(finish) if self.ended => finish,
            Some(_) => return Err(self.unreadable("the stream stopped without its end mark, [DONE]")),
            None if self.ended => return Err(self.unreadable("the answer ended without a finish reason")),
            None => return Err(self.unreadable("the stream stopped in the middle of the answer")),
        };
        if !self.refusal.is_empty() {
            let said = format!("the model refused: {}", self.refusal);
            return Err(self.failure(Class::ContentFilter, &said));
        }
        match finish {
            Finish::Stop if is_blank(&self.text) => Err(self.unreadable("an empty answer")),
            Finish::Stop => Ok(self.reply()),
            // No tool was offered; where the model answered as well, the answer is what was asked for.
            Finish::ToolCalls if !is_blank(&self.text) => Ok(self.reply()),
            Finish::ToolCalls => {
                Err(self
                    .failure(Class::ApiError, "the model answered with a tool call, which was not offered"))
            }
            Finish::Length => Err(self.truncated()),
            Finish::ContentFilter => {
                Err(self.failure(Class::ContentFilter, "the provider's content filter stopped the answer"))
            }
            Finish::Overloaded => {
                Err(self.failure(Class::Overloaded, "the provider ran out of resources during the answer"))
            }
            Finish::Error => Err(self.failure(Class::ServerError, "the provider failed during the answer")),
            Finish::Unknown(word) => {
                Err(self.unreadable(&format!("the answer ended for an unknown reason, {word:?}")))
            }
        }
    }

    fn take(&mut self, chunk: serde_json::Result<Chunk<'_>>, source: &[u8]) -> Result<Progress, Failure> {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) => {
                return Err(self
                    .broken_by(error::in_band(source).unwrap_or_else(|| told::unreadable(source, &error))));
            }
        };
        let is_no_chunk = chunk.choices.is_none() && chunk.usage.is_none();
        // Only what may be an error is read a second time, as a tree of bounded size.
        if (chunk.error.0 || is_no_chunk)
            && let Some(failure) = error::in_band(source)
        {
            return Err(self.broken_by(failure));
        }
        // Later counts replace earlier ones even where they are not believed: those were of a part.
        if let Some(counts) = chunk.usage.filter(|counts| !counts.is_empty()) {
            self.usage = counts.usage();
        }
        for (known, told) in [(&mut self.id, chunk.id), (&mut self.model, chunk.model)] {
            if let (true, Some(told)) = (known.is_empty(), told) {
                *known = excerpt::word(&told.0);
            }
        }
        let first = chunk.choices.and_then(|choices| choices.0);
        let answering = first.map_or(Ok(false), |choice| self.hear(choice))?;
        self.began |= answering;
        Ok(if answering { Progress::Answering } else { Progress::Waiting })
    }

    /// Takes what the model said; tells whether that was anything.
    fn hear(&mut self, choice: Choice<'_>) -> Result<bool, Failure> {
        let was_finished = self.finish.is_some();
        // Some servers spell out that there is none yet.
        if let Some(word) = choice.finish_reason.filter(|word| !word.0.is_empty() && word.0 != "null") {
            self.finish = self.finish.take().max(Some(Finish::read(&word.0)));
        }
        let Some(said) = choice.delta.or(choice.message.map(|said| *said)) else { return Ok(false) };
        let Said { content, refusal, reasoning, reasoning_content, tool_calls, function_call } = said;
        let aside = reasoning.0 || reasoning_content.0 || tool_calls.0 || function_call.0;
        let is_more = |text: &Option<Words<'_>>| text.as_ref().is_some_and(|text| !is_blank(&text.0));
        if was_finished && (is_more(&content) || is_more(&refusal)) {
            return Err(self.unreadable("more of the answer came after its finish reason"));
        }
        let mut spoke = false;
        for (all, more) in [(&mut self.text, content), (&mut self.refusal, refusal)] {
            let Some(more) = more else { continue };
            spoke |= !more.0.is_empty();
            all.push_str(&more.0);
        }
        Ok(spoke || aside)
    }

    fn reply(self) -> Reply {
        Reply {
            text: unwrap(self.text, self.wrapped),
            usage: self.usage,
            model: self.model,
            request_id: Some(self.id).filter(|id| !id.is_empty()),
        }
    }

    fn truncated(&mut self) -> Failure {
        let limit = match self.max_tokens {
            Some(limit) => format!("max_tokens = {limit}"),
            None => "the provider's own limit".to_owned(),
        };
        let message = if is_blank(&self.text) {
            format!("reasoning used up {limit} before the answer began; raise max_tokens")
        } else {
            format!("the answer reached {limit} and is cut; raise max_tokens")
        };
        self.failure(Class::Truncated, &message)
    }

    fn unreadable(&mut self, message: &str) -> Failure {
        self.failure(Class::Unreadable, message)
    }

    /// Makes the failure of a call that the model had worked on.
    fn failure(&mut self, class: Class, message: &str) -> Failure {
        let failure = error::failure(class, message).used(self.usage);
        let said = mem::take(&mut self.text);
        if said.is_empty() { failure } else { failure.with_text(said) }
    }

    /// Adds to a failure of the provider what is known of the call that it ended.
    fn broken_by(&self, failure: Failure) -> Failure {
        if self.began || self.usage.is_some() { failure.used(self.usage) } else { failure }
    }
}
