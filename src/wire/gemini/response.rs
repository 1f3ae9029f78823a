//! Decodes a response from the chunks of its stream or from a complete body.
//!
//! Returns a completion only after the finish reason of a finished answer.

use serde_json::Value;

use crate::terminal_text::is_blank;
use crate::types::{Cause, Class, Completion, Failure, FailureScope, Format, Prompt, StreamEvent};
use crate::wire::answer::Answer;
use crate::wire::answer_rules::AnswerRules;
use crate::wire::lenient::LenientText;
use crate::wire::surrogates::{self, Repaired};
use crate::wire::{Dialect, Progress, bounded_json, error_body, http_error, progress};

use super::chunk::{Candidate, Chunk, Counts, FunctionCall, Part, chunks};
use super::error;
use super::finish_reason::{FinishReason, Outcome};

/// Decodes one response.
#[derive(Debug)]
pub struct Decoder {
    answer: Answer,
    rules: AnswerRules,
    model: String,
    id: Option<String>,
    counts: Option<Counts>,
    finish: Option<Finish>,
    /// Whether a chunk contained text or a call without the finish reason `STOP`.
    has_unmarked_output: bool,
    /// Whether text or a call followed a finish reason: this server sends one in each chunk.
    is_marked_throughout: bool,
    blocked: Option<String>,
    has_begun: bool,
    /// Whether the last reasoning has a signature and is therefore complete.
    is_signed: bool,
}

/// The finish reason, in the provider's words.
#[derive(Debug)]
struct Finish {
    reason: String,
    message: Option<String>,
}

impl Finish {
    fn describe(&self, description: &str) -> String {
        match &self.message {
            Some(message) => format!("{description} ({}): {message}", self.reason),
            None => format!("{description} ({})", self.reason),
        }
    }

    fn failure(&self, class: Class, description: &str, text: String) -> Failure {
        let failure = Failure::new(class, self.describe(description));
        if text.is_empty() { failure } else { failure.with_text(text) }
    }
}

impl Decoder {
    pub(in crate::wire) fn new(prompt: &Prompt, dialect: &Dialect) -> Self {
        let rules = AnswerRules::of(prompt, Format::Gemini, dialect);
        Self {
            answer: Answer::new(&rules),
            rules,
            model: String::new(),
            id: None,
            counts: None,
            finish: None,
            has_unmarked_output: false,
            is_marked_throughout: false,
            blocked: None,
            has_begun: false,
            is_signed: false,
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

    /// Returns what has arrived since the last time and may be passed on to the reader of a stream.
    pub(in crate::wire) fn take_deltas(&mut self) -> Vec<StreamEvent> {
        self.answer.take_deltas(&self.rules)
    }

    /// Returns the number of bytes of the text that was passed on.
    pub(in crate::wire) fn passed_on_text(&self) -> usize {
        self.answer.passed_on_text()
    }

    /// Returns the number of bytes that the model has written so far.
    pub(in crate::wire) fn output_bytes(&self) -> usize {
        self.answer.output_bytes()
    }

    /// Returns the number of buffered bytes of the answer.
    pub(in crate::wire) fn buffered_bytes(&self) -> usize {
        self.answer.buffered_bytes() + self.model.len() + self.id.as_ref().map_or(0, String::len)
    }

    pub(in crate::wire) fn finish(self) -> Result<Completion, Failure> {
        let Self { answer, rules, model, id: request_id, counts, finish, blocked, .. } = self;
        let has_output = answer.has_text() || answer.has_tool_call();
        let usage = counts.and_then(|counts| counts.usage(has_output));
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
        let text_of = |answer: Answer| rules.reasoning_tags.answer(answer.into_text());
        let completed = match FinishReason::read(&finish.reason).outcome() {
            Outcome::Complete => answer.complete(&rules, false),
            Outcome::Cut { description } => answer.complete_cut(&rules, |_| finish.describe(description)),
            Outcome::InvalidCall { description } => {
                let failure = finish.failure(Class::ValidationError, description, text_of(answer));
                Err(failure.with_scope(FailureScope::Answer).with_cause(Cause::InvalidToolCall))
            }
            Outcome::Failed { class, description } => {
                Err(finish.failure(class, description, text_of(answer)))
            }
        };
        match completed {
            Ok(completion) => Ok(Completion { usage, model, request_id, ..completion }),
            Err(failure) => Err(failure.with_code(finish.reason).with_usage(usage)),
        }
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
        let is_stop = |reason: &str| FinishReason::read(reason).outcome() == Outcome::Complete;
        let is_marked = reason.is_some_and(is_stop);
        for part in candidate.content.and_then(|content| content.parts).unwrap_or_default() {
            has_content |= part.function_call.is_some() || !part.text.is_empty();
            if part.function_call.is_some() || !part.thought && !is_blank(&part.text) {
                self.push_output(is_marked)?;
            }
            self.push_part(&part, mark)?;
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

    /// Records text of the answer or a call, in a chunk with the finish reason `STOP` or without.
    fn push_output(&mut self, is_marked: bool) -> Result<(), Failure> {
        let was_finished = self.finish.is_some();
        self.has_unmarked_output |= !is_marked;
        // Gemini 1.x and its imitations send `STOP` in each chunk.
        if was_finished && self.has_unmarked_output {
            return Err(unreadable("the answer continued after its finish reason"));
        }
        self.is_marked_throughout |= was_finished;
        Ok(())
    }

    fn push_part(&mut self, part: &Part<'_>, mark: Option<char>) -> Result<(), Failure> {
        let signature = part.thought_signature.as_str();
        if part.thought {
            if self.is_signed && (signature.is_some() || !part.text.is_empty()) {
                self.answer.begin_reasoning();
                self.is_signed = false;
            }
            self.answer.push_reasoning(&part.text, mark);
        } else {
            self.answer.push_text(&part.text, mark);
        }
        match (&part.function_call, signature) {
            (Some(call), signature) => self.push_call(call, signature.unwrap_or_default(), mark)?,
            (None, Some(signature)) => {
                // The signature of a text is reasoning without text after it.
                if !part.thought {
                    self.answer.begin_reasoning();
                }
                self.answer.push_signature(signature);
                self.is_signed = true;
            }
            (None, None) => {}
        }
        Ok(())
    }

    fn push_call(
        &mut self,
        call: &FunctionCall<'_>,
        signature: &str,
        mark: Option<char>,
    ) -> Result<(), Failure> {
        if call.partial_args.is_some() {
            return Err(unreadable("the arguments of a tool call arrived in pieces, which is not supported"));
        }
        // The answer generates a missing id.
        let id = surrogates::restore(call.id.as_str().unwrap_or_default(), mark);
        let name = surrogates::restore(call.name.as_str().unwrap_or_default(), mark);
        // A call is complete: without arguments it has none, whatever the finish reason.
        let arguments = call.args.as_ref().map_or_else(|| "{}".to_owned(), Value::to_string);
        self.answer.push_tool_call(&id, &name, &surrogates::restore(&arguments, mark), signature);
        Ok(())
    }
}

fn unreadable(description: &str) -> Failure {
    Failure::new(Class::Unreadable, description).maybe_charged()
}

#[cfg(test)]
mod part_tests;
#[cfg(test)]
mod tests;
