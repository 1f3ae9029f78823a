//! Anthropic's messages: the request, the events of its stream, its errors and its headers.
//!
//! Tools are never offered, so a model that asks for one has not answered.

mod error;
mod message;
mod reply;
mod request;
#[cfg(test)]
mod schema;

pub(super) use error::{complete, read_error, read_hints};
pub(super) use reply::Decoder;
pub(super) use request::{DEFAULT_MAX_TOKENS, authorization, encode};

/// The vendor's own address; what follows it begins with `/v1`.
pub(super) const BASE_URL: &str = "https://api.anthropic.com";
