//! What of an answer is passed on to the reader of a stream, while it arrives.
//!
//! What the complete answer will not contain is not passed on, such as calls of tools that were not offered.

use std::mem;

use crate::types::{StreamEvent, ToolCallDelta};

use super::answer_parts::{Partial, PartialToolCalls};
use super::answer_rules::AnswerRules;
use super::{ReasoningTags, reasoning};

/// What has been passed on.
#[derive(Debug, Default)]
pub(super) struct PassedOn {
    /// The first part that may still grow, other than tool calls.
    part: usize,
    /// The bytes of that part.
    part_bytes: usize,
    /// The bytes of all texts.
    text_bytes: usize,
    has_reasoning: bool,
    /// Whether the texts are passed on as they arrive; `None` while that depends on what follows.
    is_text_live: Option<bool>,
    /// The calls that have begun to be passed on.
    calls: usize,
}

impl PassedOn {
    /// Returns the number of bytes of the text.
    pub(super) fn text_bytes(&self) -> usize {
        self.text_bytes
    }

    /// Returns what of the texts and of the reasoning has arrived since the last time.
    pub(super) fn take_parts(&mut self, parts: &[Partial], rules: &AnswerRules) -> Vec<StreamEvent> {
        let mut deltas = Vec::new();
        let is_text_live = self.decide_text(parts, rules);
        while let Some(part) = parts.get(self.part) {
            match part {
                Partial::Text(text) if is_text_live => {
                    let new = &text.as_str()[self.part_bytes..];
                    if !new.is_empty() {
                        self.text_bytes += new.len();
                        deltas.push(StreamEvent::Text(new.to_owned()));
                    }
                    self.part_bytes = text.len();
                }
                Partial::Text(_) if self.is_text_live.is_none() => break,
                Partial::Reasoning { text, is_redacted: false, .. } if rules.keep_reasoning => {
                    let new = &text.as_str()[self.part_bytes..];
                    if !new.is_empty() {
                        // As `Completion::reasoning` joins them.
                        let is_next = self.part_bytes == 0 && self.has_reasoning;
                        let separator = if is_next { "\n\n" } else { "" };
                        self.has_reasoning = true;
                        deltas.push(StreamEvent::Reasoning(format!("{separator}{new}")));
                    }
                    self.part_bytes = text.len();
                }
                Partial::Text(_) | Partial::Reasoning { .. } | Partial::ToolCall => {}
            }
            if self.part + 1 == parts.len() {
                break;
            }
            self.part += 1;
            self.part_bytes = 0;
        }
        deltas
    }

    /// Adds what of the tool calls has arrived since the last time.
    pub(super) fn take_calls(
        &mut self,
        calls: &mut PartialToolCalls,
        rules: &AnswerRules,
        deltas: &mut Vec<StreamEvent>,
    ) {
        for position in mem::take(&mut calls.changed) {
            let call = &mut calls.calls[position];
            if call.name.is_empty() || !rules.offers(&call.name) {
                continue;
            }
            let mut delta = ToolCallDelta::default();
            let (index, bytes) = call.passed_on.unwrap_or_else(|| {
                calls.ids.assign(&mut call.id, rules);
                delta.id.clone_from(&call.id);
                delta.name.clone_from(&call.name);
                self.calls += 1;
                (self.calls - 1, 0)
            });
            delta.index = index;
            call.arguments.as_str()[bytes..].clone_into(&mut delta.arguments);
            call.passed_on = Some((index, call.arguments.len()));
            if !(delta.name.is_empty() && delta.arguments.is_empty()) {
                deltas.push(StreamEvent::ToolCall(delta));
            }
        }
    }

    /// Decides whether the text is passed on as it arrives: not if the complete answer will have another text.
    fn decide_text(&mut self, parts: &[Partial], rules: &AnswerRules) -> bool {
        if let Some(decided) = self.is_text_live {
            return decided;
        }
        let decided = match rules.reasoning_tags {
            _ if rules.wrapped => Some(false),
            ReasoningTags::Keep => Some(true),
            ReasoningTags::Strip => {
                // Text that is not decided about is not skipped.
                let first = parts[self.part.min(parts.len())..].iter().find_map(|part| match part {
                    Partial::Text(text) => Some(text.as_str()),
                    Partial::Reasoning { .. } | Partial::ToolCall => None,
                });
                first.and_then(reasoning::may_begin_with_tag).map(|begins_with_tag| !begins_with_tag)
            }
        };
        self.is_text_live = decided;
        decided.unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::types::{Format, Message, Part, Prompt, ResponseFormat, Role, Tool, ToolCall};
    use crate::wire::answer::Answer;
    use crate::wire::{Dialect, surrogates};

    fn prompt() -> Prompt {
        Prompt::text("x").with_tool(Tool::new("weather", json!({ "type": "object" })))
    }

    fn rules(prompt: &Prompt) -> AnswerRules {
        AnswerRules::of(prompt, Format::Anthropic, &Dialect::default())
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
