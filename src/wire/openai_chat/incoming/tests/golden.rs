//! Recorded requests, read and encoded again, unchanged and with one field removed or added.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::types::Format;
use crate::wire::fixtures;
use crate::wire::incoming::equivalence::contains;
use crate::wire::incoming::mutations::{Mutation, mutation};

use super::{encoded, read, refusal};

/// A request has a name for its schema, and its own stream flags. What OpenAI documents as equal is made equal.
fn canonical(mut body: Value) -> Value {
    let fields = body.as_object_mut().unwrap();
    fields.shift_remove("stream");
    if let Some(options) = fields.get_mut("stream_options").and_then(Value::as_object_mut) {
        options.shift_remove("include_usage");
        if options.is_empty() {
            fields.shift_remove("stream_options");
        }
    }
    if fields.get("tool_choice").is_some_and(|choice| choice == "auto") {
        fields.shift_remove("tool_choice");
    }
    // OpenAI refuses the field in a request without tools.
    if !fields.get("tools").is_some_and(|tools| tools != &json!([])) {
        fields.shift_remove("parallel_tool_calls");
    }
    if let Some(schema) = body.pointer_mut("/response_format/json_schema").and_then(Value::as_object_mut) {
        schema.shift_remove("name");
        // Our encoder sets it where OpenAI accepts the schema.
        schema.shift_remove("strict");
    }
    for message in body.get_mut("messages").and_then(Value::as_array_mut).into_iter().flatten() {
        if message.get("role").is_some_and(|role| role == "developer") {
            message["role"] = json!("system");
        }
        for part in message.get_mut("content").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(image) = part.get_mut("image_url").and_then(Value::as_object_mut)
                && image.get("detail").is_some_and(|detail| detail == "auto")
            {
                image.shift_remove("detail");
            }
        }
        if let Some(text) = message.get("content").and_then(only_text) {
            message["content"] = text.into();
        }
    }
    body
}

/// Returns parts of text alone as one text.
fn only_text(content: &Value) -> Option<String> {
    let texts: Option<Vec<&str>> =
        content.as_array()?.iter().map(|part| part.get("text")?.as_str()).collect();
    texts.map(|texts| texts.join("\n\n"))
}

/// Returns a recorded request without what is refused by name, each with the beginning of the message.
fn recorded(name: &str) -> Value {
    let mut body = fixtures::json(name);
    match name {
        "openai_chat_request.json" => {
            let expected = "messages[1].content[1].image_url.detail \"low\" is not supported";
            assert!(refusal(&body).starts_with(expected));
            body["messages"][1]["content"][1]["image_url"].as_object_mut().unwrap().remove("detail");
        }
        "openai_chat_request_multimodal.json" => {
            let expected = "messages[0].content[3].file.file_id is not supported";
            assert!(refusal(&body).starts_with(expected));
            body["messages"][0]["content"].as_array_mut().unwrap().pop();
        }
        "openai_chat_request_tools.json" => {}
        other => panic!("{other} is a new recording: add what is refused of it"),
    }
    body
}

fn names() -> Vec<String> {
    fixtures::names("openai_chat_request")
}

#[test]
fn every_recorded_request_is_encoded_again_as_it_was() {
    assert!(names().len() >= 3);
    for name in names() {
        let body = recorded(&name);
        let request = read(&body);
        assert_eq!(request.model, "gpt-6-luna");
        assert_eq!(request.is_streamed, body.get("stream").is_some());
        assert_eq!(request.prompt.check(), Ok(()), "{name}");
        assert_eq!(canonical(encoded(&request.prompt)), canonical(body), "{name}");
    }
}

const ADDED: &[&str] = &[
    "x_new",
    "metadata",
    "logit_bias",
    "name",
    "detail",
    "n",
    "logprobs",
    "index",
    "cache_control",
    "id",
    "status",
    "audio",
    "strict",
];

fn mutations() -> impl Strategy<Value = Mutation> {
    let all =
        names().into_iter().map(|name| mutation(recorded(&name), &["schema", "parameters"], ADDED).boxed());
    prop::strategy::Union::new(all)
}

proptest! {
    #[test]
    fn every_field_is_kept_or_refused_by_name(mutation in mutations()) {
        let body = mutation.body.to_string();
        match Format::Openai.read_request(body.as_bytes(), Some("gpt-6-luna")) {
            Ok(request) => {
                let result = canonical(encoded(&request.prompt));
                let expected = canonical(mutation.body);
                prop_assert!(contains(&result, &expected), "{}\n{}", result, expected);
            }
            Err(failure) => prop_assert!(failure.message.contains(&mutation.name), "{}", failure),
        }
    }
}
