//! Random changes of the bodies of requests, and the forms that prompts have after they are read, for the property
//! tests of all formats.

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;

use crate::types::{Message, Part, Prompt, Role};

/// The name of a field that no vendor has.
pub(in crate::wire) const UNKNOWN_FIELD: &str = "x_unknown_field";

/// Adds a field that no vendor has to one of the objects of a body.
pub(in crate::wire) fn add_field(body: &mut Value, at: Index) {
    let mut all = pointers(body);
    all.retain(|pointer| body.pointer(pointer).is_some_and(Value::is_object));
    let pointer: &String = at.get(&all);
    if let Some(Value::Object(fields)) = body.pointer_mut(pointer) {
        fields.insert(UNKNOWN_FIELD.to_owned(), 7.into());
    }
}

/// Removes one of the values of a body, or replaces it.
pub(in crate::wire) fn change(body: &mut Value, at: Index, value: Option<Value>) {
    let all = pointers(body);
    let pointer = at.get(&all);
    if let Some(value) = value {
        if let Some(changed) = body.pointer_mut(pointer) {
            *changed = value;
        }
        return;
    }
    let Some((parent, name)) = pointer.rsplit_once('/') else { return };
    match body.pointer_mut(parent) {
        Some(Value::Object(fields)) => {
            fields.remove(name);
        }
        Some(Value::Array(all)) => {
            if let Some(index) = name.parse::<usize>().ok().filter(|index| *index < all.len()) {
                all.remove(index);
            }
        }
        Some(_) | None => {}
    }
}

/// Returns the pointers to all values, whose names contain no character that a pointer escapes.
fn pointers(value: &Value) -> Vec<String> {
    fn add(value: &Value, pointer: &str, all: &mut Vec<String>) {
        all.push(pointer.to_owned());
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    add(value, &format!("{pointer}/{name}"), all);
                }
            }
            Value::Array(values) => {
                for (index, value) in values.iter().enumerate() {
                    add(value, &format!("{pointer}/{index}"), all);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut all = Vec::new();
    add(value, "", &mut all);
    all
}

/// Returns random JSON whose names and texts are mostly these.
pub(in crate::wire) fn json(names: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,6}".prop_map(Value::from),
        prop::sample::select(names).prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        let fields = prop::collection::vec((prop::sample::select(names), inner.clone()), 0..6);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            fields.prop_map(|fields| {
                fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
            }),
        ]
    })
}

/// Removes what is never sent: reasoning without a signature, and messages of nothing else.
pub(in crate::wire) fn drop_unsigned_reasoning(prompt: &mut Prompt) {
    for message in &mut prompt.messages {
        message
            .parts
            .retain(|part| !matches!(part, Part::Reasoning(reasoning) if reasoning.signature.is_none()));
    }
    prompt.messages.retain(|message| !message.parts.is_empty());
}

/// Makes the first leading text the system prompt, and the others one message.
pub(in crate::wire) fn merge_system(prompt: &mut Prompt) {
    let is_conversation = |message: &Message| message.role != Role::System;
    let leading = prompt.messages.iter().position(is_conversation).unwrap_or(prompt.messages.len());
    let mut parts = Vec::from_iter(prompt.system.take().map(Part::Text));
    parts.extend(prompt.messages.drain(..leading).flat_map(|message| message.parts));
    if parts.is_empty() {
        return;
    }
    if let Part::Text(text) = parts.remove(0) {
        prompt.system = Some(text);
    }
    if !parts.is_empty() {
        prompt.messages.insert(0, Message::new(Role::System, parts));
    }
}
