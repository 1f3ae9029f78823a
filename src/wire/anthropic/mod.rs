//! Anthropic's messages API: requests, stream events, errors and rate-limit headers.

mod cache_control;
mod content;
mod error;
mod incoming;
mod message;
mod request;
mod response;
#[cfg(test)]
mod schema;
mod stop_reason;
mod tools;

pub(super) use error::{apply_headers, read_error, read_rate_limit_headers};
pub(super) use incoming::read_request;
pub(super) use request::{DEFAULT_MAX_TOKENS, authorization, encode, version_header};
pub(super) use response::Decoder;

/// The base URL of the vendor, without the path from `/v1` on.
pub(super) const BASE_URL: &str = "https://api.anthropic.com";
