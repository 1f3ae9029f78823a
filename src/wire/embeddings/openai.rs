//! OpenAI's `/embeddings`, which compatible servers have as well.

use serde::{Deserialize, Serialize};

use crate::types::{EmbeddingOptions, Failure, Format, Prompt, Tokens, Usage};
use crate::wire::count::Count;
use crate::wire::lenient::{LenientObject, LenientText};
use crate::wire::vendor_fields::json_body;
use crate::wire::{Dialect, DropParameter, HttpRequest, openai_chat};

use super::vectors::{ResponseContents, Vector, unreadable};

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    input: Vec<&'a str>,
    encoding_format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
}

/// Encodes a request. OpenAI's own hosts are asked for base64, which is a third of the size; other servers may not
/// have it. Both are read, whatever was asked for.
pub(super) fn encode(
    prompt: &Prompt,
    options: EmbeddingOptions,
    model: &str,
    base_url: &str,
    dialect: &Dialect,
) -> Result<HttpRequest, Failure> {
    let body = Body {
        model,
        input: prompt.embedding_inputs().collect(),
        encoding_format: if openai_chat::is_openai(base_url) { "base64" } else { "float" },
        dimensions: options.dimensions.map(Into::into),
        user: prompt.user.as_deref().filter(|_| !dialect.drops(DropParameter::User)),
    };
    Ok(HttpRequest {
        path: "/embeddings".to_owned(),
        headers: Vec::new(),
        body: json_body(&body, Format::Openai, prompt, dialect)?,
    })
}

#[derive(Deserialize)]
struct Response<'a> {
    data: Vec<Embedding>,
    #[serde(borrow, default)]
    model: LenientText<'a>,
    #[serde(borrow, default)]
    id: LenientText<'a>,
    #[serde(default)]
    usage: LenientObject<Counts>,
}

#[derive(Deserialize)]
struct Embedding {
    #[serde(default)]
    index: Count,
    embedding: Vector,
}

#[derive(Deserialize)]
struct Counts {
    #[serde(default)]
    prompt_tokens: Count,
}

/// Reads a whole response.
///
/// # Errors
/// The failure that the body reports, or `unreadable`.
pub(super) fn read(body: &[u8]) -> Result<ResponseContents, Failure> {
    let response: Response<'_> = serde_json::from_slice(body)
        .map_err(|error| openai_chat::in_band(body).unwrap_or_else(|| unreadable(&error.to_string())))?;
    let tokens = response.usage.0.and_then(|counts| counts.prompt_tokens.required());
    let vectors = response.data.into_iter().map(|item| (item.index.required(), item.embedding));
    Ok(ResponseContents {
        vectors: vectors.collect(),
        usage: tokens.and_then(|tokens| Usage::new(Tokens(tokens), Tokens(0)).credible()),
        model: response.model.label(None).unwrap_or_default(),
        request_id: response.id.label(None),
    })
}
