//! Adds the fields of one vendor to the body of a request.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::types::{Class, Failure, Format, Prompt};

use super::unsupported::refusal;
use super::{Dialect, request};

/// Serializes a body with the fields of the model's configuration and of the request.
///
/// # Errors
/// `api_error`, which names a field that the request sets itself, that the configuration sets to another value, or whose
/// effect the response could not show.
pub(super) fn json_body(
    body: &impl Serialize,
    format: Format,
    prompt: &Prompt,
    dialect: &Dialect,
) -> Result<Bytes, Failure> {
    let of_request = prompt.vendor_fields.iter().filter(|fields| fields.format == format);
    let mut of_request = of_request.map(|fields| &fields.fields).peekable();
    if dialect.extra.is_none() && of_request.peek().is_none() {
        return request::json_body(body);
    }
    let configured = dialect.extra.as_deref();
    let mut added = configured.cloned().unwrap_or_default();
    for fields in of_request {
        if let Some(path) = configured.and_then(|configured| overridden_field(configured, fields)) {
            return Err(refusal(format!(
                "the configuration of the model sets {path:?}; remove it from the vendor's fields of the request"
            )));
        }
        replace(&mut added, fields);
    }
    check_fields(&added, format)?;
    let written = serde_json::to_value(body).map_err(|error| {
        Failure::new(Class::Internal, format!("cannot write the request as JSON: {error}"))
    })?;
    let Value::Object(mut body) = written else {
        return Err(Failure::new(Class::Internal, "the body of the request is not an object"));
    };
    merge(&mut body, added, "")?;
    request::json_body(&body)
}

/// Returns the path of a field that the configuration sets to another value than the request. The price of the model is
/// that of the configured value, such as a cheaper service tier.
fn overridden_field(configured: &Map<String, Value>, requested: &Map<String, Value>) -> Option<String> {
    requested.iter().find_map(|(name, value)| match (configured.get(name)?, value) {
        (Value::Object(configured), Value::Object(requested)) => {
            Some(format!("{name}.{}", overridden_field(configured, requested)?))
        }
        (configured, requested) => (configured != requested).then(|| name.clone()),
    })
}

/// Takes over fields; objects are merged.
fn replace(all: &mut Map<String, Value>, fields: &Map<String, Value>) {
    for (name, value) in fields {
        match (all.get_mut(name), value) {
            (Some(Value::Object(known)), Value::Object(more)) => replace(known, more),
            _ => {
                all.insert(name.clone(), value.clone());
            }
        }
    }
}

/// Adds fields to a body that does not have them.
fn merge(body: &mut Map<String, Value>, fields: Map<String, Value>, path: &str) -> Result<(), Failure> {
    for (name, value) in fields {
        match (body.get_mut(&name), value) {
            (None, value) => {
                body.insert(name, value);
            }
            (Some(Value::Object(known)), Value::Object(more)) => {
                merge(known, more, &format!("{path}{name}."))?
            }
            (Some(known), value) if *known == value => {}
            (Some(_), _) => {
                return Err(refusal(format!(
                    "the field {:?} is set by the request itself; remove it from `extra` of the model or from the vendor's fields",
                    format!("{path}{name}")
                )));
            }
        }
    }
    Ok(())
}

/// Checks the fields that a client sends in addition to what a prompt expresses.
///
/// # Errors
/// `api_error`, which names a field whose effect the response could not show, or that needs a state of the vendor.
pub(super) fn check_fields(fields: &Map<String, Value>, format: Format) -> Result<(), Failure> {
    check(fields)?;
    check_state(fields, format)
}

/// Refuses fields whose effect a response could not show: the caller would pay for what it does not get.
fn check(fields: &Map<String, Value>) -> Result<(), Failure> {
    match fields_with_lost_result(fields).into_iter().next() {
        Some(RefusedField { reason, help, .. }) => Err(refusal(format!("{reason}; {help}"))),
        None => Ok(()),
    }
}

/// A vendor field that no request may carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedField {
    /// The keys that lead to it.
    pub path: Vec<&'static str>,
    /// Why it is refused.
    pub reason: String,
    /// What to do instead.
    pub help: &'static str,
}

/// Returns the fields that the configuration of a model must not contain: those that every request sets itself, and
/// those whose effect a response could not show. A field that only some requests set is refused at the call.
pub fn refused_fields(fields: &Map<String, Value>) -> Vec<RefusedField> {
    let of_every_request = [
        ("model", "write it as the `name` of the model"),
        ("stream", "remove it; to get whole responses, write stream = \"never\" for the provider"),
        ("messages", "remove it"),
        ("contents", "remove it"),
        ("input", "remove it"),
    ];
    let set = of_every_request.into_iter().filter(|(name, _)| fields.contains_key(*name));
    let mut refused: Vec<_> = set
        .map(|(name, help)| RefusedField {
            path: vec![name],
            reason: format!("the field {name:?} is set by each request itself"),
            help,
        })
        .collect();
    refused.extend(fields_with_lost_result(fields));
    refused
}

fn fields_with_lost_result(fields: &Map<String, Value>) -> Vec<RefusedField> {
    const CONFIG: &str = "generationConfig";
    let config = fields.get(CONFIG).and_then(Value::as_object);
    let mut refused = Vec::new();
    let mut refuse = |name: &'static str, is_refused: &dyn Fn(&Value) -> bool, reason: &str, help| {
        let reason = || format!("{name} {reason}");
        if fields.get(name).is_some_and(is_refused) {
            refused.push(RefusedField { path: vec![name], reason: reason(), help });
        }
        if config.and_then(|config| config.get(name)).is_some_and(is_refused) {
            refused.push(RefusedField { path: vec![CONFIG, name], reason: reason(), help });
        }
    };
    for name in ["n", "candidateCount"] {
        let is_not_one = |count: &Value| count.as_f64() != Some(1.0);
        refuse(name, &is_not_one, "must be 1", "send one request per answer");
    }
    for name in ["logprobs", "responseLogprobs", "top_logprobs", "background"] {
        let is_set = |value: &Value| !matches!(value, Value::Null | Value::Bool(false));
        refuse(name, &is_set, "is not supported: a response could not return its result", "remove it");
    }
    for name in ["modalities", "responseModalities"] {
        let is_text = |value: &Value| value.as_str().is_some_and(|name| name.eq_ignore_ascii_case("text"));
        let is_not_text = |value: &Value| !value.as_array().is_some_and(|all| all.iter().all(is_text));
        refuse(
            name,
            &is_not_text,
            "must be text only: a response could not return audio or images",
            "remove it",
        );
    }
    refused
}

/// Refuses fields with which OpenAI's responses would depend on a state of the vendor: a request contains its whole
/// conversation, and may go to another target.
fn check_state(fields: &Map<String, Value>, format: Format) -> Result<(), Failure> {
    let names: &[&str] = match format {
        Format::OpenaiResponses => &["previous_response_id", "conversation", "store"],
        Format::Openai | Format::Anthropic | Format::Gemini => &[],
    };
    let is_set = |value: &Value| !matches!(value, Value::Null | Value::Bool(false));
    match names.iter().find(|name| fields.get(**name).is_some_and(is_set)) {
        Some(name) => Err(refusal(format!(
            "{name} is not supported: requests are stateless; send the whole conversation in the messages"
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::types::VendorFields;

    fn map(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn with(configured: Option<Value>, requested: &[(Format, Value)]) -> Result<Value, String> {
        let mut prompt = Prompt::text("x");
        prompt.vendor_fields =
            requested.iter().map(|(format, fields)| VendorFields::new(*format, map(fields))).collect();
        let dialect =
            Dialect { extra: configured.map(|fields| Arc::new(map(&fields))), ..Dialect::default() };
        let body = json!({ "model": "m", "generationConfig": { "temperature": 0.5 } });
        json_body(&body, Format::Gemini, &prompt, &dialect)
            .map(|bytes| serde_json::from_slice(&bytes).unwrap())
            .map_err(|failure| failure.message.into())
    }

    #[test]
    fn fields_are_added_for_their_format_and_merged_into_objects() {
        let fields = json!({ "labels": { "a": 1 }, "generationConfig": { "topK": 3 } });
        let other = (Format::Openai, json!({ "service_tier": "flex" }));
        let request = (Format::Gemini, json!({ "labels": { "b": 2 }, "generationConfig": { "seed": 4 } }));
        let body = with(Some(fields), &[other, request]).unwrap();
        let expected = json!({
            "model": "m",
            "generationConfig": { "temperature": 0.5, "topK": 3, "seed": 4 },
            "labels": { "a": 1, "b": 2 },
        });
        assert_eq!(body, expected);
        assert_eq!(with(None, &[]).unwrap()["model"], "m");
    }

    #[test]
    fn a_request_that_sets_a_configured_field_to_another_value_is_refused_by_name() {
        let configured = json!({
            "service_tier": "flex",
            "labels": { "a": 1 },
            "generationConfig": { "thinkingConfig": { "thinkingBudget": 0, "includeThoughts": false } },
        });
        let merged =
            |requested: &Value| with(Some(configured.clone()), &[(Format::Gemini, requested.clone())]);
        for (requested, name) in [
            (json!({ "service_tier": "priority" }), "service_tier"),
            (json!({ "service_tier": null }), "service_tier"),
            (json!({ "service_tier": { "name": "flex" } }), "service_tier"),
            (json!({ "labels": { "b": 1, "a": 2 } }), "labels.a"),
            (json!({ "labels": [] }), "labels"),
            (
                json!({ "generationConfig": { "thinkingConfig": { "thinkingBudget": 9_000 } } }),
                "generationConfig.thinkingConfig.thinkingBudget",
            ),
        ] {
            let error = merged(&requested).unwrap_err();
            assert!(error.starts_with(&format!("the configuration of the model sets {name:?}")), "{error}");
        }
        // The same values, and other fields.
        for requested in [configured.clone(), json!({ "labels": { "b": 2 }, "cachedContent": "c" })] {
            let body = merged(&requested).unwrap();
            assert_eq!((&body["service_tier"], &body["labels"]["a"]), (&json!("flex"), &json!(1)));
        }
        // Without the configuration, the request decides.
        let priority = (Format::Gemini, json!({ "service_tier": "priority" }));
        assert_eq!(with(None, &[priority]).unwrap()["service_tier"], "priority");
    }

    #[test]
    fn a_field_of_the_request_itself_is_refused_by_name() {
        let error = with(None, &[(Format::Gemini, json!({ "generationConfig": { "temperature": 1 } }))]);
        assert!(error.unwrap_err().contains("\"generationConfig.temperature\" is set by the request itself"));
        assert!(with(Some(json!({ "model": "other" })), &[]).unwrap_err().contains("\"model\""));
        assert!(with(Some(json!({ "model": "m" })), &[]).is_ok());
    }

    #[test]
    fn fields_that_need_a_state_of_the_vendor_are_refused_by_name() {
        let check = |format, fields: &Value| check_state(&map(fields), format);
        for (fields, name) in [
            (json!({ "previous_response_id": "resp_1" }), "previous_response_id"),
            (json!({ "conversation": { "id": "conv_1" } }), "conversation"),
            (json!({ "store": true }), "store"),
        ] {
            let failure = check(Format::OpenaiResponses, &fields).unwrap_err();
            assert!(failure.message.starts_with(&format!("{name} is not supported")), "{failure}");
            assert_eq!(check(Format::Openai, &fields), Ok(()));
        }
        let unset = json!({ "previous_response_id": null, "store": false, "truncation": "auto" });
        assert_eq!(check(Format::OpenaiResponses, &unset), Ok(()));
    }

    #[test]
    fn fields_whose_result_would_be_lost_are_refused_by_name() {
        for (fields, name) in [
            (json!({ "n": 2 }), "n must be 1"),
            (json!({ "generationConfig": { "candidateCount": 3 } }), "candidateCount must be 1"),
            (json!({ "logprobs": true }), "logprobs is not supported"),
            (json!({ "background": true }), "background is not supported"),
            (json!({ "modalities": ["text", "audio"] }), "modalities must be text only"),
            (json!({ "generationConfig": { "responseModalities": ["AUDIO"] } }), "responseModalities"),
        ] {
            assert!(with(Some(fields.clone()), &[]).unwrap_err().contains(name), "{fields}");
        }
        for fields in [json!({ "n": 1, "logprobs": false }), json!({ "modalities": ["text"] })] {
            assert!(with(Some(fields), &[]).is_ok());
        }
    }

    #[test]
    fn a_configuration_may_set_only_fields_that_no_request_sets_and_whose_result_is_returned() {
        let paths = |fields: Value| {
            let refused = refused_fields(&map(&fields));
            refused.into_iter().map(|field| field.path.join(".")).collect::<Vec<_>>()
        };
        let allowed =
            json!({ "service_tier": "flex", "temperature": 1, "n": 1, "generationConfig": { "topK": 3 } });
        assert_eq!(paths(allowed), Vec::<String>::new());
        let fields = json!({
            "model": "x",
            "stream": true,
            "messages": [],
            "contents": [],
            "input": "x",
            "n": 2,
            "top_logprobs": 1,
            "background": true,
            "generationConfig": { "candidateCount": 2, "responseLogprobs": true, "responseModalities": ["IMAGE"] },
        });
        let refused = [
            "model",
            "stream",
            "messages",
            "contents",
            "input",
            "n",
            "generationConfig.candidateCount",
            "generationConfig.responseLogprobs",
            "top_logprobs",
            "background",
            "generationConfig.responseModalities",
        ];
        assert_eq!(paths(fields), refused);
    }
}
