//! Puts a reply together from its pieces, and decides whether it is one.
//!
//! An answer needs a finish reason that says it is whole, and the end of its body: the end mark `[DONE]`, or the body's
//! own end. A body that broke off never comes here. Whatever lacks one is a failure; a piece of an answer is never passed
//! on as a [`Reply`]. An empty answer is one: whether it will do is for its reader to say. Of several finish reasons the worst counts, and
//! nothing of an answer comes after one, except from a server that puts `stop` into each chunk. Its reason says nothing
//! of the end, which then takes the end mark.

use std::mem;

use crate::screen::is_blank;
use crate::types::{Class, Failure, Prompt, Reply, Usage};
use crate::wire::halves::{self, Repaired, Text};
use crate::wire::lenient::Label;
use crate::wire::structured::{needs_wrapping, unwrap};
use crate::wire::{Dialect, Progress, ReasoningTags, excerpt, told};

use super::chunk::{Choice, Chunk, Counts, Said, Words};
use super::error;

/// Puts the pieces of one reply together.
#[derive(Debug, Default)]
pub struct Decoder {
    text: Text,
    refusal: Text,
    finish: Option<Finish>,
    /// Whether text has come without the finish reason `stop` in its own chunk.
    has_unmarked_text: bool,
    /// Whether text has come after a finish reason: this server puts one into each chunk.
    is_marked_throughout: bool,
    ended: bool,
    /// The model has begun to work, so that the call may cost.
    began: bool,
    usage: Option<Usage>,
    model: String,
    id: String,
    wrapped: bool,
    tags: ReasoningTags,
    max_tokens: Option<u32>,
}

/// Why the model stopped. The later of two is the worse.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Finish {
    /// A number, which names no reason. It counts only together with the end mark.
    Number,
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
            tags: dialect.reasoning_tags,
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
        match serde_json::from_str(data) {
            Ok(chunk) => self.take(chunk, data.as_bytes(), None),
            Err(error) => self.take_repaired(data, data.as_bytes(), &error),
        }
    }

    /// Takes a whole JSON body. Its own end is the end mark.
    pub(in crate::wire) fn whole(&mut self, body: &[u8]) -> Result<(), Failure> {
        match (serde_json::from_slice(body), str::from_utf8(body)) {
            (Ok(chunk), _) => self.take(chunk, body, None)?,
            (Err(error), Ok(text)) => self.take_repaired(text, body, &error)?,
            (Err(error), Err(_)) => return Err(self.no_chunk(body, &error)),
        };
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
            Some(finish) if !self.ended && (finish == Finish::Number || self.is_marked_throughout) => {
                return Err(self.unreadable("the stream stopped without its end mark, [DONE]"));
            }
            Some(finish) => finish,
            None if self.ended => return Err(self.unreadable("the answer ended without a finish reason")),
            None => return Err(self.unreadable("the stream stopped in the middle of the answer")),
        };
        let refusal = mem::take(&mut self.refusal).into_string();
        if !refusal.is_empty() {
            let said = format!("the model refused: {refusal}");
            return Err(self.failure(Class::ContentFilter, &said));
        }
        let text = self.tags.answer(mem::take(&mut self.text).into_string());
        let (class, why) = match finish {
            Finish::Number if self.is_at_limit() => (Class::Truncated, self.cut(&text)),
            // No tool was offered; where the model answered as well, the answer is what was asked for.
            Finish::ToolCalls if is_blank(&text) => {
                (Class::ApiError, "the model answered with a tool call, which was not offered".to_owned())
            }
            Finish::Number | Finish::Stop | Finish::ToolCalls => return Ok(self.reply(text)),
            Finish::Length => (Class::Truncated, self.cut(&text)),
            Finish::ContentFilter => {
                (Class::ContentFilter, "the provider's content filter stopped the answer".to_owned())
            }
            Finish::Overloaded => {
                (Class::Overloaded, "the provider ran out of resources during the answer".to_owned())
            }
            Finish::Error => (Class::ServerError, "the provider failed during the answer".to_owned()),
            Finish::Unknown(word) => {
                (Class::Unreadable, format!("the answer ended for an unknown reason, {word:?}"))
            }
        };
        let failure = error::failure(class, &why).used(self.usage);
        Err(if text.is_empty() { failure } else { failure.with_text(text) })
    }

    /// Takes a chunk that cannot be read as it is, unless only half a character is the reason.
    fn take_repaired(
        &mut self,
        text: &str,
        source: &[u8],
        error: &serde_json::Error,
    ) -> Result<Progress, Failure> {
        let Some(Repaired { json, mark }) = halves::repair(text) else {
            return Err(self.no_chunk(source, error));
        };
        let chunk = serde_json::from_str(&json).map_err(|error| self.no_chunk(source, &error))?;
        self.take(chunk, source, Some(mark))
    }

    fn no_chunk(&self, source: &[u8], error: &serde_json::Error) -> Failure {
        self.broken_by(error::in_band(source).unwrap_or_else(|| told::unreadable(source, error)))
    }

    fn take(&mut self, chunk: Chunk<'_>, source: &[u8], mark: Option<char>) -> Result<Progress, Failure> {
        let is_no_chunk = chunk.choices.is_none() && chunk.usage.0.is_none();
        // Only what may be an error is read a second time, as a tree of bounded size.
        if (chunk.error.0 || is_no_chunk)
            && let Some(failure) = error::in_band(source)
        {
            return Err(self.broken_by(failure));
        }
        // Later counts replace earlier ones even where they are not believed: those were of a part. Zeros after real
        // counts are a server's template for the end of a stream.
        let is_told = |counts: &Counts| !(counts.is_empty() || counts.is_zero() && self.usage.is_some());
        if let Some(counts) = chunk.usage.0.filter(|counts| is_told(counts)) {
            self.usage = counts.usage();
        }
        for (known, told) in [(&mut self.id, chunk.id), (&mut self.model, chunk.model)] {
            if let (true, Some(told)) = (known.is_empty(), told.as_str()) {
                *known = excerpt::word(&halves::alone(told, mark));
            }
        }
        let first = chunk.choices.and_then(|choices| choices.0);
        let answering = first.map_or(Ok(false), |choice| self.hear(choice, mark))?;
        self.began |= answering;
        Ok(if answering { Progress::Answering } else { Progress::Waiting })
    }

    /// Takes what the model said; tells whether that was anything.
    fn hear(&mut self, choice: Choice<'_>, mark: Option<char>) -> Result<bool, Failure> {
        let was_finished = self.finish.as_ref().is_some_and(|finish| *finish != Finish::Number);
        // Some servers spell out that there is none yet.
        let finish = match &choice.finish_reason {
            Label::Number(_) => Some(Finish::Number),
            Label::Text(word) if !word.is_empty() && word != "null" => Some(Finish::read(word)),
            Label::Text(_) | Label::Missing => None,
        };
        let is_marked = finish == Some(Finish::Stop);
        self.finish = self.finish.take().max(finish);
        let Some(said) = choice.delta.or(choice.message.map(|said| *said)) else { return Ok(false) };
        let Said { content, refusal, reasoning, reasoning_content, tool_calls, function_call } = said;
        let aside = reasoning.0 || reasoning_content.0 || tool_calls.0 || function_call.0;
        let is_more = |text: &Option<Words<'_>>| text.as_ref().is_some_and(|text| !is_blank(&text.0));
        if is_more(&content) || is_more(&refusal) {
            self.has_unmarked_text |= !is_marked;
            if was_finished && self.has_unmarked_text {
                return Err(self.unreadable("more of the answer came after its finish reason"));
            }
            self.is_marked_throughout |= was_finished;
        }
        let mut spoke = false;
        for (all, more) in [(&mut self.text, content), (&mut self.refusal, refusal)] {
            let Some(more) = more else { continue };
            spoke |= !more.0.is_empty();
            all.push(&more.0, mark);
        }
        Ok(spoke || aside)
    }

    fn reply(self, text: String) -> Reply {
        Reply {
            text: unwrap(text, self.wrapped),
            usage: self.usage,
            model: self.model,
            request_id: Some(self.id).filter(|id| !id.is_empty()),
        }
    }

    /// Returns whether the model wrote as much as it might, which a number for a reason does not say.
    fn is_at_limit(&self) -> bool {
        let written = self.usage.map(|usage| usage.output.0);
        self.max_tokens.zip(written).is_some_and(|(most, written)| written >= u64::from(most))
    }

    /// Says what cut the answer.
    fn cut(&self, text: &str) -> String {
        let limit = match self.max_tokens {
            Some(limit) => format!("max_tokens = {limit}"),
            None => "the provider's own limit".to_owned(),
        };
        if is_blank(text) {
            format!("reasoning used up {limit} before the answer began; raise max_tokens")
        } else {
            format!("the answer reached {limit} and is cut; raise max_tokens")
        }
    }

    fn unreadable(&mut self, message: &str) -> Failure {
        self.failure(Class::Unreadable, message)
    }

    /// Makes the failure of a call that the model had worked on.
    fn failure(&mut self, class: Class, message: &str) -> Failure {
        let failure = error::failure(class, message).used(self.usage);
        let said = mem::take(&mut self.text).into_string();
        if said.is_empty() { failure } else { failure.with_text(said) }
    }

    /// Adds to a failure of the provider what is known of the call that it ended.
    fn broken_by(&self, failure: Failure) -> Failure {
        if self.began || self.usage.is_some() { failure.used(self.usage) } else { failure }
    }
}
