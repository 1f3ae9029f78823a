//! Plays Anthropic: messages, their streams, errors and headers, in both versions of the API.
//!
//! Knows bytes and nothing of limits, faults or time.

mod refusal;

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::answer::Finish;
use super::ask::{Ask, Content, Conversation, Delivery, Shape, Text};
use super::events::{Events, pieces};
use super::reply::{Head, Reply, append, json_string};
use super::trouble::Trouble;
use super::{Settings, rules};

const FIRST_VERSION: &str = "2023-06-01";
const SECOND_VERSION: &str = "2026-10-21";

pub(super) use refusal::{add_headers, add_retry_after, add_standing, error};

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    model: Option<Text<'a>>,
    max_tokens: Option<u64>,
    #[serde(borrow)]
    messages: Option<Vec<Message<'a>>>,
    #[serde(borrow, default)]
    system: Content<'a>,
    #[serde(default)]
    stream: Option<bool>,
    temperature: Option<IgnoredAny>,
    top_p: Option<IgnoredAny>,
    top_k: Option<IgnoredAny>,
    output_config: Option<OutputConfig>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    role: Cow<'a, str>,
    #[serde(borrow, default)]
    content: Content<'a>,
}

#[derive(Deserialize)]
struct OutputConfig {
    format: Option<Format>,
}

#[derive(Deserialize)]
struct Format {
    #[serde(rename = "type")]
    kind: String,
    schema: Option<Value>,
}

fn invalid(message: impl Into<String>) -> Trouble {
    Trouble::invalid(message, None, None)
}

/// Reads a request.
pub(super) fn read<'a>(head: &Head<'_>, body: &'a [u8], settings: &Settings) -> Result<Ask<'a>, Trouble> {
    let version = head.headers.get("anthropic-version").and_then(|version| version.to_str().ok());
    let second = match version {
        None => return Err(invalid("anthropic-version: header is required")),
        Some(SECOND_VERSION) => true,
        Some(FIRST_VERSION) => false,
        Some(other) => return Err(invalid(format!("anthropic-version: {other:?} is not a valid version"))),
    };
    let request: Request<'a> = serde_json::from_slice(body)
        .map_err(|error| invalid(format!("The request body is not valid JSON: {error}")))?;
    if second {
        let extras = [
            ("temperature", request.temperature.is_some()),
            ("top_p", request.top_p.is_some()),
            ("top_k", request.top_k.is_some()),
        ];
        if let Some((name, _)) = extras.iter().find(|(_, given)| *given) {
            return Err(invalid(format!("{name}: Extra inputs are not permitted")));
        }
    }
    if request.temperature.is_some() && settings.refused_parameters.iter().any(|name| name == "temperature") {
        return Err(invalid("`temperature` is deprecated for this model."));
    }
    let model = request.model.ok_or_else(|| invalid("model: Field required"))?.0;
    let max_tokens = request.max_tokens.ok_or_else(|| invalid("max_tokens: Field required"))?;
    let messages = request.messages.ok_or_else(|| invalid("messages: Field required"))?;
    if messages.is_empty() {
        return Err(invalid("messages: at least one message is required"));
    }
    let mut conversation = Conversation::default();
    conversation.push(request.system, false);
    for (at, message) in messages.into_iter().enumerate() {
        if !matches!(&*message.role, "user" | "assistant") && (message.role != "system" || at == 0) {
            return Err(invalid(format!("messages.{at}.role: Input should be 'user' or 'assistant'")));
        }
        if message.content.is_nothing() {
            return Err(invalid(format!("messages.{at}.content: Field required")));
        }
        conversation.push(message.content, message.role == "user");
    }
    if conversation.refused_document(|media_type| media_type == "application/pdf").is_some() {
        return Err(invalid("document.source.base64.media_type: Input should be 'application/pdf'"));
    }
    let format = request.output_config.and_then(|config| config.format);
    let shape = match format {
        None => conversation.choice().map_or(Shape::Text, Shape::Choice),
        Some(format) => shape(format, settings)?,
    };
    let delivery =
        if request.stream == Some(true) { Delivery::Events { usage: true } } else { Delivery::Whole };
    Ok(Ask { model, delivery, conversation, max_tokens: Some(max_tokens), shape })
}

fn shape(format: Format, settings: &Settings) -> Result<Shape, Trouble> {
    if format.kind != "json_schema" {
        return Err(invalid("output_config.format.type: Input should be 'json_schema'"));
    }
    let schema = format.schema.ok_or_else(|| invalid("output_config.format.schema: Field required"))?;
    if settings.strict_schemas {
        rules::anthropic(&schema)
            .map_err(|fault| invalid(format!("output_config.format.schema: {fault}")))?;
    }
    Ok(Shape::Schema(schema))
}

fn stop_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "end_turn",
        Finish::Length => "max_tokens",
        Finish::Refusal => "refusal",
    }
}

/// Returns `stop_reason`, `stop_sequence` and `stop_details`, as a reply and a stream's end both say them.
fn stop(finish: Finish) -> String {
    let details = match finish {
        Finish::Stop | Finish::Length => "null",
        Finish::Refusal => r#"{"type":"refusal","category":null,"explanation":null}"#,
    };
    format!(r#""stop_reason":"{}","stop_sequence":null,"stop_details":{details}"#, stop_reason(finish))
}

/// Writes a whole reply.
pub(super) fn whole(reply: &Reply<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(600 + reply.answer.text.len());
    message_start(&mut out, reply);
    // A refusal comes before any text, and an empty answer has none.
    if reply.answer.finish == Finish::Refusal || reply.answer.text.is_empty() {
        out.extend_from_slice(b"[],");
    } else {
        out.extend_from_slice(br#"[{"type":"text","text":"#);
        json_string(&mut out, &reply.answer.text);
        out.extend_from_slice(br#","citations":null}],"#);
    }
    append!(out, stop(reply.answer.finish), r#","container":null,"usage":"#);
    usage(&mut out, reply.input_tokens, output_tokens(reply));
    out.push(b'}');
    out
}

fn output_tokens(reply: &Reply<'_>) -> u64 {
    if reply.answer.finish == Finish::Refusal { 1 } else { reply.answer.output_tokens }
}

/// Writes a message up to its content.
fn message_start(out: &mut Vec<u8>, reply: &Reply<'_>) {
    append!(out, r#"{"id":"msg_01"#, format_args!("{:022x}", reply.serial));
    out.extend_from_slice(br#"","type":"message","role":"assistant","model":"#);
    json_string(out, reply.model);
    out.extend_from_slice(br#","content":"#);
}

fn usage(out: &mut Vec<u8>, input: u64, output: u64) {
    append!(out, r#"{"input_tokens":"#, input);
    out.extend_from_slice(
        br#","cache_creation_input_tokens":0,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"output_tokens":"#,
    );
    append!(out, output, r#","service_tier":"standard","inference_geo":"global"}"#);
}

/// Writes a stream of at most so many pieces.
pub(super) fn events(reply: &Reply<'_>, most: usize) -> Events {
    let text = if reply.answer.finish == Finish::Refusal { "" } else { &reply.answer.text };
    let mut events = Events::with_capacity(1_100 + 130 * most.min(text.len()) + text.len() * 5 / 4);
    events.push(|out| {
        out.extend_from_slice(b"event: message_start\ndata: {\"type\":\"message_start\",\"message\":");
        message_start(out, reply);
        out.extend_from_slice(
            br#"[],"stop_reason":null,"stop_sequence":null,"stop_details":null,"container":null,"usage":"#,
        );
        usage(out, reply.input_tokens, 1);
        out.extend_from_slice(b"}}\n\n");
    });
    if !text.is_empty() {
        events.push(|out| {
            out.extend_from_slice(b"event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\nevent: ping\ndata: {\"type\":\"ping\"}\n\n");
        });
    }
    events.pieces_begin();
    for piece in pieces(text, most) {
        events.push(|out| {
            out.extend_from_slice(b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":");
            json_string(out, piece);
            out.extend_from_slice(b"}}\n\n");
        });
    }
    events.pieces_end();
    if !text.is_empty() {
        events.push(|out| {
            out.extend_from_slice(
                b"event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
            );
        });
    }
    events.push(|out| {
        append!(
            out,
            "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{",
            stop(reply.answer.finish)
        );
        append!(out, r#"},"usage":{"input_tokens":"#, reply.input_tokens);
        out.extend_from_slice(
            br#","cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":"#,
        );
        append!(out, output_tokens(reply), "}}\n\n");
    });
    events.push(|out| out.extend_from_slice(b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"));
    events
}

/// Returns the list of models.
pub(super) fn models(models: &[String]) -> Vec<u8> {
    let data: Vec<_> = models
        .iter()
        .map(|id| {
            json!({ "type": "model", "id": id, "display_name": id, "created_at": "2026-09-01T00:00:00Z",
                "lifecycle": "active", "max_input_tokens": 200_000, "max_tokens": 64_000 })
        })
        .collect();
    json!({ "data": data, "has_more": false, "first_id": models.first(), "last_id": models.last() })
        .to_string()
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(version: Option<&str>, body: &str) -> Option<String> {
        let mut headers = http::HeaderMap::new();
        if let Some(version) = version {
            headers.insert("anthropic-version", version.parse().unwrap());
        }
        let head = Head { headers: &headers, query: "", model: None, stream: false };
        match read(&head, body.as_bytes(), &Settings::default()) {
            Ok(_) => None,
            Err(Trouble::Invalid { message, .. }) => Some(message),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_second_version_takes_no_temperature_and_the_first_does() {
        let body =
            r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"x"}],"temperature":1}"#;
        assert_eq!(refusal(Some(FIRST_VERSION), body), None);
        let message = refusal(Some(SECOND_VERSION), body);
        assert_eq!(message.as_deref(), Some("temperature: Extra inputs are not permitted"));
    }

    #[test]
    fn version_max_tokens_and_messages_are_required() {
        let body = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"x"}]}"#;
        assert_eq!(refusal(Some(SECOND_VERSION), body), None);
        assert_eq!(refusal(None, body).as_deref(), Some("anthropic-version: header is required"));
        assert!(refusal(Some("2020-01-01"), body).unwrap().contains("not a valid version"));
        let refusal = |body| refusal(Some(FIRST_VERSION), body).unwrap();
        assert_eq!(refusal(r#"{"model":"m","messages":[]}"#), "max_tokens: Field required");
        assert_eq!(
            refusal(r#"{"model":"m","max_tokens":9,"messages":[]}"#),
            "messages: at least one message is required"
        );
        assert!(refusal(r#"{"model":"m","max_tokens":9,"messages":[{"role":"user"}]}"#).contains("content"));
    }
}
