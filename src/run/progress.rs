//! Progress of a run, published several times a second.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::provider::Snapshot;
use crate::types::{Class, ItemKey, RouteName, ScopeName, Usage};

use super::caps::Cap;
use super::report::{Calls, Items};

/// A run at one instant. Times are in seconds, money in US dollars.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Progress {
    /// Counts of items so far.
    pub items: Items,
    /// Items in progress.
    pub in_flight: u64,
    /// Most items in progress at once, as of now.
    pub max_in_flight: usize,
    /// The item that has been in flight longest, and for how long.
    pub oldest_item: Option<(ItemKey, f64)>,
    /// Attempts so far. `sent`, `answered`, `failed`, `superseded` and `throttled` count an attempt when it ends,
    /// the others when its request ends.
    pub calls: Calls,
    /// Finished items per second, over the last ten seconds.
    pub items_per_second: f64,
    /// Ended attempts per second, over the last ten seconds.
    pub calls_per_second: f64,
    /// Tokens so far.
    pub tokens: Usage,
    /// Cost so far; a lower bound, or `None`, as in [`Report::cost_usd`](super::Report::cost_usd).
    pub cost_usd: Option<f64>,
    /// The caps of the run, its own first, and what is spent of each.
    pub caps: Vec<Cap>,
    /// Attempts so far whose cost is unknown.
    pub calls_of_unknown_cost: u64,
    /// Forecast of the cost of the whole run; `None` while that would be a guess.
    pub cost_forecast_usd: Option<f64>,
    /// Seconds since the start.
    pub elapsed_seconds: f64,
    /// Forecast of the seconds until the end; `None` while that would be a guess.
    pub remaining_seconds: Option<f64>,
    /// Fraction of the input that has been read; `None` if its size is unknown.
    pub input_fraction: Option<f64>,
    /// Number of records of the input, which become items or rejects, as far as this session reads it. `None` while they are
    /// counted, or if they are not: see [`Source::with_count`](crate::source::Source::with_count).
    pub input_items: Option<u64>,
    /// Items that failed in this session, by the class of their failure.
    pub failed_items: BTreeMap<Class, u64>,
    /// Whether any answer so far is simulated.
    pub simulated: bool,
    /// Whether the run reads no more items.
    pub stopping: bool,
    /// Set if the run holds: every target of a route is unusable for a reason that is not the items'.
    pub holding: Option<Holding>,
    /// Set if requests of the run wait for the limits of its scope.
    pub waiting_for_scope: Option<WaitingForScope>,
    /// State of the providers.
    pub providers: Vec<Snapshot>,
}

/// Why a run holds, and until when. Times are in seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Holding {
    /// The route without a usable target.
    pub route: RouteName,
    /// The target that it waits for, `provider/model`; `None` if the failure is not that of a single target.
    pub target: Option<String>,
    /// The class of the failure.
    pub class: Class,
    /// The provider's message.
    pub message: Box<str>,
    /// Seconds since the hold began.
    pub duration_seconds: f64,
    /// Seconds until the next probe.
    pub retry_in_seconds: f64,
    /// Seconds until the time that the provider named, before which no request can succeed; `None` if it named
    /// none.
    pub until_in_seconds: Option<f64>,
}

/// The requests of a run that wait for the limits of its scope.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct WaitingForScope {
    /// The scope.
    pub scope: ScopeName,
    /// The limit for which its next request waits longest, such as "60 requests per minute".
    pub limit: String,
    /// How many requests of the run wait.
    pub requests: usize,
    /// How many requests of all runs and callers of the scope wait.
    pub requests_of_scope: usize,
    /// Seconds until the next request of the scope is probably admitted.
    pub next_in_seconds: f64,
}

impl Progress {
    /// Returns the time since the start.
    pub fn elapsed(&self) -> Duration {
        Duration::try_from_secs_f64(self.elapsed_seconds).unwrap_or_default()
    }
}
