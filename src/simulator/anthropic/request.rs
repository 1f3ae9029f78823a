//! Requests of Anthropic's messages.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::simulator::api_error::ApiError;
use crate::simulator::content::{Content, ExchangePart, Text};
use crate::simulator::parsed_request::{AnswerFormat, Conversation, Delivery, ParsedRequest, RequestHead};
use crate::simulator::reasoning::{DEFAULT_REASONING_TOKENS, ReasoningRequest, signature, tokens_of_effort};
use crate::simulator::tool_pairing::{PairingError, ToolPairing};
use crate::simulator::{Settings, strict_schema};

use super::tools::{invalid, tool_settings};

const API_VERSION_1: &str = "2023-06-01";
const API_VERSION_2: &str = "2026-10-21";
/// Minimum of `thinking.budget_tokens`.
const MIN_THINKING_BUDGET: u64 = 1_024;

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
    #[serde(default)]
    stop_sequences: Option<Vec<String>>,
    thinking: Option<Thinking>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    role: Cow<'a, str>,
    #[serde(borrow, default)]
    content: Content<'a>,
}

#[derive(Default, Deserialize)]
struct OutputConfig {
    format: Option<Format>,
    effort: Option<String>,
}

#[derive(Deserialize)]
struct Thinking {
    #[serde(rename = "type")]
    kind: String,
    budget_tokens: Option<u64>,
    display: Option<String>,
}

#[derive(Deserialize)]
struct Format {
    #[serde(rename = "type")]
    kind: String,
    schema: Option<Value>,
}

/// Parses a request.
pub(in crate::simulator) fn parse_request<'a>(
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
    for (index, message) in messages.iter().enumerate() {
        if !matches!(&*message.role, "user" | "assistant") && (message.role != "system" || index == 0) {
            return Err(invalid(format!("messages.{index}.role: Input should be 'user' or 'assistant'")));
        }
        if message.content.is_empty() {
            return Err(invalid(format!("messages.{index}.content: Field required")));
        }
    }
    check_pairing(&messages).map_err(pairing_error)?;
    check_signatures(&messages)?;
    let tools = request.tools.unwrap_or_default();
    let tool_settings = tool_settings(&tools, request.tool_choice.as_ref(), settings)?;
    let mut conversation = Conversation::default();
    if !tools.is_empty() {
        conversation.add_bytes(Value::from(tools).to_string().len());
    }
    conversation.push(request.system, false);
    for message in messages {
        conversation.push(message.content, message.role == "user");
    }
    if conversation.unsupported_document(|media_type| media_type == "application/pdf").is_some() {
        return Err(invalid("document.source.base64.media_type: Input should be 'application/pdf'"));
    }
    let OutputConfig { format, effort } = request.output_config.unwrap_or_default();
    let reasoning = request.thinking.map(|thinking| reasoning(&thinking, effort.as_deref(), max_tokens));
    let reasoning = reasoning.transpose()?.flatten();
    let format = match format {
        None => conversation.choice_options().map_or(AnswerFormat::Text, AnswerFormat::Choice),
        Some(format) => answer_format(format, settings)?,
    };
    let delivery =
        if request.stream == Some(true) { Delivery::EventStream { usage: true } } else { Delivery::Full };
    Ok(ParsedRequest {
        model,
        delivery,
        conversation,
        max_tokens: Some(max_tokens),
        format,
        stop: request.stop_sequences.unwrap_or_default(),
        tools: tool_settings,
        reasoning,
        lacks_signature: false,
    })
}

/// Returns the reasoning that a request asks for.
fn reasoning(
    thinking: &Thinking,
    effort: Option<&str>,
    max_tokens: u64,
) -> Result<Option<ReasoningRequest>, ApiError> {
    let of_effort = effort.map_or(Some(DEFAULT_REASONING_TOKENS), tokens_of_effort);
    let of_effort = of_effort.ok_or_else(|| {
        invalid("output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'")
    })?;
    let tokens = match (&*thinking.kind, thinking.budget_tokens) {
        ("enabled", None) => return Err(invalid("thinking.enabled.budget_tokens: Field required")),
        ("enabled", Some(budget)) if budget < MIN_THINKING_BUDGET => {
            return Err(invalid(format!(
                "thinking.enabled.budget_tokens: Input should be greater than or equal to {MIN_THINKING_BUDGET}"
            )));
        }
        ("enabled", Some(budget)) if budget >= max_tokens => {
            return Err(invalid("`max_tokens` must be greater than `thinking.budget_tokens`"));
        }
        ("enabled", Some(budget)) => of_effort.min(budget),
        ("adaptive", _) => of_effort,
        _ => 0,
    };
    let shows_text = thinking.display.as_deref() != Some("omitted");
    Ok((tokens > 0).then_some(ReasoningRequest { tokens, shows_text, is_encrypted: false }))
}

/// Checks that calls of tools and their results belong together.
fn check_pairing(messages: &[Message<'_>]) -> Result<(), PairingError> {
    let mut pairing = ToolPairing::default();
    for (index, message) in messages.iter().enumerate() {
        pairing.begin_message(message.role == "assistant")?;
        for (_, part) in message.content.exchange() {
            match part {
                ExchangePart::Call { id, .. } => pairing.call(index, id),
                ExchangePart::Result { id, .. } => pairing.result(index, id)?,
                ExchangePart::Reasoning { .. } => {}
            }
        }
    }
    pairing.finish()
}

fn pairing_error(error: PairingError) -> ApiError {
    invalid(match error {
        PairingError::ResultWithoutCall { message, key } => format!(
            "messages.{message}: unexpected `tool_use_id` found in `tool_result` blocks: {key}. Each `tool_result` \
             block must have a corresponding `tool_use` block in the previous message."
        ),
        PairingError::CallsWithoutResult { message, keys } => format!(
            "messages.{message}: `tool_use` ids were found without `tool_result` blocks immediately after: {}. Each \
             `tool_use` block must have a corresponding `tool_result` block in the next message.",
            keys.join(", ")
        ),
    })
}

/// Checks the signatures of the reasoning that the client sends back.
fn check_signatures(messages: &[Message<'_>]) -> Result<(), ApiError> {
    for (index, message) in messages.iter().enumerate() {
        for (at, part) in message.content.exchange() {
            if let ExchangePart::Reasoning { text, signature: given } = part
                && *given != signature(text)
            {
                return Err(invalid(format!(
                    "messages.{index}.content.{at}: Invalid `signature` in `thinking` block"
                )));
            }
        }
    }
    Ok(())
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

    #[test]
    fn calls_results_and_signatures_are_checked() {
        let thinking =
            |signature: &str| format!(r#"{{"type":"thinking","thinking":"Hm.","signature":"{signature}"}}"#);
        let call = r#"{"type":"tool_use","id":"c1","name":"look","input":{}}"#;
        let result = r#"{"type":"tool_result","tool_use_id":"c1","content":"found"}"#;
        let message = |assistant: &str, user: &str| {
            let body = format!(
                r#"{{"model":"m","max_tokens":9,"messages":[{{"role":"user","content":"x"}},
                    {{"role":"assistant","content":[{assistant}]}},{{"role":"user","content":[{user}]}}]}}"#
            );
            error_message(Some(API_VERSION_2), &body)
        };
        let text = r#"{"type":"text","text":"y"}"#;
        let signed = thinking(&signature("Hm."));
        assert_eq!(message(&format!("{signed},{call}"), result), None);
        assert!(message(call, text).unwrap().contains("without `tool_result` blocks immediately after: c1"));
        assert!(message(text, result).unwrap().contains("unexpected `tool_use_id`"));
        let wrong = format!("{text},{}", thinking("other"));
        assert_eq!(
            message(&wrong, text).unwrap(),
            "messages.1.content.1: Invalid `signature` in `thinking` block"
        );
    }

    #[test]
    fn a_thinking_budget_is_below_max_tokens() {
        let message = |thinking: &str| {
            let body = format!(
                r#"{{"model":"m","max_tokens":2000,"messages":[{{"role":"user","content":"x"}}],
                    "thinking":{thinking}}}"#
            );
            error_message(Some(API_VERSION_2), &body)
        };
        assert_eq!(message(r#"{"type":"enabled","budget_tokens":1024}"#), None);
        assert_eq!(message(r#"{"type":"adaptive"}"#), None);
        assert!(message(r#"{"type":"enabled","budget_tokens":1023}"#).unwrap().contains("1024"));
        assert!(message(r#"{"type":"enabled","budget_tokens":2000}"#).unwrap().contains("must be greater"));
    }
}
