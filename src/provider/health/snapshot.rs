//! The state of a provider at one instant, for display. Durations are seconds in JSON.

use std::time::Duration;

use serde::Serialize;

use super::utilization::{LimitSnapshot, LimitUtilization};
use crate::guard::BreakerState;
use crate::provider::out_of_service::OutOfService;
use crate::types::{Class, Format, KeyLabel, ModelName, ProviderName, seconds};

/// A provider at one instant.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Snapshot {
    /// The provider.
    pub provider: ProviderName,
    /// Whether it is simulated.
    pub simulated: bool,
    /// The API format.
    pub format: Format,
    /// The host and port of its address.
    pub base_host: String,
    /// Why it takes no new calls; `None` if it takes them.
    pub out_of_service: Option<OutOfService>,
    /// Whether it takes no new calls, and those in flight end.
    pub draining: bool,
    /// Whether its actor is running.
    pub up: bool,
    /// Calls in flight.
    pub in_flight: usize,
    /// Current concurrency limit, of the models in use.
    pub concurrency: usize,
    /// Queued calls.
    pub queued: usize,
    /// Useful number of items in flight for it.
    pub capacity: usize,
    /// Calls sent since the start.
    pub calls: u64,
    /// Calls that the provider answered with a rate limit since the start.
    pub throttled: u64,
    /// Each known limit of the account.
    pub limits: Vec<LimitSnapshot>,
    /// The limit with the highest utilization, the account's or a model's; `None` without a limit.
    pub limit: Option<LimitUtilization>,
    /// The remaining wait that the provider asked for.
    #[serde(rename = "held_for_seconds", with = "seconds")]
    pub held_for: Duration,
    /// The wait until the retry budget admits a retry; zero if it admits one now.
    #[serde(rename = "retry_budget_wait_seconds", with = "seconds")]
    pub retry_budget_wait: Duration,
    /// Its targets.
    pub targets: Vec<TargetSnapshot>,
    /// Keys in cool-down, with the reason.
    pub keys_in_cooldown: Vec<KeyCooldown>,
    /// All keys by label, in the order of preference.
    pub keys: Vec<KeySnapshot>,
}

/// A key at one instant.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct KeySnapshot {
    /// The label.
    pub key: KeyLabel,
    /// Whether it may be used, at least for some models.
    pub usable: bool,
    /// The models for which it has a cool-down of its own.
    pub models_in_cooldown: Vec<ModelName>,
    /// The remaining cool-down; zero without one.
    #[serde(rename = "usable_in_seconds", with = "seconds")]
    pub usable_in: Duration,
    /// The class of the failure that caused the cool-down.
    pub class: Option<Class>,
    /// The provider's message.
    pub message: Option<Box<str>>,
}

/// A key in cool-down.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct KeyCooldown {
    /// The key.
    pub key: KeyLabel,
    /// The class of the failure that caused the cool-down.
    pub class: Class,
    /// The provider's message.
    pub message: Box<str>,
}

/// A target at one instant.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TargetSnapshot {
    /// The model.
    pub model: ModelName,
    /// The state of its breaker.
    pub breaker: BreakerState,
    /// Whether an operator has opened its breaker, until it is closed by hand.
    pub forced_open: bool,
    /// Whether it is no longer configured, and only its last calls end.
    pub retired: bool,
    /// Calls that the provider answered with a rate limit since the start.
    pub throttled: u64,
    /// Each known limit of the model.
    pub limits: Vec<LimitSnapshot>,
    /// Calls in flight.
    pub in_flight: usize,
    /// Current concurrency limit.
    pub concurrency: usize,
    /// Queued calls.
    pub queued: usize,
    /// The concurrency limit before the provider objected or failed; `None` if it is not lower now.
    pub reduced_from: Option<usize>,
    /// The wait until the next probe while a breaker is open.
    #[serde(rename = "probed_in_seconds", with = "seconds")]
    pub probed_in: Duration,
    /// The failure that keeps a breaker from being closed: its class and the provider's message.
    pub last_failure: Option<(Class, Box<str>)>,
}
