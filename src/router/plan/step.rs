//! What a plan is given, and what it says to do.

use std::num::NonZeroU64;

use tokio::time::Instant;

use super::End;
use crate::types::ProviderName;

/// What a plan knows of a lane before it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Whose it is.
    pub provider: ProviderName,
    /// Most tokens that it takes; `None` when it is not known.
    pub context: Option<NonZeroU64>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Call the lane of this number.
    Call(usize),
    /// Do nothing before that instant, then ask the plan again.
    Wait(Instant),
    /// Nothing more can be done.
    GiveUp(End),
}

/// Whether the provider has a key left to try instead of the one that was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyLeft(pub bool);

/// Whether the call was the probe of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe(pub bool);
