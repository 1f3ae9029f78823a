//! Plays OpenAI: chat completions, their streams, errors and headers.
//!
//! Knows bytes and nothing of limits, faults or time.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};

use super::account::{Quantity, Standing};
use super::answer::Finish;
use super::ask::{Ask, Content, Conversation, Delivery, Shape, Text};
use super::events::{Events, pieces};
use super::reply::{ErrorReply, Reply, append, json_string};
use super::trouble::{Hint, Throttled, Trouble};
use super::{Settings, rules};

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

/// Writes an error.
pub(super) fn error(trouble: &Trouble) -> ErrorReply {
    let (status, message, kind, param, code): (u16, Cow<'_, str>, &str, Option<&str>, Option<&str>) =
        match trouble {
            Trouble::Invalid { message, param, code } => {
                (400, message.into(), "invalid_request_error", *param, *code)
            }
            Trouble::TooLarge => (
                413,
                "Request body exceeds the maximum allowed size.".into(),
                "invalid_request_error",
                None,
                None,
            ),
            Trouble::NoKey => (
                401,
                "You didn't provide an API key. You need to provide your API key in an Authorization \
             header using Bearer auth."
                    .into(),
                "invalid_request_error",
                None,
                None,
            ),
            Trouble::Key { given } => (
                401,
                format!(
                    "Incorrect API key provided: {}. You can find your API key in your account settings.",
                    hidden(given)
                )
                .into(),
                "invalid_request_error",
                None,
                Some("invalid_api_key"),
            ),
            Trouble::NoModel { model } => (
                404,
                format!("The model `{model}` does not exist or you do not have access to it.").into(),
                "invalid_request_error",
                None,
                Some("model_not_found"),
            ),
            Trouble::NoAddress { what } => (
                404,
                format!("Unknown request URL: {what}.").into(),
                "invalid_request_error",
                None,
                Some("unknown_url"),
            ),
            Trouble::Throttled(throttled) => (
                429,
                throttled_message(throttled).into(),
                quantity(throttled).2,
                None,
                Some("rate_limit_exceeded"),
            ),
            Trouble::Quota { .. } => (
                429,
                "You exceeded your current quota, please check your plan and billing details.".into(),
                "insufficient_quota",
                None,
                Some("insufficient_quota"),
            ),
            Trouble::Server { status } => (
                *status,
                "The server had an error while processing your request. Sorry about that!".into(),
                "server_error",
                None,
                None,
            ),
            Trouble::Unavailable { status } => {
                (*status, OVERLOADED.into(), UNAVAILABLE, None, Some("server_is_overloaded"))
            }
            Trouble::Overloaded { status } => {
                (status.unwrap_or(503), OVERLOADED.into(), UNAVAILABLE, None, Some("server_is_overloaded"))
            }
        };
    let body = json!({ "error": { "message": message, "type": kind, "param": param, "code": code } });
    (status, body.to_string().into_bytes())
}

const OVERLOADED: &str = "The server is currently overloaded. Please try again later.";
const UNAVAILABLE: &str = "service_unavailable_error";

/// Shows as much of a key as the vendor does.
fn hidden(key: &str) -> String {
    let start = &key[..key.floor_char_boundary(7)];
    let end = &key[key.ceil_char_boundary(key.len().saturating_sub(4))..];
    if key.len() < 16 { "********".to_owned() } else { format!("{start}********{end}") }
}

/// Returns the words for a quantity, its abbreviation, and the error's type.
fn quantity(throttled: &Throttled) -> (&'static str, &'static str, &'static str) {
    match throttled.quantity {
        Quantity::Requests => ("requests per min", "RPM", "requests"),
        Quantity::Tokens => ("tokens per min", "TPM", "tokens"),
        Quantity::InputTokens => ("input tokens per min", "ITPM", "tokens"),
        Quantity::OutputTokens => ("output tokens per min", "OTPM", "tokens"),
    }
}

fn throttled_message(throttled: &Throttled) -> String {
    let Throttled { model, limit, used, requested, hint, .. } = throttled;
    let (words, short, _) = quantity(throttled);
    let again = match hint {
        Hint::Nothing => String::new(),
        Hint::After(wait) => format!(" Please try again in {}.", go_duration(*wait)),
        Hint::Absurd(seconds) => format!(" Please try again in {seconds}s."),
    };
    if requested > limit {
        return format!(
            "Request too large for {model} in organization org-practice on {words} ({short}): Limit {limit}, \
             Requested {requested}. The input or output tokens must be reduced in order to run successfully."
        );
    }
    format!(
        "Rate limit reached for {model} in organization org-practice on {words} ({short}): Limit {limit}, Used {used}, \
         Requested {requested}.{again}"
    )
}

/// Adds the headers that every reply carries.
pub(super) fn add_headers(headers: &mut HeaderMap, serial: u64) {
    headers.insert(HeaderName::from_static("x-request-id"), value(format_args!("req_{serial:032x}")));
    headers.insert(HeaderName::from_static("openai-organization"), HeaderValue::from_static("org-practice"));
    headers.insert(HeaderName::from_static("openai-processing-ms"), HeaderValue::from_static("0"));
    headers.insert(HeaderName::from_static("openai-version"), HeaderValue::from_static("2020-10-01"));
}

/// Adds how the limits stand.
pub(super) fn add_standing(headers: &mut HeaderMap, standing: &Standing) {
    for gauge in standing.iter().flatten() {
        let [limit, remaining, reset] = match gauge.quantity {
            Quantity::Requests => {
                ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"]
            }
            Quantity::Tokens => {
                ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"]
            }
            // This vendor has no headers for these.
            Quantity::InputTokens | Quantity::OutputTokens => continue,
        };
        headers.insert(HeaderName::from_static(limit), gauge.limit.into());
        headers.insert(HeaderName::from_static(remaining), gauge.remaining.into());
        headers.insert(HeaderName::from_static(reset), value(go_duration(gauge.reset)));
    }
}

/// Adds when to come back.
pub(super) fn add_retry_after(headers: &mut HeaderMap, trouble: &Trouble) {
    let Trouble::Throttled(throttled) = trouble else { return };
    let Some(seconds) = throttled.hint.seconds() else { return };
    headers.insert(http::header::RETRY_AFTER, seconds.into());
    let millis = match throttled.hint {
        Hint::After(wait) => i64::try_from(wait.as_millis()).unwrap_or(i64::MAX).max(1),
        _ => seconds.saturating_mul(1_000),
    };
    headers.insert(HeaderName::from_static("retry-after-ms"), millis.into());
    headers.insert(HeaderName::from_static("x-should-retry"), HeaderValue::from_static("true"));
}

/// Returns the list of models.
pub(super) fn models(models: &[String]) -> Vec<u8> {
    let data: Vec<_> = models
        .iter()
        .map(|id| json!({ "id": id, "object": "model", "created": 1_790_000_000, "owned_by": "practice" }))
        .collect();
    json!({ "object": "list", "data": data }).to_string().into_bytes()
}

/// Makes a header of what is known to be plain ASCII.
pub(super) fn value(text: impl std::fmt::Display) -> HeaderValue {
    HeaderValue::try_from(text.to_string()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Writes a duration as Go does, to the millisecond: `120ms`, `1.5s`, `6m0s`, `1h0m0s`.
pub(super) fn go_duration(duration: Duration) -> String {
    let millis = duration.as_nanos().div_ceil(1_000_000);
    if (1..1_000).contains(&millis) {
        return format!("{millis}ms");
    }
    let (hours, minutes) = (millis / 3_600_000, millis / 60_000 % 60);
    let seconds = millis as f64 % 60_000.0 / 1e3;
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (millis, text) in [
            (0, "0s"),
            (17, "17ms"),
            (120, "120ms"),
            (1_000, "1s"),
            (8_640, "8.64s"),
            (59_463, "59.463s"),
            (72_000, "1m12s"),
            (360_000, "6m0s"),
            (3_600_000, "1h0m0s"),
            (4_217_500, "1h10m17.5s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(millis)), text);
        }
        assert_eq!(go_duration(Duration::from_micros(500)), "1ms");
    }

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

    #[test]
    fn a_key_is_never_shown_whole() {
        assert_eq!(hidden("sk-fixture-aaaa-bbbb-0000"), "sk-fixt********0000");
        assert_eq!(hidden("short"), "********");
    }
}
