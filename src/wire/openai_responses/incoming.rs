//! Reads a client's request: the reverse of `request.rs`.
//!
//! Requests are stateless. A request that needs what the vendor has stored is refused, and the ids and states of
//! its items, which only a stored response has, are not kept. The name of a schema is ours, and whether it is strict
//! depends on the schema.

mod items;
#[cfg(test)]
mod tests;

use serde_json::Value;

use crate::types::{Failure, Format, LengthLimit, Prompt, Tool, ToolChoice};
use crate::wire::incoming::{self, Fields, IncomingRequest, invalid};
use crate::wire::openai_chat::{function_tool, json_schema, read_choice, read_effort, read_tools};
use crate::wire::schema_rules::OPENAI_STRICT;

/// The only addition to a response that a prompt can request.
const ENCRYPTED_REASONING: &str = "reasoning.encrypted_content";

/// The summary of reasoning that our requests ask for.
const AUTO: &str = "auto";

/// Reads the body of a request.
///
/// # Errors
/// `api_error`, which names the field.
pub(in crate::wire) fn read_request(
    body: &[u8],
    model_in_path: Option<&str>,
) -> Result<IncomingRequest, Failure> {
    let mut body = Fields::of_body(body)?;
    let model = incoming::model(&mut body, model_in_path)?;
    let mut prompt = Prompt { length_limit: LengthLimit::Return, ..Prompt::default() };
    prompt.system = body.text("instructions")?.map(Into::into);
    prompt.messages = items::read_input(&mut body)?;
    read_tools(&mut body, &mut prompt, read_function)?;
    read_choice(&mut body, &mut prompt, |choice| {
        choice.required_text("name").map(|name| ToolChoice::Tool(name.into()))
    })?;
    read_settings(&mut body, &mut prompt)?;
    read_text_settings(&mut body, &mut prompt)?;
    read_reasoning(&mut body, &mut prompt)?;
    read_include(&mut body, &mut prompt)?;
    let is_streamed = body.bool("stream")?.unwrap_or_default();
    // Every request sets it to `false` itself.
    if body.bool("store")?.unwrap_or_default() {
        body.put("store", true);
    }
    incoming::add_vendor_fields(&mut prompt, Format::OpenaiResponses, body)?;
    // The last event of a stream always contains the usage.
    Ok(IncomingRequest { model, prompt, is_streamed, wants_usage: true })
}

fn read_settings(body: &mut Fields, prompt: &mut Prompt) -> Result<(), Failure> {
    prompt.max_tokens = body.tokens("max_output_tokens")?;
    prompt.temperature = body.number("temperature")?;
    prompt.top_p = body.number("top_p")?;
    prompt.parallel_tool_calls = body.bool("parallel_tool_calls")?;
    prompt.user = body.text("user")?.map(Into::into);
    Ok(())
}

/// Reads a tool, whose fields are those of the function itself.
fn read_function(tool: &mut Fields) -> Result<Tool, Failure> {
    let mut read = function_tool(tool)?;
    // Without the field the vendor enforces the schema. Our requests always send it, so it is set only where the
    // vendor would not refuse the schema.
    if read.strict.is_none() && OPENAI_STRICT.accepts(&read.parameters) {
        read.strict = Some(true);
    }
    Ok(read)
}

/// Reads the format of the answer. What has no typed form remains.
fn read_text_settings(body: &mut Fields, prompt: &mut Prompt) -> Result<(), Failure> {
    let Some(mut settings) = body.object("text")? else { return Ok(()) };
    if let Some(mut format) = settings.object("format")? {
        let kind = format.required_text("type")?;
        match kind.as_str() {
            "text" => format.finish()?,
            "json_schema" => prompt.response_format = json_schema(format)?,
            _ => {
                format.put("type", kind);
                settings.put_object("format", format);
            }
        }
    }
    body.put_object("text", settings);
    Ok(())
}

fn read_reasoning(body: &mut Fields, prompt: &mut Prompt) -> Result<(), Failure> {
    let Some(mut reasoning) = body.object("reasoning")? else { return Ok(()) };
    prompt.reasoning_effort = read_effort(&mut reasoning, "effort")?;
    if reasoning.has("generate_summary") {
        return Err(invalid("reasoning.generate_summary is not supported; use reasoning.summary"));
    }
    if let Some(summary) = reasoning.text("summary")? {
        prompt.keep_reasoning = true;
        if summary != AUTO {
            reasoning.put("summary", summary);
        }
    }
    body.put_object("reasoning", reasoning);
    Ok(())
}

/// Reads what a response contains in addition.
fn read_include(body: &mut Fields, prompt: &mut Prompt) -> Result<(), Failure> {
    for (index, addition) in body.list("include")?.into_iter().flatten().enumerate() {
        match addition {
            // A request with tools contains it anyway.
            Value::String(name) if name == ENCRYPTED_REASONING => {
                prompt.keep_reasoning |= prompt.tools.is_empty();
            }
            other => {
                let reason = "is not supported: a response could not return its result; remove it";
                return Err(invalid(format!("include[{index}] {other} {reason}")));
            }
        }
    }
    Ok(())
}
