//! How a provider is doing, for people to see.

use std::time::Duration;

use serde::Serialize;

use super::limit_use::LimitUse;
use crate::guard::BreakerState;
use crate::types::{Class, KeyLabel, ModelName, ProviderName};

/// A provider at one instant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Snapshot {
    /// Which provider.
    pub provider: ProviderName,
    /// Whether it is played, and its answers made up.
    pub practice: bool,
    /// Whether its actor is there.
    pub up: bool,
    /// Calls that have left and not ended.
    pub in_flight: usize,
    /// Most calls in flight, as things are; of those models that are used.
    pub concurrency: usize,
    /// Calls that wait for their turn.
    pub waiting: usize,
    /// Items worth keeping in flight for it.
    pub capacity: usize,
    /// Calls that left, since the start.
    pub calls: u64,
    /// Calls that the provider answered with a rate limit, since the start.
    pub throttled: u64,
    /// The limit of which most is used, be it the account's or a model's; `None` without a limit.
    pub limit: Option<LimitUse>,
    /// For how long it asked us to stay away.
    pub held_for: Duration,
    /// For how long calls that failed wait until they may be made again, as far as the retry budget goes; zero
    /// where one may be made at once.
    pub retries_wait_for: Duration,
    /// Its lanes.
    pub lanes: Vec<LaneSnapshot>,
    /// Keys that rest, and why.
    pub resting_keys: Vec<RestingKey>,
}

/// A key that is not used for a while.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RestingKey {
    /// Which key.
    pub key: KeyLabel,
    /// The class of the failure that it rests for.
    pub class: Class,
    /// What the provider said.
    pub message: Box<str>,
}

/// A lane at one instant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LaneSnapshot {
    /// Which model.
    pub model: ModelName,
    /// Where its breaker stands.
    pub breaker: BreakerState,
    /// Calls that have left and not ended.
    pub in_flight: usize,
    /// Most calls in flight, as things are.
    pub concurrency: usize,
    /// Calls that wait for it.
    pub waiting: usize,
    /// How many were in flight before the provider objected to so many, or failed; `None` where it is not fewer.
    pub reduced_from: Option<usize>,
    /// For how long no call leaves, because a breaker is open, until the next probe.
    pub probed_in: Duration,
    /// The failure for which a breaker is not closed: its class, and what the provider said.
    pub last_failure: Option<(Class, Box<str>)>,
}
