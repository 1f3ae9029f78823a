//! The answer cache: validated answers that other items and other runs reuse.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::types::{Attempt, Fingerprint, NanoUsd};

/// An answer in the cache.
#[derive(Debug, Clone, PartialEq)]
pub struct CachedAnswer {
    /// The fingerprint of everything that affects the answer.
    pub key: Fingerprint,
    /// The validated answer.
    pub answer: Value,
    /// The attempt that returned it, with its usage and its cost.
    pub answered_by: Attempt,
    /// Whether a simulated provider answered one of its requests.
    pub simulated: bool,
    /// The number of bytes of the answer and its attempt in the store.
    pub bytes: u64,
}

/// The answers of one target in the cache. The names of its fields are a compatibility promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CachedTarget {
    /// The target that answered, by its name at that time.
    pub target: String,
    /// The number of answers.
    pub entries: u64,
    /// The number of bytes of the answers and their attempts.
    pub bytes: u64,
    /// How often they were used instead of a request.
    pub hits: u64,
    /// What the requests cost that gave the answers, as far as it is known, in billionths of a US dollar.
    #[serde(skip)]
    pub cost: NanoUsd,
    /// When the oldest was stored, in milliseconds since 1970.
    #[serde(skip)]
    pub oldest_at: i64,
    /// When one was last stored or used, in milliseconds since 1970, exact to an hour.
    #[serde(skip)]
    pub last_used_at: i64,
}

/// What the cache may contain. Answers that were not used for the longest time are removed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLimits {
    /// How long an answer may be unused, exact to an hour; `None` for any time.
    pub max_age: Option<Duration>,
    /// The largest number of bytes of all answers with their attempts; `None` for any number.
    pub max_bytes: Option<u64>,
}

impl CacheLimits {
    /// No limits.
    pub const NONE: Self = Self { max_age: None, max_bytes: None };
}

impl Default for CacheLimits {
    /// 4 GiB, and any age.
    fn default() -> Self {
        Self { max_age: None, max_bytes: Some(4 << 30) }
    }
}

/// Answers that were removed from the cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PrunedAnswers {
    /// Their number.
    pub entries: u64,
    /// The number of bytes of the answers and their attempts.
    pub bytes: u64,
}
