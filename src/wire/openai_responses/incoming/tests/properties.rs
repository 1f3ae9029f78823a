//! Property tests: a prompt that the format can express is the same after it was encoded and read.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::types::{
    Format, Message, Part, Prompt, Reasoning, ReasoningEffort, Role, Signature, ToolChoice, ToolResult,
};
use crate::wire::incoming::equivalence::{openai_document, openai_response_format};
use crate::wire::incoming::mutations;
use crate::wire::incoming::strategies::{self, Abilities};

use super::golden::canonical;
use super::{encoded, input, read};

fn prompts() -> impl Strategy<Value = Prompt> {
    strategies::prompt(Abilities {
        document_urls: true,
        media_results: true,
        user: true,
        parallel_tool_calls: true,
        reasoning_efforts: &ReasoningEffort::ALL,
        reasoning: || prop_oneof![strategies::unsigned_reasoning(), signed_reasoning()].boxed(),
        ..Abilities::common(Format::OpenaiResponses)
    })
}

fn signed_reasoning() -> impl Strategy<Value = Reasoning> {
    (prop::collection::vec(strategies::text(), 0..3), "[a-zA-Z0-9=]{1,8}").prop_map(|(texts, content)| {
        let summary: Vec<Value> =
            texts.iter().map(|text| json!({ "type": "summary_text", "text": text })).collect();
        let item = json!({
            "id": "rs_1",
            "type": "reasoning",
            "summary": summary,
            "encrypted_content": content,
        });
        let signature = Signature::new(Format::OpenaiResponses, item.to_string());
        Reasoning::new(texts.join("\n\n")).with_signature(signature)
    })
}

/// Returns what the format expresses of a prompt: unsigned reasoning is not sent, and the items of an answer that
/// follow each other are one message unless they are messages themselves. Each text of an answer is such a message.
fn expressed(mut prompt: Prompt) -> Prompt {
    let mut messages: Vec<Message> = Vec::new();
    for message in std::mem::take(&mut prompt.messages) {
        let role = message.role;
        let parts = message.parts.into_iter().filter_map(expressed_part);
        match role {
            Role::System | Role::User => messages.push(Message::new(role, parts)),
            Role::Assistant | Role::Tool => parts.for_each(|part| add_item(&mut messages, role, part)),
        }
    }
    for tool in &mut prompt.tools {
        tool.strict = Some(tool.strict.unwrap_or(false));
    }
    if prompt.tools.is_empty() {
        prompt.tool_choice = ToolChoice::Auto;
    }
    prompt.response_format = openai_response_format(&prompt.response_format);
    Prompt { messages, ..prompt }
}

/// Adds an item to the last message if that has the same author, unless both are texts.
fn add_item(messages: &mut Vec<Message>, role: Role, part: Part) {
    let joins = |last: &Message| {
        let follows_text = matches!(last.parts.last(), Some(Part::Text(_)));
        last.role == role && !(follows_text && matches!(part, Part::Text(_)))
    };
    match messages.last_mut() {
        Some(last) if joins(last) => last.parts.push(part),
        Some(_) | None => messages.push(Message::new(role, [part])),
    }
}

fn expressed_part(part: Part) -> Option<Part> {
    match part {
        Part::Reasoning(reasoning) => reasoning.signature.is_some().then_some(Part::Reasoning(reasoning)),
        Part::ToolResult(result) => {
            let parts = result.parts.into_iter().filter_map(expressed_part).collect();
            Some(Part::ToolResult(ToolResult { parts, is_error: false, ..result }))
        }
        Part::Document(media) => Some(openai_document(media)),
        Part::Text(_) | Part::Image(_) | Part::Audio(_) | Part::Video(_) | Part::ToolCall(_) => Some(part),
    }
}

/// Names of fields, and texts that have a meaning.
const NAMES: &[&str] = &[
    "model",
    "input",
    "instructions",
    "role",
    "content",
    "type",
    "text",
    "message",
    "input_text",
    "output_text",
    "input_image",
    "image_url",
    "detail",
    "input_file",
    "file_data",
    "file_url",
    "function_call",
    "function_call_output",
    "call_id",
    "name",
    "arguments",
    "output",
    "reasoning",
    "summary",
    "encrypted_content",
    "include",
    "reasoning.encrypted_content",
    "tools",
    "function",
    "tool_choice",
    "format",
    "json_schema",
    "schema",
    "description",
    "store",
    "stream",
    "system",
    "user",
    "assistant",
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
        prop_assert_eq!(canonical(encoded(&request.prompt)), canonical(body));
    }

    #[test]
    fn no_json_causes_a_panic(body in mutations::json(NAMES)) {
        let _ = Format::OpenaiResponses.read_request(body.to_string().as_bytes(), None);
        // An item is more often valid than a whole body.
        let _ = Format::OpenaiResponses.read_request(input(json!([body])).to_string().as_bytes(), None);
    }

    #[test]
    fn no_body_causes_a_panic(body: Vec<u8>, text in "\\PC*|\\{\"input\":\\PC*\\}") {
        prop_assert!(Format::OpenaiResponses.read_request(&body, None).is_err());
        let _ = Format::OpenaiResponses.read_request(text.as_bytes(), Some("m"));
    }
}
