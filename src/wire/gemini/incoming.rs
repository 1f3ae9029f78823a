//! Reads a request of Gemini's generateContent API: the reverse of encoding.
//!
//! The vendor accepts the names of fields in lower camel case and in snake case, as the JSON mapping of protocol
//! buffers does. What has two forms becomes one of them: `null`, a default value and a missing field; a schema of
//! OpenAPI and JSON Schema; several lists of functions and one. The results of tools become a message before the rest
//! of their content.

mod calls;
mod content;
mod names;
mod openapi;
mod tools;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::types::{Failure, Format, LengthLimit, Prompt, ReasoningEffort, ResponseFormat};
use crate::wire::IncomingRequest;
use crate::wire::incoming::{self, Fields, invalid};

use names::{accept_snake_case, put_rest};

/// The method for a stream, after the name of the model in the path.
const STREAM_METHOD: &str = "streamGenerateContent";
/// The method for a single answer.
const METHOD: &str = "generateContent";

/// Reads a request. Its model is in the path, as in `models/gemini-3.8-flash:streamGenerateContent`; the method decides
/// whether the answer is streamed.
pub(in crate::wire) fn read_request(
    body: &[u8],
    model_in_path: Option<&str>,
) -> Result<IncomingRequest, Failure> {
    let mut body = Fields::of_body(body)?;
    let target = model_in_path.map(split_method);
    if let Some(model) = body.text("model")? {
        body.put("model", without_collection(&model));
    }
    let model = incoming::model(&mut body, target.as_ref().map(|target| target.model))?;
    let is_streamed = target.is_some_and(|target| target.is_streamed);
    let names = ["systemInstruction", "contents", "tools", "toolConfig", "generationConfig"];
    accept_snake_case(&mut body, &names)?;
    let mut prompt = Prompt { length_limit: LengthLimit::Return, ..Prompt::default() };
    content::read_system(&mut body, &mut prompt)?;
    content::read_contents(&mut body, &mut prompt)?;
    tools::read_tools(&mut body, &mut prompt)?;
    if let Some(mut config) = body.object("generationConfig")? {
        read_config(&mut config, &mut prompt)?;
        put_rest(&mut body, "generationConfig", config);
    }
    incoming::add_vendor_fields(&mut prompt, Format::Gemini, body)?;
    Ok(IncomingRequest { model, prompt, is_streamed, wants_usage: true })
}

/// What a path names.
struct PathTarget<'a> {
    model: &'a str,
    is_streamed: bool,
}

/// Splits the method off a path. A name may contain a colon itself.
fn split_method(path: &str) -> PathTarget<'_> {
    let (name, is_streamed) = match path.rsplit_once(':') {
        Some((name, STREAM_METHOD)) => (name, true),
        Some((name, METHOD)) => (name, false),
        Some(_) | None => (path, false),
    };
    PathTarget { model: without_collection(name), is_streamed }
}

/// Returns the name of a model; that of another collection, such as `tunedModels/mine`, stays complete.
fn without_collection(name: &str) -> &str {
    name.strip_prefix("models/").filter(|name| !name.contains('/')).unwrap_or(name)
}

fn read_config(config: &mut Fields, prompt: &mut Prompt) -> Result<(), Failure> {
    let names = [
        "topP",
        "maxOutputTokens",
        "stopSequences",
        "thinkingConfig",
        "responseMimeType",
        "responseSchema",
        "responseJsonSchema",
        // Fields of the vendor that are checked by their names.
        "candidateCount",
        "responseLogprobs",
        "responseModalities",
    ];
    accept_snake_case(config, &names)?;
    prompt.temperature = config.number("temperature")?;
    prompt.top_p = config.number("topP")?;
    prompt.max_tokens = config.tokens("maxOutputTokens")?;
    prompt.stop = read_stop(config)?;
    prompt.seed = config.integer("seed")?;
    if let Some(mut thinking) = config.object("thinkingConfig")? {
        read_thinking(&mut thinking, prompt)?;
        put_rest(config, "thinkingConfig", thinking);
    }
    read_response_format(config, prompt);
    Ok(())
}

fn read_stop(config: &mut Fields) -> Result<Vec<Arc<str>>, Failure> {
    let path = config.path_of("stopSequences");
    let text = |(index, value)| match value {
        Value::String(text) => Ok(text.into()),
        _ => Err(invalid(format!("{path}[{index}] must be a string"))),
    };
    config.list("stopSequences")?.unwrap_or_default().into_iter().enumerate().map(text).collect()
}

/// Reads the levels and the budget that encoding writes. Another budget stays with the fields of the vendor.
fn read_thinking(thinking: &mut Fields, prompt: &mut Prompt) -> Result<(), Failure> {
    accept_snake_case(thinking, &["thinkingLevel", "thinkingBudget", "includeThoughts"])?;
    prompt.keep_reasoning = thinking.bool("includeThoughts")?.unwrap_or_default();
    let level = thinking.get("thinkingLevel").and_then(Value::as_str).and_then(effort_of_level);
    if level.is_some() {
        thinking.take("thinkingLevel");
        prompt.reasoning_effort = level;
    }
    let is_off = thinking.get("thinkingBudget") == Some(&json!(0));
    if is_off && !thinking.has("thinkingLevel") && level.is_none() && !prompt.keep_reasoning {
        thinking.take("thinkingBudget");
        prompt.reasoning_effort = Some(ReasoningEffort::None);
    }
    Ok(())
}

fn effort_of_level(level: &str) -> Option<ReasoningEffort> {
    let level = level.to_ascii_lowercase();
    let effort = ReasoningEffort::ALL.into_iter().find(|effort| effort.as_str() == level)?;
    match effort {
        ReasoningEffort::Minimal
        | ReasoningEffort::Low
        | ReasoningEffort::Medium
        | ReasoningEffort::High
        | ReasoningEffort::XHigh => Some(effort),
        ReasoningEffort::None | ReasoningEffort::Max => None,
    }
}

/// Reads the schema of a JSON answer. JSON without a schema, and other types, stay with the fields of the vendor.
fn read_response_format(config: &mut Fields, prompt: &mut Prompt) {
    if config.get("responseMimeType").is_none_or(|kind| kind != "application/json") {
        return;
    }
    let schema = match (config.take("responseJsonSchema"), config.take("responseSchema")) {
        (None, None) => return,
        (Some(schema), None) => schema,
        (None, Some(schema)) => openapi::to_json_schema(schema),
        // The vendor refuses both.
        (Some(schema), Some(other)) => {
            config.put("responseSchema", other);
            schema
        }
    };
    config.take("responseMimeType");
    prompt.response_format = ResponseFormat::json(schema);
}

#[cfg(test)]
mod tests;
