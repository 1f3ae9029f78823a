//! Tools of Gemini's generateContent, and the choice between them.

use serde_json::{Value, json};

use crate::simulator::api_error::ApiError;
use crate::simulator::tool_settings::{OfferedTool, ToolChoice, ToolSettings, is_tool_name};

/// Maximum length of the name of a tool.
const MAX_NAME: usize = 64;
/// Start of the id of a call that was sent with a signature, so that the client must send it back.
pub(super) const SIGNED_CALL_PREFIX: &str = "signed_";

/// Returns the error of an invalid request.
pub(super) fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::invalid_request(message, None, None)
}

/// Returns what `tools` and `toolConfig` say. The vendor's own tools are not called.
pub(super) fn tool_settings(tools: &[Value], config: Option<&Value>) -> Result<ToolSettings, ApiError> {
    let mut offered = ToolSettings::default();
    for (index, tool) in tools.iter().enumerate() {
        let functions = either(tool, "functionDeclarations", "function_declarations");
        for (at, function) in functions.as_array().into_iter().flatten().enumerate() {
            let name = function["name"].as_str().unwrap_or_default();
            if !is_tool_name(name, MAX_NAME, ".:") || name.starts_with(|first: char| !is_first(first)) {
                return Err(invalid(format!(
                    "* GenerateContentRequest.tools[{index}].function_declarations[{at}].name: Invalid function name. \
                     Must start with a letter or an underscore. Must be alphanumeric (a-z, A-Z, 0-9), underscores (_), \
                     dots (.), colons (:), or dashes (-), with a maximum length of {MAX_NAME}.\n"
                )));
            }
            let schema = match &function["parameters"] {
                Value::Null => either(function, "parametersJsonSchema", "parameters_json_schema"),
                schema => schema,
            };
            let schema = if schema.is_null() { json!({ "type": "object" }) } else { schema.clone() };
            offered.tools.push(OfferedTool { name: name.to_owned(), schema });
        }
    }
    if let Some(config) = config {
        apply_config(&mut offered, either(config, "functionCallingConfig", "function_calling_config"))?;
    }
    Ok(offered)
}

fn is_first(letter: char) -> bool {
    letter.is_ascii_alphabetic() || letter == '_'
}

/// Returns the field with one of its two names.
pub(super) fn either<'a>(value: &'a Value, camel_case: &str, snake_case: &str) -> &'a Value {
    if value[camel_case].is_null() { &value[snake_case] } else { &value[camel_case] }
}

fn apply_config(offered: &mut ToolSettings, config: &Value) -> Result<(), ApiError> {
    let names = either(config, "allowedFunctionNames", "allowed_function_names");
    let names: Vec<&str> = names.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    match config["mode"].as_str().unwrap_or("AUTO") {
        "AUTO" | "MODE_UNSPECIFIED" if !names.is_empty() => {
            return Err(invalid("Please set allowed_function_names only when function calling mode is ANY."));
        }
        "AUTO" | "MODE_UNSPECIFIED" | "VALIDATED" => {}
        "NONE" => offered.choice = ToolChoice::None,
        "ANY" => {
            if offered.tools.is_empty() {
                return Err(invalid("Function calling config is set without function_declarations."));
            }
            offered.choice = ToolChoice::Required;
        }
        other => {
            return Err(invalid(format!(
                "Invalid value at 'tool_config.function_calling_config.mode', \"{other}\""
            )));
        }
    }
    if let Some(name) = names.iter().find(|name| offered.find(name).is_none()) {
        return Err(invalid(format!(
            "allowed_function_names contains a function that is not in function_declarations: {name}"
        )));
    }
    if !names.is_empty() {
        offered.restrict(&names);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_and_their_mode_are_checked() {
        let tools = [json!({ "functionDeclarations": [{ "name": "a" }, { "name": "b.c" }] })];
        let parsed = |config: Value| tool_settings(&tools, Some(&json!({ "functionCallingConfig": config })));
        assert_eq!(parsed(json!({})).unwrap().choice, ToolChoice::Auto);
        assert_eq!(parsed(json!({ "mode": "NONE" })).unwrap().choice, ToolChoice::None);
        let named = parsed(json!({ "mode": "ANY", "allowedFunctionNames": ["b.c"] })).unwrap();
        assert_eq!((named.choice, named.tools.len()), (ToolChoice::Required, 1));
        assert!(parsed(json!({ "mode": "ANY", "allowedFunctionNames": ["d"] })).is_err());
        assert!(parsed(json!({ "mode": "AUTO", "allowedFunctionNames": ["a"] })).is_err());
        assert!(parsed(json!({ "mode": "REQUIRED" })).is_err());
        assert!(tool_settings(&[], Some(&json!({ "functionCallingConfig": { "mode": "ANY" } }))).is_err());
        for wrong in ["", "1a", "a b"] {
            let tools = [json!({ "functionDeclarations": [{ "name": wrong }] })];
            assert!(tool_settings(&tools, None).is_err(), "{wrong}");
        }
    }
}
