//! Dispatch to the vendors and their wire formats.

use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;

use super::account::LimitStatuses;
use super::api_error::ApiError;
use super::event_stream::EventStream;
use super::example::ANSWER_PREFIX;
use super::parsed_request::{ParsedRequest, RequestHead};
use super::prompt_prefixes::CacheablePrompt;
use super::response_data::{ErrorResponse, ResponseData};
use super::wire_format::WireFormat;
use super::{Settings, Vendor, anthropic, gemini, openai};

/// Parses a request in this format.
pub(super) fn parse_request<'a>(
    wire_format: WireFormat,
    head: &RequestHead<'a>,
    body: &'a [u8],
    settings: &Settings,
) -> Result<ParsedRequest<'a>, ApiError> {
    match wire_format {
        WireFormat::OpenAiChat => openai::parse_chat_request(body, settings),
        WireFormat::OpenAiResponses => openai::parse_responses_request(body, settings),
        WireFormat::Anthropic => anthropic::parse_request(head, body, settings),
        WireFormat::Gemini => gemini::parse_request(head, body, settings),
    }
}

/// Returns the prefixes that the vendor may cache, of a valid request in this format.
pub(super) fn cacheable_prompt(wire_format: WireFormat, body: &[u8]) -> Result<CacheablePrompt, ApiError> {
    match wire_format {
        WireFormat::OpenAiChat => Ok(openai::cacheable_chat_prompt(body)),
        WireFormat::OpenAiResponses => Ok(openai::cacheable_responses_prompt(body)),
        WireFormat::Anthropic => anthropic::cacheable_prompt(body),
        WireFormat::Gemini => Ok(gemini::cacheable_prompt(body)),
    }
}

/// Renders a response without streaming.
pub(super) fn render_response(wire_format: WireFormat, data: &ResponseData<'_>) -> Vec<u8> {
    match wire_format {
        WireFormat::OpenAiChat => openai::render_chat_response(data),
        WireFormat::OpenAiResponses => openai::render_responses_response(data),
        WireFormat::Anthropic => anthropic::render_response(data),
        WireFormat::Gemini => gemini::render_response(data),
    }
}

/// Renders a stream of at most `max_chunks` text chunks.
pub(super) fn render_stream(
    wire_format: WireFormat,
    data: &ResponseData<'_>,
    max_chunks: usize,
    usage: bool,
) -> EventStream {
    match wire_format {
        WireFormat::OpenAiChat => openai::render_chat_stream(data, max_chunks, usage),
        WireFormat::OpenAiResponses => openai::render_responses_stream(data, max_chunks),
        WireFormat::Anthropic => anthropic::render_stream(data, max_chunks),
        WireFormat::Gemini => gemini::render_stream(data, max_chunks),
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

/// Renders an error event within a stream, after this number of other events.
pub(super) fn render_error_event(wire_format: WireFormat, serial: u64, events_before: usize) -> Vec<u8> {
    let event = match wire_format {
        WireFormat::OpenAiChat => openai::render_error(&ApiError::ServerError { status: 500 }).1,
        WireFormat::OpenAiResponses => return openai::render_responses_error_event(events_before),
        WireFormat::Anthropic => anthropic::render_error(&ApiError::Overloaded { status: None }, serial).1,
        WireFormat::Gemini => gemini::render_error(&ApiError::Overloaded { status: None }).1,
    };
    let name: &[u8] = if wire_format == WireFormat::Anthropic { b"event: error\n" } else { b"" };
    [name, b"data: ", &event, event_terminator(wire_format.vendor())].concat()
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

/// Renders the page of the list of models that a request asks for.
pub(super) fn render_models(vendor: Vendor, models: &[String], query: &str) -> Vec<u8> {
    let default_models = [ANSWER_PREFIX.trim_matches(['[', ']']).to_owned()];
    let models = if models.is_empty() { &default_models } else { models };
    match vendor {
        Vendor::OpenAi => openai::render_models(models),
        Vendor::Anthropic => anthropic::render_models(models, query),
        Vendor::Gemini => gemini::render_models(models, query),
    }
}
