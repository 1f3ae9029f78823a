//! The tools of a request, and which of them the model may call.

use serde::Serialize;
use serde_json::Value;

use crate::types::{Format, Prompt, Tool, ToolChoice};
use crate::wire::Dialect;

/// A tool that the model may call.
#[derive(Serialize)]
pub(super) struct ToolDefinition<'a> {
    r#type: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    parameters: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

/// Which tools the model may or must call.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Choice<'a> {
    Mode(&'static str),
    Tool(ChosenTool<'a>),
}

/// The tool that the model must call.
#[derive(Serialize)]
pub(super) struct ChosenTool<'a> {
    r#type: &'static str,
    function: ChosenFunction<'a>,
}

#[derive(Serialize)]
struct ChosenFunction<'a> {
    name: &'a str,
}

impl<'a> From<&'a Tool> for ToolDefinition<'a> {
    fn from(tool: &'a Tool) -> Self {
        let function = Function {
            name: &tool.name,
            description: tool.description.as_deref(),
            parameters: &tool.parameters,
            strict: tool.strict,
        };
        Self { r#type: "function", function }
    }
}

/// Returns the choice of the request; `None` leaves it to the model.
pub(super) fn tool_choice(prompt: &Prompt, has_tools: bool) -> Option<Choice<'_>> {
    match &prompt.tool_choice {
        ToolChoice::Auto => None,
        // Without tools the model calls none, and OpenAI refuses the field.
        ToolChoice::None => has_tools.then_some(Choice::Mode("none")),
        ToolChoice::Required => Some(Choice::Mode("required")),
        ToolChoice::Tool(name) => {
            Some(Choice::Tool(ChosenTool { r#type: "function", function: ChosenFunction { name } }))
        }
    }
}

/// Returns whether the request has tools: its own, or those among the fields of the vendor.
pub(super) fn has_tools(prompt: &Prompt, dialect: &Dialect) -> bool {
    let of_request = prompt.vendor_fields.iter().filter(|fields| fields.format == Format::Openai);
    let mut all = of_request.map(|fields| &fields.fields).chain(dialect.extra.as_ref());
    !prompt.tools.is_empty() || all.any(|fields| fields.contains_key("tools"))
}
