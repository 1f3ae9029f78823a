//! The complete answer.
//!
//! What has nothing to do with a format is decided here: tool calls that were not offered, tagged reasoning, a wrapped
//! JSON answer, and the length limit.

use crate::terminal_text::is_blank;
use crate::types::{
    Cause, Class, Completion, Failure, FailureScope, FinishReason, Format, LengthLimit, Part, Reasoning,
    Signature, ToolCall, is_json_object,
};
use crate::wire::answer_parts::{Partial, PartialToolCall};
use crate::wire::answer_rules::AnswerRules;
use crate::wire::structured_output::unwrap_answer;
use crate::wire::{ReasoningTags, bounded_json};

use super::Answer;

impl Answer {
    /// Completes the answer of a model that finished: `is_cut` if it reached the length limit, which is then
    /// allowed by the rules. The text may be blank; the caller validates it.
    ///
    /// # Errors
    /// `validation_error` for an answer that consists of tool calls that were not offered, or for a call whose
    /// arguments are not a JSON object: the request is sent again once.
    pub(in crate::wire) fn complete(self, rules: &AnswerRules, is_cut: bool) -> Result<Completion, Failure> {
        // What has been passed on stays as it is.
        let tags = if self.passed_on_text() > 0 { ReasoningTags::Keep } else { rules.reasoning_tags };
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
        let calls = self.calls.map(|calls| *calls).unwrap_or_default();
        let mut ids = calls.ids;
        let mut calls = calls.calls.into_iter();
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
    pub(in crate::wire) fn complete_cut(
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
        .with_scope(FailureScope::Answer)
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
    use crate::types::{Message, Prompt, ResponseFormat, Role, Tool};
    use crate::wire::Dialect;

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
            let mut answer = Answer::new(&rules(prompt));
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
        assert_eq!((failure.class, failure.scope), (Class::ValidationError, FailureScope::Answer));
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
                (Class::ValidationError, FailureScope::Answer),
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
}
