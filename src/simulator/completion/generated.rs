//! A generated answer: its parts, and why it ended.

use crate::simulator::parsed_request::tokens;

/// Why an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::simulator) enum Finish {
    Stop,
    /// This stop sequence of the request followed.
    StopSequence(String),
    /// `max_tokens` was reached.
    Length,
    /// The model refused. The text is its refusal.
    Refusal,
    /// The model calls tools.
    ToolCalls,
    /// The request lacks the signature of a tool call. Only in Gemini's format.
    MissingSignature,
}

/// A generated answer. Its parts are in this order: reasoning, text, tool calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::simulator) struct Completion {
    pub(in crate::simulator) reasoning: Option<GeneratedReasoning>,
    pub(in crate::simulator) text: String,
    pub(in crate::simulator) calls: Vec<GeneratedCall>,
    pub(in crate::simulator) finish: Finish,
    /// Includes the tokens of the reasoning.
    pub(in crate::simulator) output_tokens: u64,
}

/// Generated reasoning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::simulator) struct GeneratedReasoning {
    /// Empty if the request does not ask for it.
    pub(in crate::simulator) text: String,
    pub(in crate::simulator) tokens: u64,
    /// Whether the answer contains it in encrypted form, in OpenAI's responses.
    pub(in crate::simulator) is_encrypted: bool,
}

/// A generated call of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::simulator) struct GeneratedCall {
    /// Unique within a conversation. Each format adds its own prefix.
    pub(in crate::simulator) id: String,
    pub(in crate::simulator) name: String,
    /// A JSON object.
    pub(in crate::simulator) arguments: String,
}

impl Completion {
    /// Creates an answer that consists of text.
    pub(super) fn new(text: String, finish: Finish) -> Self {
        let output_tokens = tokens(text.len());
        Self { reasoning: None, text, calls: Vec::new(), finish, output_tokens }
    }

    /// Creates an answer with tool calls.
    pub(super) fn with_calls(text: String, calls: Vec<GeneratedCall>) -> Self {
        let bytes = calls.iter().map(|call| call.name.len() + call.arguments.len()).sum::<usize>();
        let output_tokens = tokens(text.len() + bytes);
        Self { reasoning: None, text, calls, finish: Finish::ToolCalls, output_tokens }
    }

    /// Adds the reasoning and its tokens.
    pub(super) fn with_reasoning(mut self, reasoning: Option<GeneratedReasoning>) -> Self {
        self.output_tokens += reasoning.as_ref().map_or(0, |reasoning| reasoning.tokens);
        self.reasoning = reasoning;
        self
    }

    /// Returns the tokens of the reasoning.
    pub(in crate::simulator) fn reasoning_tokens(&self) -> u64 {
        self.reasoning.as_ref().map_or(0, |reasoning| reasoning.tokens)
    }
}
