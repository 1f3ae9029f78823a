//! Recorded requests, read and encoded again, unchanged and with one field removed or added.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::types::Format;
use crate::wire::fixtures;
use crate::wire::incoming::equivalence::contains;
use crate::wire::incoming::mutations::{Mutation, mutation};

use super::{encoded, read, refusal};

/// A request has a name for its schema, asks for encrypted reasoning if it has tools, and streams. What OpenAI
/// documents as equal is made equal, and what belongs to stored items is left out.
pub(super) fn canonical(mut body: Value) -> Value {
    let fields = body.as_object_mut().unwrap();
    for name in ["stream", "include"] {
        fields.shift_remove(name);
    }
    if let Some(format) = body.pointer_mut("/text/format").and_then(Value::as_object_mut) {
        format.shift_remove("name");
        // Our encoder sets it where OpenAI accepts the schema.
        format.shift_remove("strict");
    }
    for item in body.get_mut("input").and_then(Value::as_array_mut).into_iter().flatten() {
        if item.get("role").is_some_and(|role| role == "developer") {
            item["role"] = json!("system");
        }
        if let Some(fields) = item.as_object_mut() {
            fields.shift_remove("id");
            fields.shift_remove("status");
        }
        for part in item.get_mut("content").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(fields) = part.as_object_mut()
                && fields.get("detail").is_some_and(|detail| detail == "auto")
            {
                fields.shift_remove("detail");
            }
        }
        if let Some(text) = item.get("content").and_then(only_text) {
            item["content"] = text.into();
        }
    }
    body
}

/// Returns one part of text as a text.
fn only_text(content: &Value) -> Option<String> {
    match content.as_array()?.as_slice() {
        [part] => part.get("text")?.as_str().map(str::to_owned),
        _ => None,
    }
}

/// Returns a recorded request without what is refused by name, each with the beginning of the message.
fn recorded(name: &str) -> Value {
    let mut body = fixtures::json(name);
    match name {
        "openai_responses_request.json" => {
            assert!(refusal(&body).starts_with("input[0].content[1].detail \"low\" is not supported"));
            body["input"][0]["content"][1]["detail"] = json!("auto");
        }
        other => panic!("{other} is a new recording: add what is refused of it"),
    }
    body
}

fn names() -> Vec<String> {
    fixtures::names("openai_responses_request")
}

#[test]
fn every_recorded_request_is_encoded_again_as_it_was() {
    assert!(!names().is_empty());
    for name in names() {
        let body = recorded(&name);
        let request = read(&body);
        assert_eq!((&*request.model, request.is_streamed), ("gpt-6-luna", false));
        assert_eq!(request.prompt.check(), Ok(()), "{name}");
        assert_eq!(canonical(encoded(&request.prompt)), canonical(body), "{name}");
    }
}

/// A conversation with tools and reasoning, as a client sends it that keeps the items of responses.
fn conversation() -> Value {
    json!({
        "model": "gpt-6-luna",
        "input": [
            { "role": "system", "content": [{ "type": "input_text", "text": "Be brief." }] },
            { "role": "user", "content": "Where is it?" },
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [{ "type": "summary_text", "text": "Hm." }],
                "encrypted_content": "gAAA=",
            },
            { "role": "assistant", "content": [{ "type": "output_text", "text": "Let me look." }] },
            { "type": "function_call", "call_id": "a", "name": "look", "arguments": "{}" },
            { "type": "function_call_output", "call_id": "a", "output": "here" },
        ],
        "tools": [{ "type": "function", "name": "look", "strict": false, "parameters": { "type": "object" } }],
        "parallel_tool_calls": true,
        "reasoning": { "effort": "low", "summary": "auto" },
        "text": { "verbosity": "low" },
        "metadata": { "job": "1" },
        "store": false,
    })
}

#[test]
fn a_conversation_of_items_is_encoded_again_as_it_was() {
    let prompt = read(&conversation()).prompt;
    assert_eq!(canonical(encoded(&prompt)), canonical(conversation()));
}

const ADDED: &[&str] = &[
    "x_new",
    "metadata",
    "name",
    "detail",
    "n",
    "index",
    "cache_control",
    "id",
    "status",
    "audio",
    "strict",
    "top_logprobs",
    "background",
    "conversation",
];

fn mutations() -> impl Strategy<Value = Mutation> {
    let bodies = names().into_iter().map(|name| recorded(&name)).chain([conversation()]);
    let all = bodies.map(|body| mutation(body, &["schema", "parameters", "summary"], ADDED).boxed());
    prop::strategy::Union::new(all)
}

proptest! {
    #[test]
    fn every_field_is_kept_or_refused_by_name(mutation in mutations()) {
        let body = mutation.body.to_string();
        match Format::OpenaiResponses.read_request(body.as_bytes(), Some("gpt-6-luna")) {
            Ok(request) => {
                let result = canonical(encoded(&request.prompt));
                let expected = canonical(without_unsent_items(mutation.body));
                prop_assert!(contains(&result, &expected), "{}\n{}", result, expected);
            }
            Err(failure) => prop_assert!(failure.message.contains(&mutation.name), "{}", failure),
        }
    }
}

/// The vendor does not accept reasoning without its encrypted content, so it is not sent. An answer without content
/// is none.
fn without_unsent_items(mut body: Value) -> Value {
    if let Some(items) = body.get_mut("input").and_then(Value::as_array_mut) {
        let is = |item: &Value, name: &str, expected: &Value| {
            item.get(name).is_some_and(|value| value == expected)
        };
        let is_unsent = |item: &Value| {
            let is_unsigned = !item.get("encrypted_content").is_some_and(Value::is_string);
            is(item, "type", &json!("reasoning")) && is_unsigned
                || is(item, "role", &json!("assistant")) && is(item, "content", &json!([]))
        };
        items.retain(|item| !is_unsent(item));
    }
    body
}
