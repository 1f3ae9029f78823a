//! What a reader of a streamed answer gets.

use super::{Response, TargetName};

/// An event of a streamed answer. The order is [`Started`](Self::Started), any number of deltas,
/// [`Finished`](Self::Finished). The joined deltas are the answer in the response.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum StreamEvent {
    /// This target answers. No other target answers after this: a failure from here on ends the stream with an error.
    Started {
        /// The target.
        target: TargetName,
    },
    /// A piece of the text.
    Text(String),
    /// A piece of the reasoning, if the request keeps it.
    Reasoning(String),
    /// A piece of a tool call.
    ToolCall(ToolCallDelta),
    /// The answer is complete. The response contains all of it, its usage and its cost.
    Finished(Box<Response>),
}

impl StreamEvent {
    /// Returns the number of bytes of its text.
    #[doc(hidden)]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Text(text) | Self::Reasoning(text) => text.len(),
            Self::ToolCall(delta) => delta.id.len() + delta.name.len() + delta.arguments.len(),
            Self::Started { .. } | Self::Finished(_) => 0,
        }
    }
}

/// A piece of a tool call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ToolCallDelta {
    /// The position of the call among the calls of the answer, from 0.
    pub index: usize,
    /// The id of the call, in its first piece; empty in the others.
    pub id: String,
    /// The name of the tool, in the first piece; empty in the others.
    pub name: String,
    /// A piece of the arguments. The joined pieces are JSON; no pieces are an empty object.
    pub arguments: String,
}
