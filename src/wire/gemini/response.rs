//! Decodes a response from the chunks of its stream or from a complete body.
//!
//! Returns a completion only after the finish reason of a finished answer.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::terminal_text::is_blank;
use crate::types::{Class, Completion, Failure, Prompt, Tokens, Usage};
use crate::wire::bounded_json::BoundedJson;
use crate::wire::count::Count;
use crate::wire::lenient::{LenientIndex, LenientObject, LenientText};
use crate::wire::surrogates::{self, JoinedText, Repaired};
use crate::wire::{
    Dialect, Progress, ReasoningTags, bounded_json, error_body, http_error, progress, structured_output,
};

use super::error;
use super::finish_reason::FinishReason;

/// Decodes one response.
#[derive(Debug)]
pub struct Decoder {
    text: JoinedText,
    model: String,
    id: Option<String>,
    counts: Option<Counts>,
    finish: Option<Finish>,
    /// Whether a chunk contained text without the finish reason `STOP`.
    has_unmarked_text: bool,
    /// Whether text followed a finish reason: this server sends one in each chunk.
    is_marked_throughout: bool,
    blocked: Option<String>,
    called_function: bool,
    has_begun: bool,
    wrapped: bool,
    reasoning_tags: ReasoningTags,
}

/// The finish reason, in the provider's words.
#[derive(Debug)]
struct Finish {
    reason: String,
    message: Option<String>,
}

impl Decoder {
    pub(in crate::wire) fn new(prompt: &Prompt, dialect: &Dialect) -> Self {
        Self {
            text: JoinedText::default(),
            model: String::new(),
            id: None,
            counts: None,
            finish: None,
            has_unmarked_text: false,
            is_marked_throughout: false,
            blocked: None,
            called_function: false,
            has_begun: false,
            wrapped: structured_output::needs_wrapping(&prompt.response_format, dialect.structured_output),
            reasoning_tags: dialect.reasoning_tags,
        }
    }

    pub(in crate::wire) fn push_event(
        &mut self,
        _name: Option<&str>,
        data: &str,
    ) -> Result<Progress, Failure> {
        if progress::is_filler(data) {
            return Ok(Progress::Waiting);
        }
        let unreadable_chunk = |error: serde_json::Error| {
            Failure::new(Class::Unreadable, format!("cannot read a chunk of the stream: {error}"))
                .maybe_charged()
        };
        match serde_json::from_str(data) {
            Ok(chunk) => self.push_chunk(chunk, None),
            Err(error) => {
                // The cause may be a lone surrogate.
                let Repaired { json, mark } =
                    surrogates::repair(data).ok_or_else(|| unreadable_chunk(error))?;
                self.push_chunk(serde_json::from_str(&json).map_err(unreadable_chunk)?, Some(mark))
            }
        }
    }

    pub(in crate::wire) fn push_body(&mut self, body: &[u8]) -> Result<(), Failure> {
        match chunks(body) {
            Ok(chunks) => self.push_chunks(chunks, None),
            Err(error) => {
                let Repaired { json, mark } =
                    surrogates::repair_body(body).ok_or_else(|| error_body::unreadable(body, &error))?;
                let chunks = chunks(json.as_bytes()).map_err(|error| error_body::unreadable(body, &error))?;
                self.push_chunks(chunks, Some(mark))
            }
        }
    }

    fn push_chunks(&mut self, chunks: Vec<Chunk<'_>>, mark: Option<char>) -> Result<(), Failure> {
        for chunk in chunks {
            self.push_chunk(chunk, mark)?;
        }
        Ok(())
    }

    /// Returns the number of buffered bytes of the answer.
    pub(in crate::wire) fn buffered_bytes(&self) -> usize {
        self.text.len() + self.model.len() + self.id.as_ref().map_or(0, String::len)
    }

    pub(in crate::wire) fn finish(self) -> Result<Completion, Failure> {
        let Self {
            text,
            model,
            id: request_id,
            counts,
            finish,
            blocked,
            called_function,
            wrapped,
            reasoning_tags,
            ..
        } = self;
        let text = reasoning_tags.answer(text.into_string());
        let usage = counts.and_then(|counts| counts.usage(!text.is_empty()));
        if let (Some(reason), None) = (&blocked, &finish) {
            let description = format!("the provider blocked the prompt ({reason})");
            let failure = Failure::new(Class::ContentFilter, description).with_code(reason.as_str());
            return Err(failure.with_usage(usage));
        }
        let Some(finish) = finish else {
            // The counts so far are those of a part, so the usage is unknown.
            let description = "the stream ended without a finish reason";
            return Err(Failure::new(Class::Unreadable, description).maybe_charged());
        };
        let (class, description) = match FinishReason::read(&finish.reason).failure() {
            None if called_function => {
                (Class::Unreadable, "the model called a function, and none was offered")
            }
            None => {
                return Ok(Completion {
                    text: structured_output::unwrap_answer(text, wrapped),
                    usage,
                    model,
                    request_id,
                });
            }
            Some(class_and_description) => class_and_description,
        };
        let description = match &finish.message {
            Some(message) => format!("{description} ({}): {message}", finish.reason),
            None => format!("{description} ({})", finish.reason),
        };
        let failure = Failure::new(class, description).with_code(finish.reason).with_usage(usage);
        Err(if text.is_empty() { failure } else { failure.with_text(text) })
    }

    fn push_chunk(&mut self, chunk: Chunk<'_>, mark: Option<char>) -> Result<Progress, Failure> {
        if let Some(error) = chunk.error {
            let failure = error::classify(None, &error.value);
            return Err(if self.has_begun { failure.maybe_charged() } else { failure });
        }
        self.has_begun = true;
        if let (true, Some(model)) = (self.model.is_empty(), chunk.model_version.label(mark)) {
            self.model = model;
        }
        self.id = self.id.take().or_else(|| chunk.response_id.label(mark));
        let has_usage = chunk.usage_metadata.0.is_some();
        // Some servers end the stream with zeros after the real counts.
        let is_update = |counts: &Counts| self.counts.is_none() || !counts.is_zero();
        self.counts = chunk.usage_metadata.0.filter(is_update).or(self.counts);
        if let Some(reason) = chunk.prompt_feedback.and_then(|feedback| feedback.block_reason) {
            self.blocked = Some(bounded_json::truncate_label(&reason));
        }
        let mut progress = Progress::Waiting;
        // One candidate is requested. If a server sends more, the first is the answer.
        for candidate in
            chunk.candidates.unwrap_or_default().into_iter().filter(|candidate| candidate.index.0 == 0)
        {
            if self.push_candidate(candidate, mark)? {
                progress = Progress::Answering;
            }
        }
        if self.blocked.is_some() && self.finish.is_none() {
            return Ok(Progress::Ended);
        }
        // The final usage is in the chunk with the finish reason, or in a later one. If each chunk has both, only
        // the end of the body ends the answer.
        let is_complete = self.finish.is_some() && has_usage && !self.is_marked_throughout;
        Ok(if is_complete { Progress::Complete } else { progress })
    }

    /// Adds a candidate; returns whether it had content. Of several finish reasons the worst is kept.
    fn push_candidate(&mut self, candidate: Candidate<'_>, mark: Option<char>) -> Result<bool, Failure> {
        let mut has_content = false;
        let reason = match &candidate.finish_reason {
            LenientText::Missing => None,
            LenientText::Text(name) => Some(&**name),
            LenientText::Number(number) => Some(FinishReason::name_of_number(number)),
        };
        let is_stop = |reason: &str| FinishReason::read(reason).failure().is_none();
        let is_marked = reason.is_some_and(is_stop);
        for part in candidate.content.and_then(|content| content.parts).unwrap_or_default() {
            self.called_function |= part.function_call.is_some();
            has_content |= part.function_call.is_some() || !part.text.is_empty();
            if part.thought {
                continue;
            }
            if !is_blank(&part.text) {
                let was_finished = self.finish.is_some();
                self.has_unmarked_text |= !is_marked;
                // Gemini 1.x and its imitations send `STOP` in each chunk.
                if was_finished && self.has_unmarked_text {
                    let description = "the answer continued after its finish reason";
                    return Err(Failure::new(Class::Unreadable, description).maybe_charged());
                }
                self.is_marked_throughout |= was_finished;
            }
            self.text.push(&part.text, mark);
        }
        let is_known = |name: &&str| !name.is_empty() && *name != "FINISH_REASON_UNSPECIFIED";
        if let Some(reason) = reason.filter(is_known) {
            let is_worse = |known: &Finish| FinishReason::read(reason) > FinishReason::read(&known.reason);
            if self.finish.as_ref().is_none_or(is_worse) {
                let message = candidate.finish_message.as_str();
                let message =
                    message.map(|message| http_error::single_line(&surrogates::restore(message, mark)));
                self.finish = Some(Finish { reason: bounded_json::truncate_label(reason), message });
            }
        }
        Ok(has_content)
    }
}

/// Parses a body: one chunk, or, without `alt=sse`, an array of chunks.
fn chunks(body: &[u8]) -> serde_json::Result<Vec<Chunk<'_>>> {
    match body.trim_ascii_start().first() {
        Some(b'[') => serde_json::from_slice(body),
        _ => serde_json::from_slice(body).map(|chunk| vec![chunk]),
    }
}

/// One chunk, which has the structure of a complete response.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Chunk<'a> {
    #[serde(borrow)]
    candidates: Option<Vec<Candidate<'a>>>,
    prompt_feedback: Option<PromptFeedback>,
    #[serde(default)]
    usage_metadata: LenientObject<Counts>,
    #[serde(borrow, default)]
    model_version: LenientText<'a>,
    #[serde(borrow, default)]
    response_id: LenientText<'a>,
    error: Option<BoundedJson>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate<'a> {
    #[serde(borrow)]
    content: Option<Content<'a>>,
    #[serde(borrow, default)]
    finish_reason: LenientText<'a>,
    #[serde(borrow, default)]
    finish_message: LenientText<'a>,
    #[serde(default)]
    index: LenientIndex,
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
    /// Whether the part is reasoning, which is not part of the answer.
    #[serde(default)]
    thought: bool,
    function_call: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PromptFeedback {
    block_reason: Option<String>,
}

/// Token counts of this vendor: reasoning is not included in the candidates, cached tokens are included in the
/// prompt.
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
    /// Returns whether all counts are zero or missing.
    fn is_zero(&self) -> bool {
        let counts = [self.prompt_token_count, self.candidates_token_count, self.thoughts_token_count];
        counts.iter().all(|count| matches!(count, Count::Missing | Count::Known(0)))
    }

    /// Converts the counts to [`Usage`]; `None` if a count is missing or not credible. The vendor omits zeros, so
    /// the count of the candidates is required only `with_text`.
    fn usage(self, with_text: bool) -> Option<Usage> {
        let prompt = Tokens(self.prompt_token_count.required()?);
        let reasoning = Tokens(self.thoughts_token_count.or_zero()?);
        let candidates = self.candidates_token_count;
        let candidates = if with_text { candidates.required()? } else { candidates.or_zero()? };
        let usage = Usage {
            input: prompt + Tokens(self.tool_use_prompt_token_count.or_zero()?),
            cached: Tokens(self.cached_content_token_count.or_zero()?),
            cache_write: Tokens(0),
            output: Tokens(candidates) + reasoning,
            reasoning,
        };
        usage.credible()
    }
}

#[cfg(test)]
mod tests;
