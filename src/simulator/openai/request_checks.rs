//! Checks that OpenAI's chat completions and responses have in common: parameters, documents, and the format of the
//! answer.

use serde::Deserialize;
use serde_json::Value;

use crate::simulator::api_error::ApiError;
use crate::simulator::content::Text;
use crate::simulator::parsed_request::{AnswerFormat, Conversation};
use crate::simulator::reasoning::{ReasoningRequest, tokens_of_effort};
use crate::simulator::tool_settings::is_tool_name;
use crate::simulator::{Settings, strict_schema};

/// Maximum length of the name of a schema.
const MAX_SCHEMA_NAME: usize = 64;

/// Names of the parameters with the format of the answer.
pub(super) struct FormatNames {
    format: &'static str,
    schema: &'static str,
    schema_name: &'static str,
}

pub(super) const CHAT_FORMAT: FormatNames = FormatNames {
    format: "response_format",
    schema: "response_format.json_schema",
    schema_name: "response_format.json_schema.name",
};

pub(super) const RESPONSES_FORMAT: FormatNames =
    FormatNames { format: "text.format", schema: "text.format.schema", schema_name: "text.format.name" };

/// A schema with its name.
#[derive(Deserialize)]
pub(super) struct JsonSchema {
    pub(super) name: Option<String>,
    pub(super) schema: Option<Value>,
    pub(super) strict: Option<bool>,
}

/// Returns the error of a missing parameter.
pub(super) fn missing_parameter(param: &'static str) -> ApiError {
    let message = format!("Missing required parameter: '{param}'.");
    ApiError::invalid_request(message, Some(param), Some("missing_required_parameter"))
}

/// Returns whether the settings refuse a parameter.
pub(super) fn is_refused(settings: &Settings, name: &str) -> bool {
    settings.refused_parameters.iter().any(|refused| refused == name)
}

/// Refuses a temperature as a reasoning model does.
pub(super) fn check_temperature(temperature: Option<f64>, settings: &Settings) -> Result<(), ApiError> {
    let refused = temperature.filter(|value| *value != 1.0 && is_refused(settings, "temperature"));
    let Some(temperature) = refused else { return Ok(()) };
    let message = format!(
        "Unsupported value: 'temperature' does not support {temperature} with this model. Only the default (1) \
         value is supported."
    );
    Err(ApiError::invalid_request(message, Some("temperature"), Some("unsupported_value")))
}

/// Refuses documents other than PDF. `param` contains the messages.
pub(super) fn check_documents(conversation: &Conversation<'_>, param: &'static str) -> Result<(), ApiError> {
    let is_pdf = |media_type: &str| media_type.eq_ignore_ascii_case("application/pdf");
    let unsupported = conversation.unsupported_document(is_pdf);
    let Some(media_type) = unsupported else { return Ok(()) };
    let message = format!(
        "Invalid file data: 'file_data'. Expected a base64-encoded data URL with an application/pdf MIME type, \
         but got unsupported MIME type '{media_type}'."
    );
    Err(ApiError::invalid_request(message, Some(param), Some("invalid_value")))
}

/// Returns the reasoning of an effort, without its text; `None` without reasoning.
pub(super) fn reasoning(
    effort: Option<Text<'_>>,
    param: &'static str,
) -> Result<Option<ReasoningRequest>, ApiError> {
    let Some(Text(effort)) = effort else { return Ok(None) };
    let tokens = tokens_of_effort(&effort).ok_or_else(|| {
        let message = format!(
            "Invalid value: '{effort}'. Supported values are: 'none', 'minimal', 'low', 'medium', 'high', 'xhigh', \
             and 'max'."
        );
        ApiError::invalid_request(message, Some(param), Some("invalid_value"))
    })?;
    Ok((tokens > 0).then_some(ReasoningRequest { tokens, shows_text: false, is_encrypted: false }))
}

/// Returns the format of the answer.
pub(super) fn answer_format(
    kind: &str,
    json_schema: Option<JsonSchema>,
    names: &FormatNames,
    conversation: &Conversation<'_>,
    settings: &Settings,
) -> Result<AnswerFormat, ApiError> {
    let invalid = |message: String| ApiError::invalid_request(message, Some(names.format), None);
    match kind {
        "text" => Ok(conversation.choice_options().map_or(AnswerFormat::Text, AnswerFormat::Choice)),
        "json_object" if conversation.contains("json") || conversation.contains("JSON") => {
            Ok(AnswerFormat::Object)
        }
        "json_object" => Err(invalid(format!(
            "'messages' must contain the word 'json' in some form, to use '{}' of type 'json_object'.",
            names.format
        ))),
        "json_schema" => {
            let JsonSchema { name, schema, strict } =
                json_schema.ok_or_else(|| missing_parameter(names.schema))?;
            let name = name.ok_or_else(|| missing_parameter(names.schema_name))?;
            if !is_tool_name(&name, MAX_SCHEMA_NAME, "") {
                return Err(invalid(format!(
                    "Invalid '{}': string does not match pattern. Expected a string that matches the pattern \
                     '^[a-zA-Z0-9_-]+$', got {name:?}.",
                    names.schema_name
                )));
            }
            let schema = schema.unwrap_or(Value::Bool(true));
            if strict == Some(true) && settings.strict_schemas {
                strict_schema::check_openai(&schema).map_err(|reason| {
                    invalid(format!("Invalid schema for response_format '{name}': {reason}"))
                })?;
            }
            Ok(AnswerFormat::Schema(schema))
        }
        other => Err(invalid(format!(
            "Invalid value: '{other}'. Supported values are: 'json_object', 'json_schema', and 'text'."
        ))),
    }
}
