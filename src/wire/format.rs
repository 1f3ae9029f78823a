//! The formats, and the one place that knows which file speaks which.

use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::types::{Failure, Prompt, Reply, Secret};

use super::{Dialect, Hints, Progress, Request, anthropic, gemini, instants, openai_chat};

/// A way of speaking to a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// OpenAI's chat completions, and everything compatible with them.
    Openai,
    /// Anthropic's messages.
    Anthropic,
    /// Gemini's generateContent.
    Gemini,
}

impl Format {
    /// Returns the word by which a configuration names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
        }
    }

    /// Returns the vendor's own address, used when the configuration gives none.
    pub fn default_base_url(self) -> &'static str {
        match self {
            Self::Openai => openai_chat::BASE_URL,
            Self::Anthropic => anthropic::BASE_URL,
            Self::Gemini => gemini::BASE_URL,
        }
    }

    /// Returns the `max_tokens` that a request carries where nobody says; `None` leaves it to the provider.
    pub fn assumed_max_tokens(self) -> Option<u32> {
        match self {
            Self::Anthropic => Some(anthropic::DEFAULT_MAX_TOKENS),
            Self::Openai | Self::Gemini => None,
        }
    }

    /// Writes the request for `prompt`; `base_url` and `dialect` say which vendor will read it.
    ///
    /// # Errors
    /// `api_error` when the prompt holds what this format cannot carry.
    pub fn encode(
        self,
        prompt: &Prompt,
        model: &str,
        base_url: &str,
        dialect: &Dialect,
    ) -> Result<Request, Failure> {
        match self {
            Self::Openai => openai_chat::encode(prompt, model, base_url, dialect),
            Self::Anthropic => anthropic::encode(prompt, model, dialect),
            Self::Gemini => gemini::encode(prompt, model, dialect),
        }
    }

    /// Returns the header that carries the key, marked as sensitive.
    ///
    /// # Errors
    /// `auth` when the key holds characters that no header can carry, such as a newline.
    pub fn authorization(self, key: &Secret) -> Result<(HeaderName, HeaderValue), Failure> {
        match self {
            Self::Openai => openai_chat::authorization(key),
            Self::Anthropic => anthropic::authorization(key),
            Self::Gemini => gemini::authorization(key),
        }
    }

    /// Makes a decoder for the reply to `prompt`.
    pub fn decoder(self, prompt: &Prompt, dialect: &Dialect) -> Decoder {
        match self {
            Self::Openai => Decoder::Openai(openai_chat::Decoder::new(prompt, dialect)),
            Self::Anthropic => Decoder::Anthropic(anthropic::Decoder::new(prompt, dialect)),
            Self::Gemini => Decoder::Gemini(gemini::Decoder::new(prompt, dialect)),
        }
    }

    /// Classifies a response whose status is no success. Never fails: a body that cannot be read
    /// still has its status.
    pub fn read_error(self, status: u16, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Failure {
        let now = instants::of_server(headers, now);
        match self {
            Self::Openai => openai_chat::read_error(status, headers, body, now),
            Self::Anthropic => anthropic::read_error(status, headers, body, now),
            Self::Gemini => gemini::read_error(status, headers, body, now),
        }
    }

    /// Adds to a failure that came inside a success (an error in a stream, or in a body with status 200)
    /// what only the headers and the clock know: until when it lasts.
    pub fn complete(self, failure: Failure, headers: &HeaderMap, now: SystemTime) -> Failure {
        let now = instants::of_server(headers, now);
        match self {
            Self::Openai => openai_chat::complete(failure, headers, now),
            Self::Anthropic => anthropic::complete(failure, headers, now),
            Self::Gemini => gemini::complete(failure, headers, now),
        }
    }

    /// Reads what the headers of any response say about the account's limits.
    pub fn read_hints(self, headers: &HeaderMap, now: SystemTime) -> Hints {
        let now = instants::of_server(headers, now);
        match self {
            Self::Openai => openai_chat::read_hints(headers, now),
            Self::Anthropic => anthropic::read_hints(headers, now),
            Self::Gemini => gemini::read_hints(headers, now),
        }
    }
}

/// Puts the pieces of one reply together.
#[derive(Debug)]
#[expect(missing_docs, reason = "each is the decoder of the format of that name")]
pub enum Decoder {
    Openai(openai_chat::Decoder),
    Anthropic(anthropic::Decoder),
    Gemini(gemini::Decoder),
}

impl Decoder {
    /// Takes one server-sent event: its `event:` name if it had one, and its data.
    ///
    /// # Errors
    /// The failure that the event carries or is; the call is over then.
    pub fn event(&mut self, name: Option<&str>, data: &str) -> Result<Progress, Failure> {
        match self {
            Self::Openai(decoder) => decoder.event(name, data),
            Self::Anthropic(decoder) => decoder.event(name, data),
            Self::Gemini(decoder) => decoder.event(name, data),
        }
    }

    /// Takes a whole JSON body, from servers that answer a streaming request without a stream.
    ///
    /// # Errors
    /// The failure that the body carries or is.
    pub fn whole(&mut self, body: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Openai(decoder) => decoder.whole(body),
            Self::Anthropic(decoder) => decoder.whole(body),
            Self::Gemini(decoder) => decoder.whole(body),
        }
    }

    /// Returns how many bytes of the answer are held.
    pub fn held_bytes(&self) -> usize {
        match self {
            Self::Openai(decoder) => decoder.held_bytes(),
            Self::Anthropic(decoder) => decoder.held_bytes(),
            Self::Gemini(decoder) => decoder.held_bytes(),
        }
    }

    /// Gives the reply, when the stream or body is over.
    ///
    /// # Errors
    /// `unreadable` when the end mark never came, else what the stop reason means: `content_filter`,
    /// `too_long`, `truncated`.
    pub fn finish(self) -> Result<Reply, Failure> {
        match self {
            Self::Openai(decoder) => decoder.finish(),
            Self::Anthropic(decoder) => decoder.finish(),
            Self::Gemini(decoder) => decoder.finish(),
        }
    }
}
