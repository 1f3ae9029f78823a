//! Tools of Anthropic's messages, and the choice between them.

use serde_json::Value;

use crate::simulator::api_error::ApiError;
use crate::simulator::tool_settings::{OfferedTool, ToolChoice, ToolSettings, is_tool_name};
use crate::simulator::{Settings, strict_schema};

/// Maximum length of the name of a tool.
const MAX_NAME: usize = 128;

/// Returns the error of an invalid request.
pub(super) fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::invalid_request(message, None, None)
}

/// Returns what the parameters `tools` and `tool_choice` say. The vendor's own tools are not called.
pub(super) fn tool_settings(
    tools: &[Value],
    choice: Option<&Value>,
    settings: &Settings,
) -> Result<ToolSettings, ApiError> {
    let mut offered = ToolSettings::default();
    for (index, tool) in tools.iter().enumerate() {
        if matches!(tool["type"].as_str(), None | Some("custom")) {
            offered.tools.push(custom_tool(index, tool, settings)?);
        }
    }
    if let Some(choice) = choice.filter(|choice| !choice.is_null()) {
        apply_choice(&mut offered, choice)?;
    }
    Ok(offered)
}

fn custom_tool(index: usize, tool: &Value, settings: &Settings) -> Result<OfferedTool, ApiError> {
    let field_error = |field: &str, reason: &str| invalid(format!("tools.{index}.custom.{field}: {reason}"));
    let name = tool["name"].as_str().ok_or_else(|| field_error("name", "Field required"))?;
    if !is_tool_name(name, MAX_NAME, "") {
        return Err(field_error("name", "String should match pattern '^[a-zA-Z0-9_-]{1,128}$'"));
    }
    let schema = &tool["input_schema"];
    if schema["type"] != "object" {
        let reason = if schema.is_null() { "Field required" } else { "Input should be 'object'" };
        let field = if schema.is_null() { "input_schema" } else { "input_schema.type" };
        return Err(field_error(field, reason));
    }
    if tool["strict"] == true && settings.strict_schemas {
        strict_schema::check_anthropic(schema).map_err(|reason| field_error("input_schema", &reason))?;
    }
    Ok(OfferedTool { name: name.to_owned(), schema: schema.clone() })
}

fn apply_choice(offered: &mut ToolSettings, choice: &Value) -> Result<(), ApiError> {
    match choice["type"].as_str().unwrap_or_default() {
        "auto" => {}
        "none" => offered.choice = ToolChoice::None,
        "any" => offered.choice = ToolChoice::Required,
        "tool" => match choice["name"].as_str() {
            Some(name) if offered.find(name).is_some() => offered.require(&[name]),
            name => {
                let name = name.unwrap_or_default();
                return Err(invalid(format!("Tool '{name}' not found in provided tools")));
            }
        },
        _ => {
            return Err(invalid(
                "tool_choice: Input tag does not match any of the expected tags: 'auto', 'any', 'tool', 'none'",
            ));
        }
    }
    if offered.choice == ToolChoice::Required && offered.tools.is_empty() {
        return Err(invalid("tool_choice: tool_choice may only be specified while providing tools"));
    }
    offered.is_single = choice["disable_parallel_tool_use"] == true;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tools_and_their_choice_are_checked() {
        let tools = json!([{ "name": "a", "input_schema": { "type": "object" } },
            { "type": "web_search_20250305", "name": "web_search" },
            { "name": "b", "input_schema": { "type": "object" } }]);
        let tools = tools.as_array().unwrap();
        let parsed = |choice: Value| tool_settings(tools, Some(&choice), &Settings::default());
        let single = parsed(json!({ "type": "auto", "disable_parallel_tool_use": true })).unwrap();
        assert!(single.is_single && single.tools.len() == 2);
        let named = parsed(json!({ "type": "tool", "name": "b" })).unwrap();
        assert_eq!((named.choice, named.tools.len()), (ToolChoice::Required, 1));
        assert!(parsed(json!({ "type": "tool", "name": "web_search" })).is_err());
        assert!(parsed(json!({ "type": "required" })).is_err());
        for wrong in [
            json!({ "name": "a b", "input_schema": { "type": "object" } }),
            json!({ "name": "a" }),
            json!({ "name": "a", "input_schema": {} }),
            json!({ "name": "a", "input_schema": { "type": "object" }, "strict": true }),
        ] {
            assert!(tool_settings(&[wrong], None, &Settings::default()).is_err());
        }
    }
}
