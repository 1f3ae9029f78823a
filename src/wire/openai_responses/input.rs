//! The messages of a prompt as input items, in their order.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value;

use crate::types::{Failure, Format, Media, MediaData, Message, Part, Reasoning, Role, ToolCall, ToolResult};
use crate::wire::openai_chat::{Address, address};
use crate::wire::unsupported::{drop_or_refuse, refusal};
use crate::wire::{Dialect, DropParameter, text_document};

const FORMAT: Format = Format::OpenaiResponses;

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
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ContentPart<'a> {
    InputText {
        text: Cow<'a, str>,
    },
    OutputText {
        text: Cow<'a, str>,
    },
    InputImage {
        image_url: Address<'a>,
    },
    InputFile {
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
        Part::Text(text) => Ok(ContentPart::InputText { text: Cow::Borrowed(text) }),
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
        parts => Content::Parts(parts.iter().map(input_part).collect::<Result<_, _>>()?),
    };
    Ok(InputItem::Message { role: "user", content })
}

/// Adds the parts of an assistant message. Texts that follow each other are one message.
fn add_assistant_items<'a>(
    message: &'a Message,
    dialect: &Dialect,
    items: &mut Vec<InputItem<'a>>,
) -> Result<(), Failure> {
    let mut texts = Vec::new();
    for part in &message.parts {
        let item = match part {
            Part::Text(text) => {
                texts.push(ContentPart::OutputText { text: Cow::Borrowed(text) });
                continue;
            }
            Part::ToolCall(call) => Some(function_call(call, dialect)?),
            Part::Reasoning(reasoning) => reasoning_item(reasoning, dialect)?,
            Part::Image(_) | Part::Document(_) | Part::Audio(_) | Part::Video(_) | Part::ToolResult(_) => {
                let reason = "an assistant message can contain only text, tool calls and reasoning";
                return Err(cannot_carry(reason));
            }
        };
        if let Some(item) = item {
            items.extend(assistant(&mut texts));
            items.push(item);
        }
    }
    items.extend(assistant(&mut texts));
    Ok(())
}

fn assistant<'a>(texts: &mut Vec<ContentPart<'a>>) -> Option<InputItem<'a>> {
    let parts = std::mem::take(texts);
    let has_text = !parts.is_empty();
    has_text.then_some(InputItem::Message { role: "assistant", content: Content::Parts(parts) })
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
        parts => Content::Parts(parts.iter().map(input_part).collect::<Result<_, _>>()?),
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

fn input_part(part: &Part) -> Result<ContentPart<'_>, Failure> {
    match part {
        Part::Text(text) => Ok(ContentPart::InputText { text: Cow::Borrowed(text) }),
        Part::Image(media) => Ok(ContentPart::InputImage { image_url: address(media) }),
        Part::Document(media) => document(media),
        Part::Audio(_) => Err(cannot_carry("audio is not possible; use the format \"openai\"")),
        Part::Video(_) => Err(cannot_carry("video is not possible; use the format \"gemini\"")),
        Part::ToolCall(_) | Part::ToolResult(_) | Part::Reasoning(_) => {
            Err(cannot_carry("this message can contain only text, images and documents"))
        }
    }
}

fn document(media: &Media) -> Result<ContentPart<'_>, Failure> {
    match &media.data {
        // As in chat completions: only PDF documents have a content part of their own.
        MediaData::Base64(base64) if media.is_text() => {
            Ok(ContentPart::InputText { text: Cow::Owned(text_document::part(media, base64)?) })
        }
        MediaData::Base64(_) => {
            let filename = media.name.as_deref().unwrap_or(match &*media.media_type {
                "application/pdf" => "document.pdf",
                _ => "document",
            });
            Ok(ContentPart::InputFile {
                filename: Some(filename),
                file_data: Some(address(media)),
                file_url: None,
            })
        }
        MediaData::Url(url) => {
            Ok(ContentPart::InputFile { filename: None, file_data: None, file_url: Some(url) })
        }
    }
}

fn cannot_carry(reason: &str) -> Failure {
    refusal(format!("{} does not support this prompt: {reason}", FORMAT.title()))
}
