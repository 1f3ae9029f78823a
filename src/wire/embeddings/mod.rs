//! Requests for embeddings and their responses, which are never streams. The formats of OpenAI's chat completions and
//! of Gemini have them.

mod gemini;
mod openai;
#[cfg(test)]
mod tests;
mod vectors;

use crate::types::{Class, Completion, EmbeddingLimits, EmbeddingOptions, Failure, Format, Prompt};

use super::unsupported::refusal;
use super::{Dialect, HttpRequest, Progress, openai_chat};
use vectors::{Expected, unreadable};

/// OpenAI's documented limits are 2,048 inputs and 300,000 tokens. The limit for estimated tokens is a fifth lower,
/// because an estimate can be too low.
const OPENAI_LIMITS: (usize, u64) = (2_048, 240_000);

/// Limits for other servers of the format, such as Gemini's compatible endpoint. Most accept fewer inputs than OpenAI.
const COMPATIBLE_LIMITS: (usize, u64) = (100, 200_000);

/// Gemini refuses more than 100 inputs, each of which may have 2,048 tokens.
const GEMINI_LIMITS: (usize, u64) = (100, 200_000);

/// Returns how much a joined request may contain; `None` if the format has no embeddings.
pub(super) fn limits(format: Format, base_url: &str) -> Option<EmbeddingLimits> {
    let (max_inputs, max_tokens) = match format {
        Format::Openai if openai_chat::is_openai(base_url) => OPENAI_LIMITS,
        Format::Openai => COMPATIBLE_LIMITS,
        Format::Gemini => GEMINI_LIMITS,
        Format::Anthropic | Format::OpenaiResponses => return None,
    };
    Some(EmbeddingLimits::new(max_inputs, max_tokens))
}

/// Encodes a request.
///
/// # Errors
/// `api_error` if the format has no embeddings.
pub(super) fn encode(
    format: Format,
    prompt: &Prompt,
    options: EmbeddingOptions,
    model: &str,
    base_url: &str,
    dialect: &Dialect,
) -> Result<HttpRequest, Failure> {
    match format {
        Format::Openai => openai::encode(prompt, options, model, base_url, dialect),
        Format::Gemini => gemini::encode(prompt, options, model, dialect),
        Format::Anthropic | Format::OpenaiResponses => Err(without_embeddings(format)),
    }
}

fn without_embeddings(format: Format) -> Failure {
    let other = match format {
        Format::OpenaiResponses => "use a provider with format = \"openai\" at the same address",
        Format::Openai | Format::Anthropic | Format::Gemini => "use a target of another provider",
    };
    refusal(format!("{} has no embeddings; {other}", format.title()))
}

/// Decodes one response.
#[derive(Debug)]
pub struct Decoder {
    format: Format,
    expected: Expected,
    completion: Option<Completion>,
}

impl Decoder {
    /// Creates a decoder for the response to `prompt`.
    pub(super) fn new(format: Format, prompt: &Prompt, options: EmbeddingOptions) -> Self {
        let inputs = prompt.embedding_inputs().count();
        let expected = Expected { inputs, dimensions: options.dimensions };
        Self { format, expected, completion: None }
    }

    /// Refuses an event of a stream: no vendor streams embeddings.
    pub(super) fn push_event(&mut self, _data: &str) -> Result<Progress, Failure> {
        Err(unreadable("the response is a stream"))
    }

    /// Decodes a complete JSON body.
    pub(super) fn push_body(&mut self, body: &[u8]) -> Result<(), Failure> {
        let contents = match self.format {
            Format::Openai => openai::read(body)?,
            Format::Gemini => gemini::read(body)?,
            Format::Anthropic | Format::OpenaiResponses => return Err(without_embeddings(self.format)),
        };
        self.completion = Some(contents.complete(self.expected)?);
        Ok(())
    }

    /// Returns the number of buffered bytes.
    pub(super) fn buffered_bytes(&self) -> usize {
        self.completion.as_ref().map_or(0, Completion::bytes)
    }

    /// Returns the vectors.
    pub(super) fn finish(self) -> Result<Completion, Failure> {
        self.completion.ok_or_else(|| Failure::new(Class::Unreadable, "there is no response").maybe_charged())
    }
}
