//! Wire formats of OpenAI: chat completions, responses and embeddings, their streams, errors and headers.
//!
//! Limits, faults and latency are handled elsewhere.

mod cacheable_prompt;
mod chat_request;
mod chat_response;
mod embeddings;
mod error_response;
mod function_tools;
mod request_checks;
mod responses_body;
mod responses_request;
mod responses_stream;

use serde_json::json;

pub(super) use cacheable_prompt::{cacheable_chat_prompt, cacheable_responses_prompt};
pub(super) use chat_request::parse_request as parse_chat_request;
pub(super) use chat_response::{
    render_response as render_chat_response, render_stream as render_chat_stream,
};
pub(super) use embeddings::{parse_request as parse_embeddings, render_response as render_embeddings};
pub(super) use error_response::{add_common_headers, add_rate_limit_headers, add_retry_after, render_error};
pub(super) use responses_body::render_response as render_responses_response;
pub(super) use responses_request::parse_request as parse_responses_request;
pub(super) use responses_stream::{
    render_error_event as render_responses_error_event, render_stream as render_responses_stream,
};

/// Renders the list of models.
pub(super) fn render_models(models: &[String]) -> Vec<u8> {
    let data: Vec<_> = models
        .iter()
        .map(|id| json!({ "id": id, "object": "model", "created": 1_790_000_000, "owned_by": "simulator" }))
        .collect();
    json!({ "object": "list", "data": data }).to_string().into_bytes()
}
