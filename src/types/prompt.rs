//! A prompt, independent of the provider's format.

use std::sync::Arc;

use super::Media;

/// The prompt of a request, independent of the provider's format.
///
/// ```
/// use pointsman::{Message, Prompt, ResponseFormat};
///
/// let prompt = Prompt::text("What is this about? It crashes when I print.")
///     .with_system("You sort the messages of customers.")
///     .with_response_format(ResponseFormat::choice(["BUG", "QUESTION", "THANKS"]))
///     .with_max_tokens(20);
/// let next = prompt.with_message(Message::assistant("BUG")).with_message(Message::user("Are you sure?"));
/// assert_eq!(next.messages.len(), 3);
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
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

    /// Sets the system instructions.
    #[must_use]
    pub fn with_system(mut self, system: impl Into<Arc<str>>) -> Self {
        self.system = Some(system.into());
        self
    }

    /// Adds a message to the end of the conversation.
    #[must_use]
    pub fn with_message(mut self, message: Message) -> Self {
        self.messages.push(message);
        self
    }

    /// Adds a part to the last message, such as an image. Without a message it becomes a user message.
    #[must_use]
    pub fn with_part(mut self, part: Part) -> Self {
        match self.messages.last_mut() {
            Some(last) => last.parts.push(part),
            None => self.messages.push(Message::new(Role::User, [part])),
        }
        self
    }

    /// Sets the required format of the answer.
    #[must_use]
    pub fn with_response_format(mut self, response_format: ResponseFormat) -> Self {
        self.response_format = response_format;
        self
    }

    /// Sets the maximum number of output tokens, reasoning included.
    #[must_use]
    pub fn with_max_tokens(mut self, max_tokens: u32) -> Self {
        self.max_tokens = Some(max_tokens);
        self
    }

    /// Sets the sampling temperature.
    #[must_use]
    pub fn with_temperature(mut self, temperature: f64) -> Self {
        self.temperature = Some(temperature);
        self
    }

    /// Returns the number of bytes of text in the prompt; media are not counted.
    #[doc(hidden)]
    pub fn text_bytes(&self) -> usize {
        let parts = self.messages.iter().flat_map(|message| &message.parts);
        let part_bytes: usize =
            parts.map(|part| if let Part::Text(text) = part { text.len() } else { 0 }).sum();
        part_bytes + self.system.as_deref().map_or(0, str::len)
    }
}

impl From<&str> for Prompt {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Prompt {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

/// One message of the conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// The user.
    User,
    /// The model.
    Assistant,
}

/// A part of a [`Message`].
#[derive(Debug, Clone, PartialEq, Eq)]
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
}

impl Part {
    /// Creates a part with plain text.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Text(text.into())
    }
}

/// The required format of an answer. It is requested from the provider. A pipeline also validates the answer; the
/// response to a single request contains the text as the model returned it.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub enum ResponseFormat {
    /// Any text.
    #[default]
    Text,
    /// One of these choices.
    Choice(Arc<[String]>),
    /// JSON that is valid for this JSON Schema.
    Json(Arc<serde_json::Value>),
}

impl ResponseFormat {
    /// Requires one of these choices.
    pub fn choice(choices: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::Choice(choices.into_iter().map(Into::into).collect())
    }

    /// Requires JSON that is valid for this JSON Schema.
    pub fn json(schema: impl Into<Arc<serde_json::Value>>) -> Self {
        Self::Json(schema.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_added_to_the_last_message_or_begins_one() {
        let image = || Part::Image(Media::url("image/png", "https://example.com/a.png"));
        let prompt = Prompt::from("What is in this picture?").with_part(image());
        assert_eq!(prompt.messages, [Message::user("What is in this picture?").with_part(image())]);
        let only_image = Prompt::default().with_part(image());
        assert_eq!(only_image.messages, [Message::new(Role::User, [image()])]);
    }

    #[test]
    fn every_setter_of_a_prompt_sets_its_field() {
        let schema = serde_json::json!({ "type": "object" });
        let prompt = Prompt::text("Hello?")
            .with_system("Answer in French.")
            .with_message(Message::assistant("Bonjour."))
            .with_response_format(ResponseFormat::json(schema.clone()))
            .with_max_tokens(100)
            .with_temperature(0.5);
        let expected = Prompt {
            system: Some("Answer in French.".into()),
            messages: vec![Message::user("Hello?"), Message::assistant("Bonjour.")],
            response_format: ResponseFormat::Json(Arc::new(schema)),
            max_tokens: Some(100),
            temperature: Some(0.5),
        };
        assert_eq!(prompt, expected);
        let choice = ResponseFormat::choice(["YES", "NO"]);
        assert_eq!(choice, ResponseFormat::Choice(["YES".to_owned(), "NO".to_owned()].into()));
    }
}
