//! Property tests: a prompt that the format can express is the same after it was encoded and read.

use std::sync::Arc;

use proptest::prelude::*;

use crate::types::{Format, Message, Part, Prompt, ReasoningEffort, Role, ToolChoice, ToolResult};
use crate::wire::incoming::equivalence::{openai_document, openai_response_format};
use crate::wire::incoming::mutations;
use crate::wire::incoming::strategies::{self, Abilities};

use super::{encoded, read};

fn prompts() -> impl Strategy<Value = Prompt> {
    strategies::prompt(Abilities {
        audio: true,
        stop: true,
        seed: true,
        user: true,
        parallel_tool_calls: true,
        reasoning_efforts: &ReasoningEffort::ALL,
        ..Abilities::common(Format::Openai)
    })
}

/// Returns what the format expresses of a prompt: texts are joined, results are messages of their own, reasoning is
/// not sent, and a system message at the beginning is the system instructions.
fn expressed(mut prompt: Prompt) -> Prompt {
    let mut messages: Vec<Message> = Vec::new();
    for message in std::mem::take(&mut prompt.messages) {
        let parts = expressed_parts(&message);
        match messages.last_mut() {
            // Only reasoning.
            _ if parts.is_empty() => {}
            Some(last) if last.role == Role::Tool && message.role == Role::Tool => last.parts.extend(parts),
            Some(_) | None => messages.push(Message::new(message.role, parts)),
        }
    }
    if prompt.system.is_none() && messages.first().is_some_and(|first| first.role == Role::System) {
        prompt.system = joined(&messages.remove(0).parts);
    }
    if prompt.tools.is_empty() {
        prompt.parallel_tool_calls = None;
        prompt.tool_choice = ToolChoice::Auto;
    }
    prompt.response_format = openai_response_format(&prompt.response_format);
    Prompt { messages, keep_reasoning: false, ..prompt }
}

fn expressed_parts(message: &Message) -> Vec<Part> {
    let mut parts = Vec::new();
    for part in &message.parts {
        match part {
            Part::Reasoning(_) => {}
            Part::ToolResult(result) => {
                let text = joined(&result.parts).unwrap();
                parts.push(Part::ToolResult(ToolResult::new(result.call_id.clone(), text)));
            }
            Part::Document(media) => parts.push(openai_document(media.clone())),
            Part::Text(_) | Part::Image(_) | Part::Audio(_) | Part::Video(_) | Part::ToolCall(_) => {
                parts.push(part.clone());
            }
        }
    }
    match message.role {
        Role::System | Role::User => joined(&parts).map_or(parts, |text| vec![Part::Text(text)]),
        Role::Assistant => {
            let (texts, calls): (Vec<Part>, Vec<Part>) =
                parts.into_iter().partition(|part| matches!(part, Part::Text(_)));
            let text = joined(&texts).filter(|_| !texts.is_empty());
            text.map(Part::Text).into_iter().chain(calls).collect()
        }
        Role::Tool => parts,
    }
}

/// Returns texts as one text; `None` if there are other parts.
fn joined(parts: &[Part]) -> Option<Arc<str>> {
    let texts: Option<Vec<&str>> =
        parts.iter().map(|part| if let Part::Text(text) = part { Some(&**text) } else { None }).collect();
    texts.map(|texts| texts.join("\n\n").into())
}

/// Names of fields, and texts that have a meaning.
const NAMES: &[&str] = &[
    "model",
    "messages",
    "role",
    "content",
    "type",
    "text",
    "image_url",
    "url",
    "detail",
    "file",
    "file_data",
    "input_audio",
    "tool_calls",
    "function",
    "name",
    "arguments",
    "tool_call_id",
    "tools",
    "tool_choice",
    "response_format",
    "json_schema",
    "schema",
    "description",
    "stop",
    "max_tokens",
    "stream",
    "stream_options",
    "include_usage",
    "system",
    "user",
    "assistant",
    "tool",
    "data:image/png;base64,AA==",
    "data:",
];

proptest! {
    #[test]
    fn a_prompt_is_the_same_after_it_was_encoded_and_read(prompt in prompts()) {
        prop_assert_eq!(prompt.check(), Ok(()));
        let body = encoded(&prompt);
        let request = read(&body);
        prop_assert_eq!(&*request.model, "gpt-6-luna");
        prop_assert!(request.is_streamed && request.wants_usage);
        prop_assert_eq!(&request.prompt, &expressed(prompt));
        prop_assert_eq!(encoded(&request.prompt), body);
    }

    #[test]
    fn no_json_causes_a_panic(body in mutations::json(NAMES)) {
        let _ = Format::Openai.read_request(body.to_string().as_bytes(), None);
        // A message is more often valid than a whole body.
        let _ = Format::Openai.read_request(super::messages(serde_json::json!([body])).to_string().as_bytes(), None);
    }

    #[test]
    fn no_body_causes_a_panic(body: Vec<u8>, text in "\\PC*|\\{\"messages\":\\PC*\\}") {
        prop_assert!(Format::Openai.read_request(&body, None).is_err());
        let _ = Format::Openai.read_request(text.as_bytes(), Some("m"));
    }
}
