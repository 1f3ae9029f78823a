//! Requests for embeddings, independent of the vendor's format, and their vectors.

use std::borrow::Cow;

use fastrand::Rng;

use super::Vendor;
use super::content::Content;
use super::parsed_request::{AnswerFormat, Conversation, Delivery, ParsedRequest};
use super::response_data::append;
use super::rng::fingerprint;
use super::tool_settings::ToolSettings;

/// Dimensions of a vector if the request asks for none.
pub(super) const DEFAULT_DIMENSIONS: u32 = 8;

/// Maximum dimensions of a vector.
pub(super) const MAX_DIMENSIONS: u32 = 4_096;

/// Maximum number of inputs of a request.
pub(super) const MAX_INPUTS: usize = 2_048;

/// An API for embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EmbeddingApi {
    /// OpenAI's `/embeddings`.
    OpenAi,
    /// Gemini's `embedContent`, for one input.
    GeminiOne,
    /// Gemini's `batchEmbedContents`.
    GeminiBatch,
}

impl EmbeddingApi {
    /// Returns the vendor, which has the keys, the limits, the errors and the headers.
    pub(super) fn vendor(self) -> Vendor {
        match self {
            Self::OpenAi => Vendor::OpenAi,
            Self::GeminiOne | Self::GeminiBatch => Vendor::Gemini,
        }
    }

    /// Returns a number that distinguishes the APIs in the hash of a request, from one another and from those of
    /// completions. It never changes.
    pub(super) fn hash_tag(self) -> u64 {
        match self {
            Self::OpenAi => 100,
            Self::GeminiOne => 101,
            Self::GeminiBatch => 102,
        }
    }
}

/// A parsed request for embeddings.
#[derive(Debug)]
pub(super) struct ParsedEmbeddings<'a> {
    /// What it has in common with other requests.
    pub(super) request: ParsedRequest<'a>,
    pub(super) inputs: Vec<EmbeddingInput>,
    /// Whether the numbers are in base64.
    pub(super) is_base64: bool,
}

/// One input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EmbeddingInput {
    text_hash: u64,
    dimensions: u32,
}

impl<'a> ParsedEmbeddings<'a> {
    /// Creates a request for vectors of these texts, each with its dimensions.
    pub(super) fn new(
        model: Cow<'a, str>,
        texts: impl IntoIterator<Item = (Cow<'a, str>, Option<u32>)>,
        is_base64: bool,
    ) -> Self {
        let mut conversation = Conversation::default();
        let mut inputs = Vec::new();
        for (text, dimensions) in texts {
            let text_hash = fingerprint(text.as_bytes());
            inputs.push(EmbeddingInput { text_hash, dimensions: dimensions.unwrap_or(DEFAULT_DIMENSIONS) });
            conversation.push(Content::Text(text), true);
        }
        let request = ParsedRequest {
            model,
            delivery: Delivery::Full,
            conversation,
            max_tokens: Some(0),
            format: AnswerFormat::Text,
            stop: Vec::new(),
            tools: ToolSettings::default(),
            reasoning: None,
            lacks_signature: false,
        };
        Self { request, inputs, is_base64 }
    }
}

impl EmbeddingInput {
    /// Returns the vector, of length 1. It depends on the text and the dimensions only.
    pub(super) fn vector(self) -> Vec<f32> {
        let mut rng = Rng::with_seed(self.text_hash);
        let numbers: Vec<f64> = (0..self.dimensions).map(|_| rng.f64() * 2.0 - 1.0).collect();
        let length = numbers.iter().map(|number| number * number).sum::<f64>().sqrt();
        numbers.into_iter().map(|number| (number / length) as f32).collect()
    }
}

/// Appends a vector, which is not empty, as a JSON list.
pub(super) fn append_numbers(out: &mut Vec<u8>, vector: &[f32]) {
    for (index, number) in vector.iter().enumerate() {
        append!(out, if index == 0 { '[' } else { ',' }, number);
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(text: &'static str, dimensions: Option<u32>) -> Vec<f32> {
        let parsed = ParsedEmbeddings::new("m".into(), [(text.into(), dimensions)], false);
        parsed.inputs[0].vector()
    }

    #[test]
    fn a_vector_has_length_one_and_depends_on_its_text_only() {
        for dimensions in [None, Some(1), Some(100), Some(MAX_DIMENSIONS)] {
            let numbers = vector("low tide", dimensions);
            assert_eq!(numbers.len(), dimensions.unwrap_or(DEFAULT_DIMENSIONS) as usize);
            let length = numbers.iter().map(|number| f64::from(*number).powi(2)).sum::<f64>();
            assert!((length - 1.0).abs() < 1e-5, "{length}");
            assert_eq!(numbers, vector("low tide", dimensions));
            assert!(dimensions == Some(1) || numbers != vector("high tide", dimensions));
        }
    }

    #[test]
    fn the_tokens_of_all_inputs_are_counted() {
        let texts = ["abcd", "efghi"].map(|text| (Cow::Borrowed(text), None));
        let parsed = ParsedEmbeddings::new("m".into(), texts, false);
        assert_eq!(parsed.request.conversation.tokens(), 3);
    }
}
