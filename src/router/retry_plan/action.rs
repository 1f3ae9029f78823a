//! Input and output of a retry plan.

use std::num::NonZeroU64;

use tokio::time::Instant;

use crate::types::ProviderName;

use super::request_failure::RequestFailure;

/// A target that may be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The provider of the target.
    pub provider: ProviderName,
    /// The maximum number of tokens of its context; `None` if it is unknown.
    pub context_window: Option<NonZeroU64>,
}

/// The next action of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum NextAction {
    /// Call the target with this index.
    Call(usize),
    /// Wait until that instant, then query the plan again.
    Wait(Instant),
    /// End the request with this failure.
    Fail(RequestFailure),
}

/// Whether the provider has another usable key in place of the one that was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HasOtherKey(pub bool);

/// Whether the call was the probe of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IsProbe(pub bool);
