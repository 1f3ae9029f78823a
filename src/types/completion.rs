//! The completed output of a model, independent of the provider's format.

use std::sync::Arc;

use super::{FinishReason, Message, Part, Role, ToolCall, Usage};

/// The completed output of a model. `wire` creates it only if the provider marked the end of the response and the
/// model finished. An answer that was cut at `max_tokens` is a failure, unless the request sets
/// [`LengthLimit::Return`](super::LengthLimit::Return).
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Completion {
    /// The text of the answer. For a JSON response format this is the JSON text, not yet validated.
    pub text: String,
    /// All parts of the answer in their order, if there are others than text; otherwise empty.
    pub parts: Vec<Part>,
    /// The vectors of a request for embeddings, in the order of its inputs; otherwise empty.
    pub embeddings: Vec<Arc<[f32]>>,
    /// Why the model stopped.
    pub finish_reason: FinishReason,
    /// The tokens used; `None` if the provider did not report them (unknown, not zero).
    pub usage: Option<Usage>,
    /// The model that answered, as the provider names it; empty if the provider did not report it.
    pub model: String,
    /// The provider's id of the request, for the provider's support.
    pub request_id: Option<String>,
}

impl Completion {
    /// Creates a completion that consists of text.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// Returns the tool calls, in their order.
    pub fn tool_calls(&self) -> impl Iterator<Item = &ToolCall> {
        self.parts.iter().filter_map(|part| if let Part::ToolCall(call) = part { Some(call) } else { None })
    }

    /// Returns the text of the reasoning; empty if the provider showed none or the request did not ask for it.
    pub fn reasoning(&self) -> String {
        let mut all = String::new();
        for part in &self.parts {
            if let Part::Reasoning(reasoning) = part
                && !reasoning.text.is_empty()
            {
                if !all.is_empty() {
                    all.push_str("\n\n");
                }
                all.push_str(&reasoning.text);
            }
        }
        all
    }

    /// Returns the answer as a message, with which the conversation continues.
    ///
    /// ```
    /// use pointsman::{Message, Prompt, response::Completion};
    ///
    /// let question = Prompt::text("What is the capital of Switzerland?");
    /// let answer = Completion::new("Bern.");
    /// let next = question.with_message(answer.message()).with_message(Message::user("And of France?"));
    /// assert_eq!(next.messages[1], Message::assistant("Bern."));
    /// ```
    pub fn message(&self) -> Message {
        if self.parts.is_empty() {
            return Message::assistant(&*self.text);
        }
        Message::new(Role::Assistant, self.parts.iter().cloned())
    }

    /// Returns the number of bytes that the answer occupies.
    #[doc(hidden)]
    pub fn bytes(&self) -> usize {
        let part = |part: &Part| {
            let signature = match part {
                Part::ToolCall(call) => call.signature.as_ref(),
                Part::Reasoning(reasoning) => reasoning.signature.as_ref(),
                Part::Text(_)
                | Part::Image(_)
                | Part::Document(_)
                | Part::Audio(_)
                | Part::Video(_)
                | Part::ToolResult(_) => None,
            };
            size_of::<Part>() + part.text_bytes() + signature.map_or(0, |signature| signature.value.len())
        };
        let vector = |vector: &Arc<[f32]>| size_of::<Arc<[f32]>>() + size_of_val(&**vector);
        self.text.len()
            + self.parts.iter().map(part).sum::<usize>()
            + self.embeddings.iter().map(vector).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Reasoning;

    #[test]
    fn vectors_are_counted() {
        let embeddings = vec![[0.5; 1_000].into(), [0.25; 1_000].into()];
        let bytes = Completion { embeddings, ..Completion::default() }.bytes();
        assert!((8_000..8_100).contains(&bytes), "{bytes}");
    }

    #[test]
    fn an_answer_continues_its_conversation_as_a_message() {
        assert_eq!(Completion::new("Bern.").message(), Message::assistant("Bern."));
        let parts = vec![
            Part::Reasoning(Reasoning::new("Two")),
            Part::text("Bern."),
            Part::Reasoning(Reasoning::new("thoughts")),
            Part::ToolCall(ToolCall::new("a", "weather", "{}")),
        ];
        let completion = Completion { parts: parts.clone(), ..Completion::new("Bern.") };
        assert_eq!(completion.message(), Message::new(Role::Assistant, parts));
        assert_eq!(completion.reasoning(), "Two\n\nthoughts");
        assert_eq!(completion.tool_calls().map(|call| &*call.name).collect::<Vec<_>>(), ["weather"]);
        assert!(completion.bytes() > "Bern.Twothoughtsweather{}".len());
    }
}
