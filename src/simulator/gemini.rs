//! Wire format of Gemini: generateContent, its streams and errors. Gemini has no rate-limit headers.
//!
//! Limits, faults and latency are handled elsewhere.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::account::LimitKind;
use super::api_error::{
    ApiError, ForbiddenResource, RateLimitDetails, RetryHint, insufficient_credits_message,
};
use super::completion::Finish;
use super::event_stream::{EventStream, text_chunks};
use super::parsed_request::{
    AnswerFormat, Content, Conversation, Delivery, ParsedRequest, RequestHead, tokens,
};
use super::response_data::{ErrorResponse, ResponseData, append, json_string};
use super::{Settings, strict_schema};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    contents: Option<Vec<Turn<'a>>>,
    #[serde(borrow, default, alias = "system_instruction")]
    system_instruction: Content<'a>,
    #[serde(borrow, default, alias = "generation_config")]
    generation_config: GenerationConfig<'a>,
}

#[derive(Deserialize)]
struct Turn<'a> {
    #[serde(borrow, default = "user")]
    role: Cow<'a, str>,
    #[serde(borrow, default)]
    parts: Content<'a>,
}

fn user() -> Cow<'static, str> {
    Cow::Borrowed("user")
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct GenerationConfig<'a> {
    max_output_tokens: Option<u64>,
    #[serde(borrow)]
    response_mime_type: Cow<'a, str>,
    response_schema: Option<Value>,
    response_json_schema: Option<Value>,
}

/// Parses a request.
pub(super) fn parse_request<'a>(
    head: &RequestHead<'a>,
    body: &'a [u8],
    settings: &Settings,
) -> Result<ParsedRequest<'a>, ApiError> {
    let invalid = |message: String| ApiError::invalid_request(message, None, None);
    let request: Request<'a> = serde_json::from_slice(body)
        .map_err(|error| invalid(format!("Invalid JSON payload received. {error}")))?;
    let contents = request.contents.unwrap_or_default();
    if contents.is_empty() {
        return Err(invalid("* GenerateContentRequest.contents: contents is not specified\n".to_owned()));
    }
    let mut conversation = Conversation::default();
    conversation.push(request.system_instruction, false);
    for turn in contents {
        if !matches!(&*turn.role, "user" | "model" | "function") {
            return Err(invalid("Please use a valid role: user, model.".to_owned()));
        }
        conversation.push(turn.parts, turn.role == "user");
    }
    let is_supported = |media_type: &str| !["application/json", "application/xml"].contains(&media_type);
    if let Some(media_type) = conversation.unsupported_document(is_supported) {
        return Err(invalid(format!("Unsupported MIME type: {media_type}")));
    }
    let config = request.generation_config;
    if let Some(schema) = config.response_json_schema.as_ref().filter(|_| settings.strict_schemas) {
        strict_schema::check_gemini(schema).map_err(invalid)?;
    }
    let shape =
        answer_format(&config.response_mime_type, config.response_schema.or(config.response_json_schema))?
            .unwrap_or_else(|| {
                conversation.choice_options().map_or(AnswerFormat::Text, AnswerFormat::Choice)
            });
    let delivery = match head.stream {
        false => Delivery::Full,
        true if query_parameter(head.query, "alt") == Some("sse") => Delivery::EventStream { usage: true },
        true => Delivery::JsonArray,
    };
    let model = Cow::Borrowed(head.model.unwrap_or_default());
    Ok(ParsedRequest { model, delivery, conversation, max_tokens: config.max_output_tokens, format: shape })
}

/// Returns the requested format; `None` for plain text.
fn answer_format(mime_type: &str, schema: Option<Value>) -> Result<Option<AnswerFormat>, ApiError> {
    let invalid = |message: &str| ApiError::invalid_request(message, None, None);
    match (mime_type, schema) {
        ("" | "text/plain", None) => Ok(None),
        ("application/json", None) => Ok(Some(AnswerFormat::Object)),
        ("application/json", Some(schema)) => Ok(Some(AnswerFormat::Schema(schema))),
        ("text/x.enum", Some(schema)) => {
            let options = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
            let options: Vec<_> = options.filter_map(Value::as_str).map(str::to_owned).collect();
            if options.is_empty() {
                return Err(invalid(
                    "* GenerateContentRequest.generation_config.response_schema.enum: missing field.\n",
                ));
            }
            Ok(Some(AnswerFormat::Choice(options)))
        }
        ("text/x.enum", None) => {
            Err(invalid("* GenerateContentRequest.generation_config.response_schema: missing field.\n"))
        }
        (_, Some(_)) => Err(invalid("Response schema requires the response mime type 'application/json'.")),
        (_, None) => Err(invalid(
            "* GenerateContentRequest.generation_config.response_mime_type: allowed mimetypes are `text/plain`, \
             `application/json`, `application/xml`, `application/yaml` and `text/x.enum`.\n",
        )),
    }
}

/// Returns the value of a query parameter.
pub(super) fn query_parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query
        .split('&')
        .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
}

fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "STOP",
        Finish::Length => "MAX_TOKENS",
        Finish::Refusal => "SAFETY",
    }
}

/// The candidate of a response, or of one chunk of a stream.
struct Candidate<'a> {
    /// `None` is a content without parts.
    text: Option<&'a str>,
    finish: Option<Finish>,
    /// Output tokens so far.
    output: u64,
}

fn candidate(out: &mut Vec<u8>, data: &ResponseData<'_>, candidate: &Candidate<'_>) {
    out.extend_from_slice(br#"{"candidates":[{"#);
    if candidate.finish == Some(Finish::Refusal) {
        // A response that is blocked by the safety filters has no content.
        out.extend_from_slice(br#""finishReason":"SAFETY","index":0,"safetyRatings":[{"category":"HARM_CATEGORY_DANGEROUS_CONTENT","probability":"HIGH","blocked":true}]"#);
    } else {
        out.extend_from_slice(br#""content":{"#);
        if let Some(text) = candidate.text {
            out.extend_from_slice(br#""parts":[{"text":"#);
            json_string(out, text);
            out.extend_from_slice(b"}],");
        }
        out.extend_from_slice(br#""role":"model"},"#);
        if let Some(finish) = candidate.finish {
            append!(out, r#""finishReason":""#, finish_reason(finish), r#"","#);
        }
        out.extend_from_slice(br#""index":0"#);
    }
    let input = data.input_tokens;
    append!(out, r#"}],"usageMetadata":{"promptTokenCount":"#, input);
    // As at the vendor, a count of 0 is omitted.
    if candidate.output > 0 {
        append!(out, r#","candidatesTokenCount":"#, candidate.output);
    }
    append!(out, r#","totalTokenCount":"#, input + candidate.output);
    append!(
        out,
        r#","promptTokensDetails":[{"modality":"TEXT","tokenCount":"#,
        input,
        r#"}]},"modelVersion":"#
    );
    json_string(out, data.model);
    append!(out, r#","responseId":"simulated-"#, format_args!("{:016x}", data.serial), "\"}");
}

/// Renders a response without streaming.
pub(super) fn render_response(data: &ResponseData<'_>) -> Vec<u8> {
    let completion = data.completion;
    let mut out = Vec::with_capacity(500 + completion.text.len());
    let output = if completion.finish == Finish::Refusal { 0 } else { completion.output_tokens };
    let text = (!completion.text.is_empty()).then_some(&*completion.text);
    candidate(&mut out, data, &Candidate { text, finish: Some(completion.finish), output });
    out
}

/// Renders a stream of at most `max_chunks` text chunks.
pub(super) fn render_stream(data: &ResponseData<'_>, max_chunks: usize) -> EventStream {
    let completion = data.completion;
    let is_refusal = completion.finish == Finish::Refusal;
    let text = if is_refusal { "" } else { &completion.text };
    let mut events = EventStream::with_capacity(350 * (max_chunks.min(text.len()) + 1) + text.len() * 5 / 4);
    let push_event = |events: &mut EventStream, part: &Candidate<'_>| {
        events.push(|out| {
            out.extend_from_slice(b"data: ");
            candidate(out, data, part);
            out.extend_from_slice(b"\r\n\r\n");
        });
    };
    let mut sent = 0;
    for chunk in text_chunks(text, max_chunks) {
        sent += chunk.len();
        push_event(
            &mut events,
            &Candidate {
                text: Some(chunk),
                finish: None,
                output: tokens(sent).min(completion.output_tokens),
            },
        );
    }
    events.end_chunks();
    let output = if is_refusal { 0 } else { completion.output_tokens };
    push_event(
        &mut events,
        &Candidate { text: (!text.is_empty()).then_some(""), finish: Some(completion.finish), output },
    );
    events
}

/// Renders an error response.
pub(super) fn render_error(api_error: &ApiError) -> ErrorResponse {
    let mut details = None;
    let (code, status, message): (u16, &str, Cow<'_, str>) = match api_error {
        ApiError::InvalidRequest { message, .. } => (400, "INVALID_ARGUMENT", message.into()),
        ApiError::RequestTooLarge => {
            (400, "INVALID_ARGUMENT", "Request payload size exceeds the limit.".into())
        }
        ApiError::InvalidKey { .. } => {
            details = Some(json!([
                { "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID",
                    "domain": "googleapis.com", "metadata": { "service": "generativelanguage.googleapis.com" } },
                { "@type": "type.googleapis.com/google.rpc.LocalizedMessage", "locale": "en-US", "message": INVALID_KEY_MESSAGE },
            ]));
            (400, "INVALID_ARGUMENT", INVALID_KEY_MESSAGE.into())
        }
        ApiError::MissingKey => (403, "PERMISSION_DENIED", MISSING_KEY_MESSAGE.into()),
        ApiError::ModelNotFound { model } => (
            404,
            "NOT_FOUND",
            format!(
                "models/{model} is not found for API version v1beta, or is not supported for generateContent."
            )
            .into(),
        ),
        ApiError::RouteNotFound { request } => {
            (404, "NOT_FOUND", format!("No such method: {request}.").into())
        }
        ApiError::RateLimited(rate_limit) => {
            let (message, error_details) = rate_limit_message(rate_limit);
            details = error_details;
            (429, "RESOURCE_EXHAUSTED", message.into())
        }
        ApiError::QuotaExceeded { model, .. } => {
            // For a daily quota the vendor sends a delay of hours.
            let wait = Duration::from_secs(36_000);
            let (message, error_details) =
                quota_error(model, 20, "generate_content_free_tier_requests", DAILY_QUOTA_ID, wait.into());
            details = Some(error_details);
            (429, "RESOURCE_EXHAUSTED", message.into())
        }
        ApiError::Forbidden(ForbiddenResource::Unspecified) => {
            (403, "PERMISSION_DENIED", "The caller does not have permission".into())
        }
        ApiError::Forbidden(ForbiddenResource::Model(model)) => (
            403,
            "PERMISSION_DENIED",
            format!("Permission denied: the project does not have access to the model {model}.").into(),
        ),
        ApiError::Forbidden(ForbiddenResource::File) => (
            403,
            "PERMISSION_DENIED",
            "You do not have permission to access the File simulated or it may not exist.".into(),
        ),
        ApiError::InsufficientCredits { max_tokens } => {
            (402, "RESOURCE_EXHAUSTED", insufficient_credits_message(*max_tokens).into())
        }
        ApiError::ServerError { status: 504 } => {
            (504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete.".into())
        }
        ApiError::ServerError { status } => {
            (*status, "INTERNAL", "An internal error has occurred. Please retry.".into())
        }
        ApiError::Unavailable { status } => (*status, "UNAVAILABLE", OVERLOADED_MESSAGE.into()),
        ApiError::Overloaded { status } => (status.unwrap_or(503), "UNAVAILABLE", OVERLOADED_MESSAGE.into()),
    };
    let mut error = json!({ "code": code, "message": message, "status": status });
    if let Some(details) = details {
        error["details"] = details;
    }
    (code, json!({ "error": error }).to_string().into_bytes())
}

const INVALID_KEY_MESSAGE: &str = "API key not valid. Please pass a valid API key.";
const MISSING_KEY_MESSAGE: &str = "Method doesn't allow unregistered callers (callers without established identity). \
                            Please use API Key or other form of API consumer identity to call this API.";
const OVERLOADED_MESSAGE: &str = "The model is overloaded. Please try again later.";
const DAILY_QUOTA_ID: &str = "GenerateRequestsPerDayPerProjectPerModel-FreeTier";

fn rate_limit_message(rate_limit: &RateLimitDetails) -> (String, Option<Value>) {
    let wait = match rate_limit.retry_hint {
        RetryHint::Missing => return ("Resource has been exhausted (e.g. check quota).".to_owned(), None),
        RetryHint::After(wait) => ProtobufDuration::from(wait),
        RetryHint::Implausible(seconds) => ProtobufDuration(format!("{seconds}s")),
    };
    let (metric, id) = match rate_limit.limit_kind {
        LimitKind::Requests => {
            ("generate_content_free_tier_requests", "GenerateRequestsPerMinutePerProjectPerModel-FreeTier")
        }
        LimitKind::Tokens | LimitKind::InputTokens => (
            "generate_content_free_tier_input_token_count",
            "GenerateContentInputTokensPerModelPerMinute-FreeTier",
        ),
        LimitKind::OutputTokens => (
            "generate_content_free_tier_output_token_count",
            "GenerateContentOutputTokensPerModelPerMinute-FreeTier",
        ),
    };
    let (message, details) = quota_error(&rate_limit.model, rate_limit.limit, metric, id, wait);
    (message, Some(details))
}

/// A protobuf duration: seconds with decimals.
struct ProtobufDuration(String);

impl From<Duration> for ProtobufDuration {
    fn from(wait: Duration) -> Self {
        match wait.subsec_nanos() {
            0 => Self(format!("{}s", wait.as_secs())),
            nanos => Self(format!("{}.{nanos:09}s", wait.as_secs())),
        }
    }
}

fn quota_error(
    model: &str,
    limit: u64,
    metric: &str,
    id: &str,
    ProtobufDuration(wait): ProtobufDuration,
) -> (String, Value) {
    let metric = format!("generativelanguage.googleapis.com/{metric}");
    let message = format!(
        "You exceeded your current quota, please check your plan and billing details.\n* Quota exceeded for metric: \
         {metric}, limit: {limit}, model: {model}\nPlease retry in {wait}."
    );
    let details = json!([
        { "@type": "type.googleapis.com/google.rpc.Help", "links": [{
            "description": "Learn more about Gemini API quotas",
            "url": "https://ai.google.dev/gemini-api/docs/rate-limits" }] },
        { "@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{
            "quotaMetric": metric, "quotaId": id, "quotaDimensions": { "location": "global", "model": model },
            "quotaValue": limit.to_string() }] },
        { "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": wait },
    ]);
    (message, details)
}

/// Renders the list of models.
pub(super) fn render_models(models: &[String]) -> Vec<u8> {
    let models: Vec<_> = models
        .iter()
        .map(|name| {
            json!({ "name": format!("models/{name}"), "version": "1", "displayName": name,
                "inputTokenLimit": 1_048_576, "outputTokenLimit": 65_536,
                "supportedGenerationMethods": ["generateContent"] })
        })
        .collect();
    json!({ "models": models }).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_requires_json_and_an_enum_its_own_mime_type() {
        let text = answer_format("", None).unwrap();
        assert_eq!(text, None);
        assert_eq!(answer_format("application/json", None).unwrap(), Some(AnswerFormat::Object));
        let options = json!({ "type": "STRING", "enum": ["A", "B"] });
        let choice = AnswerFormat::Choice(vec!["A".to_owned(), "B".to_owned()]);
        assert_eq!(answer_format("text/x.enum", Some(options.clone())).unwrap(), Some(choice));
        assert!(answer_format("", Some(options)).is_err());
        assert!(answer_format("text/x.enum", Some(json!({}))).is_err());
        assert!(answer_format("image/png", None).is_err());
    }

    #[test]
    fn delays_are_formatted_as_protobuf_durations() {
        assert_eq!(ProtobufDuration::from(Duration::from_secs(34)).0, "34s");
        assert_eq!(ProtobufDuration::from(Duration::from_nanos(3_957_525_076)).0, "3.957525076s");
        assert_eq!(ProtobufDuration::from(Duration::from_millis(500)).0, "0.500000000s");
    }

    #[test]
    fn a_query_parameter_is_found() {
        assert_eq!(query_parameter("alt=sse&key=k-1", "key"), Some("k-1"));
        assert_eq!(query_parameter("altar=x", "alt"), None);
        assert_eq!(query_parameter("", "alt"), None);
    }
}
