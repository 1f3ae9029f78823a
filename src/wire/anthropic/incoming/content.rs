//! Reads the system prompt and the messages.

use serde_json::{Value, json};

use crate::types::{
    CacheTtl, Failure, Format, Media, Message, Part, Prompt, Reasoning, Role, Signature, ToolCall, ToolResult,
};
use crate::wire::incoming::{Fields, invalid, media_of_url};

use super::cache::{Marks, take_mark};

/// The part of a block, and its mark for the cache.
type Read = (Part, Option<CacheTtl>);

/// Reads the system prompt. Its further blocks become a system message, which encoding sends as blocks.
pub(super) fn read_system(body: &mut Fields, prompt: &mut Prompt, marks: &mut Marks) -> Result<(), Failure> {
    let mut further = Vec::new();
    for block in blocks(body, "system")?.unwrap_or_default() {
        let (part, mark) = read_block(block, Role::System)?;
        marks.system = mark;
        match part {
            Part::Text(text) if prompt.system.is_none() => prompt.system = Some(text),
            other => further.push(other),
        }
    }
    if !further.is_empty() {
        prompt.messages.push(Message::new(Role::System, further));
    }
    Ok(())
}

pub(super) fn read_messages(
    body: &mut Fields,
    prompt: &mut Prompt,
    marks: &mut Marks,
) -> Result<(), Failure> {
    let messages = body.list("messages")?.ok_or_else(|| body.missing("messages"))?;
    let mut is_leading = true;
    for (index, message) in messages.into_iter().enumerate() {
        let mut message = Fields::of(message, &format!("messages[{index}]"))?;
        let role = match &*message.required_text("role")? {
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "system" => Role::System,
            other => return Err(message.unsupported("role", other)),
        };
        let blocks = blocks(&mut message, "content")?.ok_or_else(|| message.missing("content"))?;
        message.finish()?;
        let is_empty = blocks.is_empty();
        let mut results = Vec::new();
        let mut parts = Vec::with_capacity(blocks.len());
        for (index, block) in blocks.into_iter().enumerate() {
            let (part, mark) = read_block(block, role)?;
            let is_text = matches!(part, Part::Text(_));
            marks.record(mark, is_leading && index == 0 && role == Role::User && is_text);
            if is_leading && role == Role::System {
                marks.system = mark;
            }
            match part {
                Part::ToolResult(result) => results.push(result),
                other => parts.push(other),
            }
        }
        if !results.is_empty() {
            prompt.messages.push(Message::tool(results));
        }
        if !parts.is_empty() || is_empty {
            prompt.messages.push(Message::new(role, parts));
        }
        is_leading &= role == Role::System;
    }
    Ok(())
}

/// Removes content: a text, which is one block, or blocks.
fn blocks(object: &mut Fields, name: &str) -> Result<Option<Vec<Fields>>, Failure> {
    let path = object.path_of(name);
    match object.take(name) {
        None => Ok(None),
        Some(text @ Value::String(_)) => {
            let mut block = Fields::of(json!({ "type": "text" }), &path)?;
            block.put("text", text);
            Ok(Some(vec![block]))
        }
        Some(Value::Array(all)) => {
            let of = |(index, block)| Fields::of(block, &format!("{path}[{index}]"));
            all.into_iter().enumerate().map(of).collect::<Result<_, _>>().map(Some)
        }
        Some(_) => Err(invalid(format!("{path} must be a string or a list"))),
    }
}

/// Reads a block of a message, or of the result of a tool, whose author is the tool.
fn read_block(mut block: Fields, author: Role) -> Result<Read, Failure> {
    let mark = take_mark(&mut block)?;
    let kind = block.required_text("type")?;
    let part = match (&*kind, author) {
        ("text", _) => read_text(&mut block)?,
        ("image", Role::User | Role::Assistant | Role::Tool) => Part::Image(read_image(&mut block)?),
        ("document", Role::User | Role::Assistant | Role::Tool) => Part::Document(read_document(&mut block)?),
        ("thinking", Role::Assistant) => read_thinking(&mut block)?,
        ("redacted_thinking", Role::Assistant) => {
            let data = block.required_text("data")?;
            Part::Reasoning(Reasoning::new("").with_signature(Signature::redacted(data)))
        }
        ("tool_use", Role::Assistant) => read_call(&mut block)?,
        ("tool_result", Role::User) => read_result(&mut block)?,
        (other, _) => return Err(block.unsupported("type", other)),
    };
    block.finish()?;
    Ok((part, mark))
}

fn read_text(block: &mut Fields) -> Result<Part, Failure> {
    // Answers contain an empty list. A list with citations is refused: no prompt carries them.
    if block.get("citations") == Some(&json!([])) {
        block.take("citations");
    }
    Ok(Part::text(block.required_text("text")?))
}

fn read_image(block: &mut Fields) -> Result<Media, Failure> {
    let mut source = block.required_object("source")?;
    let media = match &*source.required_text("type")? {
        "base64" => read_base64(&mut source)?,
        "url" => media_of_url(&source.required_text("url")?, "image/*"),
        other => return Err(source.unsupported("type", other)),
    };
    source.finish()?;
    Ok(media)
}

fn read_document(block: &mut Fields) -> Result<Media, Failure> {
    let mut source = block.required_object("source")?;
    let media = match &*source.required_text("type")? {
        "base64" => read_base64(&mut source)?,
        "url" => Media::url("application/pdf", source.required_text("url")?),
        "text" => {
            let media_type = source.required_text("media_type")?;
            let media = Media::bytes(&*media_type, source.required_text("data")?.as_bytes());
            if !media.is_text() {
                return Err(source.unsupported("media_type", &media_type));
            }
            media
        }
        other => return Err(source.unsupported("type", other)),
    };
    source.finish()?;
    // Answers with citations would lose them, so that only citations that are off can be carried.
    if block.get("citations") == Some(&json!({ "enabled": false })) {
        block.take("citations");
    }
    Ok(Media { name: block.text("title")?.map(Into::into), ..media })
}

fn read_base64(source: &mut Fields) -> Result<Media, Failure> {
    let media_type = source.required_text("media_type")?;
    Ok(Media::base64(media_type, source.required_text("data")?))
}

/// Reads reasoning. Without a signature, or with an empty one, it is that of another vendor, and is never sent.
fn read_thinking(block: &mut Fields) -> Result<Part, Failure> {
    let reasoning = Reasoning::new(block.required_text("thinking")?);
    let signature = block.text("signature")?.filter(|signature| !signature.is_empty());
    Ok(Part::Reasoning(match signature {
        Some(signature) => reasoning.with_signature(Signature::new(Format::Anthropic, signature)),
        None => reasoning,
    }))
}

fn read_call(block: &mut Fields) -> Result<Part, Failure> {
    let id = block.required_text("id")?;
    let name = block.required_text("name")?;
    let arguments = match block.take("input") {
        Some(input @ Value::Object(_)) => input.to_string(),
        Some(_) => return Err(invalid(format!("{} must be an object", block.path_of("input")))),
        None => return Err(block.missing("input")),
    };
    // The only caller of a tool that is offered to the model itself. Answers contain it.
    if block.get("caller") == Some(&json!({ "type": "direct" })) {
        block.take("caller");
    }
    Ok(Part::ToolCall(ToolCall::new(id, name, arguments)))
}

fn read_result(block: &mut Fields) -> Result<Part, Failure> {
    let call_id = block.required_text("tool_use_id")?.into();
    let mut parts = Vec::new();
    for inner in blocks(block, "content")?.unwrap_or_default() {
        parts.push(read_block(inner, Role::Tool)?.0);
    }
    let is_error = block.bool("is_error")?.unwrap_or_default();
    Ok(Part::ToolResult(ToolResult { call_id, parts, is_error }))
}
