//! Tools of OpenAI's chat completions and responses, and the choice between them.

use serde_json::{Value, json};

use crate::simulator::api_error::ApiError;
use crate::simulator::tool_settings::{OfferedTool, ToolChoice, ToolSettings, is_tool_name};
use crate::simulator::{Settings, strict_schema};

use super::request_checks::missing_parameter;

/// Maximum number of tools.
const MAX_TOOLS: usize = 128;
/// Maximum length of the name of a tool.
const MAX_NAME: usize = 64;

/// Where the definition of a function is.
#[derive(Clone, Copy)]
pub(super) enum ToolSyntax {
    /// In the field `function`, as in chat completions.
    Nested,
    /// In the tool itself, as in responses.
    Flat,
}

impl ToolSyntax {
    /// Returns the function of a tool or of a choice.
    fn function(self, value: &Value) -> &Value {
        match self {
            Self::Nested => &value["function"],
            Self::Flat => value,
        }
    }

    fn name(self, value: &Value) -> Option<&str> {
        self.function(value)["name"].as_str()
    }
}

/// Returns what the parameters `tools`, `tool_choice` and `parallel_tool_calls` say. Only functions are called.
pub(super) fn tool_settings(
    syntax: ToolSyntax,
    tools: &[Value],
    choice: Option<&Value>,
    parallel: Option<bool>,
    settings: &Settings,
) -> Result<ToolSettings, ApiError> {
    if tools.len() > MAX_TOOLS {
        let message = format!(
            "Invalid 'tools': array too long. Expected an array with maximum length {MAX_TOOLS}, but got an array \
             with length {} instead.",
            tools.len()
        );
        return Err(ApiError::invalid_request(message, Some("tools"), Some("array_above_max_length")));
    }
    let mut offered = ToolSettings { is_single: parallel == Some(false), ..ToolSettings::default() };
    for (index, tool) in tools.iter().enumerate() {
        match tool["type"].as_str() {
            Some("function") => offered.tools.push(function_tool(syntax, index, tool, settings)?),
            Some(_) => {}
            None => return Err(missing_parameter("tools[].type")),
        }
    }
    if let Some(choice) = choice.filter(|choice| !choice.is_null()) {
        apply_choice(&mut offered, syntax, choice)?;
    }
    Ok(offered)
}

fn function_tool(
    syntax: ToolSyntax,
    index: usize,
    tool: &Value,
    settings: &Settings,
) -> Result<OfferedTool, ApiError> {
    let invalid = |message: String, code| Err(ApiError::invalid_request(message, Some("tools"), Some(code)));
    let name = syntax.name(tool).ok_or_else(|| missing_parameter("tools[].name"))?;
    if !is_tool_name(name, MAX_NAME, "") {
        let place = match syntax {
            ToolSyntax::Nested => format!("tools[{index}].function.name"),
            ToolSyntax::Flat => format!("tools[{index}].name"),
        };
        let message = format!(
            "Invalid '{place}': string does not match pattern. Expected a string that matches the pattern \
             '^[a-zA-Z0-9_-]+$'."
        );
        return invalid(message, "invalid_value");
    }
    let function = syntax.function(tool);
    let schema = match &function["parameters"] {
        Value::Null => json!({ "type": "object", "properties": {} }),
        schema => schema.clone(),
    };
    if function["strict"] == true
        && settings.strict_schemas
        && let Err(reason) = strict_schema::check_openai(&schema)
    {
        let message = format!("Invalid schema for function '{name}': {reason}");
        return invalid(message, "invalid_function_parameters");
    }
    Ok(OfferedTool { name: name.to_owned(), schema })
}

fn apply_choice(offered: &mut ToolSettings, syntax: ToolSyntax, choice: &Value) -> Result<(), ApiError> {
    let invalid = |message: String| Err(ApiError::invalid_request(message, Some("tool_choice"), None));
    let kind = choice.as_str().or_else(|| choice["type"].as_str()).unwrap_or_default();
    match kind {
        "auto" => {}
        "none" => offered.choice = ToolChoice::None,
        "required" => offered.choice = ToolChoice::Required,
        "function" => match syntax.name(choice) {
            Some(name) if offered.find(name).is_some() => offered.require(&[name]),
            name => {
                let name = name.unwrap_or_default();
                return invalid(format!("Tool choice '{name}' not found in 'tools' parameter."));
            }
        },
        "allowed_tools" => {
            let allowed = match syntax {
                ToolSyntax::Nested => &choice["allowed_tools"],
                ToolSyntax::Flat => choice,
            };
            let tools = allowed["tools"].as_array().map_or(&[][..], Vec::as_slice);
            let names: Vec<&str> = tools.iter().filter_map(|tool| syntax.name(tool)).collect();
            if allowed["mode"] == "required" {
                offered.choice = ToolChoice::Required;
            }
            offered.restrict(&names);
        }
        other => {
            return invalid(format!(
                "Invalid value: '{other}'. Supported values are: 'none', 'auto', and 'required'."
            ));
        }
    }
    if offered.choice == ToolChoice::Required && offered.tools.is_empty() {
        let message =
            "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified.";
        return invalid(message.to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(syntax: ToolSyntax, tools: &Value, choice: Value) -> Result<ToolSettings, ApiError> {
        let tools = tools.as_array().unwrap();
        tool_settings(syntax, tools, Some(&choice), None, &Settings::default())
    }

    #[test]
    fn both_syntaxes_of_a_tool_and_of_a_choice_are_read_alike() {
        let nested = json!([{ "type": "function", "function": { "name": "a" } },
            { "type": "function", "function": { "name": "b" } }, { "type": "custom", "custom": { "name": "c" } }]);
        let flat = json!([{ "type": "function", "name": "a" }, { "type": "function", "name": "b" },
            { "type": "custom", "name": "c" }]);
        for (nested_choice, flat_choice) in [
            (json!("auto"), json!("auto")),
            (json!("none"), json!("none")),
            (json!("required"), json!("required")),
            (
                json!({ "type": "function", "function": { "name": "b" } }),
                json!({ "type": "function", "name": "b" }),
            ),
            (
                json!({ "type": "allowed_tools", "allowed_tools": { "mode": "auto",
                    "tools": [{ "type": "function", "function": { "name": "a" } }] } }),
                json!({ "type": "allowed_tools", "mode": "auto", "tools": [{ "type": "function", "name": "a" }] }),
            ),
        ] {
            let one = parsed(ToolSyntax::Nested, &nested, nested_choice.clone()).unwrap();
            assert_eq!(one, parsed(ToolSyntax::Flat, &flat, flat_choice).unwrap(), "{nested_choice}");
        }
    }

    #[test]
    fn a_choice_of_a_missing_tool_and_a_strict_open_schema_are_rejected() {
        let tools = json!([{ "type": "function", "name": "a", "strict": true,
            "parameters": { "type": "object", "properties": {}, "additionalProperties": false } }]);
        assert!(parsed(ToolSyntax::Flat, &tools, json!({ "type": "function", "name": "b" })).is_err());
        assert!(parsed(ToolSyntax::Flat, &json!([]), json!("required")).is_err());
        assert!(parsed(ToolSyntax::Flat, &tools, json!("auto")).is_ok());
        let open =
            json!([{ "type": "function", "name": "a", "strict": true, "parameters": { "type": "object" } }]);
        assert!(parsed(ToolSyntax::Flat, &open, json!("auto")).is_err());
        let blank = json!([{ "type": "function", "name": "a b" }]);
        assert!(parsed(ToolSyntax::Flat, &blank, json!("auto")).is_err());
    }
}
