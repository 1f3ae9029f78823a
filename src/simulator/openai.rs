//! Plays OpenAI: chat completions, their streams, errors and headers.
//!
//! Knows bytes and nothing of limits, faults or time.

mod refusal;

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::Finish;
use super::ask::{Ask, Content, Conversation, Delivery, Shape, Text};
use super::events::{Events, pieces};
use super::reply::{Reply, append, json_string};
use super::trouble::Trouble;
use super::{Settings, rules};

pub(super) use refusal::{add_headers, add_retry_after, add_standing, error};

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

/// Reads a request.
pub(super) fn read<'a>(body: &'a [u8], settings: &Settings) -> Result<Ask<'a>, Trouble> {
    let request: Request<'a> = serde_json::from_slice(body).map_err(|error| {
        Trouble::invalid(format!("We could not parse the JSON body of your request: {error}"), None, None)
    })?;
    let model = request.model.ok_or_else(|| missing("model"))?.0;
    let messages =
        request.messages.filter(|messages| !messages.is_empty()).ok_or_else(|| missing("messages"))?;
    if request.n.is_some_and(|n| n != 1) {
        let message = "Unsupported value: 'n' does not support other values than 1 with this model.";
        return Err(Trouble::invalid(message, Some("n"), Some("unsupported_value")));
    }
    let refuses = |name: &str| settings.refused_parameters.iter().any(|refused| refused == name);
    if let Some(temperature) = request.temperature.filter(|asked| *asked != 1.0 && refuses("temperature")) {
        let message = format!(
            "Unsupported value: 'temperature' does not support {temperature} with this model. Only the default (1) \
             value is supported."
        );
        return Err(Trouble::invalid(message, Some("temperature"), Some("unsupported_value")));
    }
    if request.max_tokens.is_some() && refuses("max_tokens") {
        let message = "Unsupported parameter: 'max_tokens' is not supported with this model. Use \
                       'max_completion_tokens' instead.";
        return Err(Trouble::invalid(message, Some("max_tokens"), Some("unsupported_parameter")));
    }
    if request.stream_options.is_some() && refuses("stream_options") {
        let message = "Unsupported parameter: 'stream_options' is not supported with this model.";
        return Err(Trouble::invalid(message, Some("stream_options"), Some("unsupported_parameter")));
    }
    if request.stream_options.is_some() && request.stream != Some(true) {
        let message = "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
        return Err(Trouble::invalid(message, Some("stream_options"), None));
    }
    let mut conversation = Conversation::default();
    for message in messages {
        if !matches!(&*message.role, "system" | "developer" | "user" | "assistant" | "tool" | "function") {
            let message = format!(
                "Invalid value: '{}'. Supported values are: 'system', 'assistant', 'user', \
                'function', 'tool', and 'developer'.",
                message.role
            );
            return Err(Trouble::invalid(message, Some("messages"), Some("invalid_value")));
        }
        conversation.push(message.content, message.role == "user");
    }
    if let Some(media_type) = conversation.refused_document(|media_type| media_type == "application/pdf") {
        let message = format!(
            "Invalid file data: 'file_data'. Expected a base64-encoded data URL with an application/pdf MIME type, \
             but got unsupported MIME type '{media_type}'."
        );
        return Err(Trouble::invalid(message, Some("messages"), Some("invalid_value")));
    }
    let shape = match request.response_format {
        None => conversation.choice().map_or(Shape::Text, Shape::Choice),
        Some(format) => shape(format, &conversation, settings)?,
    };
    let delivery = match request.stream {
        Some(true) => {
            Delivery::Events { usage: request.stream_options.is_some_and(|options| options.include_usage) }
        }
        _ => Delivery::Whole,
    };
    let max_tokens = request.max_completion_tokens.or(request.max_tokens);
    Ok(Ask { model, delivery, conversation, max_tokens, shape })
}

fn shape(
    format: ResponseFormat<'_>,
    conversation: &Conversation<'_>,
    settings: &Settings,
) -> Result<Shape, Trouble> {
    let invalid = |message: String| Trouble::invalid(message, Some("response_format"), None);
    match &*format.kind {
        "text" => Ok(conversation.choice().map_or(Shape::Text, Shape::Choice)),
        "json_object" if conversation.contains("json") || conversation.contains("JSON") => Ok(Shape::Object),
        "json_object" => Err(invalid(
            "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."
                .to_owned(),
        )),
        "json_schema" => {
            let JsonSchema { name, schema, strict } =
                format.json_schema.ok_or_else(|| missing("response_format.json_schema"))?;
            let name = name.ok_or_else(|| missing("response_format.json_schema.name"))?;
            if name.is_empty() || name.len() > 64 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
                return Err(invalid(format!(
                    "Invalid 'response_format.json_schema.name': string does not match pattern. Expected a string \
                     that matches the pattern '^[a-zA-Z0-9_-]+$', got {name:?}."
                )));
            }
            let schema = schema.unwrap_or(Value::Bool(true));
            if strict == Some(true) && settings.strict_schemas {
                rules::openai_strict(&schema)
                    .map_err(|fault| invalid(format!("Invalid schema for response_format '{name}': {fault}")))?;
            }
            Ok(Shape::Schema(schema))
        }
        other => Err(invalid(format!(
            "Invalid value: '{other}'. Supported values are: 'json_object', 'json_schema', and 'text'."
        ))),
    }
}

fn missing(param: &'static str) -> Trouble {
    let message = format!("Missing required parameter: '{param}'.");
    Trouble::invalid(message, Some(param), Some("missing_required_parameter"))
}

fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::Refusal => "stop",
        Finish::Length => "length",
    }
}

/// Writes a whole reply.
pub(super) fn whole(reply: &Reply<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(800 + reply.answer.text.len());
    append!(out, r#"{"id":"chatcmpl-"#, format_args!("{:024x}", reply.serial));
    append!(out, r#"","object":"chat.completion","created":"#, reply.created, r#","model":"#);
    json_string(&mut out, reply.model);
    out.extend_from_slice(br#","choices":[{"index":0,"message":{"role":"assistant","content":"#);
    if reply.answer.finish == Finish::Refusal {
        out.extend_from_slice(br#"null,"refusal":"#);
        json_string(&mut out, &reply.answer.text);
    } else {
        json_string(&mut out, &reply.answer.text);
        out.extend_from_slice(br#","refusal":null"#);
    }
    append!(
        out,
        r#","annotations":[]},"logprobs":null,"finish_reason":""#,
        finish_reason(reply.answer.finish)
    );
    out.extend_from_slice(br#""}],"usage":"#);
    usage(&mut out, reply);
    out.extend_from_slice(br#","service_tier":"default","system_fingerprint":null}"#);
    out
}

fn usage(out: &mut Vec<u8>, reply: &Reply<'_>) {
    let (input, output) = (reply.input_tokens, reply.answer.output_tokens);
    append!(out, r#"{"prompt_tokens":"#, input, r#","completion_tokens":"#, output);
    append!(out, r#","total_tokens":"#, input + output);
    out.extend_from_slice(
        br#","prompt_tokens_details":{"cached_tokens":0,"cache_write_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}"#,
    );
}

/// Writes a stream of at most so many pieces.
pub(super) fn events(reply: &Reply<'_>, most: usize, with_usage: bool) -> Events {
    let mut start = Vec::with_capacity(200);
    append!(start, r#"data: {"id":"chatcmpl-"#, format_args!("{:024x}", reply.serial));
    append!(start, r#"","object":"chat.completion.chunk","created":"#, reply.created, r#","model":"#);
    json_string(&mut start, reply.model);
    start.extend_from_slice(br#","service_tier":"default","system_fingerprint":null,"choices":["#);
    let end: &[u8] = if with_usage {
        b"],\"usage\":null,\"obfuscation\":\"kQ9z\"}\n\n"
    } else {
        b"],\"obfuscation\":\"kQ9z\"}\n\n"
    };
    let text = &reply.answer.text;
    let mut events =
        Events::with_capacity((start.len() + 150) * (most.min(text.len()) + 3) + text.len() * 5 / 4);
    let choice = |events: &mut Events, delta: &dyn Fn(&mut Vec<u8>), finish: Option<Finish>| {
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
    choice(
        &mut events,
        &|out| out.extend_from_slice(br#""role":"assistant","content":"","refusal":null"#),
        None,
    );
    events.pieces_begin();
    let field: &[u8] =
        if reply.answer.finish == Finish::Refusal { br#""refusal":"# } else { br#""content":"# };
    for piece in pieces(text, most) {
        let delta = |out: &mut Vec<u8>| {
            out.extend_from_slice(field);
            json_string(out, piece);
        };
        choice(&mut events, &delta, None);
    }
    events.pieces_end();
    choice(&mut events, &|_| {}, Some(reply.answer.finish));
    if with_usage {
        events.push(|out| {
            out.extend_from_slice(&start);
            out.extend_from_slice(br#"],"usage":"#);
            usage(out, reply);
            out.extend_from_slice(b"}\n\n");
        });
    }
    events.push(|out| out.extend_from_slice(b"data: [DONE]\n\n"));
    events
}

/// Returns the list of models.
pub(super) fn models(models: &[String]) -> Vec<u8> {
    let data: Vec<_> = models
        .iter()
        .map(|id| json!({ "id": id, "object": "model", "created": 1_790_000_000, "owned_by": "practice" }))
        .collect();
    json!({ "object": "list", "data": data }).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_request_is_refused_by_the_name_of_its_fault() {
        let refusal = |body: &str| match read(body.as_bytes(), &Settings::default()).unwrap_err() {
            Trouble::Invalid { message, .. } => message,
            other => panic!("{other:?}"),
        };
        assert!(refusal("{").contains("parse the JSON"));
        assert!(refusal("{}").contains("'model'"));
        assert!(refusal(r#"{"model":"m","messages":[]}"#).contains("'messages'"));
        let message = r#""model":"m","messages":[{"role":"user","content":"x"}]"#;
        assert!(refusal(&format!("{{{message},\"n\":3}}")).contains("'n'"));
        assert!(
            refusal(&format!("{{{message},\"response_format\":{{\"type\":\"xml\"}}}}")).contains("'xml'")
        );
        let open = r#""response_format":{"type":"json_schema","json_schema":{"name":"a b","schema":{}}}"#;
        assert!(refusal(&format!("{{{message},{open}}}")).contains("pattern"));
        assert!(refusal(r#"{"model":"m","messages":[{"role":"robot","content":"x"}]}"#).contains("'robot'"));
    }
}
