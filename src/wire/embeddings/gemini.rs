//! Gemini's `batchEmbedContents`. It counts no tokens, unless a response has `usageMetadata`.

use serde::{Deserialize, Serialize};

use crate::types::{EmbeddingOptions, Failure, Format, Prompt, Tokens, Usage};
use crate::wire::count::Count;
use crate::wire::lenient::LenientObject;
use crate::wire::unsupported::drop_or_refuse;
use crate::wire::vendor_fields::json_body;
use crate::wire::{Dialect, DropParameter, HttpRequest, gemini, openai_chat};

use super::vectors::{ResponseContents, Vector, unreadable};

/// The request of one input.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InputRequest<'a> {
    model: &'a str,
    content: Content<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_dimensionality: Option<u32>,
}

#[derive(Serialize)]
struct Content<'a> {
    parts: [Part<'a>; 1],
}

#[derive(Serialize)]
struct Part<'a> {
    text: &'a str,
}

/// Encodes a request. The vendor's fields of the model, such as `taskType`, belong to each input.
pub(super) fn encode(
    prompt: &Prompt,
    options: EmbeddingOptions,
    model: &str,
    dialect: &Dialect,
) -> Result<HttpRequest, Failure> {
    if prompt.user.is_some() {
        drop_or_refuse(Format::Gemini, dialect, DropParameter::User)?;
    }
    let name = gemini::resource_name(model);
    let mut body = b"{\"requests\":[".to_vec();
    for (index, text) in prompt.embedding_inputs().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        let request = InputRequest {
            model: &name,
            content: Content { parts: [Part { text }] },
            output_dimensionality: options.dimensions.map(Into::into),
        };
        body.extend_from_slice(&json_body(&request, Format::Gemini, prompt, dialect)?);
    }
    body.extend_from_slice(b"]}");
    let path = format!("{}:batchEmbedContents", gemini::model_path(model, dialect));
    Ok(HttpRequest { path, headers: Vec::new(), body: body.into() })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    embeddings: Vec<Embedding>,
    #[serde(default)]
    usage_metadata: LenientObject<Counts>,
}

#[derive(Deserialize)]
struct Embedding {
    values: Vector,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    #[serde(default)]
    prompt_token_count: Count,
}

/// Reads a whole response. Its vectors are in the order of the inputs.
///
/// # Errors
/// The failure that the body reports, or `unreadable`.
pub(super) fn read(body: &[u8]) -> Result<ResponseContents, Failure> {
    let response: Response = serde_json::from_slice(body)
        .map_err(|error| openai_chat::in_band(body).unwrap_or_else(|| unreadable(&error.to_string())))?;
    let tokens = response.usage_metadata.0.and_then(|counts| counts.prompt_token_count.required());
    let vectors = (0..).zip(response.embeddings).map(|(index, item)| (Some(index), item.values));
    Ok(ResponseContents {
        vectors: vectors.collect(),
        usage: tokens.and_then(|tokens| Usage::new(Tokens(tokens), Tokens(0)).credible()),
        model: String::new(),
        request_id: None,
    })
}
