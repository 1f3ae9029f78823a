//! Encodes a prompt as a request of Gemini's generateContent API.
//!
//! The name of the model is part of the path. It is escaped, so that it cannot change the URL in another way.

use std::borrow::Cow;
use std::fmt::Write as _;

use http::{HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::Value;

use crate::types::{Failure, Format, Prompt, ReasoningEffort, Secret};
use crate::wire::schema_rules::GEMINI;
use crate::wire::structured_output::{self, RequestedFormat};
use crate::wire::unsupported::{drop_or_refuse, refusal};
use crate::wire::{Dialect, DropParameter, HttpRequest, StreamSupport, request, vendor_fields};

use super::content::{self, Content};
use super::tools::{self, ToolConfig, ToolSet};

const DEFAULT_VERSION: &str = "v1beta";

pub(in crate::wire) fn encode(
    prompt: &Prompt,
    model: &str,
    dialect: &Dialect,
) -> Result<HttpRequest, Failure> {
    let requested_format =
        structured_output::request_format(&prompt.response_format, dialect.structured_output, Some(&GEMINI));
    refuse_unsupported(prompt, dialect)?;
    let config = Config::of(prompt, dialect, &requested_format)?;
    let body = Body {
        system_instruction: content::system_instruction(
            requested_format.system(prompt.system.as_deref()),
            prompt,
        )?,
        contents: content::contents(prompt, model, dialect)?,
        tools: tools::tool_sets(&prompt.tools),
        tool_config: tools::tool_config(prompt, dialect)?,
        generation_config: (config != Config::default()).then_some(config),
    };
    let action = match dialect.stream {
        StreamSupport::Auto => ":streamGenerateContent?alt=sse",
        StreamSupport::Never => ":generateContent",
    };
    Ok(HttpRequest {
        path: model_path(model, dialect) + action,
        headers: Vec::new(),
        body: vendor_fields::json_body(&body, Format::Gemini, prompt, dialect)?,
    })
}

/// Refuses the parameters that the format has no field for. It always allows several tool calls.
fn refuse_unsupported(prompt: &Prompt, dialect: &Dialect) -> Result<(), Failure> {
    if prompt.user.is_some() {
        drop_or_refuse(Format::Gemini, dialect, DropParameter::User)?;
    }
    if prompt.parallel_tool_calls == Some(false) {
        drop_or_refuse(Format::Gemini, dialect, DropParameter::ParallelToolCalls)?;
    }
    Ok(())
}

pub(in crate::wire) fn authorization(key: &Secret) -> Result<(HeaderName, HeaderValue), Failure> {
    request::key_header(HeaderName::from_static("x-goog-api-key"), key)
}

/// Returns the path of `model`, which may be a resource name such as `tunedModels/mine`.
pub(in crate::wire) fn model_path(model: &str, dialect: &Dialect) -> String {
    let mut path = String::with_capacity(model.len() + 56);
    path.push('/');
    escape(dialect.api_version.as_deref().unwrap_or(DEFAULT_VERSION), &mut path);
    path.push('/');
    escape(&resource_name(model), &mut path);
    path
}

/// Returns the path of the list of models.
pub(in crate::wire) fn models_path(dialect: &Dialect) -> String {
    let mut path = "/".to_owned();
    escape(dialect.api_version.as_deref().unwrap_or(DEFAULT_VERSION), &mut path);
    path.push_str("/models");
    path
}

/// Returns the name of a model as a resource: `models/NAME`, unless it is one.
pub(in crate::wire) fn resource_name(model: &str) -> Cow<'_, str> {
    if model.contains('/') { Cow::Borrowed(model) } else { Cow::Owned(format!("models/{model}")) }
}

/// Percent-encodes `text` for a path; slashes are kept.
fn escape(text: &str, to: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/@".contains(&byte) {
            to.push(char::from(byte));
        } else {
            // Writing to a string never fails.
            let _ = write!(to, "%{byte:02X}");
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    system_instruction: Option<Content<'a>>,
    contents: Vec<Content<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<[ToolSet<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_config: Option<ToolConfig<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation_config: Option<Config<'a>>,
}

#[derive(Serialize, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Config<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stop_sequences: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_config: Option<ThinkingConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_mime_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_json_schema: Option<&'a Value>,
}

#[derive(Serialize, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
struct ThinkingConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_level: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_budget: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    include_thoughts: Option<bool>,
}

impl<'a> Config<'a> {
    fn of(
        prompt: &'a Prompt,
        dialect: &Dialect,
        requested_format: &'a RequestedFormat<'_>,
    ) -> Result<Self, Failure> {
        let stop = Some(&prompt.stop).filter(|_| !dialect.drops(DropParameter::Stop));
        let seed = prompt.seed.filter(|_| !dialect.drops(DropParameter::Seed));
        let is_json = requested_format.schema.is_some() || requested_format.json_only;
        Ok(Self {
            temperature: prompt.temperature.filter(|_| !dialect.drops(DropParameter::Temperature)),
            top_p: prompt.top_p.filter(|_| !dialect.drops(DropParameter::TopP)),
            max_output_tokens: prompt.max_tokens,
            stop_sequences: stop.into_iter().flatten().map(|text| &**text).collect(),
            seed: seed.map(seed_of_32_bits).transpose()?,
            thinking_config: ThinkingConfig::of(prompt, dialect)?,
            response_mime_type: is_json.then_some("application/json"),
            response_json_schema: requested_format.schema.as_deref(),
        })
    }
}

fn seed_of_32_bits(seed: i64) -> Result<i32, Failure> {
    i32::try_from(seed).map_err(|_| {
        refusal(format!("Gemini's format takes a seed of 32 bits, and {seed} is longer; choose another seed"))
    })
}

impl ThinkingConfig {
    fn of(prompt: &Prompt, dialect: &Dialect) -> Result<Option<Self>, Failure> {
        let effort = prompt.reasoning_effort.filter(|_| !dialect.drops(DropParameter::ReasoningEffort));
        let level = |name| Self { thinking_level: Some(name), ..Self::default() };
        let mut config = match effort {
            None => Self::default(),
            // The vendor refuses `includeThoughts` for a model that does not think.
            Some(ReasoningEffort::None) => {
                return Ok(Some(Self { thinking_budget: Some(0), ..Self::default() }));
            }
            Some(ReasoningEffort::Minimal) => level("MINIMAL"),
            Some(ReasoningEffort::Low) => level("LOW"),
            Some(ReasoningEffort::Medium) => level("MEDIUM"),
            Some(ReasoningEffort::High) => level("HIGH"),
            Some(ReasoningEffort::XHigh) => level("XHIGH"),
            Some(ReasoningEffort::Max) => {
                drop_or_refuse(Format::Gemini, dialect, DropParameter::ReasoningEffort)?;
                Self::default()
            }
        };
        config.include_thoughts = prompt.keep_reasoning.then_some(true);
        Ok((config != Self::default()).then_some(config))
    }
}

#[cfg(test)]
mod tests;
