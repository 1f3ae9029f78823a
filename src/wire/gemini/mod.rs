//! Gemini's generateContent API: requests, stream chunks and errors.
//!
//! The API version is in the path, from `api_version`, and not in the base URL. Requests never offer functions,
//! so a response with a function call is not an answer.

mod error;
mod finish_reason;
mod request;
mod response;

pub(super) use error::{apply_headers, classify, read_error, read_rate_limit_headers, with_daily_reset};
pub(super) use request::{authorization, encode};
pub(super) use response::Decoder;

/// The base URL of the vendor, without a version.
pub(super) const BASE_URL: &str = "https://generativelanguage.googleapis.com";
