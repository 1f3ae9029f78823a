//! Plays Gemini: generateContent, its streams and errors. It has no rate-limit headers, so nor has this.
//!
//! Knows bytes and nothing of limits, faults or time.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::account::Quantity;
use super::answer::Finish;
use super::ask::{Ask, Content, Conversation, Delivery, Shape, tokens};
use super::events::{Events, pieces};
use super::reply::{ErrorReply, Head, Reply, append, json_string};
use super::trouble::{Forbidden, Hint, Throttled, Trouble, unaffordable};
use super::{Settings, rules};

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

/// Reads a request.
pub(super) fn read<'a>(head: &Head<'a>, body: &'a [u8], settings: &Settings) -> Result<Ask<'a>, Trouble> {
    let invalid = |message: String| Trouble::invalid(message, None, None);
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
    let takes = |media_type: &str| !["application/json", "application/xml"].contains(&media_type);
    if let Some(media_type) = conversation.refused_document(takes) {
        return Err(invalid(format!("Unsupported MIME type: {media_type}")));
    }
    let config = request.generation_config;
    if let Some(schema) = config.response_json_schema.as_ref().filter(|_| settings.strict_schemas) {
        rules::gemini(schema).map_err(invalid)?;
    }
    let shape = shape(&config.response_mime_type, config.response_schema.or(config.response_json_schema))?
        .unwrap_or_else(|| conversation.choice().map_or(Shape::Text, Shape::Choice));
    let delivery = match head.stream {
        false => Delivery::Whole,
        true if query(head.query, "alt") == Some("sse") => Delivery::Events { usage: true },
        true => Delivery::Array,
    };
    let model = Cow::Borrowed(head.model.unwrap_or_default());
    Ok(Ask { model, delivery, conversation, max_tokens: config.max_output_tokens, shape })
}

/// Returns the shape that is asked for; `None` for plain text.
fn shape(mime_type: &str, schema: Option<Value>) -> Result<Option<Shape>, Trouble> {
    let invalid = |message: &str| Trouble::invalid(message, None, None);
    match (mime_type, schema) {
        ("" | "text/plain", None) => Ok(None),
        ("application/json", None) => Ok(Some(Shape::Object)),
        ("application/json", Some(schema)) => Ok(Some(Shape::Schema(schema))),
        ("text/x.enum", Some(schema)) => {
            let options = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
            let options: Vec<_> = options.filter_map(Value::as_str).map(str::to_owned).collect();
            if options.is_empty() {
                return Err(invalid(
                    "* GenerateContentRequest.generation_config.response_schema.enum: missing field.\n",
                ));
            }
            Ok(Some(Shape::Choice(options)))
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

/// Returns a parameter of a query.
pub(super) fn query<'a>(query: &'a str, name: &str) -> Option<&'a str> {
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

/// What the candidate of a reply, or of one piece of a stream, says.
struct Candidate<'a> {
    /// `None` writes a content without parts.
    text: Option<&'a str>,
    finish: Option<Finish>,
    /// Tokens so far.
    output: u64,
}

fn candidate(out: &mut Vec<u8>, reply: &Reply<'_>, candidate: &Candidate<'_>) {
    out.extend_from_slice(br#"{"candidates":[{"#);
    if candidate.finish == Some(Finish::Refusal) {
        // Blocked by the safety systems: no content at all.
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
    let input = reply.input_tokens;
    append!(out, r#"}],"usageMetadata":{"promptTokenCount":"#, input);
    // Zeros are left out, as the vendor does.
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
    json_string(out, reply.model);
    append!(out, r#","responseId":"practice"#, format_args!("{:016x}", reply.serial), "\"}");
}

/// Writes a whole reply.
pub(super) fn whole(reply: &Reply<'_>) -> Vec<u8> {
    let answer = reply.answer;
    let mut out = Vec::with_capacity(500 + answer.text.len());
    let output = if answer.finish == Finish::Refusal { 0 } else { answer.output_tokens };
    let text = (!answer.text.is_empty()).then_some(&*answer.text);
    candidate(&mut out, reply, &Candidate { text, finish: Some(answer.finish), output });
    out
}

/// Writes a stream of at most so many pieces.
pub(super) fn events(reply: &Reply<'_>, most: usize) -> Events {
    let answer = reply.answer;
    let refused = answer.finish == Finish::Refusal;
    let text = if refused { "" } else { &answer.text };
    let mut events = Events::with_capacity(350 * (most.min(text.len()) + 1) + text.len() * 5 / 4);
    let event = |events: &mut Events, part: &Candidate<'_>| {
        events.push(|out| {
            out.extend_from_slice(b"data: ");
            candidate(out, reply, part);
            out.extend_from_slice(b"\r\n\r\n");
        });
    };
    let mut sent = 0;
    for piece in pieces(text, most) {
        sent += piece.len();
        event(
            &mut events,
            &Candidate { text: Some(piece), finish: None, output: tokens(sent).min(answer.output_tokens) },
        );
    }
    events.pieces_end();
    let output = if refused { 0 } else { answer.output_tokens };
    event(
        &mut events,
        &Candidate { text: (!text.is_empty()).then_some(""), finish: Some(answer.finish), output },
    );
    events
}

/// Writes an error.
pub(super) fn error(trouble: &Trouble) -> ErrorReply {
    let mut details = None;
    let (code, status, message): (u16, &str, Cow<'_, str>) = match trouble {
        Trouble::Invalid { message, .. } => (400, "INVALID_ARGUMENT", message.into()),
        Trouble::TooLarge => (400, "INVALID_ARGUMENT", "Request payload size exceeds the limit.".into()),
        Trouble::Key { .. } => {
            details = Some(json!([
                { "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID",
                    "domain": "googleapis.com", "metadata": { "service": "generativelanguage.googleapis.com" } },
                { "@type": "type.googleapis.com/google.rpc.LocalizedMessage", "locale": "en-US", "message": BAD_KEY },
            ]));
            (400, "INVALID_ARGUMENT", BAD_KEY.into())
        }
        Trouble::NoKey => (403, "PERMISSION_DENIED", UNREGISTERED.into()),
        Trouble::NoModel { model } => (
            404,
            "NOT_FOUND",
            format!(
                "models/{model} is not found for API version v1beta, or is not supported for generateContent."
            )
            .into(),
        ),
        Trouble::NoAddress { what } => (404, "NOT_FOUND", format!("No such method: {what}.").into()),
        Trouble::Throttled(throttled) => {
            let (message, more) = throttled_words(throttled);
            details = more;
            (429, "RESOURCE_EXHAUSTED", message.into())
        }
        Trouble::Quota { model, .. } => {
            // A day's quota: the vendor sends a delay of hours with it.
            let wait = Duration::from_secs(36_000);
            let (message, more) =
                exhausted(model, 20, "generate_content_free_tier_requests", PER_DAY, wait.into());
            details = Some(more);
            (429, "RESOURCE_EXHAUSTED", message.into())
        }
        Trouble::Forbidden(Forbidden::Unsaid) => {
            (403, "PERMISSION_DENIED", "The caller does not have permission".into())
        }
        Trouble::Forbidden(Forbidden::Model(model)) => (
            403,
            "PERMISSION_DENIED",
            format!("Permission denied: the project does not have access to the model {model}.").into(),
        ),
        Trouble::Forbidden(Forbidden::File) => (
            403,
            "PERMISSION_DENIED",
            "You do not have permission to access the File practice or it may not exist.".into(),
        ),
        Trouble::Unaffordable { max_tokens } => (402, "RESOURCE_EXHAUSTED", unaffordable(*max_tokens).into()),
        Trouble::Server { status: 504 } => {
            (504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete.".into())
        }
        Trouble::Server { status } => {
            (*status, "INTERNAL", "An internal error has occurred. Please retry.".into())
        }
        Trouble::Unavailable { status } => (*status, "UNAVAILABLE", OVERLOADED.into()),
        Trouble::Overloaded { status } => (status.unwrap_or(503), "UNAVAILABLE", OVERLOADED.into()),
    };
    let mut error = json!({ "code": code, "message": message, "status": status });
    if let Some(details) = details {
        error["details"] = details;
    }
    (code, json!({ "error": error }).to_string().into_bytes())
}

const BAD_KEY: &str = "API key not valid. Please pass a valid API key.";
const UNREGISTERED: &str = "Method doesn't allow unregistered callers (callers without established identity). \
                            Please use API Key or other form of API consumer identity to call this API.";
const OVERLOADED: &str = "The model is overloaded. Please try again later.";
const PER_DAY: &str = "GenerateRequestsPerDayPerProjectPerModel-FreeTier";

fn throttled_words(throttled: &Throttled) -> (String, Option<Value>) {
    let wait = match throttled.hint {
        Hint::Nothing => return ("Resource has been exhausted (e.g. check quota).".to_owned(), None),
        Hint::After(wait) => Wait::from(wait),
        Hint::Absurd(seconds) => Wait(format!("{seconds}s")),
    };
    let (metric, id) = match throttled.quantity {
        Quantity::Requests => {
            ("generate_content_free_tier_requests", "GenerateRequestsPerMinutePerProjectPerModel-FreeTier")
        }
        Quantity::Tokens | Quantity::InputTokens => (
            "generate_content_free_tier_input_token_count",
            "GenerateContentInputTokensPerModelPerMinute-FreeTier",
        ),
        Quantity::OutputTokens => (
            "generate_content_free_tier_output_token_count",
            "GenerateContentOutputTokensPerModelPerMinute-FreeTier",
        ),
    };
    let (message, details) = exhausted(&throttled.model, throttled.limit, metric, id, wait);
    (message, Some(details))
}

/// A protobuf duration, in seconds and their decimals.
struct Wait(String);

impl From<Duration> for Wait {
    fn from(wait: Duration) -> Self {
        match wait.subsec_nanos() {
            0 => Self(format!("{}s", wait.as_secs())),
            nanos => Self(format!("{}.{nanos:09}s", wait.as_secs())),
        }
    }
}

fn exhausted(model: &str, limit: u64, metric: &str, id: &str, Wait(wait): Wait) -> (String, Value) {
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

/// Returns the list of models.
pub(super) fn models(models: &[String]) -> Vec<u8> {
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
    fn a_schema_goes_with_json_and_an_enum_with_its_own_type() {
        let text = shape("", None).unwrap();
        assert_eq!(text, None);
        assert_eq!(shape("application/json", None).unwrap(), Some(Shape::Object));
        let options = json!({ "type": "STRING", "enum": ["A", "B"] });
        let choice = Shape::Choice(vec!["A".to_owned(), "B".to_owned()]);
        assert_eq!(shape("text/x.enum", Some(options.clone())).unwrap(), Some(choice));
        assert!(shape("", Some(options)).is_err());
        assert!(shape("text/x.enum", Some(json!({}))).is_err());
        assert!(shape("image/png", None).is_err());
    }

    #[test]
    fn delays_are_written_as_protobuf_durations() {
        assert_eq!(Wait::from(Duration::from_secs(34)).0, "34s");
        assert_eq!(Wait::from(Duration::from_nanos(3_957_525_076)).0, "3.957525076s");
        assert_eq!(Wait::from(Duration::from_millis(500)).0, "0.500000000s");
    }

    #[test]
    fn a_parameter_is_found_in_a_query() {
        assert_eq!(query("alt=sse&key=k-1", "key"), Some("k-1"));
        assert_eq!(query("altar=x", "alt"), None);
        assert_eq!(query("", "alt"), None);
    }
}
