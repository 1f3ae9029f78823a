//! Tells how a run is doing.
//!
//! Only looks, and counts nothing that a report has.

use tokio::time::Instant;

use super::{InFlight, Run};
use crate::guard::Meter;
use crate::router::CallsEnded;
use crate::run::forecast::{self, Work};
use crate::run::progress::Progress;
use crate::run::report::{Calls, Ended};

/// How far back a meter looks, in seconds.
const METERED: f64 = 10.0;

/// Before this the first call that ends would make a thousand a second.
const MOMENT: f64 = 1.0;

impl Run {
    /// Returns the calls so far; how each ended is known before its question has.
    pub(super) fn calls(&self, ended: CallsEnded) -> Calls {
        let CallsEnded { answered, failed, throttled, beaten } = ended;
        let (made, failed) = (ended.all(), failed + throttled);
        Calls { made, answered, failed, throttled, beaten, ..self.tally.calls }
    }

    /// Returns how far it is.
    fn so_far(&self) -> Work {
        let items = &self.tally.items;
        let begun = (items.settled() + self.in_flight.len() as u64) as f64;
        let read = self.input_read.filter(|read| *read > 0.0 && self.pieces > 0);
        let to_come = match self.wanted {
            // Of the pieces to come as many are items as of those that came.
            Some(_) => read.map(|read| (1.0 / read - 1.0) * begun),
            None => Some(0.0),
        };
        Work {
            questions: self.questions,
            of_ended: self.of_ended.0,
            // What was settled before took nothing now: a speed that counted it would foretell too much.
            ended: items.settled().saturating_sub(items.settled_before),
            in_flight: self.in_flight.len() as u64,
            to_come,
            steps: self.pipeline.questions_per_item(),
            call_seconds: self.tally.call_seconds(),
        }
    }

    /// Tells everybody who watches.
    pub(super) fn tell(&mut self) {
        let now = Instant::now();
        let ended = self.counts.so_far();
        self.calls_met.add(ended.all().saturating_sub(self.met), now);
        self.met = ended.all();
        let (seconds, work) = (self.started.elapsed().as_secs_f64(), self.so_far());
        self.forecast.learn(seconds, &work);
        let cost_usd = self.tally.cost.dollars();
        // What nobody knows a part of, nobody can tell the whole of.
        let cost = cost_usd.filter(|_| self.tally.cost.unknown() * 20 <= ended.all());
        let oldest = |item: &InFlight| (item.job.item.key.clone(), item.started.elapsed().as_secs_f64());
        let progress = Progress {
            items: self.tally.items,
            in_flight: self.in_flight.len() as u64,
            window: self.window.size(),
            oldest: self.in_flight.values().min_by_key(|item| item.started).map(oldest),
            calls: self.calls(ended),
            items_per_second: rate(work.ended, seconds, &self.items_met, now),
            calls_per_second: rate(ended.all(), seconds, &self.calls_met, now),
            tokens: self.tally.tokens,
            cost_usd,
            caps: self.purses.caps(),
            calls_of_unknown_cost: self.tally.cost.unknown(),
            seconds,
            seconds_left: self.forecast.seconds_left(seconds, &work),
            cost_forecast_usd: cost.and_then(|cost| forecast::cost(&work, cost, self.of_ended.1.dollars())),
            input_read: self.input_read,
            practice: self.tally.practice,
            holding: self.holding(now),
            stopping: self.wanted.is_none() && self.ended != Ended::Whole,
            providers: self.providers.iter().map(|provider| provider.snapshot(now)).collect(),
        };
        self.progress.send_replace(progress);
    }
}

/// Returns how many there are a second; a run that is younger than a meter looks back has its average so far, of
/// which the second under way is a part.
fn rate(count: u64, seconds: f64, meter: &Meter, now: Instant) -> f64 {
    if seconds < METERED { count as f64 / seconds.max(MOMENT) } else { meter.per_second(now) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_young_run_has_a_speed_from_the_first_moment_and_an_old_one_forgets() {
        let now = Instant::now();
        let meter = Meter::new(now);
        assert_eq!([rate(12, 1.6, &meter, now), rate(12, 0.1, &meter, now)], [7.5, 12.0]);
        assert_eq!(rate(12, 11.0, &meter, now), 0.0);
    }
}
