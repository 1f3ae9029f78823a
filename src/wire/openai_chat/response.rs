//! Decodes a response from its chunks or from a complete body.
//!
//! A completion requires a finish reason of a finished answer, and the end of the body: the end mark `[DONE]` or
//! the end of the body itself. The transport reports a body that was cut off. A response without either is a
//! failure, so that a part of an answer is never returned as a [`Completion`]. An empty answer is valid here; the
//! caller validates it. Of several finish reasons the worst is kept. Text after a finish reason is a failure,
//! except from a server that sends `stop` in each chunk: its finish reason does not mark the end, so the end mark
//! is required. So it is if a tool call follows a finish reason.

use std::mem;

use crate::terminal_text::is_blank;
use crate::types::{Cause, Class, Completion, Failure, FailureScope, Format, Prompt, StreamEvent, Usage};
use crate::wire::answer::Answer;
use crate::wire::answer_rules::AnswerRules;
use crate::wire::lenient::LenientText;
use crate::wire::surrogates::{self, JoinedText, Repaired};
use crate::wire::{Dialect, Progress, bounded_json, error_body};

use super::chunk::{Choice, Chunk, ContentText, MessageContent};
use super::error;
use super::tool_calls::{CallKeys, ToolCallPiece};
use super::usage::Counts;

/// Decodes one response.
#[derive(Debug)]
pub struct Decoder {
    answer: Answer,
    rules: AnswerRules,
    /// `None` before the first tool call. Boxed because the decoder is moved.
    call_keys: Option<Box<CallKeys>>,
    refusal: JoinedText,
    finish: Option<FinishReason>,
    /// Whether a chunk contained text without the finish reason `stop`.
    has_unmarked_text: bool,
    /// Whether text or a tool call followed a finish reason: this server sends one in each chunk.
    is_marked_throughout: bool,
    ended: bool,
    /// Whether the model has begun to work, so that the call may be charged.
    has_begun: bool,
    usage: Option<Usage>,
    model: String,
    id: String,
}

/// The finish reason. Later variants are worse.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum FinishReason {
    /// A number, which states no reason. It counts only together with the end mark.
    Number,
    Stop,
    ToolCalls,
    /// An unknown reason, kept for the message.
    Unknown(Box<str>),
    Error,
    Overloaded,
    Length,
    ContentFilter,
}

impl FinishReason {
    fn read(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            // OpenAI's own names, and those of servers that forward the names of their engine.
            "stop" | "eos" | "eos_token" | "end_turn" | "stop_sequence" | "complete" => Self::Stop,
            "length" | "max_tokens" | "model_length" => Self::Length,
            "tool_calls" | "function_call" | "tool_use" => Self::ToolCalls,
            "content_filter" | "safety" | "recitation" | "prohibited_content" | "blocklist" | "spii"
            | "refusal" => Self::ContentFilter,
            "insufficient_system_resource" => Self::Overloaded,
            "error" => Self::Error,
            _ => Self::Unknown(bounded_json::truncate_label(name).into()),
        }
    }
}

impl Decoder {
    /// Creates a decoder for the response to `prompt`.
    pub(in crate::wire) fn new(prompt: &Prompt, dialect: &Dialect) -> Self {
        let rules = AnswerRules::of(prompt, Format::Openai, dialect);
        Self {
            answer: Answer::new(&rules),
            rules,
            call_keys: None,
            refusal: JoinedText::default(),
            finish: None,
            has_unmarked_text: false,
            is_marked_throughout: false,
            ended: false,
            has_begun: false,
            usage: None,
            model: String::new(),
            id: String::new(),
        }
    }

    /// Decodes one event of the stream.
    pub(in crate::wire) fn push_event(
        &mut self,
        name: Option<&str>,
        data: &str,
    ) -> Result<Progress, Failure> {
        let data = data.trim();
        if self.ended || data.starts_with("[DONE]") {
            self.ended = true;
            return Ok(Progress::Ended);
        }
        if data.is_empty() {
            return Ok(Progress::Waiting);
        }
        if name == Some("error") {
            return Err(self.with_call_state(error::in_band_text(data)));
        }
        match serde_json::from_str(data) {
            Ok(chunk) => self.push_chunk(chunk, data.as_bytes(), None),
            Err(error) => self.push_repaired(data, data.as_bytes(), &error),
        }
    }

    /// Decodes a complete JSON body. Its end is the end mark.
    pub(in crate::wire) fn push_body(&mut self, body: &[u8]) -> Result<(), Failure> {
        match (serde_json::from_slice(body), str::from_utf8(body)) {
            (Ok(chunk), _) => self.push_chunk(chunk, body, None)?,
            (Err(error), Ok(text)) => self.push_repaired(text, body, &error)?,
            (Err(error), Err(_)) => return Err(self.unreadable_chunk(body, &error)),
        };
        self.ended = true;
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
        self.answer.output_bytes() + self.refusal.len()
    }

    /// Returns the number of buffered bytes of the answer.
    pub(in crate::wire) fn buffered_bytes(&self) -> usize {
        self.answer.buffered_bytes() + self.refusal.len() + self.id.len() + self.model.len()
    }

    /// Returns the completion.
    pub(in crate::wire) fn finish(mut self) -> Result<Completion, Failure> {
        let finish = match self.finish.take() {
            Some(finish) if !self.ended && (finish == FinishReason::Number || self.is_marked_throughout) => {
                return Err(self.unreadable("the stream stopped without its end mark, [DONE]"));
            }
            Some(finish) => finish,
            None if self.ended => return Err(self.unreadable("the answer ended without a finish reason")),
            None => return Err(self.unreadable("the stream stopped in the middle of the answer")),
        };
        let refusal = mem::take(&mut self.refusal).into_string();
        if !refusal.is_empty() {
            let message = format!("the model refused: {refusal}");
            return Err(self.failure(Class::ContentFilter, &message));
        }
        let answer = mem::take(&mut self.answer);
        let rules = &self.rules;
        let has_calls = answer.has_tool_call();
        let cut_message = |text: &str| truncation_message(rules.max_tokens, text, has_calls);
        let completed = match finish {
            FinishReason::Number if self.is_at_limit() => answer.complete_cut(rules, cut_message),
            FinishReason::Length => answer.complete_cut(rules, cut_message),
            FinishReason::Number | FinishReason::Stop => answer.complete(rules, false),
            FinishReason::ToolCalls => answer.complete(rules, false).and_then(require_output),
            FinishReason::ContentFilter => {
                let reason = "the provider's content filter stopped the answer";
                Err(stopped(answer, rules, Class::ContentFilter, reason))
            }
            FinishReason::Overloaded => {
                let reason = "the provider ran out of resources during the answer";
                Err(stopped(answer, rules, Class::Overloaded, reason))
            }
            FinishReason::Error => {
                Err(stopped(answer, rules, Class::ServerError, "the provider failed during the answer"))
            }
            FinishReason::Unknown(name) => {
                let reason = format!("the answer ended for an unknown reason, {name:?}");
                Err(stopped(answer, rules, Class::Unreadable, &reason))
            }
        };
        let completion = completed.map_err(|failure| failure.with_usage(self.usage))?;
        Ok(Completion {
            usage: self.usage,
            model: self.model,
            request_id: Some(self.id).filter(|id| !id.is_empty()),
            ..completion
        })
    }

    /// Decodes a chunk that is not valid JSON because of a lone surrogate; any other chunk is a failure.
    fn push_repaired(
        &mut self,
        text: &str,
        source: &[u8],
        error: &serde_json::Error,
    ) -> Result<Progress, Failure> {
        let Some(Repaired { json, mark }) = surrogates::repair(text) else {
            return Err(self.unreadable_chunk(source, error));
        };
        let chunk = serde_json::from_str(&json).map_err(|error| self.unreadable_chunk(source, &error))?;
        self.push_chunk(chunk, source, Some(mark))
    }

    fn unreadable_chunk(&self, source: &[u8], error: &serde_json::Error) -> Failure {
        self.with_call_state(error::in_band(source).unwrap_or_else(|| error_body::unreadable(source, error)))
    }

    fn push_chunk(
        &mut self,
        chunk: Chunk<'_>,
        source: &[u8],
        mark: Option<char>,
    ) -> Result<Progress, Failure> {
        let lacks_chunk_fields = chunk.choices.is_none() && chunk.usage.0.is_none();
        // Only a possible error is parsed a second time, with bounded size.
        if (chunk.error.0 || lacks_chunk_fields)
            && let Some(failure) = error::in_band(source)
        {
            return Err(self.with_call_state(failure));
        }
        // Later counts replace earlier ones even if they are not credible, because the earlier ones were those of
        // a part. Some servers end the stream with zeros after the real counts.
        let is_update = |counts: &Counts| !(counts.is_empty() || counts.is_zero() && self.usage.is_some());
        if let Some(counts) = chunk.usage.0.filter(|counts| is_update(counts)) {
            self.usage = counts.usage();
        }
        for (known, reported) in [(&mut self.id, chunk.id), (&mut self.model, chunk.model)] {
            if let (true, Some(label)) = (known.is_empty(), reported.label(mark)) {
                *known = label;
            }
        }
        let first = chunk.choices.and_then(|choices| choices.0);
        let has_content = first.map_or(Ok(false), |choice| self.push_choice(choice, mark))?;
        self.has_begun |= has_content;
        Ok(if has_content { Progress::Answering } else { Progress::Waiting })
    }

    /// Adds the content of a choice; returns whether it had any.
    fn push_choice(&mut self, choice: Choice<'_>, mark: Option<char>) -> Result<bool, Failure> {
        let was_finished = self.finish.as_ref().is_some_and(|finish| *finish != FinishReason::Number);
        // Some servers send a string for no reason yet.
        let finish = match &choice.finish_reason {
            LenientText::Number(_) => Some(FinishReason::Number),
            LenientText::Text(name) if !name.is_empty() && name != "null" => Some(FinishReason::read(name)),
            LenientText::Text(_) | LenientText::Missing => None,
        };
        let is_marked = finish == Some(FinishReason::Stop);
        self.finish = self.finish.take().max(finish);
        let Some(message) = choice.delta.or(choice.message.map(|message| *message)) else { return Ok(false) };
        let MessageContent { content, refusal, reasoning, reasoning_content, tool_calls, function_call } =
            message;
        let tool_calls = tool_calls.map(|calls| *calls).unwrap_or_default();
        let is_reasoning = reasoning.is_present() || reasoning_content.is_present();
        let has_nonblank_text =
            |text: &Option<ContentText<'_>>| text.as_ref().is_some_and(|text| !is_blank(&text.0));
        if has_nonblank_text(&content) || has_nonblank_text(&refusal) {
            self.has_unmarked_text |= !is_marked;
            if was_finished && self.has_unmarked_text {
                return Err(self.unreadable("the answer continued after its finish reason"));
            }
            self.is_marked_throughout |= was_finished;
        }
        self.answer.push_reasoning(reasoning.text(), mark);
        // Some servers send the same text under both names.
        if reasoning_content != reasoning {
            self.answer.push_reasoning(reasoning_content.text(), mark);
        }
        let mut has_text = false;
        if let Some(content) = content {
            has_text |= !content.0.is_empty();
            self.answer.push_text(&content.0, mark);
        }
        if let Some(refusal) = refusal {
            has_text |= !refusal.0.is_empty();
            self.refusal.push(&refusal.0, mark);
        }
        let mut pieces = tool_calls.pieces;
        if pieces.is_empty() {
            let function = function_call.0.map(|function| ToolCallPiece::from(*function));
            pieces.extend(function.filter(|piece| !piece.is_empty()));
        }
        self.is_marked_throughout |= was_finished && !pieces.is_empty();
        if !pieces.is_empty() {
            self.call_keys.get_or_insert_default().add(&mut self.answer, &pieces, mark);
        }
        Ok(has_text || is_reasoning || tool_calls.is_present || !pieces.is_empty())
    }

    /// Returns whether the output reached `max_tokens`, which a numeric finish reason does not show.
    fn is_at_limit(&self) -> bool {
        let written = self.usage.map(|usage| usage.output.0);
        self.rules.max_tokens.zip(written).is_some_and(|(max, written)| written >= u64::from(max))
    }

    fn unreadable(&mut self, message: &str) -> Failure {
        self.failure(Class::Unreadable, message)
    }

    /// Creates the failure of a call that the model worked on.
    fn failure(&mut self, class: Class, message: &str) -> Failure {
        let failure = error::failure(class, message).with_usage(self.usage);
        let text = mem::take(&mut self.answer).into_text();
        if text.is_empty() { failure } else { failure.with_text(text) }
    }

    /// Adds the usage of the call to a failure that the provider reported.
    fn with_call_state(&self, failure: Failure) -> Failure {
        if self.has_begun || self.usage.is_some() { failure.with_usage(self.usage) } else { failure }
    }
}

/// Creates the failure of an answer that did not finish.
pub(in crate::wire) fn stopped(answer: Answer, rules: &AnswerRules, class: Class, reason: &str) -> Failure {
    let failure = error::failure(class, reason);
    let text = rules.reasoning_tags.answer(answer.into_text());
    if text.is_empty() { failure } else { failure.with_text(text) }
}

/// Refuses an answer that ended for tool calls and has neither a call nor text.
fn require_output(completion: Completion) -> Result<Completion, Failure> {
    if completion.tool_calls().next().is_some() || !is_blank(&completion.text) {
        return Ok(completion);
    }
    let message = "the answer ended for a tool call, which it does not contain";
    Err(Failure::new(Class::ValidationError, message)
        .with_scope(FailureScope::Answer)
        .with_cause(Cause::InvalidToolCall))
}

/// Returns the message of a truncated answer.
pub(in crate::wire) fn truncation_message(max_tokens: Option<u32>, text: &str, has_calls: bool) -> String {
    let limit = match max_tokens {
        Some(limit) => format!("max_tokens = {limit}"),
        None => "the provider's own limit".to_owned(),
    };
    if is_blank(text) && !has_calls {
        format!("reasoning used up {limit} before the answer began; raise max_tokens")
    } else {
        format!("the answer reached {limit} and is cut; raise max_tokens")
    }
}
