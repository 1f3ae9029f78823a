//! The tools of a prompt as definitions of Anthropic's messages API.

use serde::Serialize;
use serde_json::Value;

use crate::types::{Format, Prompt, Tool, ToolChoice};
use crate::wire::{Dialect, DropParameter};

use super::cache_control::CacheControl;

#[derive(Serialize)]
pub(super) struct ToolDefinition<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    input_schema: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<CacheControl>,
}

impl<'a> ToolDefinition<'a> {
    /// Returns the definitions; the last one takes the end of the cached part if no later block has taken it.
    pub(super) fn all(tools: &'a [Tool], cached: &mut Option<CacheControl>) -> Vec<Self> {
        let mut definitions: Vec<_> = tools.iter().map(Self::of).collect();
        if let Some(last) = definitions.last_mut() {
            last.cache_control = cached.take();
        }
        definitions
    }

    fn of(tool: &'a Tool) -> Self {
        Self {
            name: &tool.name,
            description: tool.description.as_deref(),
            input_schema: &tool.parameters,
            strict: tool.strict,
            cache_control: None,
        }
    }
}

/// Which tools the model may or must call, and how many at once.
#[derive(Serialize)]
pub(super) struct Choice<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    disable_parallel_tool_use: bool,
}

impl<'a> Choice<'a> {
    /// Returns the choice; `None` if it is the vendor's default. The vendor accepts a choice only together with tools.
    pub(super) fn of(prompt: &'a Prompt, dialect: &Dialect) -> Option<Self> {
        let has_tools = has_tools(prompt, dialect);
        let is_single =
            prompt.parallel_tool_calls == Some(false) && !dialect.drops(DropParameter::ParallelToolCalls);
        let choice = |kind, name| Self { kind, name, disable_parallel_tool_use: is_single };
        match &prompt.tool_choice {
            ToolChoice::Auto => (is_single && has_tools).then(|| choice("auto", None)),
            ToolChoice::None => {
                has_tools.then_some(Self { kind: "none", name: None, disable_parallel_tool_use: false })
            }
            ToolChoice::Required => Some(choice("any", None)),
            ToolChoice::Tool(name) => Some(choice("tool", Some(&**name))),
        }
    }
}

/// Returns whether the request has tools: its own, or those in the fields of the vendor.
fn has_tools(prompt: &Prompt, dialect: &Dialect) -> bool {
    let of_request = prompt.vendor_fields.iter().filter(|fields| fields.format == Format::Anthropic);
    let mut fields = of_request.map(|fields| &fields.fields).chain(dialect.extra.as_ref());
    !prompt.tools.is_empty() || fields.any(|fields| fields.contains_key("tools"))
}
