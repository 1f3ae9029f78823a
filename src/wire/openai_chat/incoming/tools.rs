//! The tools of a request, and which of them the model may call.

use serde_json::{Value, json};

use crate::types::{Failure, Prompt, Tool, ToolChoice};
use crate::wire::incoming::{Fields, invalid};

const FUNCTION: &str = "function";

/// Reads the tools; `read` removes the fields of a function. Tools of other types have no typed form and remain
/// fields of the vendor.
///
/// # Errors
/// `api_error` for a tool of another type beside a function: the fields of a vendor cannot extend a list.
pub(in crate::wire) fn read_tools(
    body: &mut Fields,
    prompt: &mut Prompt,
    read: impl Fn(&mut Fields) -> Result<Tool, Failure>,
) -> Result<(), Failure> {
    let Some(all) = body.list("tools")? else { return Ok(()) };
    let is_function = |tool: &Value| tool.get("type").is_none_or(|kind| kind == FUNCTION);
    if !all.is_empty() && !all.iter().any(is_function) {
        body.put("tools", all);
        return Ok(());
    }
    prompt.tools.reserve(all.len());
    for (index, tool) in all.into_iter().enumerate() {
        let mut tool = Fields::of(tool, &format!("tools[{index}]"))?;
        let kind = tool.required_text("type")?;
        if kind != FUNCTION {
            let path = tool.path_of("type");
            return Err(invalid(format!("{path} {kind:?} is not supported beside functions; remove it")));
        }
        prompt.tools.push(read(&mut tool)?);
        tool.finish()?;
    }
    Ok(())
}

/// Reads the definition of a function; removes its fields.
///
/// # Errors
/// `api_error`, which names the field.
pub(in crate::wire) fn function_tool(function: &mut Fields) -> Result<Tool, Failure> {
    let name = function.required_text("name")?;
    // Without parameters a function has none.
    let no_parameters = || json!({ "type": "object", "properties": {} });
    let parameters = function.take("parameters").unwrap_or_else(no_parameters);
    let mut tool = Tool::new(name, parameters);
    tool.description = function.text("description")?.map(Into::into);
    tool.strict = function.bool("strict")?;
    Ok(tool)
}

/// Reads which tools the model may call; `read` removes the fields of a function. A choice of another type has no
/// typed form and remains a field of the vendor.
///
/// # Errors
/// `api_error`, which names the field.
pub(in crate::wire) fn read_choice(
    body: &mut Fields,
    prompt: &mut Prompt,
    read: impl Fn(&mut Fields) -> Result<ToolChoice, Failure>,
) -> Result<(), Failure> {
    if let Some(Value::String(mode)) = body.get("tool_choice") {
        prompt.tool_choice = match mode.as_str() {
            "auto" => ToolChoice::Auto,
            "none" => ToolChoice::None,
            "required" => ToolChoice::Required,
            other => return Err(body.unsupported("tool_choice", other)),
        };
        body.take("tool_choice");
        return Ok(());
    }
    let Some(mut choice) = body.object("tool_choice")? else { return Ok(()) };
    let kind = choice.required_text("type")?;
    if kind == FUNCTION {
        prompt.tool_choice = read(&mut choice)?;
        return choice.finish();
    }
    choice.put("type", kind);
    body.put_object("tool_choice", choice);
    Ok(())
}
