//! Decodes a response from its events or from a complete body.
//!
//! A completion requires the event that ends the response, `response.completed` or `response.incomplete`, or the
//! status of a complete body. The last events of an item and of the response repeat what the events before have
//! sent; only what is missing is taken from them. An empty answer is valid here; the caller validates it.

use std::mem;

use crate::types::{Class, Completion, Failure, Format, Prompt, StreamEvent, Usage};
use crate::wire::answer::Answer;
use crate::wire::answer_rules::AnswerRules;
use crate::wire::lenient::LenientText;
use crate::wire::openai_chat::{stopped, truncation_message};
use crate::wire::surrogates::{self, Repaired};
use crate::wire::{Dialect, Progress, bounded_json, error_body, openai_chat, progress};

use super::event::{Event, Item, ItemKind, WholeResponse};
use super::output::Output;
use super::raw_field::raw_field;

/// Decodes one response.
#[derive(Debug)]
pub struct Decoder {
    /// Boxed because the decoder is moved.
    output: Box<Output>,
    rules: AnswerRules,
    ending: Option<Ending>,
    /// Whether the model has begun to work, so that the call may be charged.
    has_begun: bool,
    usage: Option<Usage>,
    model: String,
    id: String,
}

/// How the response ended. Later variants are worse.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    Completed,
    /// An unknown status, or an unknown reason for an incomplete response, kept for the message.
    Unknown(Box<str>),
    Length,
    ContentFilter,
}

impl Decoder {
    /// Creates a decoder for the response to `prompt`.
    pub(in crate::wire) fn new(prompt: &Prompt, dialect: &Dialect) -> Self {
        let rules = AnswerRules::of(prompt, Format::OpenaiResponses, dialect);
        Self {
            output: Box::new(Output::new(Answer::new(&rules))),
            rules,
            ending: None,
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
        if self.ending.is_some() {
            return Ok(Progress::Ended);
        }
        let data = data.trim();
        if progress::is_filler(data) {
            return Ok(Progress::Waiting);
        }
        if name == Some("error") {
            return Err(self.with_call_state(openai_chat::in_band_text(data)));
        }
        match serde_json::from_str(data) {
            Ok(event) => self.handle_event(name, &event, data, None),
            Err(error) => {
                // The cause may be a lone surrogate.
                let Some(Repaired { json, mark }) = surrogates::repair(data) else {
                    return Err(self.unreadable_json(data.as_bytes(), &error));
                };
                match serde_json::from_str(&json) {
                    Ok(event) => self.handle_event(name, &event, &json, Some(mark)),
                    Err(error) => Err(self.unreadable_json(data.as_bytes(), &error)),
                }
            }
        }
    }

    /// Decodes a complete JSON body. Its status is the end mark.
    pub(in crate::wire) fn push_body(&mut self, body: &[u8]) -> Result<(), Failure> {
        match serde_json::from_slice(body) {
            Ok(response) => {
                // Fields that are not read may contain invalid UTF-8.
                let json = str::from_utf8(body).unwrap_or_default();
                self.push_response(&response, json, None)
            }
            Err(error) => {
                let Some(Repaired { json, mark }) = surrogates::repair_body(body) else {
                    return Err(self.unreadable_json(body, &error));
                };
                let response =
                    serde_json::from_str(&json).map_err(|error| self.unreadable_json(body, &error))?;
                self.push_response(&response, &json, Some(mark))
            }
        }
    }

    /// Returns what has arrived since the last time and may be passed on to the reader of a stream.
    pub(in crate::wire) fn take_deltas(&mut self) -> Vec<StreamEvent> {
        self.output.answer.take_deltas(&self.rules)
    }

    /// Returns the number of bytes of the text that was passed on.
    pub(in crate::wire) fn passed_on_text(&self) -> usize {
        self.output.answer.passed_on_text()
    }

    /// Returns the number of bytes that the model has written so far.
    pub(in crate::wire) fn output_bytes(&self) -> usize {
        self.output.answer.output_bytes() + self.output.refusal.len()
    }

    /// Returns the number of buffered bytes of the answer.
    pub(in crate::wire) fn buffered_bytes(&self) -> usize {
        self.output.buffered_bytes() + self.id.len() + self.model.len()
    }

    /// Returns the completion.
    pub(in crate::wire) fn finish(mut self) -> Result<Completion, Failure> {
        let Some(ending) = self.ending.take() else {
            return Err(self.failure(Class::Unreadable, "the stream stopped in the middle of the answer"));
        };
        let refusal = mem::take(&mut self.output.refusal).into_string();
        if !refusal.is_empty() {
            return Err(self.failure(Class::ContentFilter, &format!("the model refused: {refusal}")));
        }
        if let (Ending::Completed, Some(kind)) = (&ending, self.output.only_ignored()) {
            let message = format!("the answer is an item of the type {kind:?}, which is not supported");
            return Err(self.failure(Class::ApiError, &message));
        }
        let answer = mem::take(&mut self.output.answer);
        let rules = &self.rules;
        let completed = match ending {
            Ending::Completed => answer.complete(rules, false),
            Ending::Length => {
                let has_calls = answer.has_tool_call();
                answer.complete_cut(rules, |text| truncation_message(rules.max_tokens, text, has_calls))
            }
            Ending::ContentFilter => {
                let reason = "the provider's content filter stopped the answer";
                Err(stopped(answer, rules, Class::ContentFilter, reason))
            }
            Ending::Unknown(name) => {
                let reason = format!("the answer ended for an unknown reason, {name:?}");
                Err(stopped(answer, rules, Class::Unreadable, &reason))
            }
        };
        let usage = self.usage;
        let completion = completed.map_err(|failure| failure.with_usage(usage))?;
        let request_id = Some(self.id).filter(|id| !id.is_empty());
        Ok(Completion { usage, model: self.model, request_id, ..completion })
    }

    /// Handles an event. `json` is its text, and `mark` is that of a repaired one.
    fn handle_event(
        &mut self,
        name: Option<&str>,
        event: &Event<'_>,
        json: &str,
        mark: Option<char>,
    ) -> Result<Progress, Failure> {
        let index = event.output_index.0;
        let delta = event.delta.as_str().unwrap_or_default();
        match event.kind.as_str().or(name).unwrap_or_default() {
            "response.output_text.delta" if !delta.is_empty() => self.output.push_text(index, delta, mark),
            "response.refusal.delta" if !delta.is_empty() => self.output.push_refusal(index, delta, mark),
            "response.reasoning_summary_text.delta" if !delta.is_empty() => {
                self.output.push_reasoning(index, event.summary_index.0, delta, mark);
            }
            "response.reasoning_text.delta" if !delta.is_empty() => {
                self.output.push_reasoning(index, event.content_index.0, delta, mark);
            }
            "response.function_call_arguments.delta" if !delta.is_empty() => {
                self.output.push_arguments(index, delta, mark);
            }
            "response.function_call_arguments.done" => self.output.complete_call(index, event.call(), mark),
            "response.output_item.added" => {
                self.has_begun = true;
                let is_call = |item: &&Item<'_>| item.kind() == Some(ItemKind::FunctionCall);
                let Some(item) = event.item.0.as_deref().filter(is_call) else {
                    return Ok(Progress::Waiting);
                };
                self.output.complete_call(index, item.call(), mark);
            }
            "response.output_item.done" => {
                if let Some(item) = &event.item.0 {
                    self.output.push_item(index, item, raw_field(json, "item"), mark);
                }
            }
            // They repeat the deltas.
            "response.output_text.done"
            | "response.refusal.done"
            | "response.content_part.done"
            | "response.reasoning_text.done"
            | "response.reasoning_summary_text.done"
            | "response.reasoning_summary_part.done" => {}
            "response.created" | "response.queued" | "response.in_progress" => {
                if let Some(response) = &event.response.0 {
                    self.record_start(response, mark);
                }
                return Ok(Progress::Waiting);
            }
            "response.completed" => return self.end(event, true, json, mark),
            "response.incomplete" => return self.end(event, false, json, mark),
            "response.failed" => {
                if let Some(response) = &event.response.0 {
                    self.record_start(response, mark);
                }
                return Err(self.reported_failure(raw_field(json, "response")));
            }
            "error" | "response.error" => {
                return Err(self.with_call_state(openai_chat::in_band_text(json)));
            }
            // Empty deltas, and future events.
            other if other.starts_with("response.") => return Ok(Progress::Waiting),
            // An error, or an event of another format.
            _ => {
                let failure = openai_chat::in_band(json.as_bytes());
                return failure.map_or(Ok(Progress::Waiting), |failure| Err(self.with_call_state(failure)));
            }
        }
        self.has_begun = true;
        Ok(Progress::Answering)
    }

    /// Ends the response with an event whose name states whether the response is complete.
    fn end(
        &mut self,
        event: &Event<'_>,
        is_complete: bool,
        json: &str,
        mark: Option<char>,
    ) -> Result<Progress, Failure> {
        let Some(response) = &event.response.0 else {
            self.ending =
                Some(if is_complete { Ending::Completed } else { Ending::Unknown("incomplete".into()) });
            return Ok(Progress::Ended);
        };
        let raw_response = raw_field(json, "response").unwrap_or_default();
        self.record_start(response, mark);
        if response.status.as_str() == Some("failed") {
            return Err(self.reported_failure(Some(raw_response)));
        }
        self.output.push_response(response, raw_response, mark);
        let named = if is_complete { Ending::Completed } else { self.incomplete_ending(response) };
        self.ending = Some(named).max(self.stated_ending(response));
        Ok(Progress::Ended)
    }

    fn push_response(
        &mut self,
        response: &WholeResponse<'_>,
        json: &str,
        mark: Option<char>,
    ) -> Result<(), Failure> {
        self.record_start(response, mark);
        if response.status.as_str() == Some("failed") {
            return Err(self.reported_failure(Some(json)));
        }
        self.output.push_response(response, json, mark);
        self.ending = self.stated_ending(response);
        if self.ending.is_some() {
            return Ok(());
        }
        Err(match openai_chat::in_band(json.as_bytes()) {
            Some(failure) => self.with_call_state(failure),
            None => self.failure(Class::Unreadable, "the response has no status"),
        })
    }

    /// Records what describes the response, in its first or in its last event.
    fn record_start(&mut self, response: &WholeResponse<'_>, mark: Option<char>) {
        for (known, reported) in [(&mut self.id, &response.id), (&mut self.model, &response.model)] {
            if let (true, Some(label)) = (known.is_empty(), reported.label(mark)) {
                *known = label;
            }
        }
        if let Some(counts) = &response.usage.0 {
            self.usage = counts.usage();
        }
    }

    /// Returns how a response ended by its own status; `None` if it states none.
    fn stated_ending(&self, response: &WholeResponse<'_>) -> Option<Ending> {
        match &response.status {
            LenientText::Missing | LenientText::Number(_) => None,
            LenientText::Text(status) => match &**status {
                "" => None,
                "completed" => Some(Ending::Completed),
                "incomplete" => Some(self.incomplete_ending(response)),
                other => Some(Ending::Unknown(bounded_json::truncate_label(other).into())),
            },
        }
    }

    fn incomplete_ending(&self, response: &WholeResponse<'_>) -> Ending {
        let details = response.incomplete_details.0.as_ref();
        match details.and_then(|details| details.reason.as_str()) {
            Some("max_output_tokens" | "max_tokens" | "length") => Ending::Length,
            Some("content_filter") => Ending::ContentFilter,
            Some(other) => Ending::Unknown(bounded_json::truncate_label(other).into()),
            None if self.is_at_limit() => Ending::Length,
            None => Ending::Unknown("incomplete".into()),
        }
    }

    /// Returns whether the output reached `max_tokens`.
    fn is_at_limit(&self) -> bool {
        let written = self.usage.map(|usage| usage.output.0);
        self.rules.max_tokens.zip(written).is_some_and(|(max, written)| written >= u64::from(max))
    }

    /// Returns the failure that a response with this text reports.
    fn reported_failure(&self, raw_response: Option<&str>) -> Failure {
        let error = raw_response.and_then(|response| raw_field(response, "error"));
        let reported =
            error.and_then(|error| openai_chat::in_band(format!("{{\"error\":{error}}}").as_bytes()));
        self.with_call_state(reported.unwrap_or_else(|| {
            openai_chat::failure(Class::ServerError, "the response failed without an error message")
        }))
    }

    fn unreadable_json(&self, source: &[u8], error: &serde_json::Error) -> Failure {
        let reported = openai_chat::in_band(source);
        self.with_call_state(reported.unwrap_or_else(|| error_body::unreadable(source, error)))
    }

    /// Creates the failure of a call that the model worked on.
    fn failure(&mut self, class: Class, message: &str) -> Failure {
        let failure = openai_chat::failure(class, message).with_usage(self.usage);
        let text = mem::take(&mut self.output.answer).into_text();
        if text.is_empty() { failure } else { failure.with_text(text) }
    }

    /// Adds the usage of the call to a failure that the provider reported.
    fn with_call_state(&self, failure: Failure) -> Failure {
        if self.has_begun || self.usage.is_some() { failure.with_usage(self.usage) } else { failure }
    }
}
