//! Wire format of Anthropic: messages, their streams, errors and headers, in both versions of the API.
//!
//! Limits, faults and latency are handled elsewhere.

mod cacheable_prompt;
mod error_response;
mod request;
mod response;
mod tools;

use serde_json::json;

pub(super) use cacheable_prompt::cacheable_prompt;
pub(super) use error_response::{add_common_headers, add_rate_limit_headers, add_retry_after, render_error};
pub(super) use request::parse_request;
pub(super) use response::{render_response, render_stream};

use super::model_page::{ModelPage, parameter};

/// Renders the list of models.
pub(super) fn render_models(models: &[String], query: &str) -> Vec<u8> {
    let after = parameter(query, "after_id");
    let start = after.and_then(|after| models.iter().position(|id| *id == after)).map_or(0, |at| at + 1);
    let page = ModelPage::from(models, start, query, ("limit", 20));
    let data: Vec<_> = page
        .models
        .iter()
        .map(|id| {
            json!({ "type": "model", "id": id, "display_name": id, "created_at": "2026-09-01T00:00:00Z",
                "lifecycle": "active", "max_input_tokens": 200_000, "max_tokens": 64_000 })
        })
        .collect();
    let first = page.models.first();
    let last = page.models.last();
    json!({ "data": data, "has_more": page.next.is_some(), "first_id": first, "last_id": last })
        .to_string()
        .into_bytes()
}
