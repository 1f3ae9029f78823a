//! Dispatch to the vendors' wire formats.

use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;

use super::account::LimitStatuses;
use super::api_error::ApiError;
use super::event_stream::EventStream;
use super::example::ANSWER_PREFIX;
use super::parsed_request::{ParsedRequest, RequestHead};
use super::response_data::{ErrorResponse, ResponseData};
use super::{Settings, Vendor, anthropic, gemini, openai};

/// Parses a request in the format of `vendor`.
pub(super) fn parse_request<'a>(
    vendor: Vendor,
    head: &RequestHead<'a>,
    body: &'a [u8],
    settings: &Settings,
) -> Result<ParsedRequest<'a>, ApiError> {
    match vendor {
        Vendor::OpenAi => openai::parse_request(body, settings),
        Vendor::Anthropic => anthropic::parse_request(head, body, settings),
        Vendor::Gemini => gemini::parse_request(head, body, settings),
    }
}

/// Renders a response without streaming.
pub(super) fn render_response(vendor: Vendor, data: &ResponseData<'_>) -> Vec<u8> {
    match vendor {
        Vendor::OpenAi => openai::render_response(data),
        Vendor::Anthropic => anthropic::render_response(data),
        Vendor::Gemini => gemini::render_response(data),
    }
}

/// Renders a stream of at most `max_chunks` text chunks.
pub(super) fn render_stream(
    vendor: Vendor,
    data: &ResponseData<'_>,
    max_chunks: usize,
    usage: bool,
) -> EventStream {
    match vendor {
        Vendor::OpenAi => openai::render_stream(data, max_chunks, usage),
        Vendor::Anthropic => anthropic::render_stream(data, max_chunks),
        Vendor::Gemini => gemini::render_stream(data, max_chunks),
    }
}

/// Renders an error response.
pub(super) fn render_error(vendor: Vendor, api_error: &ApiError, serial: u64) -> ErrorResponse {
    match vendor {
        Vendor::OpenAi => openai::render_error(api_error),
        Vendor::Anthropic => anthropic::render_error(api_error, serial),
        Vendor::Gemini => gemini::render_error(api_error),
    }
}

/// Renders an error event within a stream.
pub(super) fn render_error_event(vendor: Vendor, serial: u64) -> Vec<u8> {
    let event = match vendor {
        Vendor::OpenAi => openai::render_error(&ApiError::ServerError { status: 500 }).1,
        Vendor::Anthropic => anthropic::render_error(&ApiError::Overloaded { status: None }, serial).1,
        Vendor::Gemini => gemini::render_error(&ApiError::Overloaded { status: None }).1,
    };
    let name: &[u8] = if vendor == Vendor::Anthropic { b"event: error\n" } else { b"" };
    [name, b"data: ", &event, event_terminator(vendor)].concat()
}

/// Returns the end of an event.
pub(super) fn event_terminator(vendor: Vendor) -> &'static [u8] {
    if vendor == Vendor::Gemini { b"\r\n\r\n" } else { b"\n\n" }
}

/// Adds the headers of every response of the vendor.
pub(super) fn add_common_headers(vendor: Vendor, headers: &mut HeaderMap, serial: u64) {
    match vendor {
        Vendor::OpenAi => openai::add_common_headers(headers, serial),
        Vendor::Anthropic => anthropic::add_common_headers(headers, serial),
        Vendor::Gemini => {}
    }
}

/// Adds the vendor's rate-limit headers, if it has any.
pub(super) fn add_rate_limit_headers(
    vendor: Vendor,
    headers: &mut HeaderMap,
    limit_statuses: &LimitStatuses,
    now: Timestamp,
) {
    match vendor {
        Vendor::OpenAi => openai::add_rate_limit_headers(headers, limit_statuses),
        Vendor::Anthropic => anthropic::add_rate_limit_headers(headers, limit_statuses, now),
        Vendor::Gemini => {}
    }
}

/// Adds a `Date` header with the time of the vendor's clock.
pub(super) fn add_date(headers: &mut HeaderMap, now: Timestamp) {
    let date = now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    if let Ok(date) = HeaderValue::try_from(date) {
        headers.insert(http::header::DATE, date);
    }
}

/// Adds the Retry-After headers, if the vendor has any.
pub(super) fn add_retry_after(headers: &mut HeaderMap, vendor: Vendor, api_error: &ApiError) {
    match vendor {
        Vendor::OpenAi => openai::add_retry_after(headers, api_error),
        Vendor::Anthropic => anthropic::add_retry_after(headers, api_error),
        // Gemini sends the delay in the body.
        Vendor::Gemini => {}
    }
}

/// Renders the list of models.
pub(super) fn render_models(vendor: Vendor, models: &[String]) -> Vec<u8> {
    let default_models = [ANSWER_PREFIX.trim_matches(['[', ']']).to_owned()];
    let models = if models.is_empty() { &default_models } else { models };
    match vendor {
        Vendor::OpenAi => openai::render_models(models),
        Vendor::Anthropic => anthropic::render_models(models),
        Vendor::Gemini => gemini::render_models(models),
    }
}
