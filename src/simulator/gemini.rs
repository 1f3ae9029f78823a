//! Wire format of Gemini: generateContent, its streams, embeddings and errors. Gemini has no rate-limit headers.
//!
//! Limits, faults and latency are handled elsewhere.

mod cacheable_prompt;
mod embeddings;
mod error_response;
mod request;
mod response;
mod tools;

use serde_json::json;

pub(super) use cacheable_prompt::cacheable_prompt;
pub(super) use embeddings::{parse_request as parse_embeddings, render_response as render_embeddings};
pub(super) use error_response::render_error;
pub(super) use request::{parse_request, query_parameter};
pub(super) use response::{render_response, render_stream};

use super::model_page::{ModelPage, parameter};

/// Renders the list of models.
pub(super) fn render_models(models: &[String], query: &str) -> Vec<u8> {
    let start = parameter(query, "pageToken").and_then(|token| token.parse().ok()).unwrap_or(0);
    let page = ModelPage::from(models, start, query, ("pageSize", 50));
    let models: Vec<_> = page
        .models
        .iter()
        .map(|name| {
            json!({ "name": format!("models/{name}"), "version": "1", "displayName": name,
                "inputTokenLimit": 1_048_576, "outputTokenLimit": 65_536,
                "supportedGenerationMethods": ["generateContent", "embedContent"] })
        })
        .collect();
    let mut list = json!({ "models": models });
    if let Some(next) = page.next {
        list["nextPageToken"] = next.to_string().into();
    }
    list.to_string().into_bytes()
}
