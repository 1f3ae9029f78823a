//! Wire format of Anthropic: messages, their streams, errors and headers, in both versions of the API.
//!
//! Limits, faults and latency are handled elsewhere.

mod error_response;

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::api_error::ApiError;
use super::completion::Finish;
use super::event_stream::{EventStream, text_chunks};
use super::parsed_request::{
    AnswerFormat, Content, Conversation, Delivery, ParsedRequest, RequestHead, Text,
};
use super::response_data::{ResponseData, append, json_string};
use super::{Settings, strict_schema};

const API_VERSION_1: &str = "2023-06-01";
const API_VERSION_2: &str = "2026-10-21";

pub(super) use error_response::{add_common_headers, add_rate_limit_headers, add_retry_after, render_error};

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

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::invalid_request(message, None, None)
}

/// Parses a request.
pub(super) fn parse_request<'a>(
    head: &RequestHead<'_>,
    body: &'a [u8],
    settings: &Settings,
) -> Result<ParsedRequest<'a>, ApiError> {
    let version = head.headers.get("anthropic-version").and_then(|version| version.to_str().ok());
    let is_version_2 = match version {
        None => return Err(invalid("anthropic-version: header is required")),
        Some(API_VERSION_2) => true,
        Some(API_VERSION_1) => false,
        Some(other) => return Err(invalid(format!("anthropic-version: {other:?} is not a valid version"))),
    };
    let request: Request<'a> = serde_json::from_slice(body)
        .map_err(|error| invalid(format!("The request body is not valid JSON: {error}")))?;
    if is_version_2 {
        let removed_parameters = [
            ("temperature", request.temperature.is_some()),
            ("top_p", request.top_p.is_some()),
            ("top_k", request.top_k.is_some()),
        ];
        if let Some((name, _)) = removed_parameters.iter().find(|(_, given)| *given) {
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
    for (index, message) in messages.into_iter().enumerate() {
        if !matches!(&*message.role, "user" | "assistant") && (message.role != "system" || index == 0) {
            return Err(invalid(format!("messages.{index}.role: Input should be 'user' or 'assistant'")));
        }
        if message.content.is_empty() {
            return Err(invalid(format!("messages.{index}.content: Field required")));
        }
        conversation.push(message.content, message.role == "user");
    }
    if conversation.unsupported_document(|media_type| media_type == "application/pdf").is_some() {
        return Err(invalid("document.source.base64.media_type: Input should be 'application/pdf'"));
    }
    let format = request.output_config.and_then(|config| config.format);
    let shape = match format {
        None => conversation.choice_options().map_or(AnswerFormat::Text, AnswerFormat::Choice),
        Some(format) => answer_format(format, settings)?,
    };
    let delivery =
        if request.stream == Some(true) { Delivery::EventStream { usage: true } } else { Delivery::Full };
    Ok(ParsedRequest { model, delivery, conversation, max_tokens: Some(max_tokens), format: shape })
}

fn answer_format(format: Format, settings: &Settings) -> Result<AnswerFormat, ApiError> {
    if format.kind != "json_schema" {
        return Err(invalid("output_config.format.type: Input should be 'json_schema'"));
    }
    let schema = format.schema.ok_or_else(|| invalid("output_config.format.schema: Field required"))?;
    if settings.strict_schemas {
        strict_schema::check_anthropic(&schema)
            .map_err(|reason| invalid(format!("output_config.format.schema: {reason}")))?;
    }
    Ok(AnswerFormat::Schema(schema))
}

fn stop_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "end_turn",
        Finish::Length => "max_tokens",
        Finish::Refusal => "refusal",
    }
}

/// Returns the fields `stop_reason`, `stop_sequence` and `stop_details` of a response or of the end of a stream.
fn stop_fields(finish: Finish) -> String {
    let details = match finish {
        Finish::Stop | Finish::Length => "null",
        Finish::Refusal => r#"{"type":"refusal","category":null,"explanation":null}"#,
    };
    format!(r#""stop_reason":"{}","stop_sequence":null,"stop_details":{details}"#, stop_reason(finish))
}

/// Renders a response without streaming.
pub(super) fn render_response(data: &ResponseData<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(600 + data.completion.text.len());
    message_start(&mut out, data);
    // A refusal and an empty answer have no text.
    if data.completion.finish == Finish::Refusal || data.completion.text.is_empty() {
        out.extend_from_slice(b"[],");
    } else {
        out.extend_from_slice(br#"[{"type":"text","text":"#);
        json_string(&mut out, &data.completion.text);
        out.extend_from_slice(br#","citations":null}],"#);
    }
    append!(out, stop_fields(data.completion.finish), r#","container":null,"usage":"#);
    usage(&mut out, data.input_tokens, output_tokens(data));
    out.push(b'}');
    out
}

fn output_tokens(data: &ResponseData<'_>) -> u64 {
    if data.completion.finish == Finish::Refusal { 1 } else { data.completion.output_tokens }
}

/// Appends a message up to its content.
fn message_start(out: &mut Vec<u8>, data: &ResponseData<'_>) {
    append!(out, r#"{"id":"msg_01"#, format_args!("{:022x}", data.serial));
    out.extend_from_slice(br#"","type":"message","role":"assistant","model":"#);
    json_string(out, data.model);
    out.extend_from_slice(br#","content":"#);
}

fn usage(out: &mut Vec<u8>, input: u64, output: u64) {
    append!(out, r#"{"input_tokens":"#, input);
    out.extend_from_slice(
        br#","cache_creation_input_tokens":0,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"output_tokens":"#,
    );
    append!(out, output, r#","service_tier":"standard","inference_geo":"global"}"#);
}

/// Renders a stream of at most `max_chunks` text chunks.
pub(super) fn render_stream(data: &ResponseData<'_>, max_chunks: usize) -> EventStream {
    let text = if data.completion.finish == Finish::Refusal { "" } else { &data.completion.text };
    let mut events =
        EventStream::with_capacity(1_100 + 130 * max_chunks.min(text.len()) + text.len() * 5 / 4);
    events.push(|out| {
        out.extend_from_slice(b"event: message_start\ndata: {\"type\":\"message_start\",\"message\":");
        message_start(out, data);
        out.extend_from_slice(
            br#"[],"stop_reason":null,"stop_sequence":null,"stop_details":null,"container":null,"usage":"#,
        );
        usage(out, data.input_tokens, 1);
        out.extend_from_slice(b"}}\n\n");
    });
    if !text.is_empty() {
        events.push(|out| {
            out.extend_from_slice(b"event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\nevent: ping\ndata: {\"type\":\"ping\"}\n\n");
        });
    }
    events.begin_chunks();
    for chunk in text_chunks(text, max_chunks) {
        events.push(|out| {
            out.extend_from_slice(b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":");
            json_string(out, chunk);
            out.extend_from_slice(b"}}\n\n");
        });
    }
    events.end_chunks();
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
            stop_fields(data.completion.finish)
        );
        append!(out, r#"},"usage":{"input_tokens":"#, data.input_tokens);
        out.extend_from_slice(
            br#","cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":"#,
        );
        append!(out, output_tokens(data), "}}\n\n");
    });
    events.push(|out| out.extend_from_slice(b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"));
    events
}

/// Renders the list of models.
pub(super) fn render_models(models: &[String]) -> Vec<u8> {
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

    fn error_message(version: Option<&str>, body: &str) -> Option<String> {
        let mut headers = http::HeaderMap::new();
        if let Some(version) = version {
            headers.insert("anthropic-version", version.parse().unwrap());
        }
        let head = RequestHead { headers: &headers, query: "", model: None, stream: false };
        match parse_request(&head, body.as_bytes(), &Settings::default()) {
            Ok(_) => None,
            Err(ApiError::InvalidRequest { message, .. }) => Some(message),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_the_first_api_version_accepts_a_temperature() {
        let body =
            r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"x"}],"temperature":1}"#;
        assert_eq!(error_message(Some(API_VERSION_1), body), None);
        let message = error_message(Some(API_VERSION_2), body);
        assert_eq!(message.as_deref(), Some("temperature: Extra inputs are not permitted"));
    }

    #[test]
    fn version_max_tokens_and_messages_are_required() {
        let body = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"x"}]}"#;
        assert_eq!(error_message(Some(API_VERSION_2), body), None);
        assert_eq!(error_message(None, body).as_deref(), Some("anthropic-version: header is required"));
        assert!(error_message(Some("2020-01-01"), body).unwrap().contains("not a valid version"));
        let first_version_error = |body| error_message(Some(API_VERSION_1), body).unwrap();
        assert_eq!(first_version_error(r#"{"model":"m","messages":[]}"#), "max_tokens: Field required");
        assert_eq!(
            first_version_error(r#"{"model":"m","max_tokens":9,"messages":[]}"#),
            "messages: at least one message is required"
        );
        assert!(
            first_version_error(r#"{"model":"m","max_tokens":9,"messages":[{"role":"user"}]}"#)
                .contains("content")
        );
    }
}
