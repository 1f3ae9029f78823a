//! The messages of a prompt as turns of Anthropic's messages API.
//!
//! Content that the format does not support is rejected; nothing is omitted silently.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::types::{
    Failure, Format, Media, MediaData, Message, Part, Reasoning, Role, SharedPrefix, Signature, ToolCall,
    ToolResult,
};
use crate::wire::prompt_cache::SplitMessage;
use crate::wire::unsupported::{drop_or_refuse, refusal};
use crate::wire::{Dialect, DropParameter, text_document};

use super::cache_control::CacheControl;

/// One turn of the conversation.
#[derive(Serialize)]
pub(super) struct Turn<'a> {
    role: &'static str,
    content: Content<'a>,
}

/// A single text is sent without a block around it.
#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Text(&'a str),
    Blocks(Vec<Block<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block<'a> {
    Text {
        text: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<CacheControl>,
    },
    Image {
        source: Source<'a>,
    },
    Document {
        source: Source<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        title: Option<&'a str>,
    },
    Thinking {
        thinking: &'a str,
        signature: &'a str,
    },
    RedactedThinking {
        data: &'a str,
    },
    ToolUse {
        id: &'a str,
        name: &'a str,
        input: Map<String, Value>,
    },
    ToolResult {
        tool_use_id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        content: Option<Content<'a>>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
    },
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Source<'a> {
    Base64 { media_type: String, data: &'a str },
    Text { media_type: &'static str, data: String },
    Url { url: &'a str },
}

/// Returns the turns of a conversation. The constant text at its beginning is a block of its own, which takes
/// the end of the cached part.
pub(super) fn turns<'a>(
    conversation: &'a [Message],
    prefix: Option<&SharedPrefix>,
    cached: &mut Option<CacheControl>,
    dialect: &Dialect,
) -> Result<Vec<Turn<'a>>, Failure> {
    let mut turns = Vec::with_capacity(conversation.len());
    let first = conversation.first().zip(prefix).filter(|_| cached.is_some());
    let split = first.and_then(|(message, prefix)| SplitMessage::of(message, prefix));
    let rest = match &split {
        Some(split) => {
            turns.push(Turn::of_split(split, cached.take(), dialect)?);
            conversation.get(1..).unwrap_or_default()
        }
        None => conversation,
    };
    for message in rest {
        turns.extend(Turn::of(message, dialect)?);
    }
    Ok(turns)
}

impl<'a> Turn<'a> {
    /// Returns the turn of a message that is split after its constant text.
    fn of_split(
        message: &SplitMessage<'a>,
        cache_control: Option<CacheControl>,
        dialect: &Dialect,
    ) -> Result<Self, Failure> {
        let SplitMessage { constant, before, rest, after } = *message;
        let mut blocks = vec![Block::Text { text: constant, cache_control }];
        for part in before {
            blocks.extend(Block::of(part, dialect)?);
        }
        if !rest.is_empty() {
            blocks.push(Block::text(rest));
        }
        for part in after {
            blocks.extend(Block::of(part, dialect)?);
        }
        Ok(Self { role: "user", content: Content::Blocks(blocks) })
    }

    /// Returns the turn of a message; `None` if it consists of reasoning that is not sent.
    fn of(message: &'a Message, dialect: &Dialect) -> Result<Option<Self>, Failure> {
        let role = match message.role {
            Role::System => "system",
            // The results of tools are a turn of the user.
            Role::User | Role::Tool => "user",
            Role::Assistant => "assistant",
        };
        let mut blocks = Vec::with_capacity(message.parts.len());
        for part in &message.parts {
            match message.role {
                Role::System => blocks.push(Block::text(system_text(part)?)),
                Role::User | Role::Assistant | Role::Tool => blocks.extend(Block::of(part, dialect)?),
            }
        }
        if blocks.is_empty() && !message.parts.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self { role, content: Content::of(blocks) }))
    }
}

/// Returns the text of a part of a system message.
pub(super) fn system_text(part: &Part) -> Result<&str, Failure> {
    match part {
        Part::Text(text) => Ok(text),
        Part::Image(_)
        | Part::Document(_)
        | Part::Audio(_)
        | Part::Video(_)
        | Part::ToolCall(_)
        | Part::ToolResult(_)
        | Part::Reasoning(_) => Err(refusal(
            "Anthropic's format supports only text in a system message; use a user message for other content",
        )),
    }
}

impl<'a> Content<'a> {
    fn of(blocks: Vec<Block<'a>>) -> Self {
        match &*blocks {
            [Block::Text { text, cache_control: None }] => Self::Text(text),
            _ => Self::Blocks(blocks),
        }
    }
}

impl<'a> Block<'a> {
    fn text(text: &'a str) -> Self {
        Self::Text { text, cache_control: None }
    }

    /// Returns the block of a part; `None` for reasoning that is not sent.
    fn of(part: &'a Part, dialect: &Dialect) -> Result<Option<Self>, Failure> {
        Ok(Some(match part {
            Part::Text(text) => Self::text(text),
            Part::Image(media) => Self::Image { source: Source::of(media) },
            Part::Document(media) => {
                Self::Document { source: Source::of_document(media)?, title: media.name.as_deref() }
            }
            Part::Audio(_) => {
                return Err(refusal("Anthropic's format does not support audio; use another provider"));
            }
            Part::Video(_) => {
                return Err(refusal("Anthropic's format does not support video; use another provider"));
            }
            Part::ToolCall(call) => Self::of_call(call, dialect)?,
            Part::ToolResult(result) => Self::of_result(result, dialect)?,
            Part::Reasoning(reasoning) => return Self::of_reasoning(reasoning, dialect),
        }))
    }

    fn of_call(call: &'a ToolCall, dialect: &Dialect) -> Result<Self, Failure> {
        // The format has no signatures of calls: any signature is that of another vendor.
        if call.signature.is_some() {
            drop_or_refuse(Format::Anthropic, dialect, DropParameter::Reasoning)?;
        }
        let input = serde_json::from_str(&call.arguments).map_err(|_| {
            refusal(format!("the arguments of the call of {:?} are not a JSON object", call.name))
        })?;
        Ok(Self::ToolUse { id: &call.id, name: &call.name, input })
    }

    fn of_result(result: &'a ToolResult, dialect: &Dialect) -> Result<Self, Failure> {
        let mut blocks = Vec::with_capacity(result.parts.len());
        for part in &result.parts {
            blocks.extend(Self::of(part, dialect)?);
        }
        let content = if blocks.is_empty() { None } else { Some(Content::of(blocks)) };
        Ok(Self::ToolResult { tool_use_id: &result.call_id, content, is_error: result.is_error })
    }

    fn of_reasoning(reasoning: &'a Reasoning, dialect: &Dialect) -> Result<Option<Self>, Failure> {
        match &reasoning.signature {
            None => Ok(None),
            Some(Signature { format: Format::Anthropic, value, is_redacted: true }) => {
                Ok(Some(Self::RedactedThinking { data: value }))
            }
            Some(Signature { format: Format::Anthropic, value, is_redacted: false }) => {
                Ok(Some(Self::Thinking { thinking: &reasoning.text, signature: value }))
            }
            Some(Signature { format: Format::Openai | Format::OpenaiResponses | Format::Gemini, .. }) => {
                drop_or_refuse(Format::Anthropic, dialect, DropParameter::Reasoning)?;
                Ok(None)
            }
        }
    }
}

impl<'a> Source<'a> {
    fn of(media: &'a Media) -> Self {
        match &media.data {
            // The format accepts a few media types exactly as they are listed: in lower case, without parameters.
            MediaData::Base64(data) => Self::Base64 { media_type: media.essence(), data },
            MediaData::Url(url) => Self::Url { url },
        }
    }

    /// Text documents are sent as text: base64 and URLs are supported for PDFs only.
    fn of_document(media: &'a Media) -> Result<Self, Failure> {
        match &media.data {
            MediaData::Base64(data) if media.is_text() => {
                Ok(Self::Text { media_type: "text/plain", data: text_document::content(media, data)? })
            }
            _ if media.essence() == "application/pdf" => Ok(Self::of(media)),
            MediaData::Url(_) if media.is_text() => {
                Err(refusal("Anthropic fetches only PDF documents from a URL; attach the file itself"))
            }
            MediaData::Base64(_) | MediaData::Url(_) => Err(refusal(format!(
                "Anthropic's format supports PDF and text documents, not {}",
                media.media_type
            ))),
        }
    }
}
