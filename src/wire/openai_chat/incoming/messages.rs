//! The messages of a request.

use std::collections::HashMap;
use std::sync::Arc;

use crate::types::{Failure, Media, MediaData, Message, Part, Prompt, Reasoning, Role, ToolCall, ToolResult};
use crate::wire::incoming::{Fields, invalid, media_at};

/// What separates the texts of a system message that become one, as in a request.
const SEPARATOR: &str = "\n\n";

/// Reads the conversation. A system message at its beginning becomes the system instructions.
pub(super) fn read_messages(body: &mut Fields, prompt: &mut Prompt) -> Result<(), Failure> {
    let Some(all) = body.list("messages")? else { return Err(body.missing("messages")) };
    let mut conversation = Conversation::default();
    conversation.messages.reserve(all.len());
    for (index, value) in all.into_iter().enumerate() {
        let mut message = Fields::of(value, &format!("messages[{index}]"))?;
        match message.required_text("role")?.as_str() {
            "system" | "developer" => {
                let parts = required(message.parts("content", text_part)?, "content", &message)?;
                if index == 0 {
                    prompt.system = Some(joined(&parts));
                } else {
                    conversation.messages.push(Message::new(Role::System, parts));
                }
            }
            "user" => {
                let parts = required(message.parts("content", user_part)?, "content", &message)?;
                conversation.messages.push(Message::new(Role::User, parts));
            }
            "assistant" => conversation.read_assistant(&mut message)?,
            "tool" => conversation.read_result(&mut message)?,
            other => return Err(message.unsupported("role", other)),
        }
        message.finish()?;
    }
    prompt.messages = conversation.messages;
    Ok(())
}

fn required<T>(value: Option<T>, name: &str, message: &Fields) -> Result<T, Failure> {
    value.ok_or_else(|| message.missing(name))
}

fn joined(parts: &[Part]) -> Arc<str> {
    let texts: Vec<&str> = parts.iter().filter_map(text_of).collect();
    texts.join(SEPARATOR).into()
}

fn text_of(part: &Part) -> Option<&str> {
    if let Part::Text(text) = part { Some(text) } else { None }
}

#[derive(Default)]
struct Conversation {
    messages: Vec<Message>,
    /// The names of the called tools, by the ids of the calls.
    called: HashMap<Arc<str>, Arc<str>>,
}

impl Conversation {
    fn read_assistant(&mut self, message: &mut Fields) -> Result<(), Failure> {
        let mut parts = Vec::new();
        // The names that servers of open models use.
        let mut reasoning = vec![message.text("reasoning_content")?, message.text("reasoning")?];
        reasoning.dedup();
        let texts = reasoning.into_iter().flatten().filter(|text| !text.is_empty());
        parts.extend(texts.map(|text| Part::Reasoning(Reasoning::new(text))));
        let content = message.parts("content", answer_part)?;
        let refusal = message.text("refusal")?;
        let is_only_refusal = refusal.is_some() && content.as_deref() == Some(&[Part::text("")]);
        parts.extend(content.filter(|_| !is_only_refusal).into_iter().flatten());
        parts.extend(refusal.map(Part::text));
        for (index, call) in message.list("tool_calls")?.into_iter().flatten().enumerate() {
            let call = Fields::of(call, &message.path_of(&format!("tool_calls[{index}]")))?;
            let call = read_call(call)?;
            self.called.insert(call.id.clone(), call.name.clone());
            parts.push(Part::ToolCall(call));
        }
        refuse_unless_empty(message, "annotations")?;
        self.messages.push(Message::new(Role::Assistant, parts));
        Ok(())
    }

    /// Reads the result of a tool. Results that follow each other are one message.
    fn read_result(&mut self, message: &mut Fields) -> Result<(), Failure> {
        let id = message.required_text("tool_call_id")?;
        let parts = required(message.parts("content", text_part)?, "content", message)?;
        // Some clients repeat the name of the tool.
        if let Some(name) = message.text("name")?
            && self.called.get(&*id).is_some_and(|called| **called != *name)
        {
            return Err(invalid(format!("{} is not that of the called tool", message.path_of("name"))));
        }
        let result = Part::ToolResult(ToolResult { parts, ..ToolResult::new(id, "") });
        match self.messages.last_mut() {
            Some(last) if last.role == Role::Tool => last.parts.push(result),
            Some(_) | None => self.messages.push(Message::new(Role::Tool, [result])),
        }
        Ok(())
    }
}

fn read_call(mut call: Fields) -> Result<ToolCall, Failure> {
    match call.text("type")?.as_deref() {
        Some("function") | None => {}
        Some(other) => return Err(call.unsupported("type", other)),
    }
    let id = call.required_text("id")?;
    let mut function = call.required_object("function")?;
    let name = function.required_text("name")?;
    let arguments = function.required_text("arguments")?;
    function.finish()?;
    call.finish()?;
    Ok(ToolCall::new(id, name, arguments))
}

/// Removes a list of what the vendor adds to an answer; a prompt cannot carry it.
///
/// # Errors
/// `api_error` if it is not empty.
pub(in crate::wire) fn refuse_unless_empty(message: &mut Fields, name: &str) -> Result<(), Failure> {
    match message.list(name)? {
        Some(all) if !all.is_empty() => {
            Err(invalid(format!("{} is not supported; remove it", message.path_of(name))))
        }
        Some(_) | None => Ok(()),
    }
}

fn text_part(part: &mut Fields, kind: &str) -> Result<Part, Failure> {
    match kind {
        "text" => part.required_text("text").map(Part::text),
        other => Err(part.unsupported("type", other)),
    }
}

fn answer_part(part: &mut Fields, kind: &str) -> Result<Part, Failure> {
    match kind {
        "refusal" => part.required_text("refusal").map(Part::text),
        other => text_part(part, other),
    }
}

fn user_part(part: &mut Fields, kind: &str) -> Result<Part, Failure> {
    match kind {
        "image_url" => {
            let mut image = part.required_object("image_url")?;
            let media = media_at(&image.required_text("url")?, &image.path_of("url"), "image/*")?;
            check_detail(&mut image)?;
            image.finish()?;
            Ok(Part::Image(media))
        }
        "input_audio" => {
            let mut audio = part.required_object("input_audio")?;
            let data = audio.required_text("data")?;
            let format = audio.required_text("format")?;
            let media_type = match format.as_str() {
                "wav" => "audio/wav",
                "mp3" => "audio/mpeg",
                other => return Err(audio.unsupported("format", other)),
            };
            audio.finish()?;
            Ok(Part::Audio(Media::base64(media_type, data)))
        }
        "file" => {
            let mut file = part.required_object("file")?;
            refuse_file_id(&file)?;
            let document = data_document(&mut file)?;
            file.finish()?;
            Ok(Part::Document(document))
        }
        other => text_part(part, other),
    }
}

/// Removes a file that the request itself contains, with its name.
///
/// # Errors
/// `api_error` if it is not a data URL.
pub(in crate::wire) fn data_document(file: &mut Fields) -> Result<Media, Failure> {
    let path = file.path_of("file_data");
    let name = file.text("filename")?.map(Into::into);
    let media = media_at(&file.required_text("file_data")?, &path, "application/pdf")?;
    match media.data {
        MediaData::Base64(_) => Ok(Media { name, ..media }),
        MediaData::Url(_) => {
            Err(invalid(format!("{path} must be a data URL, like data:application/pdf;base64,...")))
        }
    }
}

/// Refuses a file that the vendor has stored.
///
/// # Errors
/// `api_error` if there is one.
pub(in crate::wire) fn refuse_file_id(file: &Fields) -> Result<(), Failure> {
    if !file.has("file_id") {
        return Ok(());
    }
    let path = file.path_of("file_id");
    Err(invalid(format!("{path} is not supported: another target does not have the file; send its data")))
}

/// Reads how exactly the model sees an image or a file. A prompt has only the default.
///
/// # Errors
/// `api_error` for any other value.
pub(in crate::wire) fn check_detail(fields: &mut Fields) -> Result<(), Failure> {
    match fields.text("detail")?.as_deref() {
        Some("auto") | None => Ok(()),
        Some(other) => Err(fields.unsupported("detail", other)),
    }
}
