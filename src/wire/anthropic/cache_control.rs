//! The end of the part of a request that Anthropic's messages API caches.

use serde::Serialize;

use crate::types::{CacheTtl, SharedPrefix};

/// Marks the block with which the cached part of a request ends. The vendor accepts at most four per request.
#[derive(Serialize, Clone, Copy)]
#[serde(tag = "type", rename = "ephemeral")]
pub(super) struct CacheControl {
    /// The vendor's default is five minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<&'static str>,
}

impl From<&SharedPrefix> for CacheControl {
    fn from(prefix: &SharedPrefix) -> Self {
        let ttl = match prefix.ttl {
            CacheTtl::FiveMinutes => None,
            CacheTtl::OneHour => Some("1h"),
        };
        Self { ttl }
    }
}
