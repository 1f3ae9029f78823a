//! The messages of a request.

use std::borrow::Cow;
use std::fmt::Display;

use serde::{Serialize, Serializer};

use crate::types::{
    Failure, Format, Media, MediaData, Message, Part, Prompt, Role, Signature, ToolCall, ToolResult,
};
use crate::wire::structured_output::RequestedFormat;
use crate::wire::unsupported::{drop_or_refuse, refusal};
use crate::wire::{Dialect, DropParameter, text_document};

/// What separates the texts of a message that are joined to one string.
const SEPARATOR: &str = "\n\n";

/// One message.
#[derive(Serialize)]
pub(super) struct Turn<'a> {
    role: &'static str,
    /// `null` for an assistant message that consists of tool calls.
    content: Option<Content<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
}

impl<'a> Turn<'a> {
    fn new(role: &'static str, content: Content<'a>) -> Self {
        Self { role, content: Some(content), tool_calls: Vec::new(), tool_call_id: None }
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    /// A string, which every server supports.
    Text(Cow<'a, str>),
    Parts(Vec<ContentPart<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ContentPart<'a> {
    Text { text: Cow<'a, str> },
    ImageUrl { image_url: Image<'a> },
    InputAudio { input_audio: Audio<'a> },
    File { file: File<'a> },
}

#[derive(Serialize)]
struct Image<'a> {
    url: Address<'a>,
}

#[derive(Serialize)]
struct Audio<'a> {
    data: &'a str,
    format: &'static str,
}

#[derive(Serialize)]
struct File<'a> {
    filename: &'a str,
    file_data: Address<'a>,
}

/// Where media are: at a URL, or in the request itself.
pub(in crate::wire) enum Address<'a> {
    Url(&'a str),
    Data { media_type: &'a str, base64: &'a str },
}

impl Serialize for Address<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Url(url) => to.serialize_str(url),
            Self::Data { media_type, base64 } => {
                to.collect_str(&format_args!("data:{media_type};base64,{base64}"))
            }
        }
    }
}

/// A tool call of an earlier answer.
#[derive(Serialize)]
struct Call<'a> {
    id: &'a str,
    r#type: &'static str,
    function: CalledFunction<'a>,
}

#[derive(Serialize)]
struct CalledFunction<'a> {
    name: &'a str,
    arguments: &'a str,
}

impl<'a> From<&'a ToolCall> for Call<'a> {
    fn from(call: &'a ToolCall) -> Self {
        let function = CalledFunction { name: &call.name, arguments: &call.arguments };
        Self { id: &call.id, r#type: "function", function }
    }
}

/// Returns the messages of `prompt`, its system instructions first.
pub(super) fn turns<'a>(
    prompt: &'a Prompt,
    requested_format: &'a RequestedFormat<'_>,
    dialect: &Dialect,
) -> Result<Vec<Turn<'a>>, Failure> {
    let mut turns = Vec::with_capacity(prompt.messages.len() + 1);
    if let Some(text) = requested_format.system(prompt.system.as_deref()) {
        turns.push(Turn::new("system", Content::Text(text)));
    }
    for message in &prompt.messages {
        match message.role {
            Role::System => turns.push(system(message)?),
            Role::User => turns.push(user(message)?),
            Role::Assistant => turns.extend(assistant(message, dialect)?),
            // Each result is a message of its own.
            Role::Tool => {
                for part in &message.parts {
                    turns.push(tool_result(part)?);
                }
            }
        }
    }
    Ok(turns)
}

fn system(message: &Message) -> Result<Turn<'_>, Failure> {
    let texts: Vec<&str> = message.parts.iter().map(system_text).collect::<Result<_, _>>()?;
    Ok(Turn::new("system", Content::Text(joined(&texts))))
}

fn system_text(part: &Part) -> Result<&str, Failure> {
    match part {
        Part::Text(text) => Ok(text),
        Part::Image(_)
        | Part::Document(_)
        | Part::Audio(_)
        | Part::Video(_)
        | Part::ToolCall(_)
        | Part::ToolResult(_)
        | Part::Reasoning(_) => Err(cannot_carry("a system message can contain only text; move the rest")),
    }
}

fn user(message: &Message) -> Result<Turn<'_>, Failure> {
    let content = match message.parts.as_slice() {
        [Part::Text(text)] => Content::Text(Cow::Borrowed(text)),
        parts => {
            let content_parts: Vec<_> = parts.iter().map(content_part).collect::<Result<_, _>>()?;
            only_text(&content_parts).map_or(Content::Parts(content_parts), Content::Text)
        }
    };
    Ok(Turn::new("user", content))
}

/// Returns an earlier answer; `None` if it consists of reasoning that is not sent.
fn assistant<'a>(message: &'a Message, dialect: &Dialect) -> Result<Option<Turn<'a>>, Failure> {
    let mut texts = Vec::new();
    let mut tool_calls = Vec::new();
    for part in &message.parts {
        match part {
            Part::Text(text) => texts.push(&**text),
            // The format has no place for reasoning.
            Part::Reasoning(reasoning) => drop_signature(reasoning.signature.as_ref(), dialect)?,
            Part::ToolCall(call) => {
                drop_signature(call.signature.as_ref(), dialect)?;
                tool_calls.push(Call::from(call));
            }
            Part::Image(_) | Part::Document(_) | Part::Audio(_) | Part::Video(_) => {
                let reason = "an assistant message can contain only text and tool calls; move the media";
                return Err(cannot_carry(reason));
            }
            Part::ToolResult(_) => {
                return Err(cannot_carry("the result of a tool must be in a tool message; move it"));
            }
        }
    }
    if texts.is_empty() && tool_calls.is_empty() && !message.parts.is_empty() {
        return Ok(None);
    }
    let is_only_calls = texts.is_empty() && !tool_calls.is_empty();
    let content = (!is_only_calls).then(|| Content::Text(joined(&texts)));
    Ok(Some(Turn { role: "assistant", content, tool_calls, tool_call_id: None }))
}

/// Drops what another vendor has signed, if the configuration says so: this format has no signatures.
fn drop_signature(signature: Option<&Signature>, dialect: &Dialect) -> Result<(), Failure> {
    match signature {
        Some(_) => drop_or_refuse(Format::Openai, dialect, DropParameter::Reasoning),
        None => Ok(()),
    }
}

fn tool_result(part: &Part) -> Result<Turn<'_>, Failure> {
    match part {
        Part::ToolResult(result) => {
            let content = Content::Text(result_text(result)?);
            Ok(Turn { tool_call_id: Some(&result.call_id), ..Turn::new("tool", content) })
        }
        Part::Text(_)
        | Part::Image(_)
        | Part::Document(_)
        | Part::Audio(_)
        | Part::Video(_)
        | Part::ToolCall(_)
        | Part::Reasoning(_) => {
            Err(cannot_carry("a tool message can contain only results of tools; move the rest"))
        }
    }
}

/// Returns the text of a result. The format has no flag for an error: the text says it.
fn result_text(result: &ToolResult) -> Result<Cow<'_, str>, Failure> {
    match result.parts.as_slice() {
        [part] => result_part(part),
        parts => {
            let texts: Vec<Cow<'_, str>> = parts.iter().map(result_part).collect::<Result<_, _>>()?;
            Ok(Cow::Owned(texts.join(SEPARATOR)))
        }
    }
}

fn result_part(part: &Part) -> Result<Cow<'_, str>, Failure> {
    match part {
        Part::Text(text) => Ok(Cow::Borrowed(text)),
        Part::Document(media) => text_document::part(media)?.map(Cow::Owned).ok_or_else(not_text),
        Part::Image(_)
        | Part::Audio(_)
        | Part::Video(_)
        | Part::ToolCall(_)
        | Part::ToolResult(_)
        | Part::Reasoning(_) => Err(not_text()),
    }
}

fn not_text() -> Failure {
    cannot_carry("the result of a tool can contain only text; move images and files to a user message")
}

/// Joins texts to one string, which every server supports.
fn joined<'a>(texts: &[&'a str]) -> Cow<'a, str> {
    match texts {
        [text] => Cow::Borrowed(text),
        texts => Cow::Owned(texts.join(SEPARATOR)),
    }
}

/// Joins text parts to one string; `None` if there are other parts.
fn only_text<'a>(content_parts: &[ContentPart<'_>]) -> Option<Cow<'a, str>> {
    let texts: Option<Vec<&str>> = content_parts
        .iter()
        .map(|content_part| if let ContentPart::Text { text } = content_part { Some(&**text) } else { None })
        .collect();
    texts.map(|texts| Cow::Owned(texts.join(SEPARATOR)))
}

fn content_part(part: &Part) -> Result<ContentPart<'_>, Failure> {
    match part {
        Part::Text(text) => Ok(ContentPart::Text { text: Cow::Borrowed(text) }),
        Part::Image(media) => Ok(ContentPart::ImageUrl { image_url: Image { url: address(media) } }),
        Part::Document(media) => document(media),
        Part::Audio(media) => audio(media),
        Part::Video(_) => Err(cannot_carry("it has no videos; remove the video, or use another target")),
        Part::ToolCall(_) | Part::Reasoning(_) => {
            Err(cannot_carry("tool calls and reasoning must be in an assistant message; move them"))
        }
        Part::ToolResult(_) => Err(cannot_carry("the result of a tool must be in a tool message; move it")),
    }
}

fn document(media: &Media) -> Result<ContentPart<'_>, Failure> {
    // Only PDF documents have a content part of their own.
    if let Some(text) = text_document::part(media)? {
        return Ok(ContentPart::Text { text: Cow::Owned(text) });
    }
    match &media.data {
        MediaData::Base64(_) => {
            let filename = document_name(media);
            Ok(ContentPart::File { file: File { filename, file_data: address(media) } })
        }
        MediaData::Url(_) => Err(cannot_carry("a document must be base64, not a URL")),
    }
}

/// Returns the file name of a document, which the vendor requires.
pub(in crate::wire) fn document_name(media: &Media) -> &str {
    media.name.as_deref().unwrap_or(match &*media.essence() {
        "application/pdf" => "document.pdf",
        _ => "document",
    })
}

fn audio(media: &Media) -> Result<ContentPart<'_>, Failure> {
    let format = match &*media.media_type {
        "audio/wav" | "audio/wave" | "audio/x-wav" | "audio/vnd.wave" => "wav",
        "audio/mpeg" | "audio/mp3" => "mp3",
        other => {
            return Err(cannot_carry(format_args!("audio must be audio/wav or audio/mpeg, not {other}")));
        }
    };
    match &media.data {
        MediaData::Base64(data) => Ok(ContentPart::InputAudio { input_audio: Audio { data, format } }),
        MediaData::Url(_) => Err(cannot_carry("audio must be base64, not a URL")),
    }
}

pub(in crate::wire) fn address(media: &Media) -> Address<'_> {
    match &media.data {
        MediaData::Base64(base64) => Address::Data { media_type: &media.media_type, base64 },
        MediaData::Url(url) => Address::Url(url),
    }
}

fn cannot_carry(reason: impl Display) -> Failure {
    refusal(format!("{} does not support this prompt: {reason}", Format::Openai.title()))
}
