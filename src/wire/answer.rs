//! The parts of an answer as they arrive. Every decoder adds to an [`Answer`]; `completion.rs` completes it.

mod completion;

use crate::types::StreamEvent;

use super::answer_deltas::PassedOn;
use super::answer_parts::{Partial, PartialToolCall, PartialToolCalls};
use super::answer_rules::AnswerRules;
use super::surrogates::JoinedText;

/// The memory that a part needs in addition to its text.
const PART_BYTES: usize = 96;

/// Bytes of a signature per byte of output: it is encrypted reasoning in base64.
const SIGNATURE_BYTES_PER_OUTPUT_BYTE: usize = 2;

/// Maximum number of parts of an answer.
const MAX_PARTS: usize = 10_000;

/// The parts of an answer, in the order in which they begin. What few answers have is boxed, because the answer is
/// moved with its decoder.
#[derive(Debug, Default)]
pub(super) struct Answer {
    parts: Vec<Partial>,
    /// `None` before the first tool call.
    calls: Option<Box<PartialToolCalls>>,
    /// `None` if nothing is passed on to the reader of a stream.
    passed_on: Option<Box<PassedOn>>,
    /// Whether reasoning is not kept.
    drops_reasoning: bool,
    /// The bytes of text and reasoning that have arrived, whether they are kept or not.
    output_bytes: u32,
}

impl Answer {
    /// Creates the answer to which the decoder adds.
    pub(super) fn new(rules: &AnswerRules) -> Self {
        Self { drops_reasoning: !rules.keep_reasoning, ..Self::default() }
    }

    /// Adds text of the answer. Without anything between them, two pieces are one part.
    pub(super) fn push_text(&mut self, piece: &str, mark: Option<char>) {
        if piece.is_empty() {
            return;
        }
        self.count_output(piece.len());
        if !matches!(self.parts.last(), Some(Partial::Text(_))) {
            begin(&mut self.parts, Partial::Text(JoinedText::default()));
        }
        if let Some(Partial::Text(text)) = self.parts.last_mut() {
            text.push(piece, mark);
        }
    }

    /// Begins a part of reasoning: the next piece does not belong to the one before.
    pub(super) fn begin_reasoning(&mut self) {
        if self.drops_reasoning {
            return;
        }
        let part =
            Partial::Reasoning { text: JoinedText::default(), signature: String::new(), is_redacted: false };
        begin(&mut self.parts, part);
    }

    /// Adds text of the reasoning.
    pub(super) fn push_reasoning(&mut self, piece: &str, mark: Option<char>) {
        self.count_output(piece.len());
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
        self.count_output(piece.len() / SIGNATURE_BYTES_PER_OUTPUT_BYTE);
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
        self.count_output(data.len() / SIGNATURE_BYTES_PER_OUTPUT_BYTE);
        if self.drops_reasoning {
            return;
        }
        let part =
            Partial::Reasoning { text: JoinedText::default(), signature: data.to_owned(), is_redacted: true };
        begin(&mut self.parts, part);
    }

    /// Returns the tool call with this index of the format, and begins it if it is new.
    pub(super) fn tool_call(&mut self, index: u64) -> &mut PartialToolCall {
        let calls = self.calls.get_or_insert_default();
        match calls.position(index) {
            Some(position) => calls.change(position),
            None => {
                begin(&mut self.parts, Partial::ToolCall);
                calls.begin(Some(index))
            }
        }
    }

    /// Adds a complete tool call.
    pub(super) fn push_tool_call(&mut self, id: &str, name: &str, arguments: &str, signature: &str) {
        begin(&mut self.parts, Partial::ToolCall);
        let call = self.calls.get_or_insert_default().begin(None);
        id.clone_into(&mut call.id);
        name.clone_into(&mut call.name);
        call.arguments.push(arguments, None);
        signature.clone_into(&mut call.signature);
    }

    /// Returns what has arrived since the last time and may be passed on: not what the complete answer will not
    /// contain, such as calls of tools that were not offered.
    pub(super) fn take_deltas(&mut self, rules: &AnswerRules) -> Vec<StreamEvent> {
        let passed_on = self.passed_on.get_or_insert_default();
        let mut deltas = passed_on.take_parts(&self.parts, rules);
        if let Some(calls) = &mut self.calls {
            passed_on.take_calls(calls, rules, &mut deltas);
        }
        deltas
    }

    /// Returns the number of bytes of the text that was passed on.
    pub(super) fn passed_on_text(&self) -> usize {
        self.passed_on.as_ref().map_or(0, |passed_on| passed_on.text_bytes())
    }

    /// Returns whether the answer has a tool call.
    pub(super) fn has_tool_call(&self) -> bool {
        self.calls.is_some()
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
        let all_call_bytes = |calls: &PartialToolCalls| {
            let changes = calls.changed.len() * size_of::<usize>();
            calls.calls.iter().map(call_bytes).sum::<usize>() + changes
        };
        let calls = self.calls.as_deref().map_or(0, all_call_bytes);
        self.parts.iter().map(part_bytes).sum::<usize>() + calls
    }

    /// Returns the number of bytes that the model has written so far, whether they are kept or not.
    pub(super) fn output_bytes(&self) -> usize {
        self.output_bytes as usize + self.calls.as_deref().map_or(0, PartialToolCalls::output_bytes)
    }

    fn count_output(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.output_bytes = self.output_bytes.saturating_add(bytes);
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
}

/// Begins a part. The text of the one before is complete, even if half of a character is missing.
fn begin(parts: &mut Vec<Partial>, part: Partial) {
    match parts.last_mut() {
        Some(Partial::Text(text) | Partial::Reasoning { text, .. }) => text.end_surrogate(),
        Some(Partial::ToolCall) | None => {}
    }
    parts.push(part);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Decoder;

    /// Every call moves these several times. What few answers have is boxed.
    #[test]
    fn an_answer_without_tool_calls_stays_small() {
        for (name, bytes, max) in [
            ("Answer", size_of::<Answer>(), 48),
            ("AnswerRules", size_of::<AnswerRules>(), 24),
            ("Decoder", size_of::<Decoder>(), 320),
        ] {
            assert!(bytes <= max, "{name}: {bytes}");
        }
    }

    #[test]
    fn all_output_is_counted_whether_it_is_kept_or_not() {
        for drops_reasoning in [false, true] {
            let mut answer = Answer { drops_reasoning, ..Answer::default() };
            answer.push_text("Hello", None);
            answer.push_text("", None);
            answer.push_reasoning("because", None);
            answer.push_signature("abcd");
            answer.push_redacted_reasoning("abcdef");
            // 5 of text, 7 of reasoning, and half of 10 of signatures.
            assert_eq!(answer.output_bytes(), 17);
            // The pieces of several calls alternate.
            for index in [1, 2, 1, 2, 2] {
                answer.tool_call(index).arguments.push("{}", None);
            }
            answer.tool_call(1).name.push_str("clock");
            assert_eq!(answer.output_bytes(), 17 + 10 + 5);
            answer.push_tool_call("id", "map", "{\"a\":1}", "");
            assert_eq!(answer.output_bytes(), 32 + 10);
            answer.tool_call(2).arguments.push("12", None);
            assert_eq!(answer.output_bytes(), 44);
        }
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
}
