//! The parts of an answer as they arrive, and what the request allows the complete answer to be.
//!
//! Every decoder adds to an [`Answer`]. What has nothing to do with a format is decided here: tool calls that were
//! not offered, tagged reasoning, a wrapped JSON answer, and the length limit.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::terminal_text::is_blank;
use crate::types::{
    Cause, Class, Completion, Failure, FinishReason, Format, LengthLimit, Part, Prompt, Reasoning, Scope,
    Signature, StreamEvent, ToolCall, ToolCallDelta, is_json_object,
};

use super::structured_output::{needs_wrapping, unwrap_answer};
use super::surrogates::JoinedText;
use super::{Dialect, ReasoningTags, bounded_json, reasoning};

/// The memory that a part needs in addition to its text.
const PART_BYTES: usize = 96;

/// Maximum number of parts of an answer.
const MAX_PARTS: usize = 10_000;

/// The beginning of the ids of tool calls for which the vendor sent none.
pub(super) const GENERATED_ID: &str = "pointsman_call_";

/// What a request allows its answer to be.
#[derive(Debug)]
pub(super) struct AnswerRules {
    format: Format,
    wrapped: bool,
    /// What happens to tagged reasoning before the answer.
    pub(super) reasoning_tags: ReasoningTags,
    offered: OfferedTools,
    keep_reasoning: bool,
    length_limit: LengthLimit,
    /// The ids of the tool calls in the conversation.
    earlier_ids: Vec<Arc<str>>,
    /// The output token limit of the request.
    pub(super) max_tokens: Option<u32>,
}

/// The tools that the request offers.
#[derive(Debug)]
enum OfferedTools {
    Named(Vec<Arc<str>>),
    /// The fields of the vendor contain tools, which are not read.
    Any,
}

impl AnswerRules {
    pub(super) fn of(prompt: &Prompt, format: Format, dialect: &Dialect) -> Self {
        let fields = prompt.vendor_fields.iter().filter(|fields| fields.format == format);
        let fields = fields.map(|fields| &fields.fields).chain(dialect.extra.as_ref());
        let offered = if fields.into_iter().any(|fields| fields.contains_key("tools")) {
            OfferedTools::Any
        } else {
            OfferedTools::Named(prompt.tools.iter().map(|tool| tool.name.clone()).collect())
        };
        Self {
            format,
            wrapped: needs_wrapping(&prompt.response_format, dialect.structured_output),
            reasoning_tags: dialect.reasoning_tags,
            offered,
            // A conversation with tools needs its reasoning back; without it some vendors refuse the next request.
            keep_reasoning: prompt.keep_reasoning || !prompt.tools.is_empty(),
            length_limit: prompt.length_limit,
            earlier_ids: prompt.tool_calls().map(|call| call.id.clone()).collect(),
            max_tokens: prompt.max_tokens,
        }
    }

    /// Creates the answer to which the decoder adds.
    pub(super) fn begin(&self) -> Answer {
        Answer { drops_reasoning: !self.keep_reasoning, ..Answer::default() }
    }

    fn offers(&self, name: &str) -> bool {
        match &self.offered {
            OfferedTools::Any => true,
            OfferedTools::Named(names) => names.iter().any(|offered| &**offered == name),
        }
    }
}

/// The parts of an answer, in the order in which they begin.
#[derive(Debug, Default)]
pub(super) struct Answer {
    parts: Vec<Partial>,
    calls: Vec<PartialToolCall>,
    /// The position in `calls` by the index that the format uses.
    call_positions: HashMap<u64, usize>,
    /// Whether reasoning is not kept.
    drops_reasoning: bool,
    passed_on: PassedOn,
    ids: AssignedIds,
}

/// The ids of the tool calls of an answer. Each is different from the others and from those in the conversation, so that
/// the conversation can continue.
#[derive(Debug, Default)]
struct AssignedIds {
    used: HashSet<String>,
    generated: usize,
}

impl AssignedIds {
    /// Replaces an id that is missing or in use.
    fn assign(&mut self, id: &mut String, rules: &AnswerRules) {
        let is_earlier = |id: &str| rules.earlier_ids.iter().any(|earlier| **earlier == *id);
        while id.is_empty() || is_earlier(id) || self.used.contains(&**id) {
            *id = format!("{GENERATED_ID}{}", self.generated);
            self.generated += 1;
        }
        self.used.insert(id.clone());
    }
}

/// What [`Answer::take_deltas`] has returned.
#[derive(Debug, Default)]
struct PassedOn {
    /// The first part that may still grow, other than tool calls.
    part: usize,
    /// The bytes of that part.
    part_bytes: usize,
    /// The bytes of all texts.
    text_bytes: usize,
    has_reasoning: bool,
    /// Whether the texts are passed on as they arrive; `None` while that depends on what follows.
    is_text_live: Option<bool>,
    /// The calls that have changed since.
    changed_calls: Vec<usize>,
    /// The calls that have begun to be passed on.
    calls: usize,
}

/// A part that may still grow.
#[derive(Debug)]
enum Partial {
    Text(JoinedText),
    Reasoning {
        text: JoinedText,
        signature: String,
        is_redacted: bool,
    },
    /// The next one of `calls`.
    ToolCall,
}

/// A tool call that may still grow.
#[derive(Debug, Default)]
pub(super) struct PartialToolCall {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) arguments: JoinedText,
    pub(super) signature: String,
    /// Its position among the calls that are passed on, and the bytes of the arguments that were.
    passed_on: Option<(usize, usize)>,
}

impl Answer {
    /// Adds text of the answer. Without anything between them, two pieces are one part.
    pub(super) fn push_text(&mut self, piece: &str, mark: Option<char>) {
        if piece.is_empty() {
            return;
        }
        if !matches!(self.parts.last(), Some(Partial::Text(_))) {
            self.begin(Partial::Text(JoinedText::default()));
        }
        if let Some(Partial::Text(text)) = self.parts.last_mut() {
            text.push(piece, mark);
        }
    }

    /// Begins a part. The text of the one before is complete, even if half of a character is missing.
    fn begin(&mut self, part: Partial) {
        match self.parts.last_mut() {
            Some(Partial::Text(text) | Partial::Reasoning { text, .. }) => text.end_surrogate(),
            Some(Partial::ToolCall) | None => {}
        }
        self.parts.push(part);
    }

    /// Begins a part of reasoning: the next piece does not belong to the one before.
    pub(super) fn begin_reasoning(&mut self) {
        if self.drops_reasoning {
            return;
        }
        self.begin(Partial::Reasoning {
            text: JoinedText::default(),
            signature: String::new(),
            is_redacted: false,
        });
    }

    /// Adds text of the reasoning.
    pub(super) fn push_reasoning(&mut self, piece: &str, mark: Option<char>) {
        if piece.is_empty() || self.drops_reasoning {
            return;
        }
        if !matches!(self.parts.last(), Some(Partial::Reasoning { is_redacted: false, .. })) {
            self.begin_reasoning();
        }
        if let Some(Partial::Reasoning { text, .. }) = self.parts.last_mut() {
            text.push(piece, mark);
        }
    }

    /// Adds a piece of the signature of the reasoning before it. Without one, reasoning without text begins.
    pub(super) fn push_signature(&mut self, piece: &str) {
        if piece.is_empty() || self.drops_reasoning {
            return;
        }
        if !matches!(self.parts.last(), Some(Partial::Reasoning { is_redacted: false, .. })) {
            self.begin_reasoning();
        }
        if let Some(Partial::Reasoning { signature, .. }) = self.parts.last_mut() {
            signature.push_str(piece);
        }
    }

    /// Adds reasoning that the vendor does not show.
    pub(super) fn push_redacted_reasoning(&mut self, data: &str) {
        if self.drops_reasoning {
            return;
        }
        self.begin(Partial::Reasoning {
            text: JoinedText::default(),
            signature: data.to_owned(),
            is_redacted: true,
        });
    }

    /// Returns the tool call with this index of the format, and begins it if it is new.
    pub(super) fn tool_call(&mut self, index: u64) -> &mut PartialToolCall {
        let position = *self.call_positions.entry(index).or_insert(self.calls.len());
        if position == self.calls.len() {
            self.begin_tool_call();
        } else if self.passed_on.changed_calls.last() != Some(&position) {
            self.passed_on.changed_calls.push(position);
        }
        &mut self.calls[position]
    }

    /// Adds a complete tool call.
    pub(super) fn push_tool_call(&mut self, id: &str, name: &str, arguments: &str, signature: &str) {
        let call = self.begin_tool_call();
        id.clone_into(&mut call.id);
        name.clone_into(&mut call.name);
        call.arguments.push(arguments, None);
        signature.clone_into(&mut call.signature);
    }

    fn begin_tool_call(&mut self) -> &mut PartialToolCall {
        let position = self.calls.len();
        self.begin(Partial::ToolCall);
        self.calls.push(PartialToolCall::default());
        self.passed_on.changed_calls.push(position);
        &mut self.calls[position]
    }

    /// Returns what has arrived since the last time and may be passed on: not what the complete answer will not
    /// contain, such as calls of tools that were not offered.
    pub(super) fn take_deltas(&mut self, rules: &AnswerRules) -> Vec<StreamEvent> {
        let mut deltas = Vec::new();
        let is_text_live = self.decide_text(rules);
        let passed_on = &mut self.passed_on;
        while let Some(part) = self.parts.get(passed_on.part) {
            match part {
                Partial::Text(text) if is_text_live => {
                    let new = &text.as_str()[passed_on.part_bytes..];
                    if !new.is_empty() {
                        passed_on.text_bytes += new.len();
                        deltas.push(StreamEvent::Text(new.to_owned()));
                    }
                    passed_on.part_bytes = text.len();
                }
                Partial::Text(_) if passed_on.is_text_live.is_none() => break,
                Partial::Reasoning { text, is_redacted: false, .. } if rules.keep_reasoning => {
                    let new = &text.as_str()[passed_on.part_bytes..];
                    if !new.is_empty() {
                        // As `Completion::reasoning` joins them.
                        let is_next = passed_on.part_bytes == 0 && passed_on.has_reasoning;
                        let separator = if is_next { "\n\n" } else { "" };
                        passed_on.has_reasoning = true;
                        deltas.push(StreamEvent::Reasoning(format!("{separator}{new}")));
                    }
                    passed_on.part_bytes = text.len();
                }
                Partial::Text(_) | Partial::Reasoning { .. } | Partial::ToolCall => {}
            }
            if passed_on.part + 1 == self.parts.len() {
                break;
            }
            passed_on.part += 1;
            passed_on.part_bytes = 0;
        }
        for position in std::mem::take(&mut passed_on.changed_calls) {
            let call = &mut self.calls[position];
            if call.name.is_empty() || !rules.offers(&call.name) {
                continue;
            }
            let mut delta = ToolCallDelta::default();
            let (index, bytes) = call.passed_on.unwrap_or_else(|| {
                self.ids.assign(&mut call.id, rules);
                delta.id.clone_from(&call.id);
                delta.name.clone_from(&call.name);
                passed_on.calls += 1;
                (passed_on.calls - 1, 0)
            });
            delta.index = index;
            call.arguments.as_str()[bytes..].clone_into(&mut delta.arguments);
            call.passed_on = Some((index, call.arguments.len()));
            if !(delta.name.is_empty() && delta.arguments.is_empty()) {
                deltas.push(StreamEvent::ToolCall(delta));
            }
        }
        deltas
    }

    /// Returns the number of bytes of the text that was passed on.
    pub(super) fn passed_on_text(&self) -> usize {
        self.passed_on.text_bytes
    }

    /// Decides whether the text is passed on as it arrives: not if the complete answer will have another text.
    fn decide_text(&mut self, rules: &AnswerRules) -> bool {
        if let Some(decided) = self.passed_on.is_text_live {
            return decided;
        }
        let decided = match rules.reasoning_tags {
            _ if rules.wrapped => Some(false),
            ReasoningTags::Keep => Some(true),
            ReasoningTags::Strip => {
                // Text that is not decided about is not skipped.
                let first =
                    self.parts[self.passed_on.part.min(self.parts.len())..].iter().find_map(
                        |part| match part {
                            Partial::Text(text) => Some(text.as_str()),
                            Partial::Reasoning { .. } | Partial::ToolCall => None,
                        },
                    );
                first.and_then(reasoning::may_begin_with_tag).map(|begins_with_tag| !begins_with_tag)
            }
        };
        self.passed_on.is_text_live = decided;
        decided.unwrap_or(false)
    }

    /// Returns whether the answer has a tool call.
    pub(super) fn has_tool_call(&self) -> bool {
        !self.calls.is_empty()
    }

    /// Returns whether the answer has text, blank or not.
    pub(super) fn has_text(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Partial::Text(text) if text.len() > 0))
    }

    /// Returns the number of buffered bytes; more than any limit if the answer has too many parts.
    pub(super) fn buffered_bytes(&self) -> usize {
        // Each chunk adds up all parts. No answer has so many.
        if self.parts.len() > MAX_PARTS {
            return usize::MAX / 4;
        }
        let part_bytes = |part: &Partial| match part {
            Partial::Text(text) => text.len(),
            Partial::Reasoning { text, signature, .. } => PART_BYTES + text.len() + signature.len(),
            Partial::ToolCall => PART_BYTES,
        };
        let call_bytes = |call: &PartialToolCall| {
            PART_BYTES + call.id.len() + call.name.len() + call.arguments.len() + call.signature.len()
        };
        let changes = self.passed_on.changed_calls.len() * size_of::<usize>();
        let calls: usize = self.calls.iter().map(call_bytes).sum();
        self.parts.iter().map(part_bytes).sum::<usize>() + calls + changes
    }

    /// Returns the text so far, for the failure of an answer that is not complete.
    pub(super) fn into_text(self) -> String {
        let mut texts = self.parts.into_iter().filter_map(|part| match part {
            Partial::Text(text) => Some(text.into_string()),
            Partial::Reasoning { .. } | Partial::ToolCall => None,
        });
        let mut all = texts.next().unwrap_or_default();
        texts.for_each(|text| all.push_str(&text));
        all
    }

    /// Completes the answer of a model that finished: `is_cut` if it reached the length limit, which is then
    /// allowed by the rules. The text may be blank; the caller validates it.
    ///
    /// # Errors
    /// `validation_error` for an answer that consists of tool calls that were not offered, or for a call whose
    /// arguments are not a JSON object: the request is sent again once.
    pub(super) fn complete(self, rules: &AnswerRules, is_cut: bool) -> Result<Completion, Failure> {
        // What has been passed on stays as it is.
        let tags = if self.passed_on.text_bytes > 0 { ReasoningTags::Keep } else { rules.reasoning_tags };
        let change = |text: String| unwrap_answer(tags.answer(text), rules.wrapped);
        if self.parts.iter().all(|part| matches!(part, Partial::Text(_))) {
            let text = change(self.into_text());
            let finish_reason = if is_cut { FinishReason::Length } else { FinishReason::Stop };
            return Ok(Completion { text, finish_reason, ..Completion::default() });
        }
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut has_other_parts = false;
        let mut unoffered = None;
        let mut has_calls = false;
        let mut calls = self.calls.into_iter();
        let mut ids = self.ids;
        for partial in self.parts {
            match partial {
                Partial::Text(piece) => {
                    let piece = piece.into_string();
                    text.push_str(&piece);
                    parts.push(Part::Text(piece.into()));
                }
                Partial::Reasoning { text: reasoning, signature, is_redacted } => {
                    if !rules.keep_reasoning {
                        continue;
                    }
                    let mut reasoning = Reasoning::new(reasoning.into_string());
                    if !signature.is_empty() {
                        let mut signed = Signature::new(rules.format, signature);
                        signed.is_redacted = is_redacted;
                        reasoning.signature = Some(signed);
                    }
                    has_other_parts = true;
                    parts.push(Part::Reasoning(reasoning));
                }
                // The parts and the calls have the same order.
                Partial::ToolCall => {
                    let Some(mut call) = calls.next() else { continue };
                    if !rules.offers(&call.name) {
                        unoffered.get_or_insert(call.name);
                        continue;
                    }
                    // The answer was cut in its last call.
                    let is_cut = is_cut && calls.len() == 0;
                    if call.passed_on.is_none() {
                        ids.assign(&mut call.id, rules);
                    }
                    let Some(call) = call.complete(rules.format, is_cut)? else { continue };
                    has_calls = true;
                    has_other_parts = true;
                    parts.push(Part::ToolCall(call));
                }
            }
        }
        if let Some(name) = unoffered.filter(|_| !has_calls && is_blank(&text) && !is_cut) {
            let name = bounded_json::truncate_label(&name);
            return Err(invalid(format!("the model called the tool {name:?}, which was not offered")));
        }
        let length = text.len();
        let answer = change(text);
        if has_other_parts && answer.len() != length {
            replace_texts(&mut parts, &answer);
        }
        let finish_reason = match (is_cut, has_calls) {
            (true, _) => FinishReason::Length,
            (false, true) => FinishReason::ToolCalls,
            (false, false) => FinishReason::Stop,
        };
        if !has_other_parts {
            parts.clear();
        }
        Ok(Completion { text: answer, parts, finish_reason, ..Completion::default() })
    }

    /// Completes an answer that reached the length limit.
    ///
    /// # Errors
    /// `truncated` with this message, unless the request wants the answer.
    pub(super) fn complete_cut(
        self,
        rules: &AnswerRules,
        message: impl FnOnce(&str) -> String,
    ) -> Result<Completion, Failure> {
        match rules.length_limit {
            LengthLimit::Return => self.complete(rules, true),
            LengthLimit::Fail => {
                let text = rules.reasoning_tags.answer(self.into_text());
                let failure = Failure::new(Class::Truncated, message(&text));
                Err(if text.is_empty() { failure } else { failure.with_text(text) })
            }
        }
    }
}

impl PartialToolCall {
    /// Returns the complete call; `None` for the call at which the answer was cut.
    fn complete(self, format: Format, is_cut: bool) -> Result<Option<ToolCall>, Failure> {
        let mut arguments = self.arguments.into_string();
        // No arguments are an empty object in every format.
        if is_blank(&arguments) && !is_cut {
            arguments = "{}".to_owned();
        }
        if !is_json_object(&arguments) {
            if is_cut {
                return Ok(None);
            }
            let name = &self.name;
            return Err(invalid(format!(
                "the arguments of the model's call of {name:?} are not a JSON object"
            )));
        }
        let mut call = ToolCall::new(self.id, self.name, arguments);
        if !self.signature.is_empty() {
            call.signature = Some(Signature::new(format, self.signature));
        }
        Ok(Some(call))
    }
}

fn invalid(message: String) -> Failure {
    Failure::new(Class::ValidationError, message)
        .with_scope(Scope::Answer)
        .with_cause(Cause::InvalidToolCall)
        .maybe_charged()
}

/// Puts the answer in the place of the first text.
fn replace_texts(parts: &mut Vec<Part>, answer: &str) {
    let mut answer = Some(answer);
    parts.retain_mut(|part| match part {
        Part::Text(text) => match answer.take().filter(|answer| !answer.is_empty()) {
            Some(answer) => {
                *text = answer.into();
                true
            }
            None => false,
        },
        _ => true,
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::types::{Message, ResponseFormat, Role, Tool};
    use crate::wire::surrogates;

    fn prompt() -> Prompt {
        Prompt::text("x").with_tool(Tool::new("weather", json!({ "type": "object" })))
    }

    fn rules(prompt: &Prompt) -> AnswerRules {
        AnswerRules::of(prompt, Format::Anthropic, &Dialect::default())
    }

    #[test]
    fn an_answer_of_text_has_no_other_parts() {
        let mut answer = Answer::default();
        answer.push_text("Low ", None);
        answer.push_text("tide.", None);
        let completion = answer.complete(&rules(&Prompt::text("x")), false).unwrap();
        assert_eq!(completion, Completion::new("Low tide."));
    }

    #[test]
    fn parts_keep_their_order_and_their_signatures() {
        let mut answer = Answer::default();
        answer.push_reasoning("Hm", None);
        answer.push_reasoning(".", None);
        answer.push_signature("si");
        answer.push_signature("gn");
        answer.push_redacted_reasoning("hidden");
        answer.push_text("Let me look.", None);
        answer.tool_call(3).name.push_str("weather");
        answer.tool_call(3).id.push('a');
        answer.tool_call(3).arguments.push("{\"city\":", None);
        answer.tool_call(3).arguments.push("\"Bern\"}", None);
        answer.push_tool_call("", "weather", "", "stamp");
        let completion = answer.complete(&rules(&prompt()), false).unwrap();
        let sign = |value: &str| Signature::new(Format::Anthropic, value);
        let expected = vec![
            Part::Reasoning(Reasoning::new("Hm.").with_signature(sign("sign"))),
            Part::Reasoning(Reasoning::new("").with_signature(Signature::redacted("hidden"))),
            Part::text("Let me look."),
            Part::ToolCall(ToolCall::new("a", "weather", "{\"city\":\"Bern\"}")),
            Part::ToolCall(ToolCall::new("pointsman_call_0", "weather", "{}").with_signature(sign("stamp"))),
        ];
        assert_eq!(completion.parts, expected);
        assert_eq!((&*completion.text, completion.finish_reason), ("Let me look.", FinishReason::ToolCalls));
    }

    #[test]
    fn reasoning_is_dropped_unless_the_request_keeps_it_or_has_tools() {
        let complete = |prompt: &Prompt| {
            let mut answer = rules(prompt).begin();
            answer.push_reasoning("Hm.", None);
            answer.push_signature("sign");
            answer.push_text("Yes.", None);
            answer.complete(&rules(prompt), false).unwrap().parts.len()
        };
        assert_eq!(complete(&Prompt::text("x")), 0);
        assert_eq!(complete(&Prompt::text("x").with_keep_reasoning(true)), 2);
        assert_eq!(complete(&prompt()), 2);
    }

    #[test]
    fn an_unoffered_tool_call_is_ignored_beside_text_and_invalid_without_it() {
        let call = |text: &str| {
            let mut answer = Answer::default();
            answer.push_text(text, None);
            answer.push_tool_call("a", "clock", "{}", "");
            answer.complete(&rules(&prompt()), false)
        };
        assert_eq!(call("Noon.").unwrap(), Completion::new("Noon."));
        let failure = call(" ").unwrap_err();
        assert_eq!((failure.class, failure.scope), (Class::ValidationError, Scope::Answer));
        assert_eq!(&*failure.message, "the model called the tool \"clock\", which was not offered");
    }

    #[test]
    fn arguments_that_are_no_object_make_the_answer_invalid() {
        for arguments in ["{\"city\":", "[]", "7"] {
            let mut answer = Answer::default();
            answer.push_tool_call("a", "weather", arguments, "");
            let failure = answer.complete(&rules(&prompt()), false).unwrap_err();
            assert_eq!(
                (failure.class, failure.scope),
                (Class::ValidationError, Scope::Answer),
                "{arguments}"
            );
        }
    }

    #[test]
    fn a_cut_answer_fails_or_is_returned_without_its_cut_call() {
        let cut = |length_limit| {
            let mut answer = Answer::default();
            answer.push_text("Low ti", None);
            answer.push_tool_call("a", "weather", "{\"city\":", "");
            answer.complete_cut(&rules(&prompt().with_length_limit(length_limit)), |text| {
                format!("cut: {text}")
            })
        };
        let failure = cut(LengthLimit::Fail).unwrap_err();
        assert_eq!((failure.class, &*failure.message), (Class::Truncated, "cut: Low ti"));
        assert_eq!(failure.text.as_deref(), Some("Low ti"));
        let completion = cut(LengthLimit::Return).unwrap();
        let expected = Completion { finish_reason: FinishReason::Length, ..Completion::new("Low ti") };
        assert_eq!(completion, expected);
    }

    #[test]
    fn a_call_is_cut_before_its_first_argument_and_generated_ids_differ_from_earlier_ones() {
        let earlier = Message::new(
            Role::Assistant,
            [Part::ToolCall(ToolCall::new("pointsman_call_1", "weather", "{}"))],
        );
        let prompt = prompt().with_message(earlier).with_length_limit(LengthLimit::Return);
        let mut answer = Answer::default();
        answer.push_tool_call("", "weather", "", "");
        answer.push_tool_call("b", "weather", "", "");
        let completion = answer.complete_cut(&rules(&prompt), |_| String::new()).unwrap();
        let ids: Vec<_> = completion.tool_calls().map(|call| &*call.id).collect();
        assert_eq!(ids, ["pointsman_call_0"]);
    }

    #[test]
    fn a_changed_text_replaces_the_texts_among_the_parts() {
        let prompt = prompt().with_response_format(ResponseFormat::json(json!({ "type": "array" })));
        let mut answer = Answer::default();
        answer.push_text("{\"answer\":", None);
        answer.push_reasoning("Hm.", None);
        answer.push_text("[1]}", None);
        let completion = answer.complete(&rules(&prompt), false).unwrap();
        assert_eq!(completion.text, "[1]");
        assert_eq!(completion.parts, [Part::text("[1]"), Part::Reasoning(Reasoning::new("Hm."))]);
    }

    #[test]
    fn deltas_are_what_arrived_since_the_last_time() {
        let rules = rules(&prompt());
        let mut answer = Answer::default();
        answer.push_reasoning("Hm", None);
        assert_eq!(answer.take_deltas(&rules), [StreamEvent::Reasoning("Hm".to_owned())]);
        answer.push_reasoning(".", None);
        answer.push_text("Let ", None);
        assert_eq!(
            answer.take_deltas(&rules),
            [StreamEvent::Reasoning(".".to_owned()), StreamEvent::Text("Let ".to_owned())]
        );
        answer.tool_call(0).name.push_str("clock");
        assert_eq!(answer.take_deltas(&rules), [], "it was not offered");
        answer.tool_call(1).name.push_str("weather");
        answer.tool_call(1).arguments.push("{", None);
        answer.tool_call(2).name.push_str("weather");
        let call = |index, id: &str, name: &str, arguments: &str| {
            let (id, name, arguments) = (id.to_owned(), name.to_owned(), arguments.to_owned());
            StreamEvent::ToolCall(ToolCallDelta { index, id, name, arguments })
        };
        assert_eq!(
            answer.take_deltas(&rules),
            [call(0, "pointsman_call_0", "weather", "{"), call(1, "pointsman_call_1", "weather", "")]
        );
        answer.tool_call(1).arguments.push("}", None);
        answer.tool_call(2).arguments.push("{}", None);
        assert_eq!(answer.take_deltas(&rules), [call(0, "", "", "}"), call(1, "", "", "{}")]);
        assert_eq!(answer.take_deltas(&rules), []);
        let ids = answer.complete(&rules, false).unwrap();
        let ids: Vec<_> = ids.tool_calls().map(|call| &*call.id).collect();
        assert_eq!(ids, ["pointsman_call_0", "pointsman_call_1"]);
    }

    #[test]
    fn text_that_the_complete_answer_changes_is_not_passed_on() {
        let wrapped = prompt().with_response_format(ResponseFormat::json(json!({ "type": "array" })));
        let mut answer = Answer::default();
        answer.push_text("{\"answer\":[1]}", None);
        assert_eq!(answer.take_deltas(&rules(&wrapped)), []);
        let dialect = Dialect { reasoning_tags: ReasoningTags::Strip, ..Dialect::default() };
        let strip = AnswerRules::of(&Prompt::text("x"), Format::Openai, &dialect);
        let stream = |pieces: &[&str]| {
            let mut answer = Answer::default();
            let mut passed_on = String::new();
            for piece in pieces {
                answer.push_text(piece, None);
                for delta in answer.take_deltas(&strip) {
                    let StreamEvent::Text(text) = delta else { panic!("{delta:?}") };
                    passed_on.push_str(&text);
                }
            }
            let bytes = answer.passed_on_text();
            assert_eq!(bytes, passed_on.len());
            (passed_on, answer.complete(&strip, false).unwrap().text)
        };
        assert_eq!(stream(&["<thi", "nk>Hm.</think>", "Yes."]), (String::new(), "Yes.".to_owned()));
        let plain = || "<this> Yes.".to_owned();
        assert_eq!(stream(&["<thi", "s> Yes."]), (plain(), plain()));
        // What has been passed on is not removed again.
        let closed = || "Hm.\n</think>\nYes.".to_owned();
        assert_eq!(stream(&["Hm.", "\n</think>\nYes."]), (closed(), closed()));
    }

    #[test]
    fn every_part_counts_as_memory() {
        let mut answer = Answer::default();
        for index in 0..1_000 {
            answer.tool_call(index);
        }
        assert!(answer.buffered_bytes() >= 1_000 * PART_BYTES);
        for index in 1_000..=MAX_PARTS as u64 {
            answer.tool_call(index);
        }
        assert!(answer.buffered_bytes() > 1 << 40, "no answer has so many parts");
    }

    #[test]
    fn an_id_that_is_in_use_is_replaced() {
        let earlier = Message::new(
            Role::Assistant,
            [
                Part::ToolCall(ToolCall::new("call_0", "weather", "{}")),
                Part::ToolCall(ToolCall::new("pointsman_call_18446744073709551615", "weather", "{}")),
            ],
        );
        let rules = rules(&prompt().with_message(earlier));
        let mut answer = Answer::default();
        for id in ["call_0", "call_1", "call_1", "pointsman_call_1", ""] {
            answer.push_tool_call(id, "weather", "{}", "");
        }
        let streamed: Vec<String> = answer
            .take_deltas(&rules)
            .into_iter()
            .map(|delta| {
                let StreamEvent::ToolCall(delta) = delta else { panic!("{delta:?}") };
                delta.id
            })
            .collect();
        let completion = answer.complete(&rules, false).unwrap();
        let ids: Vec<&str> = completion.tool_calls().map(|call| &*call.id).collect();
        assert_eq!(ids, streamed);
        assert_eq!(
            ids,
            ["pointsman_call_0", "call_1", "pointsman_call_1", "pointsman_call_2", "pointsman_call_3"]
        );
    }

    #[test]
    fn half_a_character_ends_with_its_part() {
        let half = surrogates::repair(r#""a\ud83d""#).unwrap();
        let text: String = serde_json::from_str(&half.json).unwrap();
        let rules = rules(&prompt());
        let mut answer = Answer::default();
        let mut passed_on = String::new();
        let mut take = |answer: &mut Answer| {
            for delta in answer.take_deltas(&rules) {
                if let StreamEvent::Text(text) = delta {
                    passed_on.push_str(&text);
                }
            }
        };
        answer.push_text(&text, Some(half.mark));
        take(&mut answer);
        answer.push_reasoning("Hm.", None);
        take(&mut answer);
        answer.push_text("bcd", None);
        take(&mut answer);
        let bytes = answer.passed_on_text();
        let complete = answer.complete(&rules, false).unwrap().text;
        assert_eq!((&*complete, &*passed_on, bytes), ("a\u{fffd}bcd", "a\u{fffd}bcd", complete.len()));
    }
}
