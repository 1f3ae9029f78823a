//! The parts of an HTTP request that all formats share: the JSON body and the key header.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde::Serialize;

use crate::types::{Class, Failure, Secret};

/// An HTTP request without its base URL and without its key. The method is POST, the body is JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpRequest {
    /// The path after the base URL, with a leading slash. It may contain a query.
    pub path: String,
    /// Headers of the format, such as its version.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The JSON body.
    pub body: Bytes,
}

/// Serializes a body as JSON.
pub(super) fn json_body(body: &impl Serialize) -> Result<Bytes, Failure> {
    serde_json::to_vec(body)
        .map(Bytes::from)
        .map_err(|error| Failure::new(Class::Internal, format!("cannot write the request as JSON: {error}")))
}

/// Creates the key header `name`, marked as sensitive.
pub(super) fn key_header(name: HeaderName, key: &Secret) -> Result<(HeaderName, HeaderValue), Failure> {
    let mut value = HeaderValue::from_str(key.expose()).map_err(|_| {
        Failure::new(
            Class::Auth,
            "the key contains characters that are not allowed in a header, such as a newline",
        )
    })?;
    value.set_sensitive(true);
    Ok((name, value))
}
