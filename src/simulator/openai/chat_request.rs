//! Requests of OpenAI's chat completions.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use crate::simulator::Settings;
use crate::simulator::api_error::ApiError;
use crate::simulator::content::{Content, Text};
use crate::simulator::parsed_request::{AnswerFormat, Conversation, Delivery, ParsedRequest};
use crate::simulator::tool_pairing::{PairingError, ToolPairing};

use super::function_tools::{ToolSyntax, tool_settings};
use super::request_checks::{
    CHAT_FORMAT, JsonSchema, answer_format, check_documents, check_temperature, is_refused,
    missing_parameter, reasoning,
};

/// Maximum number of stop sequences.
const MAX_STOP_SEQUENCES: usize = 4;

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    model: Option<Text<'a>>,
    #[serde(borrow)]
    messages: Option<Vec<Message<'a>>>,
    #[serde(default)]
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    max_completion_tokens: Option<u64>,
    temperature: Option<f64>,
    max_tokens: Option<u64>,
    n: Option<u64>,
    response_format: Option<ResponseFormat<'a>>,
    stop: Option<Stop>,
    #[serde(borrow)]
    reasoning_effort: Option<Text<'a>>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    role: Cow<'a, str>,
    #[serde(borrow, default)]
    content: Content<'a>,
    #[serde(borrow)]
    tool_calls: Option<Vec<ToolCall<'a>>>,
    #[serde(borrow)]
    tool_call_id: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct ToolCall<'a> {
    #[serde(borrow, default)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    function: Option<Function<'a>>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    arguments: Cow<'a, str>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Deserialize)]
struct ResponseFormat<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    json_schema: Option<JsonSchema>,
}

/// Stop sequences: one or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Several(Vec<String>),
}

impl Stop {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(stop) => vec![stop],
            Self::Several(stop) => stop,
        }
    }
}

/// Parses a request.
pub(in crate::simulator) fn parse_request<'a>(
    body: &'a [u8],
    settings: &Settings,
) -> Result<ParsedRequest<'a>, ApiError> {
    let request: Request<'a> = serde_json::from_slice(body).map_err(|error| {
        ApiError::invalid_request(
            format!("We could not parse the JSON body of your request: {error}"),
            None,
            None,
        )
    })?;
    let model = request.model.ok_or_else(|| missing_parameter("model"))?.0;
    let messages = request
        .messages
        .filter(|messages| !messages.is_empty())
        .ok_or_else(|| missing_parameter("messages"))?;
    if request.n.is_some_and(|n| n != 1) {
        let message = "Unsupported value: 'n' does not support other values than 1 with this model.";
        return Err(ApiError::invalid_request(message, Some("n"), Some("unsupported_value")));
    }
    check_temperature(request.temperature, settings)?;
    if request.max_tokens.is_some() && is_refused(settings, "max_tokens") {
        let message = "Unsupported parameter: 'max_tokens' is not supported with this model. Use \
                       'max_completion_tokens' instead.";
        return Err(ApiError::invalid_request(message, Some("max_tokens"), Some("unsupported_parameter")));
    }
    if request.stream_options.is_some() && is_refused(settings, "stream_options") {
        let message = "Unsupported parameter: 'stream_options' is not supported with this model.";
        return Err(ApiError::invalid_request(
            message,
            Some("stream_options"),
            Some("unsupported_parameter"),
        ));
    }
    if request.stream_options.is_some() && request.stream != Some(true) {
        let message = "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
        return Err(ApiError::invalid_request(message, Some("stream_options"), None));
    }
    let stop = request.stop.map(Stop::into_vec).unwrap_or_default();
    if stop.len() > MAX_STOP_SEQUENCES {
        let message = format!(
            "Invalid 'stop': array too long. Expected an array with maximum length {MAX_STOP_SEQUENCES}, but got an \
             array with length {} instead.",
            stop.len()
        );
        return Err(ApiError::invalid_request(message, Some("stop"), Some("array_above_max_length")));
    }
    check_roles(&messages)?;
    check_pairing(&messages).map_err(pairing_error)?;
    let tools = request.tools.unwrap_or_default();
    let tool_settings = tool_settings(
        ToolSyntax::Nested,
        &tools,
        request.tool_choice.as_ref(),
        request.parallel_tool_calls,
        settings,
    )?;
    let mut conversation = Conversation::default();
    if !tools.is_empty() {
        conversation.add_bytes(Value::from(tools).to_string().len());
    }
    for message in messages {
        match &*message.role {
            "tool" | "function" => conversation.push_result(message.content),
            role => {
                let is_user = role == "user";
                conversation.push(message.content, is_user);
            }
        }
        for function in message.tool_calls.into_iter().flatten().filter_map(|call| call.function) {
            conversation.add_bytes(function.name.len() + function.arguments.len());
        }
    }
    check_documents(&conversation, "messages")?;
    let format = match request.response_format {
        None => conversation.choice_options().map_or(AnswerFormat::Text, AnswerFormat::Choice),
        Some(format) => {
            answer_format(&format.kind, format.json_schema, &CHAT_FORMAT, &conversation, settings)?
        }
    };
    let delivery = match request.stream {
        Some(true) => Delivery::EventStream {
            usage: request.stream_options.is_some_and(|options| options.include_usage),
        },
        _ => Delivery::Full,
    };
    // The reasoning of chat completions has no text.
    let reasoning = reasoning(request.reasoning_effort, "reasoning_effort")?;
    let max_tokens = request.max_completion_tokens.or(request.max_tokens);
    Ok(ParsedRequest {
        model,
        delivery,
        conversation,
        max_tokens,
        format,
        stop,
        tools: tool_settings,
        reasoning,
        lacks_signature: false,
    })
}

fn check_roles(messages: &[Message<'_>]) -> Result<(), ApiError> {
    let is_known =
        |role: &str| matches!(role, "system" | "developer" | "user" | "assistant" | "tool" | "function");
    match messages.iter().find(|message| !is_known(&message.role)) {
        None => Ok(()),
        Some(message) => {
            let message = format!(
                "Invalid value: '{}'. Supported values are: 'system', 'assistant', 'user', \
                'function', 'tool', and 'developer'.",
                message.role
            );
            Err(ApiError::invalid_request(message, Some("messages"), Some("invalid_value")))
        }
    }
}

/// Checks that calls of tools and their results belong together.
fn check_pairing(messages: &[Message<'_>]) -> Result<(), PairingError> {
    let mut pairing = ToolPairing::default();
    for (index, message) in messages.iter().enumerate() {
        pairing.begin_message(message.role == "assistant")?;
        for call in message.tool_calls.iter().flatten() {
            pairing.call(index, &call.id);
        }
        if message.role == "tool" {
            let id = message.tool_call_id.as_ref().map_or("", |id| &id.0);
            pairing.result(index, id)?;
        }
    }
    pairing.finish()
}

fn pairing_error(error: PairingError) -> ApiError {
    let message = match error {
        PairingError::ResultWithoutCall { .. } => {
            "Invalid parameter: messages with role 'tool' must be a response to a preceding message with \
             'tool_calls'."
                .to_owned()
        }
        PairingError::CallsWithoutResult { keys, .. } => format!(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each \
             'tool_call_id'. The following tool_call_ids did not have response messages: {}",
            keys.join(", ")
        ),
    };
    ApiError::invalid_request(message, Some("messages"), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_request_is_rejected_with_the_name_of_its_error() {
        let error_message =
            |body: &str| match parse_request(body.as_bytes(), &Settings::default()).unwrap_err() {
                ApiError::InvalidRequest { message, .. } => message,
                other => panic!("{other:?}"),
            };
        assert!(error_message("{").contains("parse the JSON"));
        assert!(error_message("{}").contains("'model'"));
        assert!(error_message(r#"{"model":"m","messages":[]}"#).contains("'messages'"));
        let message = r#""model":"m","messages":[{"role":"user","content":"x"}]"#;
        assert!(error_message(&format!("{{{message},\"n\":3}}")).contains("'n'"));
        assert!(
            error_message(&format!("{{{message},\"response_format\":{{\"type\":\"xml\"}}}}"))
                .contains("'xml'")
        );
        let open = r#""response_format":{"type":"json_schema","json_schema":{"name":"a b","schema":{}}}"#;
        assert!(error_message(&format!("{{{message},{open}}}")).contains("pattern"));
        assert!(
            error_message(r#"{"model":"m","messages":[{"role":"robot","content":"x"}]}"#).contains("'robot'")
        );
    }

    #[test]
    fn a_call_and_its_result_belong_together() {
        let question = r#"{"role":"user","content":"x"}"#;
        let call = r#"{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function",
            "function":{"name":"look","arguments":"{}"}}]}"#;
        let result = r#"{"role":"tool","tool_call_id":"c1","content":"found"}"#;
        let tokens = |messages: &[&str]| {
            let body = format!(r#"{{"model":"m","messages":[{}]}}"#, messages.join(","));
            match parse_request(body.as_bytes(), &Settings::default()) {
                Ok(request) => Ok(request.conversation.tokens()),
                Err(ApiError::InvalidRequest { message, .. }) => Err(message),
                Err(other) => panic!("{other:?}"),
            }
        };
        // The 12 bytes of `x`, `look`, `{}` and `found`.
        assert_eq!(tokens(&[question, call, result]), Ok(3));
        assert!(tokens(&[question, result]).unwrap_err().contains("preceding message"));
        assert!(tokens(&[question, call]).unwrap_err().ends_with(": c1"));
    }
}
