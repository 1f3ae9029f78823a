//! Reads the tools, and which of them the model may or must call.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::types::{Failure, Prompt, Tool, ToolChoice};
use crate::wire::incoming::{Fields, invalid};

use super::names::{accept_snake_case, put_rest};
use super::openapi;

/// Reads the tools. If all of them run at the vendor, they and the choice between them stay with its fields.
pub(super) fn read_tools(body: &mut Fields, prompt: &mut Prompt) -> Result<(), Failure> {
    let tools = body.get("tools").and_then(Value::as_array).map_or(&[][..], |tools| tools);
    if !tools.iter().any(declares_functions) && tools.iter().any(has_fields) {
        return Ok(());
    }
    for (index, tool) in body.list("tools")?.unwrap_or_default().into_iter().enumerate() {
        let mut tool = Fields::of(tool, &format!("tools[{index}]"))?;
        accept_snake_case(&mut tool, &["functionDeclarations"])?;
        let path = tool.path_of("functionDeclarations");
        let declarations = tool.list("functionDeclarations")?.unwrap_or_default();
        // The vendor's own tools beside functions are refused: the fields of the vendor cannot extend a list.
        tool.finish()?;
        for (index, declaration) in declarations.into_iter().enumerate() {
            prompt.tools.push(read_declaration(Fields::of(declaration, &format!("{path}[{index}]"))?)?);
        }
    }
    let Some(mut config) = body.object("toolConfig")? else { return Ok(()) };
    accept_snake_case(&mut config, &["functionCallingConfig"])?;
    if let Some(mut calling) = config.object("functionCallingConfig")? {
        read_calling_config(&mut calling, prompt)?;
        put_rest(&mut config, "functionCallingConfig", calling);
    }
    put_rest(body, "toolConfig", config);
    Ok(())
}

fn declares_functions(tool: &Value) -> bool {
    ["functionDeclarations", "function_declarations"].iter().any(|name| !tool[*name].is_null())
}

fn has_fields(tool: &Value) -> bool {
    tool.as_object().is_some_and(|fields| fields.values().any(|value| !value.is_null()))
}

fn read_declaration(mut declaration: Fields) -> Result<Tool, Failure> {
    accept_snake_case(&mut declaration, &["parametersJsonSchema"])?;
    let name = declaration.required_text("name")?;
    let parameters = match declaration.take("parametersJsonSchema") {
        Some(schema) => schema,
        None => match declaration.take("parameters") {
            Some(schema) => openapi::to_json_schema(schema),
            None => json!({ "type": "object", "properties": {} }),
        },
    };
    let mut tool = Tool::new(name, parameters);
    tool.description = declaration.text("description")?.map(Into::into);
    declaration.finish()?;
    Ok(tool)
}

fn read_calling_config(calling: &mut Fields, prompt: &mut Prompt) -> Result<(), Failure> {
    accept_snake_case(calling, &["allowedFunctionNames"])?;
    let path = calling.path_of("allowedFunctionNames");
    let mut names = Vec::new();
    for (index, name) in calling.list("allowedFunctionNames")?.unwrap_or_default().into_iter().enumerate() {
        let Value::String(name) = name else {
            return Err(invalid(format!("{path}[{index}] must be a string")));
        };
        names.push(name);
    }
    let allowed: HashSet<&str> = names.iter().map(String::as_str).collect();
    let allows_all = names.is_empty() || prompt.tools.iter().all(|tool| allowed.contains(&*tool.name));
    let mode = calling.text("mode")?;
    prompt.tool_choice = match (mode.as_deref().unwrap_or("AUTO"), &*names) {
        ("AUTO" | "MODE_UNSPECIFIED", []) => ToolChoice::Auto,
        ("NONE", []) => ToolChoice::None,
        ("VALIDATED", _) if allows_all => {
            prompt.tools.iter_mut().for_each(|tool| tool.strict = Some(true));
            ToolChoice::Auto
        }
        ("ANY", [name]) => ToolChoice::Tool(name.as_str().into()),
        ("ANY", _) if allows_all => ToolChoice::Required,
        ("AUTO" | "MODE_UNSPECIFIED" | "NONE" | "VALIDATED" | "ANY", _) => {
            let message = format!("{path} is supported only for one function, or all, and the mode ANY");
            return Err(invalid(message));
        }
        (other, _) => return Err(calling.unsupported("mode", other)),
    };
    Ok(())
}
