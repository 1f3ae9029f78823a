//! Encodes a prompt as a request of Anthropic's messages API.
//!
//! Settings and content that the format does not support are rejected; nothing is omitted silently.

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::Value;

use crate::types::{Failure, Format, Message, Prompt, ReasoningEffort, Role, Secret};
use crate::wire::schema_rules::ANTHROPIC;
use crate::wire::structured_output::{self, RequestedFormat};
use crate::wire::unsupported::{drop_or_refuse, refusal};
use crate::wire::{Dialect, DropParameter, HttpRequest, prompt_cache, request, vendor_fields};

use super::cache_control::CacheControl;
use super::content::{Turn, system_text, turns};
use super::tools::{Choice, ToolDefinition};

/// The first API version without sampling parameters.
const WITHOUT_SAMPLING: &str = "2026-10-21";
const DEFAULT_VERSION: &str = "2023-06-01";
/// The output token limit if the prompt sets none; the vendor requires a limit.
pub(in crate::wire) const DEFAULT_MAX_TOKENS: u32 = 4096;

pub(in crate::wire) fn encode(
    prompt: &Prompt,
    model: &str,
    dialect: &Dialect,
) -> Result<HttpRequest, Failure> {
    let version = dialect.api_version.as_deref().unwrap_or(DEFAULT_VERSION);
    let sampling = Sampling::of(prompt, dialect, version)?;
    let version = version_header(dialect)?;
    if prompt.seed.is_some() {
        drop_or_refuse(Format::Anthropic, dialect, DropParameter::Seed)?;
    }
    let requested_format = structured_output::request_format(
        &prompt.response_format,
        dialect.structured_output,
        Some(&ANTHROPIC),
    );
    let reasoning = Reasoning::of(prompt, dialect)?;
    let output_config = OutputConfig {
        effort: reasoning.effort,
        format: requested_format.schema.as_deref().map(|schema| Schema { schema }),
    };
    let (leading, conversation) = split_leading_system(&prompt.messages);
    let prefix = prompt_cache::cacheable(prompt, Format::Anthropic, model, dialect);
    // The last block of the shared beginning takes it. The vendor reads tools first, then the system prompt,
    // then the messages.
    let mut cached = prefix.map(CacheControl::from);
    let messages = turns(conversation, prefix, &mut cached, dialect)?;
    let system = System::of(prompt, leading, &requested_format, &mut cached)?;
    let tools = ToolDefinition::all(&prompt.tools, &mut cached);
    let user = prompt.user.as_deref().filter(|_| !dialect.drops(DropParameter::User));
    let body = Body {
        model,
        max_tokens: prompt.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS),
        system,
        messages,
        temperature: sampling.temperature,
        top_p: sampling.top_p,
        stop_sequences: if dialect.drops(DropParameter::Stop) { &[] } else { &prompt.stop },
        tools,
        tool_choice: Choice::of(prompt, dialect),
        thinking: reasoning.thinking,
        output_config: Some(output_config).filter(|config| !config.is_empty()),
        metadata: user.map(|user_id| Metadata { user_id }),
        stream: dialect.stream.asks_for_stream(),
    };
    Ok(HttpRequest {
        path: "/v1/messages".to_owned(),
        headers: vec![version],
        body: vendor_fields::json_body(&body, Format::Anthropic, prompt, dialect)?,
    })
}

/// Returns the header with the version of the API.
pub(in crate::wire) fn version_header(dialect: &Dialect) -> Result<(HeaderName, HeaderValue), Failure> {
    let version = dialect.api_version.as_deref().unwrap_or(DEFAULT_VERSION);
    let value = HeaderValue::from_str(version)
        .map_err(|_| refusal(format!("api_version {version:?} is not allowed in a header")))?;
    Ok((HeaderName::from_static("anthropic-version"), value))
}

pub(in crate::wire) fn authorization(key: &Secret) -> Result<(HeaderName, HeaderValue), Failure> {
    request::key_header(HeaderName::from_static("x-api-key"), key)
}

/// Splits off the system messages before the conversation. The vendor accepts a system message only later.
fn split_leading_system(messages: &[Message]) -> (&[Message], &[Message]) {
    let is_conversation = |message: &Message| message.role != Role::System;
    messages.split_at(messages.iter().position(is_conversation).unwrap_or(messages.len()))
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    max_tokens: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<System<'a>>,
    messages: Vec<Turn<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    stop_sequences: &'a [Arc<str>],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<ToolDefinition<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Choice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<Thinking>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_config: Option<OutputConfig<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Metadata<'a>>,
    stream: bool,
}

/// A single text is sent without a block around it, unless the cached part ends with it.
#[derive(Serialize)]
#[serde(untagged)]
enum System<'a> {
    Text(Cow<'a, str>),
    Blocks(Vec<SystemBlock<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "text")]
struct SystemBlock<'a> {
    text: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<CacheControl>,
}

impl<'a> System<'a> {
    fn of(
        prompt: &'a Prompt,
        leading: &'a [Message],
        requested_format: &'a RequestedFormat<'a>,
        cached: &mut Option<CacheControl>,
    ) -> Result<Option<Self>, Failure> {
        let mut texts = Vec::from_iter(prompt.system.as_deref());
        for part in leading.iter().flat_map(|message| &message.parts) {
            texts.push(system_text(part)?);
        }
        let texts: Vec<Cow<'a, str>> = match &*texts {
            [] => requested_format.system(None).into_iter().collect(),
            [alone] => requested_format.system(Some(alone)).into_iter().collect(),
            _ => {
                texts.into_iter().chain(requested_format.instruction.as_deref()).map(Cow::Borrowed).collect()
            }
        };
        let mut blocks: Vec<_> =
            texts.into_iter().map(|text| SystemBlock { text, cache_control: None }).collect();
        // The vendor refuses the mark on an empty text.
        if let Some(last) = blocks.last_mut().filter(|last| !last.text.trim().is_empty()) {
            last.cache_control = cached.take();
        }
        let is_plain = blocks.len() == 1 && blocks.iter().all(|block| block.cache_control.is_none());
        Ok(match blocks.pop() {
            None => None,
            Some(alone) if is_plain => Some(Self::Text(alone.text)),
            Some(last) => {
                blocks.push(last);
                Some(Self::Blocks(blocks))
            }
        })
    }
}

/// The sampling parameters of a request.
struct Sampling {
    temperature: Option<f64>,
    top_p: Option<f64>,
}

impl Sampling {
    fn of(prompt: &Prompt, dialect: &Dialect, version: &str) -> Result<Self, Failure> {
        let sampling = Self {
            temperature: prompt.temperature.filter(|_| !dialect.drops(DropParameter::Temperature)),
            top_p: prompt.top_p.filter(|_| !dialect.drops(DropParameter::TopP)),
        };
        let set = [("temperature", sampling.temperature), ("top_p", sampling.top_p)];
        match set.into_iter().find(|(_, value)| value.is_some()) {
            Some((name, _)) if version == WITHOUT_SAMPLING => Err(refusal(format!(
                "API version {WITHOUT_SAMPLING} does not support {name}; remove it or use {DEFAULT_VERSION}"
            ))),
            Some(_) | None => Ok(sampling),
        }
    }
}

/// How much the model reasons. The format has two fields for it.
#[derive(Default)]
struct Reasoning {
    thinking: Option<Thinking>,
    effort: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Thinking {
    /// The model decides how long it thinks, guided by the effort.
    Adaptive {
        #[serde(skip_serializing_if = "Option::is_none")]
        display: Option<&'static str>,
    },
    Disabled,
}

impl Reasoning {
    fn of(prompt: &Prompt, dialect: &Dialect) -> Result<Self, Failure> {
        let is_sent = |_: &ReasoningEffort| !dialect.drops(DropParameter::ReasoningEffort);
        let Some(effort) = prompt.reasoning_effort.filter(is_sent) else { return Ok(Self::default()) };
        Ok(match effort {
            ReasoningEffort::None => Self { thinking: Some(Thinking::Disabled), effort: None },
            ReasoningEffort::Minimal => {
                drop_or_refuse(Format::Anthropic, dialect, DropParameter::ReasoningEffort)?;
                Self::default()
            }
            ReasoningEffort::Low
            | ReasoningEffort::Medium
            | ReasoningEffort::High
            | ReasoningEffort::XHigh
            | ReasoningEffort::Max => {
                // Some models omit the text of the reasoning unless the request asks for it.
                let display = prompt.keep_reasoning.then_some("summarized");
                Self { thinking: Some(Thinking::Adaptive { display }), effort: Some(effort.as_str()) }
            }
        })
    }
}

#[derive(Serialize)]
struct OutputConfig<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    effort: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<Schema<'a>>,
}

impl OutputConfig<'_> {
    fn is_empty(&self) -> bool {
        self.effort.is_none() && self.format.is_none()
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "json_schema")]
struct Schema<'a> {
    schema: &'a Value,
}

#[derive(Serialize)]
struct Metadata<'a> {
    user_id: &'a str,
}

#[cfg(test)]
mod tests;
