//! A prompt, independent of the provider's format.

use std::sync::Arc;

use super::Media;

/// The prompt of a request. `wire` encodes it for a provider.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Prompt {
    /// The system instructions.
    pub system: Option<Arc<str>>,
    /// The conversation, oldest message first; the last message is the user's.
    pub messages: Vec<Message>,
    /// The required format of the answer.
    pub response_format: ResponseFormat,
    /// The maximum number of output tokens, reasoning included. `None` leaves it to the provider.
    pub max_tokens: Option<u32>,
    /// The sampling temperature. `None` leaves it to the provider.
    pub temperature: Option<f64>,
}

impl Prompt {
    /// Creates a prompt with one user message and a plain-text answer.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self { messages: vec![Message::user(text)], ..Self::default() }
    }

    /// Returns the number of bytes of text in the prompt; media are not counted.
    pub fn text_bytes(&self) -> usize {
        let parts = self.messages.iter().flat_map(|message| &message.parts);
        let part_bytes: usize =
            parts.map(|part| if let Part::Text(text) = part { text.len() } else { 0 }).sum();
        part_bytes + self.system.as_deref().map_or(0, str::len)
    }
}

/// One message of the conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The author of the message.
    pub role: Role,
    /// The content, in order.
    pub parts: Vec<Part>,
}

impl Message {
    /// Creates a user message with plain text.
    pub fn user(text: impl Into<Arc<str>>) -> Self {
        Self { role: Role::User, parts: vec![Part::Text(text.into())] }
    }

    /// Creates an assistant message with plain text, such as an earlier answer.
    pub fn assistant(text: impl Into<Arc<str>>) -> Self {
        Self { role: Role::Assistant, parts: vec![Part::Text(text.into())] }
    }
}

/// The author of a [`Message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The user.
    User,
    /// The model.
    Assistant,
}

/// A part of a [`Message`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Plain text.
    Text(Arc<str>),
    /// An image.
    Image(Media),
    /// A document, such as a PDF.
    Document(Media),
    /// An audio recording.
    Audio(Media),
}

/// The required format of an answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum ResponseFormat {
    /// Any text.
    #[default]
    Text,
    /// One of these choices.
    Choice(Arc<[String]>),
    /// JSON that is valid for this JSON Schema.
    Json(Arc<serde_json::Value>),
}
