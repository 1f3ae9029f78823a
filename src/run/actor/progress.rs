//! Publishes the progress of a run. It reads the statistics of the report and does not change them.

use tokio::time::Instant;

use super::{ActiveItem, Run};
use crate::guard::Meter;
use crate::router::{CallsEnded, ScopeWait};
use crate::run::forecast::{self, WorkCounts};
use crate::run::progress::{Progress, WaitingForScope};
use crate::run::report::Calls;

/// Seconds over which a meter averages.
const METER_SECONDS: f64 = 10.0;

/// Shortest time that a rate is computed over, in seconds. Without it the first attempt that ends would count
/// as a thousand per second.
const MIN_RATE_SECONDS: f64 = 1.0;

impl Run {
    /// Returns the attempts so far. How each ended is known before its request has ended.
    pub(super) fn calls(&self, ended: CallsEnded) -> Calls {
        let CallsEnded { answered, failed, throttled, superseded } = ended;
        let failed = failed + throttled;
        Calls { sent: ended.total(), answered, failed, throttled, superseded, ..self.stats.calls }
    }

    /// Returns how far the run is.
    fn work_counts(&self) -> WorkCounts {
        let items = &self.stats.items;
        let started = (items.finished() + self.in_flight.len() as u64) as f64;
        let read = self.input_read.filter(|read| *read > 0.0 && self.entries > 0);
        let unread_items = match self.demand {
            // The fraction of items among the remaining entries is estimated from the entries so far.
            Some(_) => match self.input_count.get() {
                Some(records) if self.entries > 0 => {
                    let unread = records.saturating_sub(self.entries) as f64;
                    Some(unread * started / self.entries as f64)
                }
                Some(_) | None => read.map(|read| (1.0 / read - 1.0) * started),
            },
            None => Some(0.0),
        };
        WorkCounts {
            requests: self.requests,
            requests_of_finished: self.finished_totals.0,
            // Items that an earlier session finished took no time in this one. Counting them would overestimate
            // the speed.
            finished: items.finished().saturating_sub(items.finished_before),
            in_flight: self.in_flight.len() as u64,
            unread_items,
            requests_per_item: self.pipeline.requests_per_item(),
            call_seconds: self.stats.call_seconds(),
        }
    }

    /// Returns the requests of the run that wait for its scope; `None` if there are none.
    fn waiting_for_scope(&self) -> Option<WaitingForScope> {
        let wait = self.scope_limits.as_ref()?.wait_of(self.id)?;
        let ScopeWait { scope, limit, requests, requests_of_scope, next_in } = wait;
        let next_in_seconds = next_in.as_secs_f64();
        Some(WaitingForScope { scope, limit, requests, requests_of_scope, next_in_seconds })
    }

    /// Sends a snapshot to all watchers.
    pub(super) fn publish_progress(&mut self) {
        let now = Instant::now();
        let ended = self.counts.snapshot();
        self.calls_meter.add(ended.total().saturating_sub(self.metered_calls), now);
        self.metered_calls = ended.total();
        let seconds = self.started.elapsed().as_secs_f64();
        let work = self.work_counts();
        self.forecast.update(seconds, &work);
        let cost_usd = self.stats.cost.dollars();
        // If the cost of too many attempts is unknown, the total is not estimated.
        let cost = cost_usd.filter(|_| self.stats.cost.unknown() * 20 <= ended.total());
        let oldest = |item: &ActiveItem| (item.job.item.key.clone(), item.started.elapsed().as_secs_f64());
        let progress = Progress {
            items: self.stats.items,
            in_flight: self.in_flight.len() as u64,
            max_in_flight: self.window.size(),
            oldest_item: self.in_flight.values().min_by_key(|item| item.started).map(oldest),
            calls: self.calls(ended),
            items_per_second: rate(work.finished, seconds, &self.items_meter, now),
            calls_per_second: rate(ended.total(), seconds, &self.calls_meter, now),
            tokens: self.stats.tokens,
            cost_usd,
            caps: self.budgets.caps(),
            calls_of_unknown_cost: self.stats.cost.unknown(),
            elapsed_seconds: seconds,
            remaining_seconds: self.forecast.seconds_left(seconds, &work),
            cost_forecast_usd: cost
                .and_then(|cost| forecast::cost(&work, cost, self.finished_totals.1.dollars())),
            input_fraction: self.input_read,
            input_items: self.input_count.get(),
            failed_items: self.stats.failed_items(),
            simulated: self.stats.simulated,
            holding: self.holding(now),
            waiting_for_scope: self.waiting_for_scope(),
            stopping: self.demand.is_none() && !self.outcome.is_regular(),
            providers: self.providers.iter().map(|provider| provider.snapshot(now)).collect(),
        };
        self.progress.send_replace(progress);
    }
}

/// Returns the events per second. A run that is younger than the interval of a meter has its average so far.
fn rate(count: u64, seconds: f64, meter: &Meter, now: Instant) -> f64 {
    if seconds < METER_SECONDS { count as f64 / seconds.max(MIN_RATE_SECONDS) } else { meter.per_second(now) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_young_run_has_a_rate_from_the_start_and_an_old_run_uses_the_last_interval() {
        let now = Instant::now();
        let meter = Meter::new(now);
        assert_eq!([rate(12, 1.6, &meter, now), rate(12, 0.1, &meter, now)], [7.5, 12.0]);
        assert_eq!(rate(12, 11.0, &meter, now), 0.0);
    }
}
