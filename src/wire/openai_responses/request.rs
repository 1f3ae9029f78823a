//! Encodes a borrowed prompt as a JSON request, without copies of texts and images.
//!
//! Only content that the format cannot express is rejected; the provider validates the rest.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value;

use crate::types::{Failure, Fingerprint, Format, Prompt, ReasoningEffort, Tool, ToolChoice};
use crate::wire::openai_chat::{is_azure, is_openai};
use crate::wire::prompt_cache;
use crate::wire::schema_rules::{AZURE_STRICT, OPENAI_STRICT};
use crate::wire::structured_output::{RequestedFormat, accepted_by, request_format};
use crate::wire::unsupported::drop_or_refuse;
use crate::wire::vendor_fields;
use crate::wire::{Dialect, DropParameter, HttpRequest};

use super::input::{InputItem, input_items};

const FORMAT: Format = Format::OpenaiResponses;

/// Requests the reasoning in the form in which a later request can contain it.
const ENCRYPTED_REASONING: &[&str] = &["reasoning.encrypted_content"];

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    instructions: Option<Cow<'a, str>>,
    input: Vec<InputItem<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<TextSettings<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<FunctionTool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Choice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<ReasoningSettings>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    include: &'static [&'static str],
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_cache_key: Option<Fingerprint>,
    store: bool,
    stream: bool,
}

#[derive(Serialize)]
struct TextSettings<'a> {
    format: TextFormat<'a>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum TextFormat<'a> {
    JsonObject,
    JsonSchema {
        name: &'static str,
        schema: &'a Value,
        /// Omitted instead of `false`: servers without this option enforce the schema anyway.
        #[serde(skip_serializing_if = "Option::is_none")]
        strict: Option<bool>,
    },
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "function")]
struct FunctionTool<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    /// Always sent: without it OpenAI enforces the schema, and refuses one with optional properties.
    strict: bool,
    parameters: &'a Value,
}

impl<'a> From<&'a Tool> for FunctionTool<'a> {
    fn from(tool: &'a Tool) -> Self {
        Self {
            name: &tool.name,
            description: tool.description.as_deref(),
            strict: tool.strict.unwrap_or(false),
            parameters: &tool.parameters,
        }
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Choice<'a> {
    Mode(&'static str),
    Function { r#type: &'static str, name: &'a str },
}

#[derive(Serialize)]
struct ReasoningSettings {
    #[serde(skip_serializing_if = "Option::is_none")]
    effort: Option<ReasoningEffort>,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<&'static str>,
}

/// Encodes `prompt` as a request.
pub(in crate::wire) fn encode(
    prompt: &Prompt,
    model: &str,
    base_url: &str,
    dialect: &Dialect,
) -> Result<HttpRequest, Failure> {
    if !prompt.stop.is_empty() {
        drop_or_refuse(FORMAT, dialect, DropParameter::Stop)?;
    }
    if prompt.seed.is_some() {
        drop_or_refuse(FORMAT, dialect, DropParameter::Seed)?;
    }
    let requested_format = request_format(&prompt.response_format, dialect.structured_output, None);
    // As in chat completions: a strict schema is enforced, any other is sent unchanged and without `strict`.
    let rules = if is_azure(base_url) { &AZURE_STRICT } else { &OPENAI_STRICT };
    let strict =
        requested_format.schema.as_deref().and_then(|schema| accepted_by(rules, Cow::Borrowed(schema)));
    let body = Body {
        model,
        instructions: requested_format.system(prompt.system.as_deref()),
        input: input_items(&prompt.messages, dialect)?,
        text: text_settings(&requested_format, strict.as_deref()),
        tools: prompt.tools.iter().map(FunctionTool::from).collect(),
        tool_choice: tool_choice(prompt, dialect),
        parallel_tool_calls: unless_dropped(
            prompt.parallel_tool_calls,
            dialect,
            DropParameter::ParallelToolCalls,
        ),
        max_output_tokens: prompt.max_tokens,
        temperature: unless_dropped(prompt.temperature, dialect, DropParameter::Temperature),
        top_p: unless_dropped(prompt.top_p, dialect, DropParameter::TopP),
        reasoning: reasoning_settings(prompt, dialect),
        include: include(prompt, dialect),
        user: unless_dropped(prompt.user.as_deref(), dialect, DropParameter::User),
        // As in chat completions, other servers may refuse the field.
        prompt_cache_key: prompt_cache::openai_key(prompt, FORMAT, model, dialect)
            .filter(|_| is_openai(base_url)),
        store: false,
        stream: dialect.stream.asks_for_stream(),
    };
    Ok(HttpRequest {
        path: "/responses".to_owned(),
        headers: Vec::new(),
        body: vendor_fields::json_body(&body, FORMAT, prompt, dialect)?,
    })
}

fn unless_dropped<T>(value: Option<T>, dialect: &Dialect, parameter: DropParameter) -> Option<T> {
    value.filter(|_| !dialect.drops(parameter))
}

fn text_settings<'a>(
    requested_format: &'a RequestedFormat<'_>,
    strict: Option<&'a Value>,
) -> Option<TextSettings<'a>> {
    let format = match strict.or(requested_format.schema.as_deref()) {
        Some(schema) => TextFormat::JsonSchema { name: "answer", schema, strict: strict.map(|_| true) },
        None if requested_format.json_only => TextFormat::JsonObject,
        None => return None,
    };
    Some(TextSettings { format })
}

fn tool_choice<'a>(prompt: &'a Prompt, dialect: &Dialect) -> Option<Choice<'a>> {
    match &prompt.tool_choice {
        ToolChoice::Auto => None,
        // Without tools the model calls none, and OpenAI refuses the field.
        ToolChoice::None => has_tools(prompt, dialect).then_some(Choice::Mode("none")),
        ToolChoice::Required => Some(Choice::Mode("required")),
        ToolChoice::Tool(name) => Some(Choice::Function { r#type: "function", name }),
    }
}

/// Returns whether the request has tools: its own, or those among the fields of the vendor.
fn has_tools(prompt: &Prompt, dialect: &Dialect) -> bool {
    let of_request = prompt.vendor_fields.iter().filter(|fields| fields.format == FORMAT);
    let mut all = of_request.map(|fields| &fields.fields).chain(dialect.extra.as_ref());
    !prompt.tools.is_empty() || all.any(|fields| fields.contains_key("tools"))
}

/// Returns the settings of reasoning. A model that does not reason refuses all of them, so the configuration drops
/// them together.
fn reasoning_settings(prompt: &Prompt, dialect: &Dialect) -> Option<ReasoningSettings> {
    let is_requested = prompt.keep_reasoning && !dialect.unsupported.omits_encrypted_reasoning();
    let settings = ReasoningSettings {
        effort: prompt.reasoning_effort,
        summary: (is_requested && !has_summary(prompt, dialect)).then_some("auto"),
    };
    let is_set = settings.effort.is_some() || settings.summary.is_some();
    (is_set && !dialect.drops(DropParameter::ReasoningEffort)).then_some(settings)
}

/// Returns whether the fields of the vendor request a summary of the reasoning, such as a detailed one.
fn has_summary(prompt: &Prompt, dialect: &Dialect) -> bool {
    let of_request = prompt.vendor_fields.iter().filter(|fields| fields.format == FORMAT);
    let mut all = of_request.map(|fields| &fields.fields).chain(dialect.extra.as_ref());
    let is_set = |reasoning: &Value| reasoning.get("summary").is_some();
    all.any(|fields| fields.get("reasoning").is_some_and(is_set))
}

/// Requests encrypted reasoning where the conversation may continue with it, unless the model does not reason.
fn include(prompt: &Prompt, dialect: &Dialect) -> &'static [&'static str] {
    let continues = prompt.keep_reasoning || !prompt.tools.is_empty();
    let omits =
        dialect.unsupported.omits_encrypted_reasoning() || dialect.drops(DropParameter::ReasoningEffort);
    if continues && !omits { ENCRYPTED_REASONING } else { &[] }
}
