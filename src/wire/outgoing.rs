//! Writes what every format's request has: its bytes and its key.
//!
//! What the fields are called, it never knows.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde::Serialize;

use crate::types::{Class, Failure, Secret};

/// Writes a body as JSON.
pub(super) fn json(body: &impl Serialize) -> Result<Bytes, Failure> {
    serde_json::to_vec(body)
        .map(Bytes::from)
        .map_err(|error| Failure::new(Class::Internal, format!("cannot write the request as JSON: {error}")))
}

/// Makes the header `name` of a key, marked as sensitive.
pub(super) fn key(name: HeaderName, key: &Secret) -> Result<(HeaderName, HeaderValue), Failure> {
    let mut value = HeaderValue::from_str(key.expose()).map_err(|_| {
        Failure::new(Class::Auth, "the key holds characters that no header can carry, such as a newline")
    })?;
    value.set_sensitive(true);
    Ok((name, value))
}
