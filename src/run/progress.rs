//! How a run is doing, several times a second.

use std::time::Duration;

use serde::Serialize;

use crate::provider::Snapshot;
use crate::types::{Class, ItemKey, RouteName, Usage};

use super::money::Cap;
use super::report::{Calls, Items};

/// A run at one instant. Times are in seconds, money in US dollars.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Progress {
    /// Where the items went so far.
    pub items: Items,
    /// Items being worked on.
    pub in_flight: u64,
    /// Most items that are worked on at once, as of now.
    pub window: usize,
    /// The item that has been in flight for longest, and for how long.
    pub oldest: Option<(ItemKey, f64)>,
    /// The calls so far. `made`, `answered`, `failed`, `beaten` and `throttled` count a call as it ends, the
    /// others when its question does.
    pub calls: Calls,
    /// Items that ended, a second, over the last ten seconds.
    pub items_per_second: f64,
    /// Calls that ended, a second, over the last ten seconds.
    pub calls_per_second: f64,
    /// Tokens so far.
    pub tokens: Usage,
    /// Money so far; at least, or `None`, as in [`Report::cost_usd`](super::Report::cost_usd).
    pub cost_usd: Option<f64>,
    /// The caps that hold the run, its own first, and what is spent of each.
    pub caps: Vec<Cap>,
    /// Calls so far whose cost is not known.
    pub calls_of_unknown_cost: u64,
    /// What the whole run will have cost, by the items that have ended; `None` while that would be a guess.
    pub cost_forecast_usd: Option<f64>,
    /// Since the start.
    pub seconds: f64,
    /// Until the end, at the speed of the last stretch; `None` while that would be a guess.
    pub seconds_left: Option<f64>,
    /// Share of the input that has been read; `None` when its size is not known.
    pub input_read: Option<f64>,
    /// Whether any answer so far is made up.
    pub practice: bool,
    /// Whether the run takes no more items.
    pub stopping: bool,
    /// Why no item begins at present, where every target of a route is unusable for a reason that is not the items'.
    pub holding: Option<Holding>,
    /// How the providers are doing.
    pub providers: Vec<Snapshot>,
}

/// Why a run holds, and until when. Times are in seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Holding {
    /// The route of which no target can be used.
    pub route: RouteName,
    /// The target that it waits for, `provider/model`; `None` where the failure is not that of one target.
    pub target: Option<String>,
    /// The class of the failure.
    pub class: Class,
    /// What the provider said.
    pub message: Box<str>,
    /// Since it holds.
    pub seconds: f64,
    /// Until the next request finds out.
    pub retry_in_seconds: f64,
    /// Until the time that the provider named, before which no request can succeed; `None` where it named none.
    pub until_in_seconds: Option<f64>,
}

impl Progress {
    /// Returns the time since the start.
    pub fn elapsed(&self) -> Duration {
        Duration::try_from_secs_f64(self.seconds).unwrap_or_default()
    }
}
