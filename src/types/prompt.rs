//! A prompt, independent of the provider's format.

use std::sync::Arc;

use super::{
    EmbeddingOptions, LengthLimit, Message, Part, ReasoningEffort, Role, SharedPrefix, Tool, ToolCall,
    ToolChoice, VendorFields,
};

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
    /// The conversation, oldest message first; the last message is the user's, or contains results of tools.
    pub messages: Vec<Message>,
    /// The required format of the answer.
    pub response_format: ResponseFormat,
    /// The maximum number of output tokens, reasoning included. `None` leaves it to the provider.
    pub max_tokens: Option<u32>,
    /// The sampling temperature. `None` leaves it to the provider.
    pub temperature: Option<f64>,
    /// Nucleus sampling, from 0 to 1. `None` leaves it to the provider.
    pub top_p: Option<f64>,
    /// Texts before which the answer ends.
    pub stop: Vec<Arc<str>>,
    /// Makes sampling repeatable, as far as the provider can.
    pub seed: Option<i64>,
    /// How much the model reasons. `None` leaves it to the provider.
    pub reasoning_effort: Option<ReasoningEffort>,
    /// Whether the answer contains the reasoning, where the provider shows it.
    pub keep_reasoning: bool,
    /// The tools that the model may call.
    pub tools: Vec<Tool>,
    /// Which of them it may or must call.
    pub tool_choice: ToolChoice,
    /// Whether one answer may call several tools. `None` leaves it to the provider.
    pub parallel_tool_calls: Option<bool>,
    /// Identifies the end user to the provider, for its abuse detection.
    pub user: Option<Arc<str>>,
    /// What happens to an answer that reaches the length limit.
    pub length_limit: LengthLimit,
    /// Fields of single formats.
    pub vendor_fields: Vec<VendorFields>,
    /// The beginning that it has in common with other prompts, for the provider's cache. `None`: a provider
    /// caches only what it caches by itself.
    pub shared_prefix: Option<SharedPrefix>,
    /// Whether the request asks for embeddings of its texts instead of an answer. Only
    /// [`embeddings`](Self::embeddings) sets it.
    #[doc(hidden)]
    pub embedding: Option<EmbeddingOptions>,
}

impl Prompt {
    /// Creates a prompt with one user message and a plain-text answer.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self { messages: vec![Message::user(text)], ..Self::default() }
    }

    /// Creates the prompt of a request for embeddings: one user message with one part per input.
    #[doc(hidden)]
    pub fn embeddings(
        inputs: impl IntoIterator<Item = impl Into<Arc<str>>>,
        options: EmbeddingOptions,
    ) -> Self {
        let inputs = Message::new(Role::User, inputs.into_iter().map(Part::text));
        Self { messages: vec![inputs], embedding: Some(options), ..Self::default() }
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

    /// Sets nucleus sampling, from 0 to 1.
    #[must_use]
    pub fn with_top_p(mut self, top_p: f64) -> Self {
        self.top_p = Some(top_p);
        self
    }

    /// Sets the texts before which the answer ends.
    #[must_use]
    pub fn with_stop(mut self, stop: impl IntoIterator<Item = impl Into<Arc<str>>>) -> Self {
        self.stop = stop.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the seed of sampling.
    #[must_use]
    pub fn with_seed(mut self, seed: i64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Sets how much the model reasons.
    #[must_use]
    pub fn with_reasoning_effort(mut self, effort: ReasoningEffort) -> Self {
        self.reasoning_effort = Some(effort);
        self
    }

    /// Sets whether the answer contains the reasoning.
    #[must_use]
    pub fn with_keep_reasoning(mut self, keep_reasoning: bool) -> Self {
        self.keep_reasoning = keep_reasoning;
        self
    }

    /// Adds a tool that the model may call.
    #[must_use]
    pub fn with_tool(mut self, tool: Tool) -> Self {
        self.tools.push(tool);
        self
    }

    /// Sets which tools the model may or must call.
    #[must_use]
    pub fn with_tool_choice(mut self, tool_choice: ToolChoice) -> Self {
        self.tool_choice = tool_choice;
        self
    }

    /// Sets whether one answer may call several tools.
    #[must_use]
    pub fn with_parallel_tool_calls(mut self, parallel_tool_calls: bool) -> Self {
        self.parallel_tool_calls = Some(parallel_tool_calls);
        self
    }

    /// Sets the end user, for the provider's abuse detection.
    #[must_use]
    pub fn with_user(mut self, user: impl Into<Arc<str>>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Sets what happens to an answer that reaches the length limit.
    #[must_use]
    pub fn with_length_limit(mut self, length_limit: LengthLimit) -> Self {
        self.length_limit = length_limit;
        self
    }

    /// Adds fields for targets of one format.
    #[must_use]
    pub fn with_vendor_fields(mut self, fields: VendorFields) -> Self {
        self.vendor_fields.push(fields);
        self
    }

    /// Sets the beginning that it has in common with other prompts.
    #[must_use]
    pub fn with_shared_prefix(mut self, shared_prefix: SharedPrefix) -> Self {
        self.shared_prefix = Some(shared_prefix);
        self
    }

    /// Returns the tool calls of the conversation, in their order.
    #[doc(hidden)]
    pub fn tool_calls(&self) -> impl Iterator<Item = &ToolCall> {
        let parts = self.messages.iter().flat_map(|message| &message.parts);
        parts.filter_map(|part| if let Part::ToolCall(call) = part { Some(call) } else { None })
    }

    /// Returns the inputs of a request for embeddings, in their order.
    #[doc(hidden)]
    pub fn embedding_inputs(&self) -> impl Iterator<Item = &str> + Clone {
        let parts = self.messages.iter().flat_map(|message| &message.parts);
        parts.filter_map(|part| if let Part::Text(text) = part { Some(&**text) } else { None })
    }

    /// Returns the number of bytes of text in the prompt; media are not counted.
    #[doc(hidden)]
    pub fn text_bytes(&self) -> usize {
        let parts = self.messages.iter().flat_map(|message| &message.parts);
        parts.map(Part::text_bytes).sum::<usize>() + self.system.as_deref().map_or(0, str::len)
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
    use crate::types::{CacheTtl, Fingerprint, Format, Media};

    #[test]
    fn a_part_is_added_to_the_last_message_or_begins_one() {
        let image = || Part::Image(Media::url("image/png", "https://example.com/a.png"));
        let prompt = Prompt::from("What is in this picture?").with_part(image());
        assert_eq!(prompt.messages, [Message::user("What is in this picture?").with_part(image())]);
        let only_image = Prompt::default().with_part(image());
        assert_eq!(only_image.messages, [Message::new(Role::User, [image()])]);
    }

    #[test]
    fn a_prompt_for_embeddings_has_one_part_per_input() {
        let prompt = Prompt::embeddings(["low tide", "high tide"], EmbeddingOptions::default());
        let parts = ["low tide", "high tide"].map(Part::text);
        assert_eq!(prompt.messages, [Message::new(Role::User, parts)]);
        assert_eq!(prompt.embedding_inputs().collect::<Vec<_>>(), ["low tide", "high tide"]);
        assert_eq!(prompt.embedding, Some(EmbeddingOptions::default()));
    }

    #[test]
    fn every_setter_of_a_prompt_sets_its_field() {
        let schema = serde_json::json!({ "type": "object" });
        let prefix = SharedPrefix::new(Fingerprint([1; 16]), 2000);
        let prompt = Prompt::text("Hello?")
            .with_system("Answer in French.")
            .with_message(Message::assistant("Bonjour."))
            .with_response_format(ResponseFormat::json(schema.clone()))
            .with_max_tokens(100)
            .with_temperature(0.5)
            .with_top_p(0.9)
            .with_stop(["END"])
            .with_seed(7)
            .with_reasoning_effort(ReasoningEffort::Low)
            .with_keep_reasoning(true)
            .with_tool(Tool::new("weather", schema.clone()))
            .with_tool_choice(ToolChoice::Required)
            .with_parallel_tool_calls(false)
            .with_user("user-1")
            .with_length_limit(LengthLimit::Return)
            .with_vendor_fields(VendorFields::new(Format::Openai, serde_json::Map::new()))
            .with_shared_prefix(prefix.with_text_bytes(5).with_ttl(CacheTtl::OneHour));
        let expected = Prompt {
            system: Some("Answer in French.".into()),
            messages: vec![Message::user("Hello?"), Message::assistant("Bonjour.")],
            response_format: ResponseFormat::Json(Arc::new(schema.clone())),
            max_tokens: Some(100),
            temperature: Some(0.5),
            top_p: Some(0.9),
            stop: vec!["END".into()],
            seed: Some(7),
            reasoning_effort: Some(ReasoningEffort::Low),
            keep_reasoning: true,
            tools: vec![Tool::new("weather", schema)],
            tool_choice: ToolChoice::Required,
            parallel_tool_calls: Some(false),
            user: Some("user-1".into()),
            length_limit: LengthLimit::Return,
            vendor_fields: vec![VendorFields::new(Format::Openai, serde_json::Map::new())],
            shared_prefix: Some(SharedPrefix { text_bytes: 5, ttl: CacheTtl::OneHour, ..prefix }),
            embedding: None,
        };
        assert_eq!(prompt, expected);
        let choice = ResponseFormat::choice(["YES", "NO"]);
        assert_eq!(choice, ResponseFormat::Choice(["YES".to_owned(), "NO".to_owned()].into()));
    }
}
