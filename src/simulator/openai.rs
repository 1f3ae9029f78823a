//! Wire format of OpenAI: chat completions, their streams, errors and headers.
//!
//! Limits, faults and latency are handled elsewhere.

mod error_response;

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Value, json};

use super::api_error::ApiError;
use super::completion::Finish;
use super::event_stream::{EventStream, text_chunks};
use super::parsed_request::{AnswerFormat, Content, Conversation, Delivery, ParsedRequest, Text};
use super::response_data::{ResponseData, append, json_string};
use super::{Settings, strict_schema};

pub(super) use error_response::{add_common_headers, add_rate_limit_headers, add_retry_after, render_error};

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
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    role: Cow<'a, str>,
    #[serde(borrow, default)]
    content: Content<'a>,
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

#[derive(Deserialize)]
struct JsonSchema {
    name: Option<String>,
    schema: Option<Value>,
    strict: Option<bool>,
}

/// Parses a request.
pub(super) fn parse_request<'a>(body: &'a [u8], settings: &Settings) -> Result<ParsedRequest<'a>, ApiError> {
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
    let is_refused = |name: &str| settings.refused_parameters.iter().any(|refused| refused == name);
    if let Some(temperature) = request.temperature.filter(|value| *value != 1.0 && is_refused("temperature"))
    {
        let message = format!(
            "Unsupported value: 'temperature' does not support {temperature} with this model. Only the default (1) \
             value is supported."
        );
        return Err(ApiError::invalid_request(message, Some("temperature"), Some("unsupported_value")));
    }
    if request.max_tokens.is_some() && is_refused("max_tokens") {
        let message = "Unsupported parameter: 'max_tokens' is not supported with this model. Use \
                       'max_completion_tokens' instead.";
        return Err(ApiError::invalid_request(message, Some("max_tokens"), Some("unsupported_parameter")));
    }
    if request.stream_options.is_some() && is_refused("stream_options") {
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
    let mut conversation = Conversation::default();
    for message in messages {
        if !matches!(&*message.role, "system" | "developer" | "user" | "assistant" | "tool" | "function") {
            let message = format!(
                "Invalid value: '{}'. Supported values are: 'system', 'assistant', 'user', \
                'function', 'tool', and 'developer'.",
                message.role
            );
            return Err(ApiError::invalid_request(message, Some("messages"), Some("invalid_value")));
        }
        conversation.push(message.content, message.role == "user");
    }
    if let Some(media_type) = conversation.unsupported_document(|media_type| media_type == "application/pdf")
    {
        let message = format!(
            "Invalid file data: 'file_data'. Expected a base64-encoded data URL with an application/pdf MIME type, \
             but got unsupported MIME type '{media_type}'."
        );
        return Err(ApiError::invalid_request(message, Some("messages"), Some("invalid_value")));
    }
    let shape = match request.response_format {
        None => conversation.choice_options().map_or(AnswerFormat::Text, AnswerFormat::Choice),
        Some(format) => answer_format(format, &conversation, settings)?,
    };
    let delivery = match request.stream {
        Some(true) => Delivery::EventStream {
            usage: request.stream_options.is_some_and(|options| options.include_usage),
        },
        _ => Delivery::Full,
    };
    let max_tokens = request.max_completion_tokens.or(request.max_tokens);
    Ok(ParsedRequest { model, delivery, conversation, max_tokens, format: shape })
}

fn answer_format(
    format: ResponseFormat<'_>,
    conversation: &Conversation<'_>,
    settings: &Settings,
) -> Result<AnswerFormat, ApiError> {
    let invalid = |message: String| ApiError::invalid_request(message, Some("response_format"), None);
    match &*format.kind {
        "text" => Ok(conversation.choice_options().map_or(AnswerFormat::Text, AnswerFormat::Choice)),
        "json_object" if conversation.contains("json") || conversation.contains("JSON") => Ok(AnswerFormat::Object),
        "json_object" => Err(invalid(
            "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."
                .to_owned(),
        )),
        "json_schema" => {
            let JsonSchema { name, schema, strict } =
                format.json_schema.ok_or_else(|| missing_parameter("response_format.json_schema"))?;
            let name = name.ok_or_else(|| missing_parameter("response_format.json_schema.name"))?;
            if name.is_empty() || name.len() > 64 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
                return Err(invalid(format!(
                    "Invalid 'response_format.json_schema.name': string does not match pattern. Expected a string \
                     that matches the pattern '^[a-zA-Z0-9_-]+$', got {name:?}."
                )));
            }
            let schema = schema.unwrap_or(Value::Bool(true));
            if strict == Some(true) && settings.strict_schemas {
                strict_schema::check_openai(&schema)
                    .map_err(|reason| invalid(format!("Invalid schema for response_format '{name}': {reason}")))?;
            }
            Ok(AnswerFormat::Schema(schema))
        }
        other => Err(invalid(format!(
            "Invalid value: '{other}'. Supported values are: 'json_object', 'json_schema', and 'text'."
        ))),
    }
}

fn missing_parameter(param: &'static str) -> ApiError {
    let message = format!("Missing required parameter: '{param}'.");
    ApiError::invalid_request(message, Some(param), Some("missing_required_parameter"))
}

fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::Refusal => "stop",
        Finish::Length => "length",
    }
}

/// Renders a response without streaming.
pub(super) fn render_response(data: &ResponseData<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(800 + data.completion.text.len());
    append!(out, r#"{"id":"chatcmpl-"#, format_args!("{:024x}", data.serial));
    append!(out, r#"","object":"chat.completion","created":"#, data.created, r#","model":"#);
    json_string(&mut out, data.model);
    out.extend_from_slice(br#","choices":[{"index":0,"message":{"role":"assistant","content":"#);
    if data.completion.finish == Finish::Refusal {
        out.extend_from_slice(br#"null,"refusal":"#);
        json_string(&mut out, &data.completion.text);
    } else {
        json_string(&mut out, &data.completion.text);
        out.extend_from_slice(br#","refusal":null"#);
    }
    append!(
        out,
        r#","annotations":[]},"logprobs":null,"finish_reason":""#,
        finish_reason(data.completion.finish)
    );
    out.extend_from_slice(br#""}],"usage":"#);
    usage(&mut out, data);
    out.extend_from_slice(br#","service_tier":"default","system_fingerprint":null}"#);
    out
}

fn usage(out: &mut Vec<u8>, data: &ResponseData<'_>) {
    let input = data.input_tokens;
    let output = data.completion.output_tokens;
    append!(out, r#"{"prompt_tokens":"#, input, r#","completion_tokens":"#, output);
    append!(out, r#","total_tokens":"#, input + output);
    out.extend_from_slice(
        br#","prompt_tokens_details":{"cached_tokens":0,"cache_write_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}"#,
    );
}

/// Renders a stream of at most `max_chunks` text chunks.
pub(super) fn render_stream(data: &ResponseData<'_>, max_chunks: usize, include_usage: bool) -> EventStream {
    let mut start = Vec::with_capacity(200);
    append!(start, r#"data: {"id":"chatcmpl-"#, format_args!("{:024x}", data.serial));
    append!(start, r#"","object":"chat.completion.chunk","created":"#, data.created, r#","model":"#);
    json_string(&mut start, data.model);
    start.extend_from_slice(br#","service_tier":"default","system_fingerprint":null,"choices":["#);
    let end: &[u8] = if include_usage {
        b"],\"usage\":null,\"obfuscation\":\"kQ9z\"}\n\n"
    } else {
        b"],\"obfuscation\":\"kQ9z\"}\n\n"
    };
    let text = &data.completion.text;
    let mut events = EventStream::with_capacity(
        (start.len() + 150) * (max_chunks.min(text.len()) + 3) + text.len() * 5 / 4,
    );
    let push_choice = |events: &mut EventStream, delta: &dyn Fn(&mut Vec<u8>), finish: Option<Finish>| {
        events.push(|out| {
            out.extend_from_slice(&start);
            out.extend_from_slice(br#"{"index":0,"delta":{"#);
            delta(out);
            out.extend_from_slice(br#"},"logprobs":null,"finish_reason":"#);
            match finish {
                None => out.extend_from_slice(b"null}"),
                Some(finish) => append!(out, '"', finish_reason(finish), "\"}"),
            }
            out.extend_from_slice(end);
        });
    };
    push_choice(
        &mut events,
        &|out| out.extend_from_slice(br#""role":"assistant","content":"","refusal":null"#),
        None,
    );
    events.begin_chunks();
    let field: &[u8] =
        if data.completion.finish == Finish::Refusal { br#""refusal":"# } else { br#""content":"# };
    for chunk in text_chunks(text, max_chunks) {
        let delta = |out: &mut Vec<u8>| {
            out.extend_from_slice(field);
            json_string(out, chunk);
        };
        push_choice(&mut events, &delta, None);
    }
    events.end_chunks();
    push_choice(&mut events, &|_| {}, Some(data.completion.finish));
    if include_usage {
        events.push(|out| {
            out.extend_from_slice(&start);
            out.extend_from_slice(br#"],"usage":"#);
            usage(out, data);
            out.extend_from_slice(b"}\n\n");
        });
    }
    events.push(|out| out.extend_from_slice(b"data: [DONE]\n\n"));
    events
}

/// Renders the list of models.
pub(super) fn render_models(models: &[String]) -> Vec<u8> {
    let data: Vec<_> = models
        .iter()
        .map(|id| json!({ "id": id, "object": "model", "created": 1_790_000_000, "owned_by": "simulator" }))
        .collect();
    json!({ "object": "list", "data": data }).to_string().into_bytes()
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
}
