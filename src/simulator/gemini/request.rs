//! Requests of Gemini's generateContent.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use crate::simulator::api_error::ApiError;
use crate::simulator::content::{Content, ExchangePart};
use crate::simulator::parsed_request::{AnswerFormat, Conversation, Delivery, ParsedRequest, RequestHead};
use crate::simulator::reasoning::{DEFAULT_REASONING_TOKENS, ReasoningRequest, signature, tokens_of_effort};
use crate::simulator::tool_pairing::{PairingError, ToolPairing};
use crate::simulator::{Settings, strict_schema};

use super::tools::{SIGNED_CALL_PREFIX, invalid, tool_settings};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    contents: Option<Vec<Turn<'a>>>,
    #[serde(borrow, default, alias = "system_instruction")]
    system_instruction: Content<'a>,
    #[serde(borrow, default, alias = "generation_config")]
    generation_config: GenerationConfig<'a>,
    tools: Option<Vec<Value>>,
    #[serde(alias = "tool_config")]
    tool_config: Option<Value>,
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
    stop_sequences: Option<Vec<String>>,
    thinking_config: Option<ThinkingConfig>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ThinkingConfig {
    include_thoughts: Option<bool>,
    thinking_budget: Option<i64>,
    thinking_level: Option<String>,
}

/// Parses a request.
pub(in crate::simulator) fn parse_request<'a>(
    head: &RequestHead<'a>,
    body: &'a [u8],
    settings: &Settings,
) -> Result<ParsedRequest<'a>, ApiError> {
    let request: Request<'a> = serde_json::from_slice(body)
        .map_err(|error| invalid(format!("Invalid JSON payload received. {error}")))?;
    let contents = request.contents.unwrap_or_default();
    if contents.is_empty() {
        return Err(invalid("* GenerateContentRequest.contents: contents is not specified\n"));
    }
    if contents.iter().any(|turn| !matches!(&*turn.role, "user" | "model" | "function")) {
        return Err(invalid("Please use a valid role: user, model."));
    }
    check_pairing(&contents).map_err(pairing_error)?;
    let lacks_signature = check_signatures(&contents)?;
    let tools = request.tools.unwrap_or_default();
    let tool_settings = tool_settings(&tools, request.tool_config.as_ref())?;
    let mut conversation = Conversation::default();
    if !tools.is_empty() {
        conversation.add_bytes(Value::from(tools).to_string().len());
    }
    conversation.push(request.system_instruction, false);
    for turn in contents {
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
    let reasoning = config.thinking_config.as_ref().map(reasoning).transpose()?.flatten();
    let format =
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
    Ok(ParsedRequest {
        model,
        delivery,
        conversation,
        max_tokens: config.max_output_tokens,
        format,
        stop: config.stop_sequences.unwrap_or_default(),
        tools: tool_settings,
        reasoning,
        lacks_signature,
    })
}

/// Returns the reasoning that a request asks for.
fn reasoning(config: &ThinkingConfig) -> Result<Option<ReasoningRequest>, ApiError> {
    let level = config.thinking_level.as_deref().map(str::to_ascii_lowercase);
    let tokens = match (&level, config.thinking_budget) {
        (Some(level), _) => tokens_of_effort(level)
            .ok_or_else(|| invalid("Invalid value at 'generation_config.thinking_config.thinking_level'"))?,
        // A negative budget leaves it to the model.
        (None, Some(budget)) => u64::try_from(budget).unwrap_or(u64::MAX).min(DEFAULT_REASONING_TOKENS),
        (None, None) => DEFAULT_REASONING_TOKENS,
    };
    let shows_text = config.include_thoughts == Some(true);
    Ok((tokens > 0).then_some(ReasoningRequest { tokens, shows_text, is_encrypted: false }))
}

/// Checks that calls of tools and their results belong together. They have names, but not always ids.
fn check_pairing(contents: &[Turn<'_>]) -> Result<(), PairingError> {
    let mut pairing = ToolPairing::default();
    for (index, turn) in contents.iter().enumerate() {
        pairing.begin_message(turn.role == "model")?;
        for (_, part) in turn.parts.exchange() {
            match part {
                ExchangePart::Call { name, .. } => pairing.call(index, name),
                ExchangePart::Result { name, .. } => pairing.result(index, name)?,
                ExchangePart::Reasoning { .. } => {}
            }
        }
    }
    pairing.finish()
}

fn pairing_error(error: PairingError) -> ApiError {
    invalid(match error {
        PairingError::ResultWithoutCall { .. } => {
            "Please ensure that function response turn comes immediately after a function call turn."
        }
        PairingError::CallsWithoutResult { .. } => {
            "Please ensure that the number of function response parts is equal to the number of function call parts \
             of the function call turn."
        }
    })
}

/// Checks the signatures of the calls that the client sends back. Returns whether one is missing.
fn check_signatures(contents: &[Turn<'_>]) -> Result<bool, ApiError> {
    let mut is_missing = false;
    for (_, part) in contents.iter().flat_map(|turn| turn.parts.exchange()) {
        let ExchangePart::Call { id, signature: given, .. } = part else { continue };
        if !id.starts_with(SIGNED_CALL_PREFIX) {
            continue;
        }
        match given {
            None => is_missing = true,
            Some(given) if *given == signature(id) => {}
            Some(_) => return Err(invalid("Thought signature is not valid.")),
        }
    }
    Ok(is_missing)
}

/// Returns the requested format; `None` for plain text.
fn answer_format(mime_type: &str, schema: Option<Value>) -> Result<Option<AnswerFormat>, ApiError> {
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
pub(in crate::simulator) fn query_parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query
        .split('&')
        .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use serde_json::json;

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
    fn a_query_parameter_is_found() {
        assert_eq!(query_parameter("alt=sse&key=k-1", "key"), Some("k-1"));
        assert_eq!(query_parameter("altar=x", "alt"), None);
        assert_eq!(query_parameter("", "alt"), None);
    }

    #[test]
    fn calls_results_and_signatures_are_checked() {
        let headers = HeaderMap::new();
        let head = RequestHead { headers: &headers, query: "", model: Some("m"), stream: false };
        let parse = |model: &str, user: &str| {
            let body = format!(
                r#"{{"contents":[{{"parts":[{{"text":"x"}}]}},{{"role":"model","parts":[{model}]}},
                    {{"role":"user","parts":[{user}]}}]}}"#
            );
            match parse_request(&head, body.as_bytes(), &Settings::default()) {
                Ok(request) => Ok(request.lacks_signature),
                Err(ApiError::InvalidRequest { message, .. }) => Err(message),
                Err(other) => panic!("{other:?}"),
            }
        };
        let call = |id: &str, signature: Option<&str>| {
            let signature = signature.map(|signature| format!(r#","thoughtSignature":"{signature}""#));
            let signature = signature.unwrap_or_default();
            format!(r#"{{"functionCall":{{"id":"{id}","name":"look","args":{{}}}}{signature}}}"#)
        };
        let result = r#"{"functionResponse":{"name":"look","response":{}}}"#;
        let text = r#"{"text":"y"}"#;
        let signed = format!("{SIGNED_CALL_PREFIX}1");
        assert_eq!(parse(&call("fc1", None), result), Ok(false));
        assert_eq!(parse(&call("fc1", Some("other")), result), Ok(false));
        assert_eq!(parse(&call(&signed, Some(&signature(&signed))), result), Ok(false));
        assert_eq!(parse(&call(&signed, None), result), Ok(true));
        assert!(parse(&call(&signed, Some("other")), result).unwrap_err().contains("not valid"));
        assert!(parse(&call("fc1", None), text).unwrap_err().contains("number of function response parts"));
        assert!(parse(text, result).unwrap_err().contains("immediately after a function call turn"));
    }
}
