//! Encodes the tools of a prompt, and which of them the model may or must call.
//!
//! The vendor enforces schemas for all tools or for none, by its mode: `ANY` always does, `VALIDATED` does where the
//! model may also answer with text, `AUTO` does not:
//! <https://ai.google.dev/gemini-api/docs/function-calling#function_calling_modes>. One tool with `strict` therefore
//! makes all of them strict.

use serde::Serialize;
use serde_json::Value;

use crate::types::{Failure, Format, Prompt, Tool, ToolChoice};
use crate::wire::Dialect;
use crate::wire::unsupported::refusal;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ToolSet<'a> {
    function_declarations: Vec<Declaration<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Declaration<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    parameters_json_schema: &'a Value,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ToolConfig<'a> {
    function_calling_config: CallingConfig<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CallingConfig<'a> {
    mode: Mode,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed_function_names: Option<[&'a str; 1]>,
}

#[derive(Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum Mode {
    Auto,
    Validated,
    Any,
    None,
}

/// Returns the tools; `None` if there are none.
pub(super) fn tool_sets<'a>(tools: &'a [Tool]) -> Option<[ToolSet<'a>; 1]> {
    let declare = |tool: &'a Tool| Declaration {
        name: &tool.name,
        description: tool.description.as_deref(),
        parameters_json_schema: &tool.parameters,
    };
    (!tools.is_empty()).then(|| [ToolSet { function_declarations: tools.iter().map(declare).collect() }])
}

/// Returns the configuration of the calls; `None` without tools, for which the vendor refuses it.
///
/// # Errors
/// `api_error` if a call is required and the request to this vendor has no tools.
pub(super) fn tool_config<'a>(
    prompt: &'a Prompt,
    dialect: &Dialect,
) -> Result<Option<ToolConfig<'a>>, Failure> {
    let has_tools = !prompt.tools.is_empty();
    let has_any = has_tools || has_vendor_tools(prompt, dialect);
    let is_strict = prompt.tools.iter().any(|tool| tool.strict == Some(true));
    let (mode, name) = match &prompt.tool_choice {
        ToolChoice::Auto if is_strict => (Mode::Validated, None),
        ToolChoice::Auto if has_tools => (Mode::Auto, None),
        ToolChoice::None if has_any => (Mode::None, None),
        ToolChoice::Auto | ToolChoice::None => return Ok(None),
        ToolChoice::Required if has_any => (Mode::Any, None),
        ToolChoice::Tool(name) if has_any => (Mode::Any, Some(&**name)),
        ToolChoice::Required | ToolChoice::Tool(_) => {
            return Err(refusal(
                "tool_choice requires a tool call, and there are no tools for Gemini's format",
            ));
        }
    };
    let allowed_function_names = name.map(|name| [name]);
    Ok(Some(ToolConfig { function_calling_config: CallingConfig { mode, allowed_function_names } }))
}

/// Returns whether the fields of the vendor contain tools.
fn has_vendor_tools(prompt: &Prompt, dialect: &Dialect) -> bool {
    let of_request = prompt.vendor_fields.iter().filter(|fields| fields.format == Format::Gemini);
    let mut all = dialect.extra.iter().chain(of_request.map(|fields| &fields.fields));
    all.any(|fields| fields.contains_key("tools"))
}
