//! Gemini's generateContent: the request, the chunks of its stream and its errors.
//!
//! The base address carries no version: the path does, as `api_version` says. Functions are never
//! offered, so a model that calls one has not answered.

mod error;
mod finish;
mod reply;
mod request;

pub(super) use error::{classify, complete, read_error, read_hints, until_tomorrow};
pub(super) use reply::Decoder;
pub(super) use request::{authorization, encode};

/// The vendor's own address, without a version.
pub(super) const BASE_URL: &str = "https://generativelanguage.googleapis.com";
