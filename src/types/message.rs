//! A message of a conversation and its parts.

use std::sync::Arc;

use super::{Media, Reasoning, Signature};

/// One message of the conversation.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// The author of the message.
    pub role: Role,
    /// The content, in order.
    pub parts: Vec<Part>,
}

impl Message {
    /// Creates a message with these parts.
    pub fn new(role: Role, parts: impl IntoIterator<Item = Part>) -> Self {
        Self { role, parts: parts.into_iter().collect() }
    }

    /// Creates a user message with plain text.
    pub fn user(text: impl Into<Arc<str>>) -> Self {
        Self::new(Role::User, [Part::text(text)])
    }

    /// Creates an assistant message with plain text, such as an earlier answer.
    pub fn assistant(text: impl Into<Arc<str>>) -> Self {
        Self::new(Role::Assistant, [Part::text(text)])
    }

    /// Creates a message with the results of tools.
    pub fn tool(results: impl IntoIterator<Item = ToolResult>) -> Self {
        Self::new(Role::Tool, results.into_iter().map(Part::ToolResult))
    }

    /// Adds a part to the end of the message.
    #[must_use]
    pub fn with_part(mut self, part: Part) -> Self {
        self.parts.push(part);
        self
    }
}

/// The author of a [`Message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// Instructions in addition to [`Prompt::system`](super::Prompt::system).
    System,
    /// The user.
    User,
    /// The model.
    Assistant,
    /// The tools that the model has called.
    Tool,
}

/// A part of a [`Message`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Part {
    /// Plain text.
    Text(Arc<str>),
    /// An image.
    Image(Media),
    /// A document, such as a PDF.
    Document(Media),
    /// An audio recording.
    Audio(Media),
    /// A video.
    Video(Media),
    /// A call of a tool, in an assistant message.
    ToolCall(ToolCall),
    /// The result of a tool, in a tool message.
    ToolResult(ToolResult),
    /// Reasoning, in an assistant message.
    Reasoning(Reasoning),
}

impl Part {
    /// Creates a part with plain text.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Text(text.into())
    }

    /// Returns the number of bytes of its text; media are not counted.
    #[doc(hidden)]
    pub fn text_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Image(_) | Self::Document(_) | Self::Audio(_) | Self::Video(_) => 0,
            Self::ToolCall(call) => call.name.len() + call.arguments.len(),
            Self::ToolResult(result) => result.parts.iter().map(Self::text_bytes).sum(),
            Self::Reasoning(reasoning) => reasoning.text.len(),
        }
    }
}

/// A call of a [`Tool`](super::Tool) in a model's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ToolCall {
    /// Identifies the call within its conversation. The [`ToolResult`] repeats it.
    pub id: Arc<str>,
    /// The name of the tool.
    pub name: Arc<str>,
    /// The arguments, a JSON object as text. Not validated against the schema of the tool.
    pub arguments: Arc<str>,
    /// What the vendor needs unchanged when the call is sent back to it.
    pub signature: Option<Signature>,
}

impl ToolCall {
    /// Creates a call with arguments in JSON.
    pub fn new(id: impl Into<Arc<str>>, name: impl Into<Arc<str>>, arguments: impl Into<Arc<str>>) -> Self {
        Self { id: id.into(), name: name.into(), arguments: arguments.into(), signature: None }
    }

    /// Sets what the vendor needs unchanged.
    #[must_use]
    pub fn with_signature(mut self, signature: Signature) -> Self {
        self.signature = Some(signature);
        self
    }
}

/// The result of a [`ToolCall`], in a message of the role [`Tool`](Role::Tool).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ToolResult {
    /// The id of the call, which an earlier message contains.
    pub call_id: Arc<str>,
    /// The result: text, and media where the format supports them.
    pub parts: Vec<Part>,
    /// Whether the tool failed; the parts then say why.
    pub is_error: bool,
}

impl ToolResult {
    /// Creates a result with plain text, such as JSON.
    pub fn new(call_id: impl Into<Arc<str>>, text: impl Into<Arc<str>>) -> Self {
        Self { call_id: call_id.into(), parts: vec![Part::text(text)], is_error: false }
    }

    /// Creates the result of a tool that failed for this reason.
    pub fn error(call_id: impl Into<Arc<str>>, reason: impl Into<Arc<str>>) -> Self {
        Self { is_error: true, ..Self::new(call_id, reason) }
    }

    /// Adds a part, such as an image.
    #[must_use]
    pub fn with_part(mut self, part: Part) -> Self {
        self.parts.push(part);
        self
    }
}
