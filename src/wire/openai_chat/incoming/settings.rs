//! The settings of a request.

use serde_json::Value;

use crate::types::{Failure, Prompt, ReasoningEffort, ResponseFormat};
use crate::wire::incoming::{Fields, invalid};

pub(super) fn read_settings(body: &mut Fields, prompt: &mut Prompt) -> Result<(), Failure> {
    prompt.max_tokens = max_tokens(body)?;
    prompt.temperature = body.number("temperature")?;
    prompt.top_p = body.number("top_p")?;
    prompt.seed = body.integer("seed")?;
    prompt.reasoning_effort = read_effort(body, "reasoning_effort")?;
    prompt.parallel_tool_calls = body.bool("parallel_tool_calls")?;
    prompt.user = body.text("user")?.map(Into::into);
    read_stop(body, prompt)?;
    read_response_format(body, prompt)
}

/// Returns the limit, which has an old and a new name.
fn max_tokens(body: &mut Fields) -> Result<Option<u32>, Failure> {
    let old = body.tokens("max_tokens")?;
    let new = body.tokens("max_completion_tokens")?;
    match (old, new) {
        (Some(old), Some(new)) if old != new => {
            Err(invalid("max_tokens and max_completion_tokens differ; set one of them"))
        }
        (old, new) => Ok(new.or(old)),
    }
}

/// Returns how much the model reasons.
///
/// # Errors
/// `api_error` if the value is not one of the vendor's names.
pub(in crate::wire) fn read_effort(
    fields: &mut Fields,
    name: &str,
) -> Result<Option<ReasoningEffort>, Failure> {
    let Some(text) = fields.text(name)? else { return Ok(None) };
    match ReasoningEffort::ALL.into_iter().find(|effort| effort.as_str() == text) {
        Some(effort) => Ok(Some(effort)),
        None => Err(fields.unsupported(name, &text)),
    }
}

fn read_stop(body: &mut Fields, prompt: &mut Prompt) -> Result<(), Failure> {
    let all = match body.take("stop") {
        None => return Ok(()),
        Some(Value::Array(all)) => all,
        Some(one) => vec![one],
    };
    for stop in all {
        let Value::String(text) = stop else {
            return Err(invalid("stop must be a string or a list of strings"));
        };
        prompt.stop.push(text.into());
    }
    Ok(())
}

/// Reads the format of the answer. A format without a schema has no typed form and remains a field of the vendor.
fn read_response_format(body: &mut Fields, prompt: &mut Prompt) -> Result<(), Failure> {
    let Some(mut format) = body.object("response_format")? else { return Ok(()) };
    match format.required_text("type")?.as_str() {
        "text" => format.finish(),
        "json_schema" => {
            prompt.response_format = json_schema(format.required_object("json_schema")?)?;
            format.finish()
        }
        other => {
            format.put("type", other);
            body.put_object("response_format", format);
            Ok(())
        }
    }
}

/// Reads a JSON Schema with its settings. Our encoder chooses the name, and decides whether the schema is strict.
///
/// # Errors
/// `api_error` without a schema, or with a field that is not documented.
pub(in crate::wire) fn json_schema(mut fields: Fields) -> Result<ResponseFormat, Failure> {
    fields.required_text("name")?;
    fields.bool("strict")?;
    let description = fields.text("description")?;
    let Some(mut schema) = fields.take("schema") else { return Err(fields.missing("schema")) };
    let Some(keywords) = schema.as_object_mut() else {
        return Err(invalid(format!("{} must be an object", fields.path_of("schema"))));
    };
    if let Some(description) = description {
        // The only place that all formats have for it.
        let described = match keywords.get("description").and_then(Value::as_str) {
            Some(own) if own != description => format!("{description}\n\n{own}"),
            Some(_) | None => description,
        };
        keywords.insert("description".to_owned(), described.into());
    }
    fields.finish()?;
    Ok(ResponseFormat::json(schema))
}
