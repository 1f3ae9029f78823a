//! Decodes a message from stream events or from a complete body.
//!
//! Returns a completion only after `message_stop` and a stop reason of a finished answer.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::terminal_text::is_blank;
use crate::types::{Class, Completion, Failure, Format, Prompt, StreamEvent};
use crate::wire::answer::Answer;
use crate::wire::answer_rules::AnswerRules;
use crate::wire::lenient::{LenientObject, LenientText};
use crate::wire::surrogates::{self, Repaired};
use crate::wire::{Dialect, Progress, error_body, progress};

use super::error;
use super::message::{Block, Counts, Delta, Event, FullMessage, MessageStart, StopDetails, block_index};
use super::request::DEFAULT_MAX_TOKENS;
use super::stop_reason::StopReason;

/// Decodes one message.
#[derive(Debug)]
pub struct Decoder {
    answer: Answer,
    rules: AnswerRules,
    /// Whether the next piece of reasoning is the first of its block.
    begins_reasoning: bool,
    /// The indexes of the tool calls. The tools of the vendor's server have arguments too, which are ignored.
    calls: BTreeSet<u64>,
    /// The arguments with which the last tool call began, and its index. They count unless later events contain some.
    first_arguments: Option<(u64, String)>,
    model: String,
    id: Option<String>,
    counts: Option<Counts>,
    stop: Option<StopReason>,
    /// Boxed because the decoder is moved, and few answers have them.
    details: Option<Box<StopDetails>>,
    has_begun: bool,
    ended: bool,
}

impl Decoder {
    pub(in crate::wire) fn new(prompt: &Prompt, dialect: &Dialect) -> Self {
        let rules = AnswerRules::of(prompt, Format::Anthropic, dialect);
        Self {
            answer: Answer::new(&rules),
            rules,
            begins_reasoning: false,
            calls: BTreeSet::new(),
            first_arguments: None,
            model: String::new(),
            id: None,
            counts: None,
            stop: None,
            details: None,
            has_begun: false,
            ended: false,
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
            Ok(event) => self.handle_event(event, data, None),
            Err(failure) => {
                // The cause may be a lone surrogate.
                let Repaired { json, mark } = surrogates::repair(data).ok_or(failure)?;
                self.handle_event(Event::read(name, &json)?, &json, Some(mark))
            }
        }
    }

    fn handle_event(
        &mut self,
        event: Event<'_>,
        data: &str,
        mark: Option<char>,
    ) -> Result<Progress, Failure> {
        if let Some(error) = event.error {
            return Err(self.charged_if_begun(error::classify(None, &error.value)));
        }
        match &*event.kind {
            "message_start" => {
                self.has_begun = true;
                self.record_start(event.message.unwrap_or_default(), mark);
                Ok(Progress::Waiting)
            }
            "content_block_start" => {
                self.start_block(&event.content_block.unwrap_or_default(), || block_index(data), mark)
            }
            "content_block_delta" => {
                self.push_delta(&event.delta.unwrap_or_default(), || block_index(data), mark)
            }
            "content_block_stop" => {
                if self.first_arguments.as_ref().is_some_and(|(call, _)| *call == block_index(data)) {
                    self.push_first_arguments();
                }
                Ok(Progress::Waiting)
            }
            "message_delta" => {
                let delta = event.delta.unwrap_or_default();
                self.record_stop(&delta.stop_reason, delta.stop_details.0);
                self.update_counts(event.usage.0);
                Ok(Progress::Waiting)
            }
            "message_stop" => {
                self.push_first_arguments();
                self.ended = true;
                Ok(Progress::Ended)
            }
            "error" => Err(self.charged_if_begun(
                Failure::new(Class::ServerError, "an error without a message").maybe_charged(),
            )),
            // `ping`, and future types.
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
        for (index, block) in (0..).zip(&message.content) {
            self.start_block(block, || index, mark)?;
        }
        self.push_first_arguments();
        self.record_stop(&message.stop_reason, message.stop_details.0);
        self.update_counts(message.usage.0);
        self.record_start(
            MessageStart { id: message.id, model: message.model, usage: LenientObject(None) },
            mark,
        );
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
        let arguments = self.first_arguments.as_ref().map_or(0, |(_, arguments)| arguments.len());
        self.answer.output_bytes() + arguments
    }

    /// Returns the number of buffered bytes of the answer.
    pub(in crate::wire) fn buffered_bytes(&self) -> usize {
        let arguments = self.first_arguments.as_ref().map_or(0, |(_, arguments)| arguments.len());
        let id = self.id.as_ref().map_or(0, String::len);
        self.answer.buffered_bytes() + arguments + self.model.len() + id
    }

    pub(in crate::wire) fn finish(self) -> Result<Completion, Failure> {
        // Before `message_delta` the counts are those of the opening event, so the usage is unknown.
        let usage = self.counts.filter(|_| self.stop.is_some()).and_then(Counts::usage);
        let Self { answer, rules, model, id: request_id, stop, details, ended, .. } = self;
        if !ended {
            return Err(unreadable("the stream ended without message_stop").with_usage(usage));
        }
        let Some(stop) = stop else {
            return Err(unreadable("the message ended without a stop reason").with_usage(usage));
        };
        let max_tokens = rules.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS);
        let is_at_limit = usage.is_some_and(|usage| usage.output.0 >= u64::from(max_tokens));
        let stop = if stop == StopReason::Number && is_at_limit { StopReason::MaxTokens } else { stop };
        let failed = match stop {
            StopReason::ToolUse if !answer.has_tool_call() && !answer.has_text() => {
                unreadable("the model requested a tool, and the message contains no call")
                    .with_code("tool_use")
            }
            StopReason::Number | StopReason::EndTurn | StopReason::StopSequence | StopReason::ToolUse => {
                return match answer.complete(&rules, false) {
                    Ok(completion) => Ok(Completion { usage, model, request_id, ..completion }),
                    Err(failure) => Err(failure.with_usage(usage)),
                };
            }
            StopReason::MaxTokens => {
                let message = "the answer reached max_tokens and is cut; raise max_tokens or ask for less";
                return match answer.complete_cut(&rules, |_| message.to_owned()) {
                    Ok(completion) => Ok(Completion { usage, model, request_id, ..completion }),
                    Err(failure) => Err(failure.with_code("max_tokens").with_usage(usage)),
                };
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
            StopReason::PauseTurn => {
                unreadable("the model paused before its answer was complete").with_code("pause_turn")
            }
            StopReason::Other(reason) => {
                unreadable(format!("the message ended with the unknown stop reason {reason:?}"))
                    .with_code(reason)
            }
        };
        let failure = failed.with_usage(usage);
        let text = answer.into_text();
        Err(if text.is_empty() { failure } else { failure.with_text(text) })
    }

    fn record_start(&mut self, start: MessageStart<'_>, mark: Option<char>) {
        self.id = start.id.label(mark).or(self.id.take());
        if let Some(model) = start.model.label(mark) {
            self.model = model;
        }
        self.update_counts(start.usage.0);
    }

    /// Begins a block. Its index is read only if the kind of block needs it.
    fn start_block(
        &mut self,
        block: &Block<'_>,
        index: impl FnOnce() -> u64,
        mark: Option<char>,
    ) -> Result<Progress, Failure> {
        match &*block.kind {
            "text" => self.push_text(&block.text, mark),
            "thinking" => {
                self.begins_reasoning = true;
                let progress = self.push_reasoning(block.thinking.as_str().unwrap_or_default(), mark);
                self.push_signature(&block.signature, mark);
                Ok(progress)
            }
            // It arrives completely in the opening event.
            "redacted_thinking" => {
                if let Some(data) = block.data.as_str() {
                    self.answer.push_redacted_reasoning(&surrogates::restore(data, mark));
                }
                Ok(Progress::Answering)
            }
            "tool_use" => self.begin_tool_call(block, index(), mark),
            // The tools of the vendor's server, and future kinds.
            _ => Ok(Progress::Waiting),
        }
    }

    fn push_delta(
        &mut self,
        delta: &Delta<'_>,
        index: impl FnOnce() -> u64,
        mark: Option<char>,
    ) -> Result<Progress, Failure> {
        match &*delta.kind {
            "text_delta" => self.push_text(&delta.text, mark),
            "thinking_delta" => Ok(self.push_reasoning(&delta.thinking, mark)),
            "signature_delta" => {
                self.push_signature(&delta.signature, mark);
                Ok(Progress::Answering)
            }
            "input_json_delta" if !delta.partial_json.is_empty() => {
                self.push_arguments(index(), &delta.partial_json, mark)
            }
            _ => Ok(Progress::Waiting),
        }
    }

    fn push_text(&mut self, text: &str, mark: Option<char>) -> Result<Progress, Failure> {
        if !is_blank(text) {
            self.check_not_stopped()?;
        }
        if text.is_empty() {
            return Ok(Progress::Waiting);
        }
        self.answer.push_text(text, mark);
        Ok(Progress::Answering)
    }

    fn push_reasoning(&mut self, text: &str, mark: Option<char>) -> Progress {
        if text.is_empty() {
            return Progress::Waiting;
        }
        self.begin_reasoning();
        self.answer.push_reasoning(text, mark);
        Progress::Answering
    }

    fn push_signature(&mut self, signature: &LenientText<'_>, mark: Option<char>) {
        if let Some(signature) = signature.as_str() {
            self.begin_reasoning();
            self.answer.push_signature(&surrogates::restore(signature, mark));
        }
    }

    /// Separates the reasoning of a block from that of the block before it. An empty block adds nothing.
    fn begin_reasoning(&mut self) {
        if std::mem::take(&mut self.begins_reasoning) {
            self.answer.begin_reasoning();
        }
    }

    fn begin_tool_call(
        &mut self,
        block: &Block<'_>,
        index: u64,
        mark: Option<char>,
    ) -> Result<Progress, Failure> {
        self.check_not_stopped()?;
        self.push_first_arguments();
        if !self.calls.insert(index) {
            return Err(unreadable("two tool calls have the same number").with_usage(None));
        }
        let call = self.answer.tool_call(index);
        call.id = restored(&block.id, mark).into_owned();
        call.name = restored(&block.name, mark).into_owned();
        self.first_arguments =
            block.arguments().map(|arguments| (index, surrogates::restore(&arguments, mark).into_owned()));
        Ok(Progress::Waiting)
    }

    /// Adds a piece of the arguments of a tool call. The pieces replace the arguments with which the call began.
    fn push_arguments(&mut self, index: u64, piece: &str, mark: Option<char>) -> Result<Progress, Failure> {
        if !self.calls.contains(&index) {
            return Ok(Progress::Answering);
        }
        self.check_not_stopped()?;
        if self.first_arguments.as_ref().is_some_and(|(call, _)| *call == index) {
            self.first_arguments = None;
        }
        self.answer.tool_call(index).arguments.push(piece, mark);
        Ok(Progress::Answering)
    }

    /// Adds the arguments with which the last tool call began.
    fn push_first_arguments(&mut self) {
        if let Some((index, arguments)) = self.first_arguments.take() {
            self.answer.tool_call(index).arguments.push(&arguments, None);
        }
    }

    fn check_not_stopped(&self) -> Result<(), Failure> {
        match self.stop {
            None => Ok(()),
            Some(_) => Err(unreadable("the answer continued after its stop reason").maybe_charged()),
        }
    }

    /// Records a stop reason; of several reasons the worst is kept.
    fn record_stop(&mut self, reason: &LenientText<'_>, details: Option<StopDetails>) {
        self.stop = self.stop.take().max(StopReason::read(reason));
        self.details = details.map(|details| Box::new(details.truncated())).or(self.details.take());
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

/// Returns a secondary text; empty if it is missing.
fn restored<'t>(text: &'t LenientText<'_>, mark: Option<char>) -> Cow<'t, str> {
    surrogates::restore(text.as_str().unwrap_or_default(), mark)
}

#[cfg(test)]
mod tests;
