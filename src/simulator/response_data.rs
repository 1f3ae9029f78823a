//! Data of a response that all wire formats use, and helpers to render it.

use http::HeaderValue;

use super::completion::Completion;
use super::prompt_cache::CacheUse;

/// Data of a successful response.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResponseData<'a> {
    pub(super) model: &'a str,
    pub(super) completion: &'a Completion,
    /// With those that the prompt cache reads or writes.
    pub(super) input_tokens: u64,
    pub(super) cache_use: CacheUse,
    /// Unique to the response.
    pub(super) serial: u64,
    /// Seconds since 1970.
    pub(super) created: i64,
}

/// Status and body of an error response.
pub(super) type ErrorResponse = (u16, Vec<u8>);

/// Returns a header value. `text` must be plain ASCII.
pub(super) fn header_value(text: impl std::fmt::Display) -> HeaderValue {
    HeaderValue::try_from(text.to_string()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Appends `text` as a JSON string.
pub(super) fn json_string(out: &mut Vec<u8>, text: &str) {
    // Writing a string to memory cannot fail.
    let _ = serde_json::to_writer(out, text);
}

/// Appends each part with its `Display` format.
macro_rules! append {
    ($out:expr, $($part:expr),+ $(,)?) => {{
        use std::io::Write as _;
        // Writing to memory cannot fail.
        $( let _ = write!($out, "{}", $part); )+
    }};
}
pub(super) use append;
