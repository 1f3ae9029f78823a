//! The API formats, and the dispatch to the module of each.

use std::time::SystemTime;

use crate::types::{Completion, EmbeddingLimits, Failure, Format, Prompt, Secret, StreamEvent};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::incoming::IncomingRequest;
use super::{
    Dialect, HttpRequest, Progress, RateLimitHeaders, ReasoningTags, anthropic, embeddings, gemini,
    http_error, openai_chat, openai_responses, prompt_cache, reset_time,
};

impl Format {
    /// Returns the base URL of the vendor, used if the configuration has none.
    pub fn default_base_url(self) -> &'static str {
        match self {
            Self::Openai | Self::OpenaiResponses => openai_chat::BASE_URL,
            Self::Anthropic => anthropic::BASE_URL,
            Self::Gemini => gemini::BASE_URL,
        }
    }

    /// Returns the `max_tokens` of a request that sets none; `None` leaves it to the provider.
    pub fn default_max_tokens(self) -> Option<u32> {
        match self {
            Self::Anthropic => Some(anthropic::DEFAULT_MAX_TOKENS),
            Self::Openai | Self::OpenaiResponses | Self::Gemini => None,
        }
    }

    /// Returns how many tokens the beginning of a prompt needs for the vendor to cache it, by the name of the
    /// model. At Gemini, whose cache needs nothing in a request, it decides only about the order of text and
    /// attachments.
    pub fn min_cache_tokens(self, model: &str) -> u64 {
        prompt_cache::min_tokens(self, model)
    }

    /// Returns how much one request for embeddings may contain when inputs of several callers are joined; `None` if
    /// the format has no embeddings.
    pub fn embedding_limits(self, base_url: &str) -> Option<EmbeddingLimits> {
        embeddings::limits(self, base_url)
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
        if let Some(options) = prompt.embedding {
            return embeddings::encode(self, prompt, options, model, base_url, dialect);
        }
        match self {
            Self::Openai => openai_chat::encode(prompt, model, base_url, dialect),
            Self::OpenaiResponses => openai_responses::encode(prompt, model, base_url, dialect),
            Self::Anthropic => anthropic::encode(prompt, model, dialect),
            Self::Gemini => gemini::encode(prompt, model, dialect),
        }
    }

    /// Reads the body of a client's request: the reverse of [`encode`](Self::encode). `model_in_path` is the model
    /// that the URL names, if it names one. In Gemini's format the method follows it, which says whether the answer is
    /// streamed: `models/gemini-3.8-flash:streamGenerateContent`.
    ///
    /// # Errors
    /// `api_error` if the body is not a request of this format, or if it contains what no prompt can express. The
    /// message names the field.
    pub fn read_request(self, body: &[u8], model_in_path: Option<&str>) -> Result<IncomingRequest, Failure> {
        match self {
            Self::Openai => openai_chat::read_request(body, model_in_path),
            Self::OpenaiResponses => openai_responses::read_request(body, model_in_path),
            Self::Anthropic => anthropic::read_request(body, model_in_path),
            Self::Gemini => gemini::read_request(body, model_in_path),
        }
    }

    /// Returns the header with the key, marked as sensitive.
    ///
    /// # Errors
    /// `auth` if the key contains characters that are not allowed in a header, such as a newline.
    pub fn authorization(self, key: &Secret) -> Result<(HeaderName, HeaderValue), Failure> {
        match self {
            Self::Openai | Self::OpenaiResponses => openai_chat::authorization(key),
            Self::Anthropic => anthropic::authorization(key),
            Self::Gemini => gemini::authorization(key),
        }
    }

    /// Creates a decoder for the response to `prompt`.
    pub fn decoder(self, prompt: &Prompt, dialect: &Dialect) -> Decoder {
        if let Some(options) = prompt.embedding {
            return Decoder::Embeddings(embeddings::Decoder::new(self, prompt, options));
        }
        match self {
            Self::Openai => Decoder::Openai(openai_chat::Decoder::new(prompt, dialect)),
            Self::OpenaiResponses => {
                Decoder::OpenaiResponses(openai_responses::Decoder::new(prompt, dialect))
            }
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
            Self::Openai | Self::OpenaiResponses => openai_chat::read_error(status, headers, body, now),
            Self::Anthropic => anthropic::read_error(status, headers, body, now),
            Self::Gemini => gemini::read_error(status, headers, body, now),
        }
    }

    /// Adds the wait from the response headers to a failure that came with a success status: an error in a
    /// stream, or in a body with status 200.
    pub fn apply_headers(self, failure: Failure, headers: &HeaderMap, now: SystemTime) -> Failure {
        let now = reset_time::server_time(headers, now);
        match self {
            Self::Openai | Self::OpenaiResponses => openai_chat::apply_headers(failure, headers, now),
            Self::Anthropic => anthropic::apply_headers(failure, headers, now),
            Self::Gemini => gemini::apply_headers(failure, headers, now),
        }
    }

    /// Reads the rate-limit headers of any response.
    pub fn read_rate_limit_headers(self, headers: &HeaderMap, now: SystemTime) -> RateLimitHeaders {
        let now = reset_time::server_time(headers, now);
        match self {
            Self::Openai | Self::OpenaiResponses => openai_chat::read_rate_limit_headers(headers, now),
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
            (Format::Openai | Format::OpenaiResponses, Some(url)) if !openai_chat::is_openai(url) => {
                Self::Strip
            }
            (Format::Openai | Format::OpenaiResponses | Format::Anthropic | Format::Gemini, _) => Self::Keep,
        }
    }
}

/// Decodes one response.
#[derive(Debug)]
#[expect(missing_docs, reason = "each is the decoder of what its name says")]
pub enum Decoder {
    Openai(openai_chat::Decoder),
    OpenaiResponses(openai_responses::Decoder),
    Anthropic(anthropic::Decoder),
    Gemini(gemini::Decoder),
    Embeddings(embeddings::Decoder),
}

impl Decoder {
    /// Decodes one server-sent event: its `event:` name, if any, and its data.
    ///
    /// # Errors
    /// The failure that the event reports, or `unreadable`. The call has then ended.
    pub fn push_event(&mut self, name: Option<&str>, data: &str) -> Result<Progress, Failure> {
        match self {
            Self::Openai(decoder) => decoder.push_event(name, data),
            Self::OpenaiResponses(decoder) => decoder.push_event(name, data),
            Self::Anthropic(decoder) => decoder.push_event(name, data),
            Self::Gemini(decoder) => decoder.push_event(name, data),
            Self::Embeddings(decoder) => decoder.push_event(data),
        }
    }

    /// Decodes a complete JSON body: a whole response, also of a server that responds to a streaming request so.
    ///
    /// # Errors
    /// The failure that the body reports, or `unreadable`.
    pub fn push_body(&mut self, body: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Openai(decoder) => decoder.push_body(body),
            Self::OpenaiResponses(decoder) => decoder.push_body(body),
            Self::Anthropic(decoder) => decoder.push_body(body),
            Self::Gemini(decoder) => decoder.push_body(body),
            Self::Embeddings(decoder) => decoder.push_body(body),
        }
    }

    /// Returns what has arrived since the last time and may be passed on to the reader of a stream: text, reasoning and
    /// tool calls that the complete answer will contain.
    pub fn take_deltas(&mut self) -> Vec<StreamEvent> {
        match self {
            Self::Openai(decoder) => decoder.take_deltas(),
            Self::OpenaiResponses(decoder) => decoder.take_deltas(),
            Self::Anthropic(decoder) => decoder.take_deltas(),
            Self::Gemini(decoder) => decoder.take_deltas(),
            Self::Embeddings(_) => Vec::new(),
        }
    }

    /// Returns the number of bytes of the text that was passed on.
    pub fn passed_on_text(&self) -> usize {
        match self {
            Self::Openai(decoder) => decoder.passed_on_text(),
            Self::OpenaiResponses(decoder) => decoder.passed_on_text(),
            Self::Anthropic(decoder) => decoder.passed_on_text(),
            Self::Gemini(decoder) => decoder.passed_on_text(),
            Self::Embeddings(_) => 0,
        }
    }

    /// Returns the number of buffered bytes of the answer.
    pub fn buffered_bytes(&self) -> usize {
        match self {
            Self::Openai(decoder) => decoder.buffered_bytes(),
            Self::OpenaiResponses(decoder) => decoder.buffered_bytes(),
            Self::Anthropic(decoder) => decoder.buffered_bytes(),
            Self::Gemini(decoder) => decoder.buffered_bytes(),
            Self::Embeddings(decoder) => decoder.buffered_bytes(),
        }
    }

    /// Returns the number of bytes that the model has written so far: text, reasoning and tool calls, also what the answer
    /// will not contain.
    pub fn output_bytes(&self) -> usize {
        match self {
            Self::Openai(decoder) => decoder.output_bytes(),
            Self::OpenaiResponses(decoder) => decoder.output_bytes(),
            Self::Anthropic(decoder) => decoder.output_bytes(),
            Self::Gemini(decoder) => decoder.output_bytes(),
            Self::Embeddings(_) => 0,
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
            Self::OpenaiResponses(decoder) => decoder.finish(),
            Self::Anthropic(decoder) => decoder.finish(),
            Self::Gemini(decoder) => decoder.finish(),
            Self::Embeddings(decoder) => decoder.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Class, FailureScope};

    #[test]
    fn a_web_page_is_no_evidence_about_the_key_in_any_format() {
        for format in Format::ALL {
            let page = b"<html><title>Blocked</title></html>";
            let failure = format.read_error(403, &HeaderMap::new(), page, SystemTime::UNIX_EPOCH);
            assert_eq!((failure.class, failure.scope), (Class::ApiError, FailureScope::Target), "{format:?}");
            assert_eq!(&*failure.message, "received a web page instead of an answer: Blocked");
        }
    }

    #[test]
    fn the_output_of_a_stream_is_counted_as_it_arrives() {
        for (format, event) in [
            (Format::Openai, r#"{"choices":[{"delta":{"content":"Hello"}}]}"#),
            (
                Format::OpenaiResponses,
                r#"{"type":"response.output_text.delta","output_index":0,"delta":"Hello"}"#,
            ),
            (
                Format::Anthropic,
                r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}"#,
            ),
            (Format::Gemini, r#"{"candidates":[{"content":{"parts":[{"text":"Hello"}]}}]}"#),
        ] {
            let mut decoder = format.decoder(&Prompt::text("x"), &Dialect::default());
            assert_eq!(decoder.output_bytes(), 0, "{format:?}");
            for bytes in [5, 10] {
                decoder.push_event(None, event).unwrap();
                assert_eq!(decoder.output_bytes(), bytes, "{format:?}");
                // It does not matter whether it was passed on.
                decoder.take_deltas();
                assert_eq!(decoder.output_bytes(), bytes, "{format:?}");
            }
        }
    }

    #[test]
    fn empty_events_and_the_end_mark_of_another_format_do_not_end_an_answer() {
        for format in [Format::OpenaiResponses, Format::Anthropic, Format::Gemini] {
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
            (Format::OpenaiResponses, Some("http://localhost:11434/v1"), ReasoningTags::Strip),
            (Format::OpenaiResponses, Some("https://api.openai.com/v1"), ReasoningTags::Keep),
            (Format::OpenaiResponses, None, ReasoningTags::Keep),
            (Format::Anthropic, Some("http://localhost:1"), ReasoningTags::Keep),
            (Format::Gemini, Some("http://localhost:1"), ReasoningTags::Keep),
        ] {
            assert_eq!(ReasoningTags::default_for(format, base_url), tags, "{base_url:?}");
        }
    }
}
