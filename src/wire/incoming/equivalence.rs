//! What is the same before and after a request was read, for the property tests of all formats.

use std::borrow::Cow;

use serde_json::Value;

use crate::types::{Media, MediaData, Message, Part, Prompt, ResponseFormat, Role};
use crate::wire::schema_rules::OPENAI_STRICT;
use crate::wire::structured_output::accepted_by;
use crate::wire::text_document;

/// Returns whether all of `part` is in `whole`. `null` and what is empty count as missing.
pub(in crate::wire) fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (_, Value::Null) => true,
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(name, value)| match whole.get(name) {
                Some(known) => contains(known, value),
                None => is_empty(value),
            })
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(whole, part)| contains(whole, part))
        }
        (Value::Number(whole), Value::Number(part)) => whole.as_f64() == part.as_f64(),
        (whole, part) => whole == part,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Array(all) => all.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
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

/// Returns a response format as both of OpenAI's formats express it: a schema has the form that the vendor accepts, if
/// there is one.
pub(in crate::wire) fn openai_response_format(response_format: &ResponseFormat) -> ResponseFormat {
    match response_format {
        ResponseFormat::Json(schema) => {
            let sent = accepted_by(&OPENAI_STRICT, Cow::Borrowed(&**schema)).map(Cow::into_owned);
            ResponseFormat::json(sent.unwrap_or_else(|| Value::clone(schema)))
        }
        ResponseFormat::Text | ResponseFormat::Choice(_) => response_format.clone(),
    }
}

/// Returns a document as both of OpenAI's formats express it: only a PDF document has a part of its own, which needs a
/// name if it is not at a URL.
pub(in crate::wire) fn openai_document(media: Media) -> Part {
    if let Some(text) = text_document::part(&media).unwrap() {
        return Part::text(text);
    }
    match &media.data {
        MediaData::Base64(_) => {
            let name = media.name.clone().unwrap_or_else(|| "document.pdf".into());
            Part::Document(media.with_name(name))
        }
        MediaData::Url(_) => Part::Document(media),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_missing_field_and_another_value_are_noticed() {
        let whole = json!({ "a": [1, { "b": "x" }], "c": 2 });
        for part in [json!({}), json!({ "a": [1.0, {}], "d": [], "e": null }), whole.clone()] {
            assert!(contains(&whole, &part), "{part}");
        }
        for part in [json!({ "a": [1] }), json!({ "a": [1, { "b": "y" }] }), json!({ "d": [1] }), json!([])] {
            assert!(!contains(&whole, &part), "{part}");
        }
    }
}
