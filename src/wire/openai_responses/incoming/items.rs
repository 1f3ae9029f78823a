//! The input items of a request as messages, in their order.

use serde_json::Value;

use crate::types::{Failure, Format, Media, Message, Part, Reasoning, Role, Signature, ToolCall, ToolResult};
use crate::wire::incoming::{Fields, invalid, media_at, media_of_url};
use crate::wire::openai_chat::{check_detail, data_document, refuse_file_id, refuse_unless_empty};

/// Stands between two paragraphs of the reasoning.
const PARAGRAPH_END: &str = "\n\n";

/// Reads the input: a text, or a list of items.
pub(super) fn read_input(body: &mut Fields) -> Result<Vec<Message>, Failure> {
    let all = match body.take("input") {
        None => return Err(body.missing("input")),
        Some(Value::String(text)) => return Ok(vec![Message::user(text)]),
        Some(Value::Array(all)) => all,
        Some(_) => return Err(invalid("input must be a string or a list")),
    };
    let mut conversation = Conversation { messages: Vec::with_capacity(all.len()), ends_with_text: false };
    for (index, value) in all.into_iter().enumerate() {
        conversation.read_item(value, &format!("input[{index}]"))?;
    }
    Ok(conversation.messages)
}

/// The messages of the items that have been read. Items of an answer that follow each other are one message.
struct Conversation {
    messages: Vec<Message>,
    /// Whether the last item is a message of the model. Another one begins a message, so that both remain apart.
    ends_with_text: bool,
}

impl Conversation {
    fn read_item(&mut self, value: Value, path: &str) -> Result<(), Failure> {
        let is_reasoning = value.get("type").is_some_and(|kind| kind == "reasoning");
        // The vendor needs the item unchanged.
        let whole = is_reasoning.then(|| value.to_string());
        let mut item = Fields::of(value, path)?;
        let ends_with_text = std::mem::take(&mut self.ends_with_text);
        match (item.text("type")?.as_deref(), whole) {
            (None, _) if !item.has("role") => return Err(invalid(format!("{path} needs a type or a role"))),
            (Some("message") | None, _) => self.read_message(&mut item, ends_with_text)?,
            (Some("function_call"), _) => self.read_call(&mut item)?,
            (Some("function_call_output"), _) => self.read_result(&mut item)?,
            (Some("reasoning"), Some(whole)) => return self.read_reasoning(item, whole, ends_with_text),
            (Some("item_reference"), _) => {
                let path = item.path_of("type");
                let reason = "is not supported: requests are stateless; send the item itself";
                return Err(invalid(format!("{path} \"item_reference\" {reason}")));
            }
            (Some(other), _) => return Err(item.unsupported("type", other)),
        }
        // Only a stored response has them.
        item.text("id")?;
        item.text("status")?;
        item.finish()
    }

    fn read_message(&mut self, item: &mut Fields, follows_text: bool) -> Result<(), Failure> {
        let role = match item.required_text("role")?.as_str() {
            "system" | "developer" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            other => return Err(item.unsupported("role", other)),
        };
        let parts = match role {
            Role::User => item.parts("content", user_part)?,
            Role::Assistant => item.parts("content", answer_part)?,
            Role::System | Role::Tool => item.parts("content", text_part)?,
        };
        let Some(parts) = parts else { return Err(item.missing("content")) };
        self.ends_with_text = role == Role::Assistant;
        if role == Role::Assistant && !follows_text {
            self.add(Role::Assistant, parts);
        } else {
            self.messages.push(Message::new(role, parts));
        }
        Ok(())
    }

    fn read_call(&mut self, item: &mut Fields) -> Result<(), Failure> {
        let id = item.required_text("call_id")?;
        let name = item.required_text("name")?;
        let call = ToolCall::new(id, name, item.required_text("arguments")?);
        self.add(Role::Assistant, vec![Part::ToolCall(call)]);
        Ok(())
    }

    fn read_result(&mut self, item: &mut Fields) -> Result<(), Failure> {
        let id = item.required_text("call_id")?;
        let Some(parts) = item.parts("output", user_part)? else { return Err(item.missing("output")) };
        self.add(Role::Tool, vec![Part::ToolResult(ToolResult { parts, ..ToolResult::new(id, "") })]);
        Ok(())
    }

    /// Reads reasoning. Only with its encrypted content the vendor accepts the item again; without it, the item is
    /// not sent and does not separate the messages around it.
    fn read_reasoning(&mut self, mut item: Fields, whole: String, follows_text: bool) -> Result<(), Failure> {
        let mut texts = paragraphs(&mut item, "summary")?;
        let own = paragraphs(&mut item, "content")?;
        if texts.is_empty() {
            texts = own;
        }
        let mut reasoning = Reasoning::new(texts.join(PARAGRAPH_END));
        if item.text("encrypted_content")?.is_some_and(|content| !content.is_empty()) {
            reasoning = reasoning.with_signature(Signature::new(Format::OpenaiResponses, whole));
        } else {
            self.ends_with_text = follows_text;
        }
        self.add(Role::Assistant, vec![Part::Reasoning(reasoning)]);
        Ok(())
    }

    /// Adds parts to the last message if it has the same author.
    fn add(&mut self, role: Role, parts: Vec<Part>) {
        match self.messages.last_mut() {
            Some(last) if last.role == role => last.parts.extend(parts),
            Some(_) | None => self.messages.push(Message::new(role, parts)),
        }
    }
}

/// Returns the texts of a list of paragraphs that are not empty.
fn paragraphs(item: &mut Fields, name: &str) -> Result<Vec<String>, Failure> {
    let path = item.path_of(name);
    let mut texts = Vec::new();
    for (index, value) in item.list(name)?.into_iter().flatten().enumerate() {
        let text = Fields::of(value, &format!("{path}[{index}]"))?.required_text("text")?;
        if !text.is_empty() {
            texts.push(text);
        }
    }
    Ok(texts)
}

fn text_part(part: &mut Fields, kind: &str) -> Result<Part, Failure> {
    match kind {
        "input_text" => part.required_text("text").map(Part::text),
        other => Err(part.unsupported("type", other)),
    }
}

fn answer_part(part: &mut Fields, kind: &str) -> Result<Part, Failure> {
    match kind {
        "output_text" => {
            refuse_unless_empty(part, "annotations")?;
            refuse_unless_empty(part, "logprobs")?;
            part.required_text("text").map(Part::text)
        }
        "refusal" => part.required_text("refusal").map(Part::text),
        other => text_part(part, other),
    }
}

fn user_part(part: &mut Fields, kind: &str) -> Result<Part, Failure> {
    match kind {
        "input_image" => {
            refuse_file_id(part)?;
            check_detail(part)?;
            let path = part.path_of("image_url");
            media_at(&part.required_text("image_url")?, &path, "image/*").map(Part::Image)
        }
        "input_file" => {
            refuse_file_id(part)?;
            check_detail(part)?;
            document(part).map(Part::Document)
        }
        other => text_part(part, other),
    }
}

fn document(part: &mut Fields) -> Result<Media, Failure> {
    match part.text("file_url")? {
        Some(url) => {
            let name = part.text("filename")?.map(Into::into);
            Ok(Media { name, ..media_of_url(&url, "application/pdf") })
        }
        None => data_document(part),
    }
}
