//! Requests of OpenAI's responses.

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::simulator::Settings;
use crate::simulator::api_error::ApiError;
use crate::simulator::content::{Content, OutputTexts, Text};
use crate::simulator::parsed_request::{AnswerFormat, Conversation, Delivery, ParsedRequest};
use crate::simulator::reasoning::{DEFAULT_REASONING_TOKENS, ReasoningRequest, signature};
use crate::simulator::tool_pairing::{PairingError, ToolPairing};

use super::function_tools::{ToolSyntax, tool_settings};
use super::request_checks::{
    JsonSchema, RESPONSES_FORMAT, answer_format, check_documents, check_temperature, missing_parameter,
    reasoning,
};

/// Value of `include` for the encrypted reasoning.
const ENCRYPTED_REASONING: &str = "reasoning.encrypted_content";

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    model: Option<Text<'a>>,
    #[serde(borrow)]
    input: Option<Input<'a>>,
    #[serde(borrow)]
    instructions: Option<Text<'a>>,
    stream: Option<bool>,
    max_output_tokens: Option<u64>,
    temperature: Option<f64>,
    text: Option<TextSettings>,
    #[serde(borrow)]
    reasoning: Option<Reasoning<'a>>,
    include: Option<Vec<String>>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    // Only chat completions have the rest.
    messages: Option<IgnoredAny>,
    max_tokens: Option<IgnoredAny>,
    max_completion_tokens: Option<IgnoredAny>,
    response_format: Option<IgnoredAny>,
    reasoning_effort: Option<IgnoredAny>,
    stop: Option<IgnoredAny>,
    seed: Option<IgnoredAny>,
    n: Option<IgnoredAny>,
}

/// The input: a text of the user, or items.
enum Input<'a> {
    Text(Cow<'a, str>),
    Items(Vec<Item<'a>>),
}

#[derive(Deserialize)]
struct Item<'a> {
    /// A message may omit it.
    #[serde(rename = "type", borrow)]
    kind: Option<Text<'a>>,
    #[serde(borrow, default)]
    role: Cow<'a, str>,
    #[serde(borrow, default)]
    content: Content<'a>,
    #[serde(borrow, default)]
    call_id: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    arguments: Cow<'a, str>,
    #[serde(borrow, default)]
    output: Content<'a>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    status: Option<IgnoredAny>,
    #[serde(borrow)]
    encrypted_content: Option<Text<'a>>,
}

/// Kind of an item.
#[derive(PartialEq, Eq)]
enum ItemKind {
    UserMessage,
    ModelMessage,
    InstructionMessage,
    Call,
    CallOutput,
    Reasoning,
    Other,
}

#[derive(Deserialize)]
struct TextSettings {
    format: Option<Format>,
}

#[derive(Deserialize)]
struct Format {
    #[serde(rename = "type")]
    kind: String,
    name: Option<String>,
    schema: Option<Value>,
    strict: Option<bool>,
}

#[derive(Deserialize)]
struct Reasoning<'a> {
    #[serde(borrow)]
    effort: Option<Text<'a>>,
    #[serde(borrow)]
    summary: Option<Text<'a>>,
}

impl Item<'_> {
    fn kind(&self) -> Result<ItemKind, ApiError> {
        let kind = self.kind.as_ref().map_or("message", |kind| &kind.0);
        Ok(match (kind, &*self.role) {
            ("message", "user") => ItemKind::UserMessage,
            ("message", "assistant") => ItemKind::ModelMessage,
            ("message", "system" | "developer") => ItemKind::InstructionMessage,
            ("message", role) => {
                let message = format!(
                    "Invalid value: '{role}'. Supported values are: 'assistant', 'system', 'developer', and 'user'."
                );
                return Err(ApiError::invalid_request(message, Some("input"), Some("invalid_value")));
            }
            ("function_call", _) => ItemKind::Call,
            ("function_call_output", _) => ItemKind::CallOutput,
            ("reasoning", _) => ItemKind::Reasoning,
            _ => ItemKind::Other,
        })
    }
}

impl Request<'_> {
    /// Refuses parameters that only chat completions have.
    fn check_parameters(&self) -> Result<(), ApiError> {
        let foreign = [
            ("messages", &self.messages),
            ("max_tokens", &self.max_tokens),
            ("max_completion_tokens", &self.max_completion_tokens),
            ("response_format", &self.response_format),
            ("reasoning_effort", &self.reasoning_effort),
            ("stop", &self.stop),
            ("seed", &self.seed),
            ("n", &self.n),
        ];
        match foreign.into_iter().find(|(_, value)| value.is_some()) {
            None => Ok(()),
            Some((name, _)) => {
                let message = format!("Unknown parameter: '{name}'.");
                Err(ApiError::invalid_request(message, Some(name), Some("unknown_parameter")))
            }
        }
    }
}

/// Parses a request.
pub(in crate::simulator) fn parse_request<'a>(
    body: &'a [u8],
    settings: &Settings,
) -> Result<ParsedRequest<'a>, ApiError> {
    let request: Request<'a> = serde_json::from_slice(body).map_err(|error| {
        let message = format!("We could not parse the JSON body of your request: {error}");
        ApiError::invalid_request(message, None, None)
    })?;
    request.check_parameters()?;
    let model = request.model.ok_or_else(|| missing_parameter("model"))?.0;
    let input = request.input.ok_or_else(|| missing_parameter("input"))?;
    check_temperature(request.temperature, settings)?;
    let tools = request.tools.unwrap_or_default();
    let tool_settings = tool_settings(
        ToolSyntax::Flat,
        &tools,
        request.tool_choice.as_ref(),
        request.parallel_tool_calls,
        settings,
    )?;
    let mut conversation = Conversation::default();
    if !tools.is_empty() {
        conversation.add_bytes(Value::from(tools).to_string().len());
    }
    conversation.push(request.instructions.map_or(Content::Empty, |text| Content::Text(text.0)), false);
    match input {
        Input::Text(text) => conversation.push(Content::Text(text), true),
        Input::Items(items) => push_items(&mut conversation, items)?,
    }
    check_documents(&conversation, "input")?;
    let format = match request.text.and_then(|text| text.format) {
        None => conversation.choice_options().map_or(AnswerFormat::Text, AnswerFormat::Choice),
        Some(Format { kind, name, schema, strict }) => {
            let schema = JsonSchema { name, schema, strict };
            answer_format(&kind, Some(schema), &RESPONSES_FORMAT, &conversation, settings)?
        }
    };
    let delivery =
        if request.stream == Some(true) { Delivery::EventStream { usage: true } } else { Delivery::Full };
    let is_encrypted = request.include.iter().flatten().any(|included| included == ENCRYPTED_REASONING);
    let reasoning = match request.reasoning {
        None => None,
        Some(Reasoning { effort, summary }) => {
            let shows_text = summary.is_some();
            // A summary without an effort: the model decides how much it reasons.
            let by_default = shows_text && effort.is_none();
            let tokens = by_default.then_some(DEFAULT_REASONING_TOKENS);
            let asked = reasoning(effort, "reasoning.effort")?.map(|asked| asked.tokens).or(tokens);
            asked.map(|tokens| ReasoningRequest { tokens, shows_text, is_encrypted })
        }
    };
    Ok(ParsedRequest {
        model,
        delivery,
        conversation,
        max_tokens: request.max_output_tokens,
        format,
        stop: Vec::new(),
        tools: tool_settings,
        reasoning,
        lacks_signature: false,
    })
}

fn push_items<'a>(conversation: &mut Conversation<'a>, items: Vec<Item<'a>>) -> Result<(), ApiError> {
    if items.is_empty() {
        return Err(missing_parameter("input"));
    }
    check_pairing(&items)?;
    for (index, item) in items.into_iter().enumerate() {
        match item.kind()? {
            ItemKind::UserMessage => conversation.push(item.content, true),
            ItemKind::ModelMessage => {
                check_output_message(index, &item)?;
                conversation.push(item.content, false);
            }
            ItemKind::InstructionMessage => conversation.push(item.content, false),
            ItemKind::Call => conversation.add_bytes(item.name.len() + item.arguments.len()),
            ItemKind::CallOutput => conversation.push_result(item.output),
            ItemKind::Reasoning => check_encrypted_reasoning(&item)?,
            ItemKind::Other => {}
        }
    }
    Ok(())
}

/// Checks an earlier answer. Its text alone is enough, but a list of `output_text` parts needs all fields that an
/// output message has in OpenAI's libraries: servers that check requests with these libraries refuse it without them.
fn check_output_message(index: usize, item: &Item<'_>) -> Result<(), ApiError> {
    let texts = item.content.output_texts();
    let missing = [
        ("type", item.kind.is_none()),
        ("id", item.id.is_none()),
        ("status", item.status.is_none()),
        ("content.annotations", texts == OutputTexts::NotAnnotated),
    ];
    match missing.into_iter().find(|(_, is_missing)| *is_missing) {
        Some((name, _)) if texts != OutputTexts::None => {
            let message = format!("Missing required parameter: 'input[{index}].{name}'.");
            Err(ApiError::invalid_request(message, Some("input"), Some("missing_required_parameter")))
        }
        Some(_) | None => Ok(()),
    }
}

/// Checks encrypted reasoning that the client sends back. It signs the id of its item.
fn check_encrypted_reasoning(item: &Item<'_>) -> Result<(), ApiError> {
    let Some(Text(encrypted)) = &item.encrypted_content else { return Ok(()) };
    let id = item.id.as_ref().map_or("", |id| &id.0);
    if *encrypted == signature(id) {
        return Ok(());
    }
    let message = format!(
        "The encrypted content for item {id} could not be verified. Reason: Encrypted content could not be decrypted \
         or parsed."
    );
    Err(ApiError::invalid_request(message, Some("input"), Some("invalid_encrypted_content")))
}

/// Checks that calls of tools and their outputs belong together.
fn check_pairing(items: &[Item<'_>]) -> Result<(), ApiError> {
    let invalid = |error: PairingError| {
        let message = match error {
            PairingError::ResultWithoutCall { key, .. } => {
                format!("No tool call found for function call output with call_id {key}.")
            }
            PairingError::CallsWithoutResult { keys, .. } => {
                format!("No tool output found for function call {}.", keys.join(", "))
            }
        };
        ApiError::invalid_request(message, Some("input"), None)
    };
    let mut pairing = ToolPairing::default();
    for (index, item) in items.iter().enumerate() {
        let kind = item.kind()?;
        let is_model = matches!(kind, ItemKind::ModelMessage | ItemKind::Call | ItemKind::Reasoning);
        pairing.begin_message(is_model).map_err(invalid)?;
        match kind {
            ItemKind::Call => pairing.call(index, &item.call_id),
            ItemKind::CallOutput => pairing.result(index, &item.call_id).map_err(invalid)?,
            ItemKind::UserMessage
            | ItemKind::ModelMessage
            | ItemKind::InstructionMessage
            | ItemKind::Reasoning
            | ItemKind::Other => {}
        }
    }
    pairing.finish().map_err(invalid)
}

impl<'de: 'a, 'a> Deserialize<'de> for Input<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(InputVisitor)
    }
}

struct InputVisitor;

impl<'de> Visitor<'de> for InputVisitor {
    type Value = Input<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a string or an array of items")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Input::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Input::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element()? {
            all.push(item);
        }
        Ok(Input::Items(all))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn error_message(body: &str) -> Option<String> {
        match parse_request(body.as_bytes(), &Settings::default()) {
            Ok(_) => None,
            Err(ApiError::InvalidRequest { message, .. }) => Some(message),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_invalid_request_is_rejected_with_the_name_of_its_error() {
        assert!(error_message("{").unwrap().contains("parse the JSON"));
        assert!(error_message(r#"{"input":"x"}"#).unwrap().contains("'model'"));
        assert!(error_message(r#"{"model":"m"}"#).unwrap().contains("'input'"));
        assert!(error_message(r#"{"model":"m","input":[]}"#).unwrap().contains("'input'"));
        assert!(error_message(r#"{"model":"m","input":"x","stop":["a"]}"#).unwrap().contains("'stop'"));
        assert!(
            error_message(r#"{"model":"m","input":"x","reasoning":{"effort":"huge"}}"#)
                .unwrap()
                .contains("'huge'")
        );
        assert!(
            error_message(r#"{"model":"m","input":[{"role":"robot","content":"x"}]}"#)
                .unwrap()
                .contains("'robot'")
        );
        assert_eq!(error_message(r#"{"model":"m","input":"x","seed":null}"#), None);
    }

    #[test]
    fn an_earlier_answer_is_a_text_or_a_whole_output_message() {
        let message = |item: &Value| {
            error_message(&format!(r#"{{"model":"m","input":[{{"role":"user","content":"x"}},{item}]}}"#))
        };
        assert_eq!(message(&json!({ "role": "assistant", "content": "y" })), None);
        let text = json!({ "type": "output_text", "text": "y", "annotations": [] });
        let whole = json!({ "type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
            "content": [text] });
        assert_eq!(message(&whole), None);
        for name in ["type", "id", "status"] {
            let mut broken = whole.clone();
            broken.as_object_mut().unwrap().remove(name);
            assert!(message(&broken).unwrap().contains(&format!("'input[1].{name}'")));
        }
        let mut broken = whole;
        broken["content"][0].as_object_mut().unwrap().remove("annotations");
        assert!(message(&broken).unwrap().contains("'input[1].content.annotations'"));
    }

    #[test]
    fn a_document_is_a_pdf_whatever_the_case_and_the_parameters_of_its_media_type() {
        let message = |media_type: &str| {
            let file = json!({ "type": "input_file", "file_data": format!("data:{media_type};base64,AA==") });
            let body = json!({ "model": "m", "input": [{ "role": "user", "content": [file] }] });
            error_message(&body.to_string())
        };
        for media_type in ["application/pdf", "Application/PDF", "application/pdf;name=a.pdf"] {
            assert_eq!(message(media_type), None, "{media_type}");
        }
        assert!(message("application/zip").unwrap().contains("'application/zip'"));
    }

    #[test]
    fn a_call_and_its_output_belong_together() {
        let call = r#"{"type":"function_call","call_id":"c1","name":"look","arguments":"{}"}"#;
        let output = r#"{"type":"function_call_output","call_id":"c1","output":"found"}"#;
        let question = r#"{"role":"user","content":"x"}"#;
        let message =
            |items: &[&str]| error_message(&format!(r#"{{"model":"m","input":[{}]}}"#, items.join(",")));
        assert_eq!(message(&[question, call, output]), None);
        assert!(message(&[question, output]).unwrap().contains("No tool call found"));
        assert!(message(&[question, call]).unwrap().contains("No tool output found"));
        let reasoning = |content: &str| {
            format!(r#"{{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"{content}"}}"#)
        };
        assert_eq!(message(&[question, &reasoning(&signature("rs_1")), call, output]), None);
        assert!(message(&[question, &reasoning("other")]).unwrap().contains("could not be verified"));
    }
}
