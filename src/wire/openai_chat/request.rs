//! Encodes a borrowed prompt as a JSON request, without copies of texts and images.
//!
//! Only content that the format cannot express is rejected; the provider validates the rest.

use std::borrow::Cow;

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::Value;

use crate::types::{Failure, Fingerprint, Format, Prompt, ReasoningEffort, Secret};
use crate::wire::prompt_cache;
use crate::wire::schema_rules::{AZURE_STRICT, OPENAI_STRICT};
use crate::wire::structured_output::{RequestedFormat, accepted_by, request_format};
use crate::wire::vendor_fields::json_body;
use crate::wire::{Dialect, DropParameter, HttpRequest, MaxTokensField, request};

use super::message::{Turn, turns};
use super::tools::{Choice, ToolDefinition, has_tools, tool_choice};

pub(in crate::wire) const BASE_URL: &str = "https://api.openai.com/v1";

/// The hosts of OpenAI's own models, the newer of which support only `max_completion_tokens`: OpenAI's hosts, and
/// Azure's in the public cloud (<https://learn.microsoft.com/azure/ai-foundry/openai/how-to/structured-outputs>),
/// in the US government cloud
/// (<https://learn.microsoft.com/azure/azure-government/compare-azure-government-global-azure>) and in China
/// (unverified: no page of Microsoft was found that lists them, only programs that accept them), and Azure's
/// gateway.
const OPENAI_HOSTS: [&str; 11] = [
    "api.openai.com",
    "openai.azure.com",
    "openai.azure.us",
    "openai.azure.cn",
    "cognitiveservices.azure.com",
    "cognitiveservices.azure.us",
    "cognitiveservices.azure.cn",
    "services.ai.azure.com",
    "services.ai.azure.us",
    "azure-api.net",
    "azure-api.us",
];

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: Vec<Turn<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stop: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_effort: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<ToolDefinition<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Choice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_cache_key: Option<Fingerprint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<ResponseFormat<'a>>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ResponseFormat<'a> {
    JsonObject,
    JsonSchema { json_schema: JsonSchema<'a> },
}

#[derive(Serialize)]
struct JsonSchema<'a> {
    name: &'static str,
    schema: &'a Value,
    /// Omitted instead of `false`: servers without this option enforce the schema anyway.
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

/// Encodes `prompt` as a request.
pub(in crate::wire) fn encode(
    prompt: &Prompt,
    model: &str,
    base_url: &str,
    dialect: &Dialect,
) -> Result<HttpRequest, Failure> {
    let requested_format = request_format(&prompt.response_format, dialect.structured_output, None);
    // OpenAI enforces a strict schema during generation. Any other schema is sent unchanged, without `strict`.
    let rules = if is_azure(base_url) { &AZURE_STRICT } else { &OPENAI_STRICT };
    let strict =
        requested_format.schema.as_deref().and_then(|schema| accepted_by(rules, Cow::Borrowed(schema)));
    let (max_completion_tokens, max_tokens) = match dialect.max_tokens_field {
        MaxTokensField::MaxCompletionTokens => (prompt.max_tokens, None),
        MaxTokensField::MaxTokens => (None, prompt.max_tokens),
        MaxTokensField::Auto if is_openai(base_url) => (prompt.max_tokens, None),
        MaxTokensField::Auto => (None, prompt.max_tokens),
    };
    let (max_completion_tokens, max_tokens) = if dialect.unsupported.renames_max_tokens() {
        (max_tokens, max_completion_tokens)
    } else {
        (max_completion_tokens, max_tokens)
    };
    let stream = dialect.stream.asks_for_stream();
    // OpenAI refuses the options in a request without a stream; a whole response always has its usage.
    let stream_usage = stream && !dialect.unsupported.omits_stream_options();
    let has_tools = has_tools(prompt, dialect);
    let sends = |parameter| !dialect.drops(parameter);
    let body = Body {
        model,
        messages: turns(prompt, &requested_format, dialect)?,
        max_completion_tokens,
        max_tokens,
        temperature: prompt.temperature.filter(|_| sends(DropParameter::Temperature)),
        top_p: prompt.top_p.filter(|_| sends(DropParameter::TopP)),
        stop: prompt.stop.iter().map(|text| &**text).filter(|_| sends(DropParameter::Stop)).collect(),
        seed: prompt.seed.filter(|_| sends(DropParameter::Seed)),
        reasoning_effort: prompt
            .reasoning_effort
            .filter(|_| sends(DropParameter::ReasoningEffort))
            .map(ReasoningEffort::as_str),
        tools: prompt.tools.iter().map(ToolDefinition::from).collect(),
        tool_choice: tool_choice(prompt, has_tools),
        // OpenAI refuses the field in a request without tools.
        parallel_tool_calls: prompt
            .parallel_tool_calls
            .filter(|_| has_tools && sends(DropParameter::ParallelToolCalls)),
        user: prompt.user.as_deref().filter(|_| sends(DropParameter::User)),
        // Other servers may refuse the field.
        prompt_cache_key: prompt_cache::openai_key(prompt, Format::Openai, model, dialect)
            .filter(|_| is_openai(base_url)),
        response_format: response_format(&requested_format, strict.as_deref()),
        stream,
        stream_options: stream_usage.then_some(StreamOptions { include_usage: true }),
    };
    Ok(HttpRequest {
        path: "/chat/completions".to_owned(),
        headers: Vec::new(),
        body: json_body(&body, Format::Openai, prompt, dialect)?,
    })
}

/// Returns the header with the key.
pub(in crate::wire) fn authorization(key: &Secret) -> Result<(HeaderName, HeaderValue), Failure> {
    request::key_header(AUTHORIZATION, &Secret::from(format!("Bearer {}", key.expose())))
}

fn response_format<'a>(
    requested_format: &'a RequestedFormat<'_>,
    strict: Option<&'a Value>,
) -> Option<ResponseFormat<'a>> {
    match strict.or(requested_format.schema.as_deref()) {
        Some(schema) => {
            let strict = strict.map(|_| true);
            Some(ResponseFormat::JsonSchema { json_schema: JsonSchema { name: "answer", schema, strict } })
        }
        None => requested_format.json_only.then_some(ResponseFormat::JsonObject),
    }
}

/// Returns whether the base URL is that of OpenAI itself or of OpenAI's models at Azure.
pub(in crate::wire) fn is_openai(base_url: &str) -> bool {
    let host = host(base_url);
    OPENAI_HOSTS.iter().any(|openai| {
        host.len().checked_sub(openai.len()).is_some_and(|start| {
            // Resources and regions are subdomains: `eu.api.openai.com`, `mine.openai.azure.com`.
            let bounded = start == 0 || host.as_bytes()[start - 1] == b'.';
            bounded && host.get(start..).is_some_and(|end| end.eq_ignore_ascii_case(openai))
        })
    })
}

/// Returns whether the base URL is that of OpenAI's models at Azure.
pub(in crate::wire) fn is_azure(base_url: &str) -> bool {
    is_openai(base_url) && !host(base_url).to_ascii_lowercase().ends_with("api.openai.com")
}

fn host(base_url: &str) -> &str {
    let rest = base_url.split_once("://").map_or(base_url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    host.split_once(':').map_or(host, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Class;

    #[test]
    fn only_hosts_of_openai_and_azure_count_as_openai() {
        for (base_url, expected) in [
            ("https://api.openai.com/v1", true),
            ("https://API.OPENAI.COM:443", true),
            ("https://eu.api.openai.com/v1", true),
            ("https://mine.openai.azure.com/openai/v1?x=http://a", true),
            ("https://mine.cognitiveservices.azure.com/openai/v1", true),
            ("https://mine.services.ai.azure.com/openai/v1", true),
            ("https://mine.openai.azure.us/openai/v1", true),
            ("https://mine.cognitiveservices.azure.us/openai/v1", true),
            ("https://mine.openai.azure.cn/openai/v1", true),
            ("https://gateway.azure-api.net/openai/v1", true),
            ("https://azure-api.net.example.org", false),
            ("http://localhost:11434/v1", false),
            ("https://notapi.openai.com", false),
            ("https://notopenai.azure.com", false),
            ("https://api.openai.com.example.org/v1", false),
            ("https://api.openai.com@example.org/v1", false),
            ("https://example.org/api.openai.com", false),
            ("ü.com", false),
            ("", false),
        ] {
            assert_eq!(is_openai(base_url), expected, "{base_url}");
        }
    }

    #[test]
    fn azure_is_distinguished_from_openai_itself() {
        for (base_url, expected) in [
            ("https://API.openai.com/v1", false),
            ("https://eu.api.openai.com/v1", false),
            ("https://mine.openai.azure.com/openai/v1", true),
            ("https://mine.services.ai.azure.com/openai/v1", true),
            ("http://localhost:11434/v1", false),
        ] {
            assert_eq!(is_azure(base_url), expected, "{base_url}");
        }
    }

    #[test]
    fn a_key_is_marked_as_sensitive_and_an_invalid_one_is_not_shown() {
        let (name, value) = authorization(&Secret::from("sk-fixture".to_owned())).unwrap();
        assert_eq!(
            (name, value.as_bytes(), value.is_sensitive()),
            (AUTHORIZATION, &b"Bearer sk-fixture"[..], true)
        );
        let failure = authorization(&Secret::from("sk-fixture\n".to_owned())).unwrap_err();
        assert_eq!(failure.class, Class::Auth);
        assert!(!failure.message.contains("sk-fixture"));
    }
}
