//! Gemini's generateContent API: requests, stream chunks and errors.
//!
//! The API version is in the path, from `api_version`, and not in the base URL. The vendor signs reasoning, texts and
//! function calls with a `thoughtSignature`, which later requests repeat with the same part.

mod chunk;
mod content;
mod error;
mod finish_reason;
mod incoming;
mod request;
mod response;
mod tools;

pub(super) use error::{apply_headers, classify, read_error, read_rate_limit_headers, with_daily_reset};
pub(super) use incoming::read_request;
pub(super) use request::{authorization, encode, model_path, models_path, resource_name};
pub(super) use response::Decoder;

/// The base URL of the vendor, without a version.
pub(super) const BASE_URL: &str = "https://generativelanguage.googleapis.com";
