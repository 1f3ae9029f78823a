//! The API formats, and the dispatch to the module of each.

use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::types::{Completion, Failure, Prompt, Secret};

use super::{
    Dialect, HttpRequest, Progress, RateLimitHeaders, ReasoningTags, anthropic, gemini, http_error,
    openai_chat, reset_time,
};

/// An API format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// OpenAI's chat completions and compatible APIs.
    Openai,
    /// Anthropic's messages.
    Anthropic,
    /// Gemini's generateContent.
    Gemini,
}

impl Format {
    /// Returns the name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
        }
    }

    /// Returns the base URL of the vendor, used if the configuration has none.
    pub fn default_base_url(self) -> &'static str {
        match self {
            Self::Openai => openai_chat::BASE_URL,
            Self::Anthropic => anthropic::BASE_URL,
            Self::Gemini => gemini::BASE_URL,
        }
    }

    /// Returns the `max_tokens` of a request that sets none; `None` leaves it to the provider.
    pub fn default_max_tokens(self) -> Option<u32> {
        match self {
            Self::Anthropic => Some(anthropic::DEFAULT_MAX_TOKENS),
            Self::Openai | Self::Gemini => None,
        }
    }

    /// Encodes `prompt` as a request; `base_url` and `dialect` determine the vendor.
    ///
    /// # Errors
    /// `api_error` if the format does not support a part of the prompt.
    pub fn encode(
        self,
        prompt: &Prompt,
        model: &str,
        base_url: &str,
        dialect: &Dialect,
    ) -> Result<HttpRequest, Failure> {
        match self {
            Self::Openai => openai_chat::encode(prompt, model, base_url, dialect),
            Self::Anthropic => anthropic::encode(prompt, model, dialect),
            Self::Gemini => gemini::encode(prompt, model, dialect),
        }
    }

    /// Returns the header with the key, marked as sensitive.
    ///
    /// # Errors
    /// `auth` if the key contains characters that are not allowed in a header, such as a newline.
    pub fn authorization(self, key: &Secret) -> Result<(HeaderName, HeaderValue), Failure> {
        match self {
            Self::Openai => openai_chat::authorization(key),
            Self::Anthropic => anthropic::authorization(key),
            Self::Gemini => gemini::authorization(key),
        }
    }

    /// Creates a decoder for the response to `prompt`.
    pub fn decoder(self, prompt: &Prompt, dialect: &Dialect) -> Decoder {
        match self {
            Self::Openai => Decoder::Openai(openai_chat::Decoder::new(prompt, dialect)),
            Self::Anthropic => Decoder::Anthropic(anthropic::Decoder::new(prompt, dialect)),
            Self::Gemini => Decoder::Gemini(gemini::Decoder::new(prompt, dialect)),
        }
    }

    /// Classifies a response with an error status. An unreadable body is classified by the status.
    pub fn read_error(self, status: u16, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Failure {
        if let Some(page) = http_error::web_page_failure(status, body) {
            return page;
        }
        let now = reset_time::server_time(headers, now);
        match self {
            Self::Openai => openai_chat::read_error(status, headers, body, now),
            Self::Anthropic => anthropic::read_error(status, headers, body, now),
            Self::Gemini => gemini::read_error(status, headers, body, now),
        }
    }

    /// Adds the wait from the response headers to a failure that came with a success status: an error in a
    /// stream, or in a body with status 200.
    pub fn apply_headers(self, failure: Failure, headers: &HeaderMap, now: SystemTime) -> Failure {
        let now = reset_time::server_time(headers, now);
        match self {
            Self::Openai => openai_chat::apply_headers(failure, headers, now),
            Self::Anthropic => anthropic::apply_headers(failure, headers, now),
            Self::Gemini => gemini::apply_headers(failure, headers, now),
        }
    }

    /// Reads the rate-limit headers of any response.
    pub fn read_rate_limit_headers(self, headers: &HeaderMap, now: SystemTime) -> RateLimitHeaders {
        let now = reset_time::server_time(headers, now);
        match self {
            Self::Openai => openai_chat::read_rate_limit_headers(headers, now),
            Self::Anthropic => anthropic::read_rate_limit_headers(headers, now),
            Self::Gemini => gemini::read_rate_limit_headers(headers, now),
        }
    }
}

impl ReasoningTags {
    /// Returns the default: `Strip` only for OpenAI-compatible servers other than OpenAI's own, which are known
    /// to return the tags.
    pub fn default_for(format: Format, base_url: Option<&str>) -> Self {
        match (format, base_url) {
            (Format::Openai, Some(url)) if !openai_chat::is_openai(url) => Self::Strip,
            (Format::Openai | Format::Anthropic | Format::Gemini, _) => Self::Keep,
        }
    }
}

/// Decodes one response.
#[derive(Debug)]
#[expect(missing_docs, reason = "each is the decoder of the format of that name")]
pub enum Decoder {
    Openai(openai_chat::Decoder),
    Anthropic(anthropic::Decoder),
    Gemini(gemini::Decoder),
}

impl Decoder {
    /// Decodes one server-sent event: its `event:` name, if any, and its data.
    ///
    /// # Errors
    /// The failure that the event reports, or `unreadable`. The call has then ended.
    pub fn push_event(&mut self, name: Option<&str>, data: &str) -> Result<Progress, Failure> {
        match self {
            Self::Openai(decoder) => decoder.push_event(name, data),
            Self::Anthropic(decoder) => decoder.push_event(name, data),
            Self::Gemini(decoder) => decoder.push_event(name, data),
        }
    }

    /// Decodes a complete JSON body, for servers that respond to a streaming request without a stream.
    ///
    /// # Errors
    /// The failure that the body reports, or `unreadable`.
    pub fn push_body(&mut self, body: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Openai(decoder) => decoder.push_body(body),
            Self::Anthropic(decoder) => decoder.push_body(body),
            Self::Gemini(decoder) => decoder.push_body(body),
        }
    }

    /// Returns the number of buffered bytes of the answer.
    pub fn buffered_bytes(&self) -> usize {
        match self {
            Self::Openai(decoder) => decoder.buffered_bytes(),
            Self::Anthropic(decoder) => decoder.buffered_bytes(),
            Self::Gemini(decoder) => decoder.buffered_bytes(),
        }
    }

    /// Returns the completion after the end of the stream or body.
    ///
    /// # Errors
    /// `unreadable` without an end mark, or else the failure that the finish reason stands for: `content_filter`,
    /// `too_long`, `truncated`.
    pub fn finish(self) -> Result<Completion, Failure> {
        match self {
            Self::Openai(decoder) => decoder.finish(),
            Self::Anthropic(decoder) => decoder.finish(),
            Self::Gemini(decoder) => decoder.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Class, Scope};

    #[test]
    fn a_web_page_is_no_evidence_about_the_key_in_any_format() {
        for format in [Format::Openai, Format::Anthropic, Format::Gemini] {
            let page = b"<html><title>Blocked</title></html>";
            let failure = format.read_error(403, &HeaderMap::new(), page, SystemTime::UNIX_EPOCH);
            assert_eq!((failure.class, failure.scope), (Class::ApiError, Scope::Target), "{format:?}");
            assert_eq!(&*failure.message, "received a web page instead of an answer: Blocked");
        }
    }

    #[test]
    fn empty_events_and_the_end_mark_of_another_format_do_not_end_an_answer() {
        for format in [Format::Anthropic, Format::Gemini] {
            let mut decoder = format.decoder(&Prompt::text("x"), &Dialect::default());
            for data in ["", " ", "[DONE]"] {
                assert_eq!(decoder.push_event(None, data), Ok(Progress::Waiting), "{format:?}: {data:?}");
            }
        }
    }

    #[test]
    fn tags_are_stripped_by_default_only_for_openai_compatible_servers() {
        for (format, base_url, tags) in [
            (Format::Openai, Some("http://localhost:11434/v1"), ReasoningTags::Strip),
            (Format::Openai, Some("https://openrouter.ai/api/v1"), ReasoningTags::Strip),
            (Format::Openai, Some("https://api.openai.com/v1"), ReasoningTags::Keep),
            (Format::Openai, None, ReasoningTags::Keep),
            (Format::Anthropic, Some("http://localhost:1"), ReasoningTags::Keep),
            (Format::Gemini, Some("http://localhost:1"), ReasoningTags::Keep),
        ] {
            assert_eq!(ReasoningTags::default_for(format, base_url), tags, "{base_url:?}");
        }
    }
}
