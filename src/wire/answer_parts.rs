//! The parts of an answer that may still grow.

use std::collections::{BTreeMap, BTreeSet};

use super::answer_rules::AnswerRules;
use super::surrogates::JoinedText;

/// The beginning of the ids of tool calls for which the vendor sent none.
pub(super) const GENERATED_ID: &str = "pointsman_call_";

/// A part that may still grow.
#[derive(Debug)]
pub(super) enum Partial {
    Text(JoinedText),
    Reasoning {
        text: JoinedText,
        signature: String,
        is_redacted: bool,
    },
    /// The next one of the tool calls.
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
    pub(super) passed_on: Option<(usize, usize)>,
}

impl PartialToolCall {
    /// Returns the bytes that the model has written.
    fn output_bytes(&self) -> usize {
        self.name.len() + self.arguments.len()
    }
}

/// The tool calls of an answer, in the order in which they begin.
#[derive(Debug, Default)]
pub(super) struct PartialToolCalls {
    pub(super) calls: Vec<PartialToolCall>,
    /// The position in `calls` by the index that the format uses.
    positions: BTreeMap<u64, usize>,
    /// The positions of the calls that have changed since the last deltas.
    pub(super) changed: Vec<usize>,
    pub(super) ids: AssignedIds,
    /// The position of the call that was changed last.
    current: usize,
    /// The bytes that the model has written of all other calls.
    other_bytes: usize,
}

impl PartialToolCalls {
    /// Returns the position of the call with this index of the format.
    pub(super) fn position(&self, index: u64) -> Option<usize> {
        self.positions.get(&index).copied()
    }

    /// Begins a call, with the index of the format if it has one.
    pub(super) fn begin(&mut self, index: Option<u64>) -> &mut PartialToolCall {
        let position = self.calls.len();
        if let Some(index) = index {
            self.positions.insert(index, position);
        }
        self.calls.push(PartialToolCall::default());
        self.changed.push(position);
        self.make_current(position)
    }

    /// Returns the call at a position, for a change.
    pub(super) fn change(&mut self, position: usize) -> &mut PartialToolCall {
        if self.changed.last() != Some(&position) {
            self.changed.push(position);
        }
        self.make_current(position)
    }

    /// Returns the bytes that the model has written of all calls.
    pub(super) fn output_bytes(&self) -> usize {
        self.other_bytes + self.bytes_of(self.current)
    }

    /// Each event asks for the bytes: they are not added up each time, because an answer can have thousands of calls.
    fn make_current(&mut self, position: usize) -> &mut PartialToolCall {
        if position != self.current {
            self.other_bytes = self.output_bytes().saturating_sub(self.bytes_of(position));
            self.current = position;
        }
        &mut self.calls[position]
    }

    fn bytes_of(&self, position: usize) -> usize {
        self.calls.get(position).map_or(0, PartialToolCall::output_bytes)
    }
}

/// The ids of the tool calls of an answer. Each is different from the others and from those in the conversation, so that
/// the conversation can continue.
#[derive(Debug, Default)]
pub(super) struct AssignedIds {
    used: BTreeSet<String>,
    generated: usize,
}

impl AssignedIds {
    /// Replaces an id that is missing or in use.
    pub(super) fn assign(&mut self, id: &mut String, rules: &AnswerRules) {
        while id.is_empty() || rules.is_earlier_id(id) || self.used.contains(&**id) {
            *id = format!("{GENERATED_ID}{}", self.generated);
            self.generated += 1;
        }
        self.used.insert(id.clone());
    }
}
