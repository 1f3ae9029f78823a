//! The messages of a prompt as input items, in their order.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value;

use crate::types::{Failure, Format, Media, MediaData, Message, Part, Reasoning, Role, ToolCall, ToolResult};
use crate::wire::openai_chat::{Address, address, document_name};
use crate::wire::unsupported::{drop_or_refuse, refusal};
use crate::wire::{Dialect, DropParameter, text_document};

const FORMAT: Format = Format::OpenaiResponses;

/// How exactly the model sees an image: the vendor's default, which a message must state.
const DETAIL: &str = "auto";

#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum InputItem<'a> {
    Message {
        role: &'static str,
        content: Content<'a>,
    },
    Tool(ToolItem<'a>),
    /// A `reasoning` item as an earlier response contained it.
    Reasoning(Value),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ToolItem<'a> {
    FunctionCall { call_id: &'a str, name: &'a str, arguments: &'a str },
    FunctionCallOutput { call_id: &'a str, output: Content<'a> },
}

#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Content<'a> {
    Text(Cow<'a, str>),
    Parts(Vec<ContentPart<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type")]
pub(super) enum ContentPart<'a> {
    #[serde(rename = "input_text")]
    Text { text: Cow<'a, str> },
    #[serde(rename = "input_image")]
    Image {
        image_url: Address<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<&'static str>,
    },
    #[serde(rename = "input_file")]
    File {
        #[serde(skip_serializing_if = "Option::is_none")]
        filename: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        file_data: Option<Address<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        file_url: Option<&'a str>,
    },
}

/// Returns the input items of a conversation.
///
/// # Errors
/// `api_error` for content that the format does not support.
pub(super) fn input_items<'a>(
    messages: &'a [Message],
    dialect: &Dialect,
) -> Result<Vec<InputItem<'a>>, Failure> {
    let mut items = Vec::with_capacity(messages.len());
    for message in messages {
        match message.role {
            Role::System => items.push(system(message)?),
            Role::User => items.push(user(message)?),
            Role::Assistant => add_assistant_items(message, dialect, &mut items)?,
            Role::Tool => add_results(message, &mut items)?,
        }
    }
    Ok(items)
}

fn system(message: &Message) -> Result<InputItem<'_>, Failure> {
    let parts = message.parts.iter().map(system_part).collect::<Result<_, _>>()?;
    Ok(InputItem::Message { role: "system", content: Content::Parts(parts) })
}

fn system_part(part: &Part) -> Result<ContentPart<'_>, Failure> {
    match part {
        Part::Text(text) => Ok(ContentPart::Text { text: Cow::Borrowed(text) }),
        Part::Image(_)
        | Part::Document(_)
        | Part::Audio(_)
        | Part::Video(_)
        | Part::ToolCall(_)
        | Part::ToolResult(_)
        | Part::Reasoning(_) => Err(cannot_carry("a system message can contain only text")),
    }
}

fn user(message: &Message) -> Result<InputItem<'_>, Failure> {
    let content = match message.parts.as_slice() {
        [Part::Text(text)] => Content::Text(Cow::Borrowed(text)),
        parts => Content::Parts(parts.iter().map(user_part).collect::<Result<_, _>>()?),
    };
    Ok(InputItem::Message { role: "user", content })
}

/// Adds the parts of an assistant message, each as an item.
fn add_assistant_items<'a>(
    message: &'a Message,
    dialect: &Dialect,
    items: &mut Vec<InputItem<'a>>,
) -> Result<(), Failure> {
    for part in &message.parts {
        let item = match part {
            Part::Text(text) => Some(assistant(text)),
            Part::ToolCall(call) => Some(function_call(call, dialect)?),
            Part::Reasoning(reasoning) => reasoning_item(reasoning, dialect)?,
            Part::Image(_) | Part::Document(_) | Part::Audio(_) | Part::Video(_) | Part::ToolResult(_) => {
                let reason = "an assistant message can contain only text, tool calls and reasoning";
                return Err(cannot_carry(reason));
            }
        };
        items.extend(item);
    }
    Ok(())
}

/// Returns the message of one text of an answer. With a list of `output_text` parts, it would need the id, the status
/// and the annotations of the vendor's response, which a prompt does not have.
fn assistant(text: &str) -> InputItem<'_> {
    InputItem::Message { role: "assistant", content: Content::Text(Cow::Borrowed(text)) }
}

fn function_call<'a>(call: &'a ToolCall, dialect: &Dialect) -> Result<InputItem<'a>, Failure> {
    // The calls of this format have no signature, so it is of another format.
    if call.signature.is_some() {
        drop_or_refuse(FORMAT, dialect, DropParameter::Reasoning)?;
    }
    let ToolCall { id, name, arguments, .. } = call;
    Ok(InputItem::Tool(ToolItem::FunctionCall { call_id: id, name, arguments }))
}

fn add_results<'a>(message: &'a Message, items: &mut Vec<InputItem<'a>>) -> Result<(), Failure> {
    for part in &message.parts {
        match part {
            Part::ToolResult(result) => items.push(function_call_output(result)?),
            Part::Text(_)
            | Part::Image(_)
            | Part::Document(_)
            | Part::Audio(_)
            | Part::Video(_)
            | Part::ToolCall(_)
            | Part::Reasoning(_) => {
                return Err(cannot_carry("a tool message can contain only results of tools"));
            }
        }
    }
    Ok(())
}

fn function_call_output(result: &ToolResult) -> Result<InputItem<'_>, Failure> {
    let output = match result.parts.as_slice() {
        [] => Content::Text(Cow::Borrowed("")),
        [Part::Text(text)] => Content::Text(Cow::Borrowed(text)),
        parts => Content::Parts(parts.iter().map(|part| input_part(part, None)).collect::<Result<_, _>>()?),
    };
    Ok(InputItem::Tool(ToolItem::FunctionCallOutput { call_id: &result.call_id, output }))
}

/// Returns the item of signed reasoning; `None` for reasoning that is not sent.
fn reasoning_item<'a>(reasoning: &Reasoning, dialect: &Dialect) -> Result<Option<InputItem<'a>>, Failure> {
    let Some(signature) = &reasoning.signature else { return Ok(None) };
    if signature.format != FORMAT {
        drop_or_refuse(FORMAT, dialect, DropParameter::Reasoning)?;
        return Ok(None);
    }
    match serde_json::from_str(&signature.value) {
        Ok(item @ Value::Object(_)) => Ok(Some(InputItem::Reasoning(item))),
        Ok(_) | Err(_) => Err(cannot_carry("the signature of the reasoning is not the item of a response")),
    }
}

fn user_part(part: &Part) -> Result<ContentPart<'_>, Failure> {
    input_part(part, Some(DETAIL))
}

/// Returns the part of a message or of the result of a tool. Only in a message, the vendor requires the detail of an
/// image.
fn input_part<'a>(part: &'a Part, detail: Option<&'static str>) -> Result<ContentPart<'a>, Failure> {
    match part {
        Part::Text(text) => Ok(ContentPart::Text { text: Cow::Borrowed(text) }),
        Part::Image(media) => Ok(ContentPart::Image { image_url: address(media), detail }),
        Part::Document(media) => document(media),
        Part::Audio(_) => Err(cannot_carry("audio is not possible; use the format \"openai\"")),
        Part::Video(_) => Err(cannot_carry("video is not possible; use the format \"gemini\"")),
        Part::ToolCall(_) | Part::ToolResult(_) | Part::Reasoning(_) => {
            Err(cannot_carry("this message can contain only text, images and documents"))
        }
    }
}

fn document(media: &Media) -> Result<ContentPart<'_>, Failure> {
    // As in chat completions: only PDF documents have a content part of their own.
    if let Some(text) = text_document::part(media)? {
        return Ok(ContentPart::Text { text: Cow::Owned(text) });
    }
    match &media.data {
        MediaData::Base64(_) => Ok(ContentPart::File {
            filename: Some(document_name(media)),
            file_data: Some(address(media)),
            file_url: None,
        }),
        MediaData::Url(url) => Ok(ContentPart::File { filename: None, file_data: None, file_url: Some(url) }),
    }
}

fn cannot_carry(reason: &str) -> Failure {
    refusal(format!("{} does not support this prompt: {reason}", FORMAT.title()))
}
