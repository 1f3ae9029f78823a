//! Reads a client's request: the reverse of `request.rs`.
//!
//! What is read and encoded again differs in what OpenAI documents as equal: `developer` is `system`, parts of text
//! alone are one text, the default `auto` of a choice is left out. The name of a schema is ours, and whether it is
//! strict depends on the schema.

mod messages;
mod settings;
#[cfg(test)]
mod tests;
mod tools;

use crate::types::{Failure, Format, LengthLimit, Prompt, ToolChoice};
use crate::wire::incoming::{self, Fields, IncomingRequest, invalid};

pub(in crate::wire) use messages::{check_detail, data_document, refuse_file_id, refuse_unless_empty};
pub(in crate::wire) use settings::{json_schema, read_effort};
pub(in crate::wire) use tools::{function_tool, read_choice, read_tools};

/// Fields whose effect neither a prompt nor a response could show, with what to use instead.
const REFUSED: [(&str, &str); 3] = [
    ("functions", "use tools"),
    ("function_call", "use tool_choice"),
    ("audio", "a response could not return audio; remove it"),
];

/// Reads the body of a request.
///
/// # Errors
/// `api_error`, which names the field.
pub(in crate::wire) fn read_request(
    body: &[u8],
    model_in_path: Option<&str>,
) -> Result<IncomingRequest, Failure> {
    let mut body = Fields::of_body(body)?;
    if let Some((name, help)) = REFUSED.iter().find(|(name, _)| body.has(name)) {
        return Err(invalid(format!("{name} is not supported; {help}")));
    }
    let model = incoming::model(&mut body, model_in_path)?;
    let mut prompt = Prompt { length_limit: LengthLimit::Return, ..Prompt::default() };
    messages::read_messages(&mut body, &mut prompt)?;
    read_tools(&mut body, &mut prompt, |tool| {
        let mut function = tool.required_object("function")?;
        let read = function_tool(&mut function)?;
        function.finish()?;
        Ok(read)
    })?;
    read_choice(&mut body, &mut prompt, |choice| {
        let mut function = choice.required_object("function")?;
        let name = function.required_text("name")?;
        function.finish()?;
        Ok(ToolChoice::Tool(name.into()))
    })?;
    settings::read_settings(&mut body, &mut prompt)?;
    let is_streamed = body.bool("stream")?.unwrap_or_default();
    let wants_usage = read_stream_options(&mut body)?;
    incoming::add_vendor_fields(&mut prompt, Format::Openai, body)?;
    Ok(IncomingRequest { model, prompt, is_streamed, wants_usage })
}

/// Returns whether a stream ends with the usage. The other options remain.
fn read_stream_options(body: &mut Fields) -> Result<bool, Failure> {
    let Some(mut options) = body.object("stream_options")? else { return Ok(false) };
    let wants_usage = options.bool("include_usage")?.unwrap_or_default();
    body.put_object("stream_options", options);
    Ok(wants_usage)
}
