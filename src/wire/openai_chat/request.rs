//! Writes the request: a prompt, borrowed, straight into JSON bytes.
//!
//! Never copies a text or an image on its way, and never decides what the provider will accept
//! beyond what the format itself can carry.

use std::borrow::Cow;
use std::fmt::Display;

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::types::{Class, Failure, Media, MediaData, Message, Part, Prompt, Role, Secret};
use crate::wire::schema_rules::{AZURE_STRICT, OPENAI_STRICT};
use crate::wire::structured::{Asked, accepted_by, ask};
use crate::wire::{Dialect, MaxTokensField, Request, outgoing, text_document};

pub(in crate::wire) const BASE_URL: &str = "https://api.openai.com/v1";

/// Where OpenAI's own models answer, whose newer ones know the limit as `max_completion_tokens` only: OpenAI's
/// hosts, and Azure's in the public cloud
/// (<https://learn.microsoft.com/azure/ai-foundry/openai/how-to/structured-outputs>), in that of the US government
/// (<https://learn.microsoft.com/azure/azure-government/compare-azure-government-global-azure>) and in that of China
/// (unverified: no page of Microsoft's was found that names them, only programs that accept them), and Azure's gateway.
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
    /// What every server understands.
    Text(Cow<'a, str>),
    Parts(Vec<Piece<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Piece<'a> {
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
    /// Left out rather than false: servers that do not know it hold the answer to the schema anyway.
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

/// Writes the request for `prompt`.
pub(in crate::wire) fn encode(
    prompt: &Prompt,
    model: &str,
    base_url: &str,
    dialect: &Dialect,
) -> Result<Request, Failure> {
    let asked = ask(&prompt.shape, dialect.structured, None);
    // A schema that OpenAI holds the model to token by token; any other is sent as it is, without `strict`.
    let rules = if is_azure(base_url) { &AZURE_STRICT } else { &OPENAI_STRICT };
    let strict = asked.schema.as_deref().and_then(|schema| accepted_by(rules, Cow::Borrowed(schema)));
    let (max_completion_tokens, max_tokens) = match dialect.max_tokens_field {
        MaxTokensField::MaxCompletionTokens => (prompt.max_tokens, None),
        MaxTokensField::MaxTokens => (None, prompt.max_tokens),
        MaxTokensField::Auto if is_openai(base_url) => (prompt.max_tokens, None),
        MaxTokensField::Auto => (None, prompt.max_tokens),
    };
    let (max_completion_tokens, max_tokens) = if dialect.left_out.renames_max_tokens() {
        (max_tokens, max_completion_tokens)
    } else {
        (max_completion_tokens, max_tokens)
    };
    let usage = !dialect.left_out.leaves_out_stream_options();
    let body = Body {
        model,
        messages: turns(prompt, &asked)?,
        max_completion_tokens,
        max_tokens,
        temperature: prompt.temperature,
        response_format: response_format(&asked, strict.as_deref()),
        stream: true,
        stream_options: usage.then_some(StreamOptions { include_usage: true }),
    };
    Ok(Request { path: "/chat/completions".to_owned(), headers: Vec::new(), body: outgoing::json(&body)? })
}

/// Returns the header that carries the key.
pub(in crate::wire) fn authorization(key: &Secret) -> Result<(HeaderName, HeaderValue), Failure> {
    outgoing::key(AUTHORIZATION, &Secret::from(format!("Bearer {}", key.expose())))
}

fn response_format<'a>(asked: &'a Asked<'_>, strict: Option<&'a Value>) -> Option<ResponseFormat<'a>> {
    match strict.or(asked.schema.as_deref()) {
        Some(schema) => {
            let strict = strict.map(|_| true);
            Some(ResponseFormat::JsonSchema { json_schema: JsonSchema { name: "answer", schema, strict } })
        }
        None => asked.json_only.then_some(ResponseFormat::JsonObject),
    }
}

fn turns<'a>(prompt: &'a Prompt, asked: &'a Asked<'_>) -> Result<Vec<Turn<'a>>, Failure> {
    let system = asked
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
            let pieces: Vec<_> =
                parts.iter().map(|part| piece(message.role, part)).collect::<Result<_, _>>()?;
            joined(&pieces).map_or(Content::Parts(pieces), Content::Text)
        }
    };
    Ok(Turn { role, content })
}

/// Returns pieces of text as one, which every server understands; `None` when there are others.
fn joined<'a>(pieces: &[Piece<'_>]) -> Option<Cow<'a, str>> {
    let texts: Option<Vec<&str>> = pieces
        .iter()
        .map(|piece| if let Piece::Text { text } = piece { Some(&**text) } else { None })
        .collect();
    texts.map(|texts| Cow::Owned(texts.join("\n\n")))
}

fn piece(role: Role, part: &Part) -> Result<Piece<'_>, Failure> {
    match (part, role) {
        (Part::Text(text), _) => Ok(Piece::Text { text: Cow::Borrowed(text) }),
        (Part::Image(_) | Part::Document(_) | Part::Audio(_), Role::Assistant) => {
            Err(unfit("a message of the model can carry text only"))
        }
        (Part::Image(media), Role::User) => Ok(Piece::ImageUrl { image_url: Image { url: address(media) } }),
        (Part::Document(media), Role::User) => document(media),
        (Part::Audio(media), Role::User) => audio(media),
    }
}

fn document(media: &Media) -> Result<Piece<'_>, Failure> {
    match &media.data {
        // Only a PDF has a part of its own.
        MediaData::Base64(base64) if media.is_text() => {
            Ok(Piece::Text { text: Cow::Owned(text_document::part(media, base64)?) })
        }
        MediaData::Base64(_) => {
            let filename = media.name.as_deref().unwrap_or(match &*media.media_type {
                "application/pdf" => "document.pdf",
                _ => "document",
            });
            Ok(Piece::File { file: File { filename, file_data: address(media) } })
        }
        MediaData::Url(_) => Err(unfit("a document must be sent as base64, not as an address")),
    }
}

fn audio(media: &Media) -> Result<Piece<'_>, Failure> {
    let format = match &*media.media_type {
        "audio/wav" | "audio/wave" | "audio/x-wav" | "audio/vnd.wave" => "wav",
        "audio/mpeg" | "audio/mp3" => "mp3",
        other => return Err(unfit(format_args!("sound must be audio/wav or audio/mpeg, not {other}"))),
    };
    match &media.data {
        MediaData::Base64(data) => Ok(Piece::InputAudio { input_audio: Audio { data, format } }),
        MediaData::Url(_) => Err(unfit("sound must be sent as base64, not as an address")),
    }
}

fn address(media: &Media) -> Address<'_> {
    match &media.data {
        MediaData::Base64(base64) => Address::Data { media_type: &media.media_type, base64 },
        MediaData::Url(url) => Address::Url(url),
    }
}

fn unfit(why: impl Display) -> Failure {
    Failure::new(Class::ApiError, format!("OpenAI's format cannot carry this prompt: {why}"))
}

/// Returns whether OpenAI itself answers at this address, or Azure for it.
pub(in crate::wire) fn is_openai(base_url: &str) -> bool {
    let host = host(base_url);
    OPENAI_HOSTS.iter().any(|openai| {
        host.len().checked_sub(openai.len()).is_some_and(|start| {
            // Resources and regions stand before a dot: `eu.api.openai.com`, `mine.openai.azure.com`.
            let bounded = start == 0 || host.as_bytes()[start - 1] == b'.';
            bounded && host.get(start..).is_some_and(|end| end.eq_ignore_ascii_case(openai))
        })
    })
}

/// Returns whether Azure answers for OpenAI.
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
    fn only_openai_itself_is_taken_for_openai() {
        for (base_url, yes) in [
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
            assert_eq!(is_openai(base_url), yes, "{base_url}");
        }
    }

    #[test]
    fn azure_is_told_from_openai_itself() {
        for (base_url, yes) in [
            ("https://API.openai.com/v1", false),
            ("https://eu.api.openai.com/v1", false),
            ("https://mine.openai.azure.com/openai/v1", true),
            ("https://mine.services.ai.azure.com/openai/v1", true),
            ("http://localhost:11434/v1", false),
        ] {
            assert_eq!(is_azure(base_url), yes, "{base_url}");
        }
    }

    #[test]
    fn a_key_is_marked_as_sensitive_and_a_broken_one_is_not_shown() {
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
