//! Reads a request of Anthropic's messages API: the reverse of encoding.
//!
//! What has two forms becomes one of them: a text and a single block with it, `null` and a missing field, a default
//! value and a missing field. The results of tools become a message before the rest of their turn, as the vendor
//! requires them. Marks of the vendor's cache are kept as far as [`Marks`] can.

mod cache;
mod content;

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::types::{Failure, Format, LengthLimit, Prompt, ReasoningEffort, ResponseFormat, Tool, ToolChoice};
use crate::wire::IncomingRequest;
use crate::wire::incoming::{self, Fields, invalid};

use cache::Marks;

pub(in crate::wire) fn read_request(
    body: &[u8],
    model_in_path: Option<&str>,
) -> Result<IncomingRequest, Failure> {
    let mut body = Fields::of_body(body)?;
    let model = incoming::model(&mut body, model_in_path)?;
    let is_streamed = body.bool("stream")?.unwrap_or_default();
    let mut prompt = Prompt { length_limit: LengthLimit::Return, ..Prompt::default() };
    let mut marks = Marks::default();
    content::read_system(&mut body, &mut prompt, &mut marks)?;
    content::read_messages(&mut body, &mut prompt, &mut marks)?;
    // The choice between the vendor's own tools stays with them.
    if !has_only_vendor_tools(&body) {
        prompt.tools = read_tools(&mut body, &mut marks)?;
        read_tool_choice(&mut body, &mut prompt)?;
    }
    prompt.max_tokens = body.tokens("max_tokens")?;
    prompt.temperature = body.number("temperature")?;
    prompt.top_p = body.number("top_p")?;
    prompt.stop = read_stop(&mut body)?;
    prompt.user = read_user(&mut body)?;
    read_output_config(&mut body, &mut prompt)?;
    marks.apply(&mut prompt, &mut body);
    incoming::add_vendor_fields(&mut prompt, Format::Anthropic, body)?;
    Ok(IncomingRequest { model, prompt, is_streamed, wants_usage: true })
}

/// Returns whether a tool runs at the vendor, or has a schema that only the vendor knows.
fn is_vendor_tool(tool: &Value) -> bool {
    tool.get("type").is_some_and(|kind| !kind.is_null() && kind != "custom")
}

fn has_only_vendor_tools(body: &Fields) -> bool {
    let tools = body.get("tools").and_then(Value::as_array);
    tools.is_some_and(|tools| !tools.is_empty() && tools.iter().all(is_vendor_tool))
}

fn read_tools(body: &mut Fields, marks: &mut Marks) -> Result<Vec<Tool>, Failure> {
    let tools = body.list("tools")?.unwrap_or_default();
    let mut read = Vec::with_capacity(tools.len());
    for (index, tool) in tools.into_iter().enumerate() {
        let path = format!("tools[{index}]");
        if is_vendor_tool(&tool) {
            return Err(invalid(format!(
                "{path}: a tool of the vendor is not supported beside other tools; use either"
            )));
        }
        let mut tool = Fields::of(tool, &path)?;
        marks.tools = cache::take_mark(&mut tool)?;
        read.push(read_tool(tool)?);
    }
    Ok(read)
}

fn read_tool(mut tool: Fields) -> Result<Tool, Failure> {
    tool.take("type");
    let name = tool.required_text("name")?;
    let schema = match tool.take("input_schema") {
        Some(schema @ Value::Object(_)) => schema,
        Some(_) => return Err(invalid(format!("{} must be an object", tool.path_of("input_schema")))),
        None => return Err(tool.missing("input_schema")),
    };
    let mut read = Tool::new(name, schema);
    read.description = tool.text("description")?.map(Into::into);
    read.strict = tool.bool("strict")?;
    take_default(&mut tool, "defer_loading", &json!(false));
    take_default(&mut tool, "eager_input_streaming", &json!(false));
    take_default(&mut tool, "allowed_callers", &json!(["direct"]));
    tool.finish()?;
    Ok(read)
}

/// Removes a field with the value that it has by default.
fn take_default(fields: &mut Fields, name: &str, default: &Value) {
    if fields.get(name) == Some(default) {
        fields.take(name);
    }
}

fn read_tool_choice(body: &mut Fields, prompt: &mut Prompt) -> Result<(), Failure> {
    let Some(mut choice) = body.object("tool_choice")? else { return Ok(()) };
    let is_single = choice.bool("disable_parallel_tool_use")?;
    prompt.parallel_tool_calls = is_single.map(|is_single| !is_single);
    prompt.tool_choice = match &*choice.required_text("type")? {
        "auto" => ToolChoice::Auto,
        "none" => ToolChoice::None,
        "any" => ToolChoice::Required,
        "tool" => ToolChoice::Tool(choice.required_text("name")?.into()),
        other => return Err(choice.unsupported("type", other)),
    };
    choice.finish()
}

fn read_stop(body: &mut Fields) -> Result<Vec<Arc<str>>, Failure> {
    let all = body.list("stop_sequences")?.unwrap_or_default();
    let text = |(index, value)| match value {
        Value::String(text) => Ok(text.into()),
        _ => Err(invalid(format!("stop_sequences[{index}] must be a string"))),
    };
    all.into_iter().enumerate().map(text).collect()
}

fn read_user(body: &mut Fields) -> Result<Option<Arc<str>>, Failure> {
    let Some(mut metadata) = body.object("metadata")? else { return Ok(None) };
    let user = metadata.text("user_id")?;
    put_rest(body, "metadata", metadata);
    Ok(user.map(Into::into))
}

/// Puts back what is left of an object, for the fields of the vendor.
fn put_rest(body: &mut Fields, name: &str, object: Fields) {
    let rest = object.into_rest();
    if !rest.is_empty() {
        body.put(name, rest);
    }
}

fn read_output_config(body: &mut Fields, prompt: &mut Prompt) -> Result<(), Failure> {
    let config = body.object("output_config")?;
    let has_config = config.is_some();
    let mut config = config.map_or_else(|| Fields::of(json!({}), "output_config"), Ok)?;
    read_reasoning(body, &mut config, prompt)?;
    let kind = config.get("format").and_then(|format| format.get("type"));
    let is_schema = kind.is_some_and(|kind| kind == "json_schema");
    if is_schema && let Some(mut format) = config.object("format")? {
        format.take("type");
        let schema = format.take("schema").ok_or_else(|| format.missing("schema"))?;
        format.finish()?;
        prompt.response_format = ResponseFormat::json(schema);
    }
    if has_config {
        put_rest(body, "output_config", config);
    }
    Ok(())
}

/// Reads how much the model reasons: the combinations of the two fields that encoding writes. Any other combination
/// stays with the fields of the vendor.
fn read_reasoning(body: &mut Fields, config: &mut Fields, prompt: &mut Prompt) -> Result<(), Failure> {
    let Some(thinking) = body.object("thinking")? else { return Ok(()) };
    let thinking = thinking.into_rest();
    let is = |fields: Value| fields.as_object() == Some(&thinking);
    let is_summarized = is(json!({ "type": "adaptive", "display": "summarized" }));
    let effort = config.get("effort").and_then(Value::as_str).and_then(adaptive_effort);
    if is(json!({ "type": "disabled" })) && !config.has("effort") {
        prompt.reasoning_effort = Some(ReasoningEffort::None);
    } else if let Some(effort) = effort.filter(|_| is_summarized || is(json!({ "type": "adaptive" }))) {
        config.take("effort");
        prompt.reasoning_effort = Some(effort);
        prompt.keep_reasoning = is_summarized;
    } else {
        prompt.keep_reasoning = shows_reasoning(&thinking);
        body.put("thinking", thinking);
    }
    Ok(())
}

/// Returns the effort of this name, if encoding writes it beside adaptive thinking.
fn adaptive_effort(name: &str) -> Option<ReasoningEffort> {
    let effort = ReasoningEffort::ALL.into_iter().find(|effort| effort.as_str() == name)?;
    match effort {
        ReasoningEffort::None | ReasoningEffort::Minimal => None,
        ReasoningEffort::Low
        | ReasoningEffort::Medium
        | ReasoningEffort::High
        | ReasoningEffort::XHigh
        | ReasoningEffort::Max => Some(effort),
    }
}

/// Returns whether the vendor shows the reasoning that the client asks for in its own words.
fn shows_reasoning(thinking: &Map<String, Value>) -> bool {
    let field = |name| thinking.get(name).and_then(Value::as_str);
    field("type") != Some("disabled") && field("display") != Some("omitted")
}

#[cfg(test)]
mod tests;
