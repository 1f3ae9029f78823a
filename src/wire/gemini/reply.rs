//! Puts a reply together from the chunks of its stream, or from a whole body.
//!
//! Without a finish reason that means a finished answer, it never gives a reply.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::screen::is_blank;
use crate::types::{Class, Failure, Prompt, Reply, Tokens, Usage};
use crate::wire::count::Count;
use crate::wire::excerpt::Excerpt;
use crate::wire::halves::{self, Repaired, Text};
use crate::wire::lenient::{Index, Label, Object};
use crate::wire::{Dialect, Progress, ReasoningTags, excerpt, refused, structured, told};

use super::error;
use super::finish::FinishReason;

/// Collects one reply.
#[derive(Debug)]
pub struct Decoder {
    text: Text,
    model: String,
    id: Option<String>,
    counts: Option<Counts>,
    finish: Option<Finish>,
    /// Whether text has come without the finish reason `STOP` in its own chunk.
    has_unmarked_text: bool,
    /// Whether text has come after a finish reason: this server puts one into each chunk.
    is_marked_throughout: bool,
    blocked: Option<String>,
    called: bool,
    began: bool,
    wrapped: bool,
    tags: ReasoningTags,
}

/// How the model stopped, in the provider's words.
#[derive(Debug)]
struct Finish {
    reason: String,
    message: Option<String>,
}

impl Decoder {
    pub(in crate::wire) fn new(prompt: &Prompt, dialect: &Dialect) -> Self {
        Self {
            text: Text::default(),
            model: String::new(),
            id: None,
            counts: None,
            finish: None,
            has_unmarked_text: false,
            is_marked_throughout: false,
            blocked: None,
            called: false,
            began: false,
            wrapped: structured::needs_wrapping(&prompt.shape, dialect.structured),
            tags: dialect.reasoning_tags,
        }
    }

    pub(in crate::wire) fn event(&mut self, _name: Option<&str>, data: &str) -> Result<Progress, Failure> {
        // Some gateways send empty keep-alives, and some close with OpenAI's mark, which proves nothing here.
        if data.trim().is_empty() || data == "[DONE]" {
            return Ok(Progress::Waiting);
        }
        let no_chunk = |error: serde_json::Error| {
            failure(Class::Unreadable, format!("cannot read a chunk of the stream: {error}"), None)
                .maybe_charged()
        };
        match serde_json::from_str(data) {
            Ok(chunk) => self.take(chunk, None),
            Err(error) => {
                // Only half a character may be the reason.
                let Repaired { json, mark } = halves::repair(data).ok_or_else(|| no_chunk(error))?;
                self.take(serde_json::from_str(&json).map_err(no_chunk)?, Some(mark))
            }
        }
    }

    pub(in crate::wire) fn whole(&mut self, body: &[u8]) -> Result<(), Failure> {
        match chunks(body) {
            Ok(chunks) => self.take_all(chunks, None),
            Err(error) => {
                let repaired = str::from_utf8(body).ok().and_then(halves::repair);
                let Repaired { json, mark } = repaired.ok_or_else(|| told::unreadable(body, &error))?;
                let chunks = chunks(json.as_bytes()).map_err(|error| told::unreadable(body, &error))?;
                self.take_all(chunks, Some(mark))
            }
        }
    }

    fn take_all(&mut self, chunks: Vec<Chunk<'_>>, mark: Option<char>) -> Result<(), Failure> {
        for chunk in chunks {
            self.take(chunk, mark)?;
        }
        Ok(())
    }

    /// Returns how many bytes of the answer are held.
    pub(in crate::wire) fn held_bytes(&self) -> usize {
        self.text.len() + self.model.len() + self.id.as_ref().map_or(0, String::len)
    }

    pub(in crate::wire) fn finish(self) -> Result<Reply, Failure> {
        let Self { text, model, id: request_id, counts, finish, blocked, called, wrapped, tags, .. } = self;
        let text = tags.answer(text.into_string());
        let usage = counts.and_then(|counts| counts.usage(!text.is_empty()));
        if let (Some(reason), None) = (&blocked, &finish) {
            let why = format!("the provider refused the prompt ({reason})");
            return Err(failure(Class::ContentFilter, why, Some(reason)).used(usage));
        }
        let Some(finish) = finish else {
            // The counts so far are those of a part: unknown, not small.
            return Err(
                failure(Class::Unreadable, "the stream ended without a finish reason", None).maybe_charged()
            );
        };
        let (class, why) = match FinishReason::read(&finish.reason).failure() {
            None if called => (Class::Unreadable, "the model called a function, and none was offered"),
            None => return Ok(Reply { text: structured::unwrap(text, wrapped), usage, model, request_id }),
            Some(meaning) => meaning,
        };
        let why = match &finish.message {
            Some(message) => format!("{why} ({}): {message}", finish.reason),
            None => format!("{why} ({})", finish.reason),
        };
        let failure = failure(class, why, Some(&finish.reason)).used(usage);
        Err(if text.is_empty() { failure } else { failure.with_text(text) })
    }

    fn take(&mut self, chunk: Chunk<'_>, mark: Option<char>) -> Result<Progress, Failure> {
        if let Some(error) = chunk.error {
            let failure = error::classify(None, &error.value);
            return Err(if self.began { failure.maybe_charged() } else { failure });
        }
        self.began = true;
        let word = |label: &Label<'_>| label.as_str().map(|text| excerpt::word(&halves::alone(text, mark)));
        if let (true, Some(model)) = (self.model.is_empty(), word(&chunk.model_version)) {
            self.model = model;
        }
        self.id = self.id.take().or_else(|| word(&chunk.response_id));
        let counted = chunk.usage_metadata.0.is_some();
        // Zeros after real counts are a server's template for the end of a stream.
        let is_told = |counts: &Counts| self.counts.is_none() || !counts.is_zero();
        self.counts = chunk.usage_metadata.0.filter(is_told).or(self.counts);
        if let Some(reason) = chunk.prompt_feedback.and_then(|feedback| feedback.block_reason) {
            self.blocked = Some(excerpt::word(&reason));
        }
        let mut progress = Progress::Waiting;
        // One candidate is asked for; if a server sends more, the first is the answer.
        for candidate in
            chunk.candidates.unwrap_or_default().into_iter().filter(|candidate| candidate.index.0 == 0)
        {
            if self.add(candidate, mark)? {
                progress = Progress::Answering;
            }
        }
        if self.blocked.is_some() && self.finish.is_none() {
            return Ok(Progress::Ended);
        }
        // The final usage comes with the finish reason, or in a chunk after it. Where each chunk has both, only the end of
        // the body ends the answer.
        let is_complete = self.finish.is_some() && counted && !self.is_marked_throughout;
        Ok(if is_complete { Progress::Complete } else { progress })
    }

    /// Adds what the candidate says; tells whether it said anything. Of several finish reasons the worst counts.
    fn add(&mut self, candidate: Candidate<'_>, mark: Option<char>) -> Result<bool, Failure> {
        let mut said = false;
        let reason = match &candidate.finish_reason {
            Label::Missing => None,
            Label::Text(word) => Some(&**word),
            Label::Number(number) => Some(FinishReason::word_of(number)),
        };
        let is_stop = |reason: &str| FinishReason::read(reason).failure().is_none();
        let is_marked = reason.is_some_and(is_stop);
        for part in candidate.content.and_then(|content| content.parts).unwrap_or_default() {
            self.called |= part.function_call.is_some();
            said |= part.function_call.is_some() || !part.text.is_empty();
            if part.thought {
                continue;
            }
            if !is_blank(&part.text) {
                let is_more = self.finish.is_some();
                self.has_unmarked_text |= !is_marked;
                // Gemini 1.x, and what imitates it, finishes each chunk with `STOP`.
                if is_more && self.has_unmarked_text {
                    let why = "more of the answer came after its finish reason";
                    return Err(failure(Class::Unreadable, why, None).maybe_charged());
                }
                self.is_marked_throughout |= is_more;
            }
            self.text.push(&part.text, mark);
        }
        let is_known = |word: &&str| !word.is_empty() && *word != "FINISH_REASON_UNSPECIFIED";
        if let Some(reason) = reason.filter(is_known) {
            let is_worse = |known: &Finish| FinishReason::read(reason) > FinishReason::read(&known.reason);
            if self.finish.as_ref().is_none_or(is_worse) {
                let message = candidate.finish_message.as_str();
                let message = message.map(|message| refused::short(&halves::alone(message, mark)));
                self.finish = Some(Finish { reason: excerpt::word(reason), message });
            }
        }
        Ok(said)
    }
}

fn failure(class: Class, message: impl Into<Box<str>>, code: Option<&str>) -> Failure {
    let mut failure = Failure::new(class, message);
    failure.code = code.map(Box::from);
    failure
}

/// Reads a body: one chunk, or, without `alt=sse`, an array of them.
fn chunks(body: &[u8]) -> serde_json::Result<Vec<Chunk<'_>>> {
    match body.trim_ascii_start().first() {
        Some(b'[') => serde_json::from_slice(body),
        _ => serde_json::from_slice(body).map(|chunk| vec![chunk]),
    }
}

/// One chunk, which has the form of a whole response.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Chunk<'a> {
    #[serde(borrow)]
    candidates: Option<Vec<Candidate<'a>>>,
    prompt_feedback: Option<Feedback>,
    #[serde(default)]
    usage_metadata: Object<Counts>,
    #[serde(borrow, default)]
    model_version: Label<'a>,
    #[serde(borrow, default)]
    response_id: Label<'a>,
    error: Option<Excerpt>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate<'a> {
    #[serde(borrow)]
    content: Option<Content<'a>>,
    #[serde(borrow, default)]
    finish_reason: Label<'a>,
    #[serde(borrow, default)]
    finish_message: Label<'a>,
    #[serde(default)]
    index: Index,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow)]
    parts: Option<Vec<Part<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part<'a> {
    #[serde(borrow, default)]
    text: Cow<'a, str>,
    /// Reasoning, which is no part of the answer.
    #[serde(default)]
    thought: bool,
    function_call: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Feedback {
    block_reason: Option<String>,
}

/// Tokens as this vendor counts them: reasoning stands beside the answer, the cache inside the prompt.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    #[serde(default)]
    prompt_token_count: Count,
    #[serde(default)]
    tool_use_prompt_token_count: Count,
    #[serde(default)]
    cached_content_token_count: Count,
    #[serde(default)]
    candidates_token_count: Count,
    #[serde(default)]
    thoughts_token_count: Count,
}

impl Counts {
    /// Returns whether nothing was counted but zeros.
    fn is_zero(&self) -> bool {
        let counts = [self.prompt_token_count, self.candidates_token_count, self.thoughts_token_count];
        counts.iter().all(|count| matches!(count, Count::Missing | Count::Known(0)))
    }

    /// Brings the counts to our one form; `None` when one of them is missing or cannot be believed. Zeros are
    /// left out, so that only an answer `with_text` needs a count of its own.
    fn usage(self, with_text: bool) -> Option<Usage> {
        let prompt = Tokens(self.prompt_token_count.needed()?);
        let reasoning = Tokens(self.thoughts_token_count.or_zero()?);
        let said = self.candidates_token_count;
        let said = if with_text { said.needed()? } else { said.or_zero()? };
        let usage = Usage {
            input: prompt + Tokens(self.tool_use_prompt_token_count.or_zero()?),
            cached: Tokens(self.cached_content_token_count.or_zero()?),
            cache_write: Tokens(0),
            output: Tokens(said) + reasoning,
            reasoning,
        };
        usage.credible()
    }
}

#[cfg(test)]
mod tests;
