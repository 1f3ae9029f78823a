//! Reads the system instruction and the contents.

use serde_json::{Map, Value};

use crate::types::{
    Failure, Format, Media, Message, Part, Prompt, Reasoning, Role, Signature, ToolCall, ToolResult,
    is_json_object,
};
use crate::wire::incoming::{Fields, invalid};

use super::calls::Calls;
use super::names::accept_snake_case;

/// Reads the system instruction. Its further parts become a system message, which encoding sends as parts.
pub(super) fn read_system(body: &mut Fields, prompt: &mut Prompt) -> Result<(), Failure> {
    let Some(mut instruction) = body.object("systemInstruction")? else { return Ok(()) };
    // The vendor ignores it.
    instruction.text("role")?;
    let mut further = Vec::new();
    for mut part in parts(&mut instruction)? {
        let text = part.required_text("text")?;
        part.finish()?;
        match prompt.system {
            None => prompt.system = Some(text.into()),
            Some(_) => further.push(Part::text(text)),
        }
    }
    instruction.finish()?;
    if !further.is_empty() {
        prompt.messages.push(Message::new(Role::System, further));
    }
    Ok(())
}

pub(super) fn read_contents(body: &mut Fields, prompt: &mut Prompt) -> Result<(), Failure> {
    let contents = body.list("contents")?.ok_or_else(|| body.missing("contents"))?;
    let mut calls = Calls::new(&contents);
    for (index, content) in contents.into_iter().enumerate() {
        let mut content = Fields::of(content, &format!("contents[{index}]"))?;
        let role = content.text("role")?;
        let is_model = match role.as_deref() {
            None | Some("user" | "function") => false,
            Some("model") => true,
            Some(other) => return Err(content.unsupported("role", other)),
        };
        let parts = parts(&mut content)?;
        content.finish()?;
        if is_model {
            prompt.messages.push(Message::new(Role::Assistant, read_model(parts, &mut calls)?));
        } else {
            prompt.messages.extend(read_user(parts, &mut calls)?);
        }
    }
    Ok(())
}

fn parts(content: &mut Fields) -> Result<Vec<Fields>, Failure> {
    let path = content.path_of("parts");
    let mut read = Vec::new();
    for (index, part) in content.list("parts")?.unwrap_or_default().into_iter().enumerate() {
        let mut part = Fields::of(part, &format!("{path}[{index}]"))?;
        let names = ["inlineData", "fileData", "functionCall", "functionResponse", "thoughtSignature"];
        accept_snake_case(&mut part, &names)?;
        if part.get("thought") == Some(&Value::Bool(false)) {
            part.take("thought");
        }
        read.push(part);
    }
    Ok(read)
}

/// Reads the parts of the model. The signature of a text becomes reasoning without text after it, as in answers.
fn read_model(parts: Vec<Fields>, calls: &mut Calls) -> Result<Vec<Part>, Failure> {
    let mut read = Vec::with_capacity(parts.len());
    for mut part in parts {
        let mut has_content = true;
        if part.has("text") {
            let text = part.required_text("text")?;
            let is_thought = part.bool("thought")?.unwrap_or_default();
            let signature = take_signature(&mut part)?;
            push_text(text, is_thought, signature, &mut read);
        } else if let Some(call) = part.object("functionCall")? {
            let signature = take_signature(&mut part)?;
            let call = read_call(call, calls)?;
            read.push(Part::ToolCall(ToolCall { signature, ..call }));
        } else {
            let media = read_media(&mut part)?;
            has_content = media.is_some();
            read.extend(media);
        }
        finish(part, has_content)?;
    }
    Ok(read)
}

fn push_text(text: String, is_thought: bool, signature: Option<Signature>, read: &mut Vec<Part>) {
    let is_text = !is_thought && (signature.is_none() || !text.is_empty());
    if is_text {
        read.push(Part::text(text));
        let signed = |signature| Part::Reasoning(Reasoning::new("").with_signature(signature));
        read.extend(signature.map(signed));
        return;
    }
    if text.is_empty() && matches!(read.last(), Some(Part::Text(_))) {
        // Otherwise encoding would take the signature for that of the text before it.
        read.push(Part::Reasoning(Reasoning::new("")));
    }
    read.push(Part::Reasoning(Reasoning { signature, ..Reasoning::new(text) }));
}

fn take_signature(part: &mut Fields) -> Result<Option<Signature>, Failure> {
    Ok(part.text("thoughtSignature")?.map(|value| Signature::new(Format::Gemini, value)))
}

/// Reads the parts of the user, or of a function: the results of tools become a message of their own.
fn read_user(parts: Vec<Fields>, calls: &mut Calls) -> Result<Vec<Message>, Failure> {
    let is_empty = parts.is_empty();
    let mut results = Vec::new();
    let mut read = Vec::with_capacity(parts.len());
    for mut part in parts {
        let mut has_content = true;
        if part.has("text") {
            read.push(Part::text(part.required_text("text")?));
        } else if let Some(response) = part.object("functionResponse")? {
            results.push(read_response(response, calls)?);
        } else {
            let media = read_media(&mut part)?;
            has_content = media.is_some();
            read.extend(media);
        }
        finish(part, has_content)?;
    }
    let mut messages = Vec::new();
    if !results.is_empty() {
        messages.push(Message::tool(results));
    }
    if !read.is_empty() || is_empty {
        messages.push(Message::new(Role::User, read));
    }
    Ok(messages)
}

/// Ends the reading of a part.
///
/// # Errors
/// `api_error`, which names what was not read: a part of another kind, or a field beside the content.
fn finish(part: Fields, has_content: bool) -> Result<(), Failure> {
    let missing = part.missing("text");
    part.finish()?;
    if has_content { Ok(()) } else { Err(missing) }
}

/// Reads a file, whose media type decides what it is; `None` if the part is none.
fn read_media(part: &mut Fields) -> Result<Option<Part>, Failure> {
    let media = if let Some(mut inline) = part.object("inlineData")? {
        let media = read_inline(&mut inline)?;
        inline.finish()?;
        media
    } else if let Some(mut file) = part.object("fileData")? {
        accept_snake_case(&mut file, &["mimeType", "fileUri"])?;
        let media_type = file.required_text("mimeType")?;
        let media = Media::url(media_type, file.required_text("fileUri")?);
        file.finish()?;
        media
    } else {
        return Ok(None);
    };
    Ok(Some(match media.essence().split('/').next() {
        Some("image") => Part::Image(media),
        Some("audio") => Part::Audio(media),
        Some("video") => Part::Video(media),
        Some(_) | None => Part::Document(media),
    }))
}

fn read_inline(inline: &mut Fields) -> Result<Media, Failure> {
    accept_snake_case(inline, &["mimeType"])?;
    let media_type = inline.required_text("mimeType")?;
    let data = inline.required_text("data")?;
    Ok(Media::base64(media_type, standard_base64(data)))
}

/// Returns base64 with the standard alphabet and padding. Protocol buffers also accept the alphabet for URLs, and no
/// padding.
fn standard_base64(data: String) -> String {
    if data.len().is_multiple_of(4) && !data.contains(['-', '_']) {
        return data;
    }
    let mut standard = data.replace('-', "+").replace('_', "/");
    while !standard.len().is_multiple_of(4) {
        standard.push('=');
    }
    standard
}

fn read_call(mut call: Fields, calls: &mut Calls) -> Result<ToolCall, Failure> {
    let id = call.text("id")?;
    let name = call.required_text("name")?;
    let arguments = match call.take("args") {
        None => "{}".to_owned(),
        Some(args @ Value::Object(_)) => args.to_string(),
        Some(_) => return Err(invalid(format!("{} must be an object", call.path_of("args")))),
    };
    call.finish()?;
    let id = calls.add(id, &name);
    Ok(ToolCall::new(id, name, arguments))
}

fn read_response(mut response: Fields, calls: &mut Calls) -> Result<ToolResult, Failure> {
    let id = response.text("id")?;
    let name = response.required_text("name")?;
    let Some(call_id) = calls.answer(id.as_deref(), &name) else {
        let path = response.path_of("name");
        return Err(invalid(format!("{path} {name:?} belongs to no call of a function before it")));
    };
    let fields = response.object("response")?.map(Fields::into_rest).unwrap_or_default();
    let (text, is_error) = result_text(fields);
    let mut result = ToolResult { is_error, ..ToolResult::new(call_id, text) };
    let path = response.path_of("parts");
    for (index, part) in response.list("parts")?.unwrap_or_default().into_iter().enumerate() {
        let mut part = Fields::of(part, &format!("{path}[{index}]"))?;
        accept_snake_case(&mut part, &["inlineData"])?;
        let mut inline = part.required_object("inlineData")?;
        let media = read_inline(&mut inline)?;
        inline.finish()?;
        part.finish()?;
        let is_image = media.essence().starts_with("image/");
        result.parts.push(if is_image { Part::Image(media) } else { Part::Document(media) });
    }
    response.finish()?;
    Ok(result)
}

/// Returns the text of a result, and whether the tool failed: a single text in the fields with which encoding writes
/// it, or else the object as it is.
fn result_text(response: Map<String, Value>) -> (String, bool) {
    let field = |name| response.get(name).and_then(Value::as_str).filter(|_| response.len() == 1);
    if let Some(error) = field("error") {
        return (error.to_owned(), true);
    }
    match field("result").filter(|text| !is_json_object(text)) {
        Some(result) => (result.to_owned(), false),
        None => (Value::Object(response).to_string(), false),
    }
}
