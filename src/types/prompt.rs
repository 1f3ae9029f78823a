//! A question to a model, in no provider's format.

use std::sync::Arc;

use super::Media;

/// A question to a model. `wire` turns it into a provider's bytes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Prompt {
    /// Instructions that stand above the conversation.
    pub system: Option<Arc<str>>,
    /// The conversation, oldest first; the last message is the user's.
    pub messages: Vec<Message>,
    /// What the answer must look like.
    pub shape: Shape,
    /// Most tokens the answer may have, reasoning included. `None` leaves it to the provider.
    pub max_tokens: Option<u32>,
    /// Sampling temperature. `None` leaves it to the provider.
    pub temperature: Option<f64>,
}

impl Prompt {
    /// Makes a prompt of one user message that asks for plain text.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self { messages: vec![Message::user(text)], ..Self::default() }
    }

    /// Returns how many bytes of text the model will read; media are not counted.
    pub fn text_bytes(&self) -> usize {
        let parts = self.messages.iter().flat_map(|message| &message.parts);
        let said: usize = parts.map(|part| if let Part::Text(text) = part { text.len() } else { 0 }).sum();
        said + self.system.as_deref().map_or(0, str::len)
    }
}

/// One turn of the conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said, in order.
    pub parts: Vec<Part>,
}

impl Message {
    /// Makes a user's message of plain text.
    pub fn user(text: impl Into<Arc<str>>) -> Self {
        Self { role: Role::User, parts: vec![Part::Text(text.into())] }
    }

    /// Makes a model's message of plain text, such as an earlier answer.
    pub fn assistant(text: impl Into<Arc<str>>) -> Self {
        Self { role: Role::Assistant, parts: vec![Part::Text(text.into())] }
    }
}

/// Who speaks in a [`Message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The one who asks.
    User,
    /// The model.
    Assistant,
}

/// A piece of a [`Message`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Plain text.
    Text(Arc<str>),
    /// A picture.
    Image(Media),
    /// A document, such as a PDF.
    Document(Media),
    /// A sound recording.
    Audio(Media),
}

/// What an answer must look like.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Shape {
    /// Any text.
    #[default]
    Text,
    /// One of these words.
    Choice(Arc<[String]>),
    /// JSON that satisfies this JSON Schema.
    Json(Arc<serde_json::Value>),
}
