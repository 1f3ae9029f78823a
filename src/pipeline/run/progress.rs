//! How a run is doing, several times a second.

use std::time::Duration;

use serde::Serialize;

use crate::provider::Snapshot;
use crate::types::{ItemKey, Usage};

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
    /// The calls so far.
    pub calls: Calls,
    /// Items that ended, a second, over the last ten seconds.
    pub items_per_second: f64,
    /// Calls that ended, a second, over the last ten seconds.
    pub calls_per_second: f64,
    /// Tokens so far.
    pub tokens: Usage,
    /// Money so far; at least, or `None`, as in [`Report::cost_usd`](super::Report::cost_usd).
    pub cost_usd: Option<f64>,
    /// Calls so far whose cost is not known.
    pub calls_of_unknown_cost: u64,
    /// What the whole run will have cost; `None` while that cannot be told.
    pub cost_forecast_usd: Option<f64>,
    /// Since the start.
    pub seconds: f64,
    /// Until the end; `None` while that cannot be told.
    pub seconds_left: Option<f64>,
    /// Share of the input that has been read; `None` when its size is not known.
    pub input_read: Option<f64>,
    /// Whether any answer so far is made up.
    pub practice: bool,
    /// Whether the run takes no more items.
    pub stopping: bool,
    /// How the providers are doing.
    pub providers: Vec<Snapshot>,
}

impl Progress {
    /// Fills in the forecasts, from the share of the input that has been read as `read` items. An item in
    /// flight counts as half done.
    pub(super) fn forecast(&mut self, read: u64) {
        let ended = (self.items.settled() + self.items.rejected) as f64;
        let done = ended + self.in_flight as f64 / 2.0;
        let Some(share) = self.input_read.filter(|share| *share > 0.0 && ended > 0.0 && read > 0) else {
            return;
        };
        let all = (read as f64 / share).max(done);
        self.seconds_left = Some(self.seconds * (all - done) / done);
        self.cost_forecast_usd = self.cost_usd.map(|cost| cost * all / done);
    }

    /// Returns the time since the start.
    pub fn elapsed(&self) -> Duration {
        Duration::try_from_secs_f64(self.seconds).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forecast_counts_items_in_flight_by_half() {
        let items = Items { completed: 8, ..Items::default() };
        let mut progress = Progress {
            items,
            in_flight: 60,
            seconds: 10.0,
            cost_usd: Some(0.38),
            input_read: Some(68.0 / 200.0),
            ..Progress::default()
        };
        progress.forecast(68);
        assert_eq!(progress.seconds_left.map(f64::round), Some(43.0));
        assert!((progress.cost_forecast_usd.unwrap() - 2.0).abs() < 1e-9);
    }

    #[test]
    fn nothing_is_forecast_before_the_first_item_has_ended() {
        let mut progress = Progress { in_flight: 60, input_read: Some(0.5), ..Progress::default() };
        progress.forecast(60);
        assert_eq!((progress.seconds_left, progress.cost_forecast_usd), (None, None));
    }
}
