//! Messages and their parts as JSON, in both directions: what an answer contains can be sent back.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::types::{
    Format, Media, MediaData, Message, Origin, Part, Reasoning, Role, Signature, ToolCall, ToolResult,
};

/// A field of a request is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}`: {message}")]
#[non_exhaustive]
pub struct FieldError {
    /// The field, such as `prompt[1].content[0].data`.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl FieldError {
    pub(super) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMessage {
    role: String,
    content: Value,
}

/// All fields that a part may have. Which of them it has depends on its type.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawPart {
    r#type: String,
    text: Option<String>,
    media_type: Option<String>,
    data: Option<String>,
    url: Option<String>,
    name: Option<String>,
    id: Option<String>,
    arguments: Option<Value>,
    call_id: Option<String>,
    content: Option<Value>,
    is_error: Option<bool>,
    signature: Option<RawSignature>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSignature {
    format: Format,
    value: String,
    #[serde(default)]
    redacted: bool,
}

/// Reads messages. Media are in the request itself, or at one of the allowed hosts: a caller names no files.
///
/// # Errors
/// The first field that is wrong.
pub(super) fn messages(value: &Value, field: &str, hosts: &[Origin]) -> Result<Vec<Message>, FieldError> {
    let expected =
        "expected a text, or a list of messages such as {\"role\": \"user\", \"content\": \"...\"}";
    match value {
        Value::String(text) if text.trim().is_empty() => Err(FieldError::new(field, "it is empty")),
        Value::String(text) => Ok(vec![Message::user(text.as_str())]),
        Value::Array(all) if !all.is_empty() => {
            let read = |(index, value): (usize, &Value)| message(value, &format!("{field}[{index}]"), hosts);
            all.iter().enumerate().map(read).collect()
        }
        Value::Array(_) => Err(FieldError::new(field, "the list of messages is empty")),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            Err(FieldError::new(field, expected))
        }
    }
}

fn message(value: &Value, field: &str, hosts: &[Origin]) -> Result<Message, FieldError> {
    let raw: RawMessage = read(value, field)?;
    let role = match raw.role.as_str() {
        "system" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        other => {
            let message = format!("there is no role {other:?}; use system, user, assistant or tool");
            return Err(FieldError::new(format!("{field}.role"), message));
        }
    };
    Ok(Message::new(role, parts(&raw.content, &format!("{field}.content"), hosts)?))
}

fn parts(value: &Value, field: &str, hosts: &[Origin]) -> Result<Vec<Part>, FieldError> {
    match value {
        Value::String(text) => Ok(vec![Part::text(text.as_str())]),
        Value::Array(all) => {
            let read = |(index, value): (usize, &Value)| part(value, &format!("{field}[{index}]"), hosts);
            all.iter().enumerate().map(read).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Err(FieldError::new(
            field,
            "expected a text, or a list of parts such as {\"type\": \"text\", \"text\": \"...\"}",
        )),
    }
}

fn part(value: &Value, field: &str, hosts: &[Origin]) -> Result<Part, FieldError> {
    let mut raw: RawPart = read(value, field)?;
    let kind = std::mem::take(&mut raw.r#type);
    let part = match kind.as_str() {
        "text" => Part::Text(take(&mut raw.text, field, "text")?),
        "image" => Part::Image(media(&mut raw, field, hosts)?),
        "document" => Part::Document(media(&mut raw, field, hosts)?),
        "audio" => Part::Audio(media(&mut raw, field, hosts)?),
        "video" => Part::Video(media(&mut raw, field, hosts)?),
        "tool_call" => {
            let id = take(&mut raw.id, field, "id")?;
            let name = take(&mut raw.name, field, "name")?;
            let arguments = match raw.arguments.take() {
                Some(Value::String(text)) => text,
                Some(value) => value.to_string(),
                None => return Err(missing(field, "arguments")),
            };
            let call = ToolCall::new(id, name, arguments);
            Part::ToolCall(match raw.signature.take() {
                Some(raw) => call.with_signature(signature(raw)),
                None => call,
            })
        }
        "tool_result" => {
            let call_id = take(&mut raw.call_id, field, "call_id")?;
            let Some(content) = raw.content.take() else { return Err(missing(field, "content")) };
            let mut result = ToolResult::new(call_id, "");
            result.parts = parts(&content, &format!("{field}.content"), hosts)?;
            result.is_error = raw.is_error.take().unwrap_or(false);
            Part::ToolResult(result)
        }
        "reasoning" => {
            let reasoning = Reasoning::new(take(&mut raw.text, field, "text")?);
            Part::Reasoning(match raw.signature.take() {
                Some(raw) => reasoning.with_signature(signature(raw)),
                None => reasoning,
            })
        }
        "" => return Err(missing(field, "type")),
        other => {
            let message = format!(
                "there is no part of the type {other:?}; use text, image, document, audio, video, tool_call, tool_result \
                 or reasoning"
            );
            return Err(FieldError::new(format!("{field}.type"), message));
        }
    };
    match raw.unused() {
        Some(unused) => {
            let message = format!("a part of the type {kind} has no such field");
            Err(FieldError::new(format!("{field}.{unused}"), message))
        }
        None => Ok(part),
    }
}

impl RawPart {
    /// Returns a field that the type of the part has not used.
    fn unused(&self) -> Option<&'static str> {
        let Self {
            r#type: _,
            text,
            media_type,
            data,
            url,
            name,
            id,
            arguments,
            call_id,
            content,
            is_error,
            signature,
        } = self;
        let left = [
            ("text", text.is_some()),
            ("media_type", media_type.is_some()),
            ("data", data.is_some()),
            ("url", url.is_some()),
            ("name", name.is_some()),
            ("id", id.is_some()),
            ("arguments", arguments.is_some()),
            ("call_id", call_id.is_some()),
            ("content", content.is_some()),
            ("is_error", is_error.is_some()),
            ("signature", signature.is_some()),
        ];
        left.into_iter().find(|(_, is_left)| *is_left).map(|(name, _)| name)
    }
}

fn media(raw: &mut RawPart, field: &str, hosts: &[Origin]) -> Result<Media, FieldError> {
    let media_type = take(&mut raw.media_type, field, "media_type")?;
    let media = match (raw.data.take(), raw.url.take()) {
        (Some(data), None) => {
            let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
            if data.is_empty() || data.len() % 4 != 0 || !data.bytes().all(is_base64) {
                let message = "it is not standard base64 with padding";
                return Err(FieldError::new(format!("{field}.data"), message));
            }
            Media::base64(media_type, data)
        }
        (None, Some(url)) => {
            if !Origin::of(&url).is_some_and(|origin| hosts.contains(&origin)) {
                let message = "the host of this URL is not allowed; send the content as `data` in base64, or name the \
                               host in allow_hosts of [files]";
                return Err(FieldError::new(format!("{field}.url"), message));
            }
            Media::url(media_type, url)
        }
        (Some(_), Some(_)) | (None, None) => {
            return Err(FieldError::new(field, "it has either `data` in base64 or `url`"));
        }
    };
    Ok(match raw.name.take() {
        Some(name) => media.with_name(name),
        None => media,
    })
}

fn signature(raw: RawSignature) -> Signature {
    Signature { is_redacted: raw.redacted, ..Signature::new(raw.format, raw.value) }
}

/// Reads an object. The error of an unknown or missing field names it.
pub(super) fn read<'de, T: Deserialize<'de>>(value: &'de Value, field: &str) -> Result<T, FieldError> {
    T::deserialize(value).map_err(|error| FieldError::new(field, error.to_string()))
}

fn take(value: &mut Option<String>, field: &str, name: &str) -> Result<Arc<str>, FieldError> {
    value.take().map(Arc::from).ok_or_else(|| missing(field, name))
}

fn missing(field: &str, name: &str) -> FieldError {
    FieldError::new(format!("{field}.{name}"), "it is missing")
}

/// Returns a part as JSON.
pub(super) fn part_json(part: &Part) -> Value {
    match part {
        Part::Text(text) => json!({ "type": "text", "text": &**text }),
        Part::Image(media) => media_json("image", media),
        Part::Document(media) => media_json("document", media),
        Part::Audio(media) => media_json("audio", media),
        Part::Video(media) => media_json("video", media),
        Part::ToolCall(call) => {
            let ToolCall { id, name, arguments, signature, .. } = call;
            // As text, so that the arguments stay exactly as the model wrote them.
            let value =
                json!({ "type": "tool_call", "id": &**id, "name": &**name, "arguments": &**arguments });
            signed(value, signature.as_ref())
        }
        Part::ToolResult(result) => {
            let content: Vec<Value> = result.parts.iter().map(part_json).collect();
            let call_id = &*result.call_id;
            json!({ "type": "tool_result", "call_id": call_id, "content": content, "is_error": result.is_error })
        }
        Part::Reasoning(reasoning) => {
            let value = json!({ "type": "reasoning", "text": &*reasoning.text });
            signed(value, reasoning.signature.as_ref())
        }
    }
}

fn media_json(kind: &str, media: &Media) -> Value {
    let mut fields = Map::new();
    fields.insert("type".to_owned(), kind.into());
    fields.insert("media_type".to_owned(), (&*media.media_type).into());
    match &media.data {
        MediaData::Base64(data) => fields.insert("data".to_owned(), (&**data).into()),
        MediaData::Url(url) => fields.insert("url".to_owned(), (&**url).into()),
    };
    if let Some(name) = &media.name {
        fields.insert("name".to_owned(), (&**name).into());
    }
    Value::Object(fields)
}

fn signed(mut value: Value, signature: Option<&Signature>) -> Value {
    if let Some(signature) = signature {
        value["signature"] = json!({
            "format": signature.format,
            "value": &*signature.value,
            "redacted": signature.is_redacted,
        });
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(prompt: Value) -> String {
        messages(&prompt, "prompt", &[]).unwrap_err().to_string()
    }

    #[test]
    fn a_conversation_is_the_same_after_a_round_trip() {
        let signature = Signature::new(Format::Anthropic, "c2ln");
        let call = ToolCall::new("a", "weather", "{\"city\": \"Bern\"}").with_signature(signature.clone());
        let conversation = [
            Message::new(Role::System, [Part::text("Be brief.")]),
            Message::user("Umbrella?")
                .with_part(Part::Image(Media::base64("image/png", "AAAA").with_name("a.png"))),
            Message::new(
                Role::Assistant,
                [
                    Part::Reasoning(Reasoning::new("Hm.").with_signature(signature)),
                    Part::Reasoning(Reasoning::new("").with_signature(Signature::redacted("eA=="))),
                    Part::ToolCall(call),
                ],
            ),
            Message::tool([ToolResult::error("a", "no data")]),
        ];
        let roles = ["system", "user", "assistant", "tool"];
        let written: Vec<Value> = conversation
            .iter()
            .zip(roles)
            .map(|(message, role)| {
                json!({ "role": role, "content": message.parts.iter().map(part_json).collect::<Vec<_>>() })
            })
            .collect();
        assert_eq!(messages(&written.into(), "prompt", &[]).unwrap(), conversation);
    }

    #[test]
    fn a_text_is_one_user_message() {
        assert_eq!(messages(&json!("Hello?"), "prompt", &[]).unwrap(), [Message::user("Hello?")]);
        let short = json!([{ "role": "user", "content": "Hello?" }]);
        assert_eq!(messages(&short, "prompt", &[]).unwrap(), [Message::user("Hello?")]);
    }

    #[test]
    fn an_error_names_its_field() {
        let part = |part: Value| json!([{ "role": "user", "content": [part] }]);
        for (prompt, expected) in [
            (json!(7), "`prompt`: expected a text"),
            (json!([]), "`prompt`: the list of messages is empty"),
            (json!([{ "role": "bot", "content": "" }]), "`prompt[0].role`: there is no role \"bot\""),
            (json!([{ "role": "user" }]), "`prompt[0]`: missing field `content`"),
            (json!([{ "role": "user", "content": "", "x": 1 }]), "`prompt[0]`: unknown field `x`"),
            (part(json!({})), "`prompt[0].content[0].type`: it is missing"),
            (part(json!({ "type": "text" })), "`prompt[0].content[0].text`: it is missing"),
            (part(json!({ "type": "picture" })), "`prompt[0].content[0].type`: there is no part"),
            (
                part(json!({ "type": "text", "text": "", "url": "" })),
                "`prompt[0].content[0].url`: a part of the type",
            ),
            (
                part(json!({ "type": "image", "media_type": "image/png", "data": "a~~=" })),
                "`prompt[0].content[0].data`: it is not standard base64",
            ),
            (
                part(
                    json!({ "type": "image", "media_type": "image/png", "data": "AAAA", "url": "https://a/b" }),
                ),
                "`prompt[0].content[0]`: it has either `data`",
            ),
        ] {
            assert!(error(prompt.clone()).starts_with(expected), "{}", error(prompt));
        }
    }

    #[test]
    fn a_url_needs_an_allowed_host_and_is_never_a_file() {
        let with = |url: &str| json!([{ "role": "user", "content": [{ "type": "image", "media_type": "image/png", "url": url }] }]);
        let hosts: Vec<Origin> = vec!["cdn.example.com".parse().unwrap()];
        assert!(messages(&with("https://cdn.example.com/a.png"), "prompt", &hosts).is_ok());
        for url in [
            "https://other.example.com/a.png",
            "http://cdn.example.com/a.png",
            "https://cdn.example.com@evil.example/a.png",
            "file:///etc/passwd",
            "/etc/passwd",
            "",
        ] {
            let error = messages(&with(url), "prompt", &hosts).unwrap_err();
            assert_eq!(error.field, "prompt[0].content[0].url", "{url}");
        }
    }
}
