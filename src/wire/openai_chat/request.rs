//! Encodes a borrowed prompt as a JSON request, without copies of texts and images.
//!
//! Only content that the format cannot express is rejected; the provider validates the rest.

use std::borrow::Cow;
use std::fmt::Display;

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::types::{Class, Failure, Media, MediaData, Message, Part, Prompt, Role, Secret};
use crate::wire::schema_rules::{AZURE_STRICT, OPENAI_STRICT};
use crate::wire::structured_output::{RequestedFormat, accepted_by, request_format};
use crate::wire::{Dialect, HttpRequest, MaxTokensField, request, text_document};

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
struct Turn<'a> {
    role: &'static str,
    content: Content<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    /// A string, which every server supports.
    Text(Cow<'a, str>),
    Parts(Vec<ContentPart<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ContentPart<'a> {
    Text { text: Cow<'a, str> },
    ImageUrl { image_url: Image<'a> },
    InputAudio { input_audio: Audio<'a> },
    File { file: File<'a> },
}

#[derive(Serialize)]
struct Image<'a> {
    url: Address<'a>,
}

#[derive(Serialize)]
struct Audio<'a> {
    data: &'a str,
    format: &'static str,
}

#[derive(Serialize)]
struct File<'a> {
    filename: &'a str,
    file_data: Address<'a>,
}

enum Address<'a> {
    Url(&'a str),
    Data { media_type: &'a str, base64: &'a str },
}

impl Serialize for Address<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Url(url) => to.serialize_str(url),
            Self::Data { media_type, base64 } => {
                to.collect_str(&format_args!("data:{media_type};base64,{base64}"))
            }
        }
    }
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
    let usage = !dialect.unsupported.omits_stream_options();
    let body = Body {
        model,
        messages: turns(prompt, &requested_format)?,
        max_completion_tokens,
        max_tokens,
        temperature: prompt.temperature,
        response_format: response_format(&requested_format, strict.as_deref()),
        stream: true,
        stream_options: usage.then_some(StreamOptions { include_usage: true }),
    };
    Ok(HttpRequest {
        path: "/chat/completions".to_owned(),
        headers: Vec::new(),
        body: request::json_body(&body)?,
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

fn turns<'a>(
    prompt: &'a Prompt,
    requested_format: &'a RequestedFormat<'_>,
) -> Result<Vec<Turn<'a>>, Failure> {
    let system = requested_format
        .system(prompt.system.as_deref())
        .map(|text| Turn { role: "system", content: Content::Text(text) });
    system.map(Ok).into_iter().chain(prompt.messages.iter().map(turn)).collect()
}

fn turn(message: &Message) -> Result<Turn<'_>, Failure> {
    let role = match message.role {
        Role::User => "user",
        Role::Assistant => "assistant",
    };
    let content = match message.parts.as_slice() {
        [Part::Text(text)] => Content::Text(Cow::Borrowed(text)),
        parts => {
            let content_parts: Vec<_> =
                parts.iter().map(|part| content_part(message.role, part)).collect::<Result<_, _>>()?;
            joined(&content_parts).map_or(Content::Parts(content_parts), Content::Text)
        }
    };
    Ok(Turn { role, content })
}

/// Joins text parts to one string, which every server supports; `None` if there are other parts.
fn joined<'a>(content_parts: &[ContentPart<'_>]) -> Option<Cow<'a, str>> {
    let texts: Option<Vec<&str>> = content_parts
        .iter()
        .map(|content_part| if let ContentPart::Text { text } = content_part { Some(&**text) } else { None })
        .collect();
    texts.map(|texts| Cow::Owned(texts.join("\n\n")))
}

fn content_part(role: Role, part: &Part) -> Result<ContentPart<'_>, Failure> {
    match (part, role) {
        (Part::Text(text), _) => Ok(ContentPart::Text { text: Cow::Borrowed(text) }),
        (Part::Image(_) | Part::Document(_) | Part::Audio(_), Role::Assistant) => {
            Err(cannot_carry("an assistant message can contain only text"))
        }
        (Part::Image(media), Role::User) => {
            Ok(ContentPart::ImageUrl { image_url: Image { url: address(media) } })
        }
        (Part::Document(media), Role::User) => document(media),
        (Part::Audio(media), Role::User) => audio(media),
    }
}

fn document(media: &Media) -> Result<ContentPart<'_>, Failure> {
    match &media.data {
        // Only PDF documents have a content part of their own.
        MediaData::Base64(base64) if media.is_text() => {
            Ok(ContentPart::Text { text: Cow::Owned(text_document::part(media, base64)?) })
        }
        MediaData::Base64(_) => {
            let filename = media.name.as_deref().unwrap_or(match &*media.media_type {
                "application/pdf" => "document.pdf",
                _ => "document",
            });
            Ok(ContentPart::File { file: File { filename, file_data: address(media) } })
        }
        MediaData::Url(_) => Err(cannot_carry("a document must be base64, not a URL")),
    }
}

fn audio(media: &Media) -> Result<ContentPart<'_>, Failure> {
    let format = match &*media.media_type {
        "audio/wav" | "audio/wave" | "audio/x-wav" | "audio/vnd.wave" => "wav",
        "audio/mpeg" | "audio/mp3" => "mp3",
        other => {
            return Err(cannot_carry(format_args!("audio must be audio/wav or audio/mpeg, not {other}")));
        }
    };
    match &media.data {
        MediaData::Base64(data) => Ok(ContentPart::InputAudio { input_audio: Audio { data, format } }),
        MediaData::Url(_) => Err(cannot_carry("audio must be base64, not a URL")),
    }
}

fn address(media: &Media) -> Address<'_> {
    match &media.data {
        MediaData::Base64(base64) => Address::Data { media_type: &media.media_type, base64 },
        MediaData::Url(url) => Address::Url(url),
    }
}

fn cannot_carry(reason: impl Display) -> Failure {
    Failure::new(Class::ApiError, format!("OpenAI's format does not support this prompt: {reason}"))
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
fn is_azure(base_url: &str) -> bool {
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
