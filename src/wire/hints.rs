//! What a provider's headers say about its limits.

use std::time::Duration;

/// What one response said about the account's limits.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Hints {
    /// Requests.
    pub requests: Option<Remaining>,
    /// Tokens of both directions.
    pub tokens: Option<Remaining>,
    /// Tokens that the model reads.
    pub input_tokens: Option<Remaining>,
    /// Tokens that the model writes.
    pub output_tokens: Option<Remaining>,
    /// How long to stay away.
    pub retry_after: Option<Duration>,
}

/// One limit as the provider sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remaining {
    /// How many fit into the provider's whole window, when it says so.
    pub limit: Option<u64>,
    /// How many are left now.
    pub remaining: u64,
    /// Until the window is whole again, when it says so.
    pub reset: Option<Duration>,
}
