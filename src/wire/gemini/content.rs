//! Encodes the messages of a prompt as contents, and the system instruction.
//!
//! Results of tools that follow one another form one content, in the order of their calls: the vendor requires as many
//! results in the content after the model's calls as there are calls, and without ids it matches them by position.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Not;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::types::{
    Failure, Format, Media, MediaData, Message, Part, Prompt, Role, Signature, ToolCall, ToolResult,
};
use crate::wire::answer_parts::GENERATED_ID;
use crate::wire::prompt_cache::{self, SplitMessage};
use crate::wire::unsupported::{drop_or_refuse, refusal};
use crate::wire::{Dialect, DropParameter, text_document};

/// Text types that the vendor accepts as inline data. It rejects others, such as JSON and XML.
const INLINE_TEXTS: [&str; 4] = ["text/plain", "text/html", "text/css", "text/csv"];

#[derive(Serialize)]
pub(super) struct Content<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    parts: Vec<ContentPart<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContentPart<'a> {
    #[serde(flatten)]
    data: PartData<'a>,
    #[serde(skip_serializing_if = "Not::not")]
    thought: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    thought_signature: Option<&'a str>,
}

// Each variant has one value: serde copies the fields of other variants before it writes a flattened enum.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum PartData<'a> {
    Text(Cow<'a, str>),
    InlineData(InlineData<'a>),
    FileData(FileData<'a>),
    FunctionCall(FunctionCall<'a>),
    FunctionResponse(FunctionResponse<'a>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InlineData<'a> {
    mime_type: &'a str,
    data: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FileData<'a> {
    mime_type: &'a str,
    file_uri: &'a str,
}

#[derive(Serialize)]
struct FunctionCall<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    name: &'a str,
    args: Map<String, Value>,
}

#[derive(Serialize)]
struct FunctionResponse<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    name: &'a str,
    response: Map<String, Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parts: Vec<ResponsePart<'a>>,
}

/// Media in the result of a tool. The vendor accepts no URLs there.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResponsePart<'a> {
    inline_data: InlineData<'a>,
}

/// Returns the system instruction: this text, and one part for each part of the leading system messages.
pub(super) fn system_instruction<'a>(
    system: Option<Cow<'a, str>>,
    prompt: &'a Prompt,
) -> Result<Option<Content<'a>>, Failure> {
    let mut parts: Vec<_> = system.map(PartData::Text).map(ContentPart::from).into_iter().collect();
    for part in split_system(prompt).0.iter().flat_map(|message| &message.parts) {
        let Part::Text(text) = part else {
            return Err(refusal(
                "Gemini's format takes only text in system messages; send it as a user message",
            ));
        };
        parts.push(PartData::Text(Cow::Borrowed(text)).into());
    }
    Ok((!parts.is_empty()).then_some(Content { role: None, parts }))
}

/// Returns the contents of the conversation after the leading system messages. Constant text is sent before
/// attachments if it is long: the vendor caches a common beginning by itself.
pub(super) fn contents<'a>(
    prompt: &'a Prompt,
    model: &str,
    dialect: &Dialect,
) -> Result<Vec<Content<'a>>, Failure> {
    let mut encoder = Encoder { dialect, calls: HashMap::new() };
    let mut messages = split_system(prompt).1;
    let mut contents = Vec::with_capacity(messages.len());
    let prefix = prompt_cache::cacheable(prompt, Format::Gemini, model, dialect);
    let split = messages.first().zip(prefix).and_then(|(message, prefix)| SplitMessage::of(message, prefix));
    // Without attachments before it, the text is at the beginning already.
    if let Some(split) = split.filter(|split| !split.before.is_empty()) {
        contents.push(Content::of_split(&split)?);
        messages = messages.get(1..).unwrap_or_default();
    }
    for group in messages.chunk_by(|one, next| one.role == Role::Tool && next.role == Role::Tool) {
        contents.extend(encoder.group(group)?);
    }
    Ok(contents)
}

/// Returns the leading system messages, and the others.
fn split_system(prompt: &Prompt) -> (&[Message], &[Message]) {
    let leading = prompt.messages.iter().take_while(|message| message.role == Role::System).count();
    prompt.messages.split_at(leading)
}

impl<'a> Content<'a> {
    /// Encodes a user message with its constant text first.
    fn of_split(message: &SplitMessage<'a>) -> Result<Self, Failure> {
        let SplitMessage { constant, before, rest, after } = *message;
        let text = |text: &'a str| ContentPart::from(PartData::Text(Cow::Borrowed(text)));
        let mut parts = vec![text(constant)];
        for part in before {
            parts.push(PartData::of(part)?.into());
        }
        if !rest.is_empty() {
            parts.push(text(rest));
        }
        for part in after {
            parts.push(PartData::of(part)?.into());
        }
        Ok(Self { role: Some("user"), parts })
    }
}

struct Encoder<'a, 'd> {
    dialect: &'d Dialect,
    /// The calls so far, by their ids.
    calls: HashMap<&'a str, EarlierCall<'a>>,
}

struct EarlierCall<'a> {
    name: &'a str,
    position: usize,
}

impl<'a> Encoder<'a, '_> {
    /// Encodes one message, or tool messages that follow one another.
    fn group(&mut self, group: &'a [Message]) -> Result<Option<Content<'a>>, Failure> {
        let Some(message) = group.first() else { return Ok(None) };
        match message.role {
            Role::System => Err(refusal(
                "Gemini's format takes system messages only at the beginning of the conversation; \
                 move them there, or send them as user messages",
            )),
            Role::User => {
                let parts = message.parts.iter().map(|part| PartData::of(part).map(ContentPart::from));
                Ok(Some(Content { role: Some("user"), parts: parts.collect::<Result<_, _>>()? }))
            }
            Role::Assistant => {
                let parts = self.model_parts(message)?;
                // The vendor refuses a content without parts. Reasoning without a signature is never sent.
                let is_unsent = parts.is_empty() && !message.parts.is_empty();
                Ok((!is_unsent).then_some(Content { role: Some("model"), parts }))
            }
            Role::Tool => Ok(Some(Content { role: Some("user"), parts: self.results(group)? })),
        }
    }

    fn model_parts(&mut self, message: &'a Message) -> Result<Vec<ContentPart<'a>>, Failure> {
        let mut parts: Vec<ContentPart<'a>> = Vec::with_capacity(message.parts.len());
        let mut follows_text = false;
        for part in &message.parts {
            match part {
                Part::Reasoning(reasoning) => {
                    if let Some(signature) = own_signature(reasoning.signature.as_ref(), self.dialect)? {
                        // The decoder puts the signature of a text into reasoning without text after it.
                        match parts.last_mut().filter(|_| follows_text && reasoning.text.is_empty()) {
                            Some(text) => text.thought_signature = Some(signature),
                            None => parts.push(ContentPart {
                                data: PartData::Text(Cow::Borrowed(&reasoning.text)),
                                thought: !reasoning.text.is_empty(),
                                thought_signature: Some(signature),
                            }),
                        }
                    }
                }
                Part::ToolCall(call) => {
                    let position = self.calls.len();
                    self.calls.insert(&call.id, EarlierCall { name: &call.name, position });
                    let thought_signature = own_signature(call.signature.as_ref(), self.dialect)?;
                    parts.push(ContentPart {
                        thought_signature,
                        ..ContentPart::from(PartData::of_call(call)?)
                    });
                }
                Part::Text(_)
                | Part::Image(_)
                | Part::Document(_)
                | Part::Audio(_)
                | Part::Video(_)
                | Part::ToolResult(_) => parts.push(PartData::of(part)?.into()),
            }
            follows_text = matches!(part, Part::Text(_));
        }
        Ok(parts)
    }

    fn results(&self, messages: &'a [Message]) -> Result<Vec<ContentPart<'a>>, Failure> {
        let mut results = Vec::new();
        for part in messages.iter().flat_map(|message| &message.parts) {
            let Part::ToolResult(result) = part else {
                return Err(refusal("a tool message contains only results of tools"));
            };
            let id = &*result.call_id;
            let Some(call) = self.calls.get(id) else {
                return Err(refusal(format!("the result of the tool call {id:?} follows no such call")));
            };
            results.push((call.position, PartData::of_result(result, call.name)?));
        }
        results.sort_by_key(|(position, _)| *position);
        Ok(results.into_iter().map(|(_, data)| data.into()).collect())
    }
}

/// Returns the vendor's own signature.
///
/// # Errors
/// `api_error` for the signature of another vendor, unless the configuration drops it.
fn own_signature<'a>(
    signature: Option<&'a Signature>,
    dialect: &Dialect,
) -> Result<Option<&'a str>, Failure> {
    match signature {
        None => Ok(None),
        Some(own) if own.format == Format::Gemini => Ok(Some(&own.value)),
        Some(_) => drop_or_refuse(Format::Gemini, dialect, DropParameter::Reasoning).map(|()| None),
    }
}

/// Returns the id of a call for the vendor; `None` if the vendor sent none.
fn vendor_id(id: &str) -> Option<&str> {
    (!id.starts_with(GENERATED_ID)).then_some(id)
}

impl<'a> From<PartData<'a>> for ContentPart<'a> {
    fn from(data: PartData<'a>) -> Self {
        Self { data, thought: false, thought_signature: None }
    }
}

impl<'a> PartData<'a> {
    /// Encodes a part that a message of the user or of the model may contain.
    fn of(part: &'a Part) -> Result<Self, Failure> {
        match part {
            Part::Text(text) => Ok(Self::Text(Cow::Borrowed(text))),
            Part::Document(media) => match document_text(media)? {
                Some(text) => Ok(Self::Text(Cow::Owned(text))),
                None => Ok(Self::of_media(media)),
            },
            Part::Image(media) | Part::Audio(media) | Part::Video(media) => Ok(Self::of_media(media)),
            Part::ToolCall(_) | Part::Reasoning(_) => {
                Err(refusal("only an assistant message contains tool calls and reasoning"))
            }
            Part::ToolResult(_) => Err(refusal("only a tool message contains the results of tools")),
        }
    }

    fn of_media(media: &'a Media) -> Self {
        let mime_type = &*media.media_type;
        match &media.data {
            MediaData::Base64(data) => Self::InlineData(InlineData { mime_type, data }),
            MediaData::Url(file_uri) => Self::FileData(FileData { mime_type, file_uri }),
        }
    }

    fn of_call(call: &'a ToolCall) -> Result<Self, Failure> {
        let Ok(Value::Object(args)) = serde_json::from_str(&call.arguments) else {
            let name = &call.name;
            return Err(refusal(format!("the arguments of the call of {name:?} are not a JSON object")));
        };
        Ok(Self::FunctionCall(FunctionCall { id: vendor_id(&call.id), name: &call.name, args }))
    }

    /// Encodes the result of the tool `name`. The vendor takes an object: a text that is one is sent as it is, any
    /// other text in a field.
    fn of_result(result: &'a ToolResult, name: &'a str) -> Result<Self, Failure> {
        let mut texts: Vec<Cow<'a, str>> = Vec::new();
        let mut parts = Vec::new();
        for part in &result.parts {
            match part {
                Part::Text(text) => texts.push(Cow::Borrowed(text)),
                Part::Document(media) => match document_text(media)? {
                    Some(text) => texts.push(Cow::Owned(text)),
                    None => parts.push(ResponsePart { inline_data: InlineData::of_result(media, name)? }),
                },
                Part::Image(media) => {
                    parts.push(ResponsePart { inline_data: InlineData::of_result(media, name)? });
                }
                Part::Audio(_)
                | Part::Video(_)
                | Part::ToolCall(_)
                | Part::ToolResult(_)
                | Part::Reasoning(_) => {
                    return Err(refusal(format!(
                        "the result of the tool {name:?} may contain text, images and documents only"
                    )));
                }
            }
        }
        let text = texts.join("\n\n");
        let response = match serde_json::from_str(&text) {
            Ok(Value::Object(object)) if !result.is_error => object,
            Ok(_) | Err(_) => {
                let field = if result.is_error { "error" } else { "result" };
                Map::from_iter([(field.to_owned(), Value::String(text))])
            }
        };
        Ok(Self::FunctionResponse(FunctionResponse { id: vendor_id(&result.call_id), name, response, parts }))
    }
}

impl<'a> InlineData<'a> {
    /// Encodes media in the result of the tool `name`.
    fn of_result(media: &'a Media, name: &str) -> Result<Self, Failure> {
        match &media.data {
            MediaData::Base64(data) => Ok(Self { mime_type: &media.media_type, data }),
            MediaData::Url(_) => Err(refusal(format!(
                "Gemini's format takes no URL in the result of the tool {name:?}; send the content of the file"
            ))),
        }
    }
}

/// Returns the text of a text document that the vendor does not accept as a file.
fn document_text(media: &Media) -> Result<Option<String>, Failure> {
    if INLINE_TEXTS.contains(&&*media.essence()) { Ok(None) } else { text_document::part(media) }
}
