//! The chunks of a stream. Each has the structure of a complete response.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::types::{Tokens, Usage};
use crate::wire::bounded_json::BoundedJson;
use crate::wire::bounded_list;
use crate::wire::count::Count;
use crate::wire::lenient::{LenientIndex, LenientObject, LenientText};

/// Parses a body: one chunk, or, without `alt=sse`, an array of chunks.
pub(super) fn chunks(body: &[u8]) -> serde_json::Result<Vec<Chunk<'_>>> {
    match body.trim_ascii_start().first() {
        Some(b'[') => serde_json::from_slice(body),
        _ => serde_json::from_slice(body).map(|chunk| vec![chunk]),
    }
}

/// One chunk, which has the structure of a complete response.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Chunk<'a> {
    #[serde(borrow, default, deserialize_with = "bounded_list::optional")]
    pub(super) candidates: Option<Vec<Candidate<'a>>>,
    pub(super) prompt_feedback: Option<PromptFeedback>,
    #[serde(default)]
    pub(super) usage_metadata: LenientObject<Counts>,
    #[serde(borrow, default)]
    pub(super) model_version: LenientText<'a>,
    #[serde(borrow, default)]
    pub(super) response_id: LenientText<'a>,
    pub(super) error: Option<BoundedJson>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Candidate<'a> {
    #[serde(borrow)]
    pub(super) content: Option<Content<'a>>,
    #[serde(borrow, default)]
    pub(super) finish_reason: LenientText<'a>,
    #[serde(borrow, default)]
    pub(super) finish_message: LenientText<'a>,
    #[serde(default)]
    pub(super) index: LenientIndex,
}

#[derive(Deserialize)]
pub(super) struct Content<'a> {
    #[serde(borrow, default, deserialize_with = "bounded_list::optional")]
    pub(super) parts: Option<Vec<Part<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Part<'a> {
    #[serde(borrow, default)]
    pub(super) text: Cow<'a, str>,
    /// Whether the part is reasoning.
    #[serde(default)]
    pub(super) thought: bool,
    #[serde(borrow)]
    pub(super) function_call: Option<FunctionCall<'a>>,
    /// What the vendor has signed with the part, whatever its kind.
    #[serde(borrow, default)]
    pub(super) thought_signature: LenientText<'a>,
}

/// A tool call. It arrives complete in one chunk.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FunctionCall<'a> {
    /// Older models and other servers send none.
    #[serde(borrow, default)]
    pub(super) id: LenientText<'a>,
    #[serde(borrow, default)]
    pub(super) name: LenientText<'a>,
    pub(super) args: Option<Value>,
    /// Pieces of the arguments, which the vendor sends only if the request asks for them.
    pub(super) partial_args: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PromptFeedback {
    pub(super) block_reason: Option<String>,
}

/// Token counts of this vendor: reasoning is not included in the candidates, cached tokens are included in the
/// prompt.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Counts {
    #[serde(default)]
    prompt_token_count: Count,
    #[serde(default)]
    tool_use_prompt_token_count: Count,
    #[serde(default)]
    cached_content_token_count: Count,
    #[serde(default)]
    candidates_token_count: Count,
    #[serde(default)]
    thoughts_token_count: Count,
}

impl Counts {
    /// Returns whether all counts are zero or missing.
    pub(super) fn is_zero(&self) -> bool {
        let counts = [self.prompt_token_count, self.candidates_token_count, self.thoughts_token_count];
        counts.iter().all(|count| matches!(count, Count::Missing | Count::Known(0)))
    }

    /// Converts the counts to [`Usage`]; `None` if a count is missing or not credible. The vendor omits zeros, so
    /// the count of the candidates is required only `with_output`: text or tool calls.
    pub(super) fn usage(self, with_output: bool) -> Option<Usage> {
        let prompt = Tokens(self.prompt_token_count.required()?);
        let reasoning = Tokens(self.thoughts_token_count.or_zero()?);
        let candidates = self.candidates_token_count;
        let candidates = if with_output { candidates.required()? } else { candidates.or_zero()? };
        let usage = Usage {
            input: prompt + Tokens(self.tool_use_prompt_token_count.or_zero()?),
            cached: Tokens(self.cached_content_token_count.or_zero()?),
            cache_write: Tokens(0),
            cache_write_1h: Tokens(0),
            output: Tokens(candidates) + reasoning,
            reasoning,
        };
        usage.credible()
    }
}
