//! The part of the time of a request in which it waits for providers. The rest is what Pointsman itself adds.

use std::time::Duration;

use tokio::time::Instant;

use crate::types::{Failure, RequestError, Response};

/// The result of a request, and the time in which it waited for providers.
#[derive(Debug)]
pub(super) struct TimedResult {
    pub(super) result: Result<Response, Box<RequestError>>,
    /// The time in which an attempt was queued or in flight, or in which the request waited for its scope, a limit or a
    /// backoff; `None` if it is unknown, because a part of the request was lost, or was shared with other requests.
    pub(super) provider_time: Option<Duration>,
}

impl TimedResult {
    /// Returns the result of a request that failed without attempts and without a wait.
    pub(super) fn from_failure(failure: Failure) -> Self {
        Self { result: Err(Box::new(failure.into())), provider_time: Some(Duration::ZERO) }
    }

    /// Returns the result of a request whose waits are unknown.
    pub(super) fn unknown(result: Result<Response, Box<RequestError>>) -> Self {
        Self { result, provider_time: None }
    }

    /// Adds a wait before the request was sent.
    pub(super) fn after_wait(self, waited: Duration) -> Self {
        Self { provider_time: self.provider_time.map(|time| time + waited), ..self }
    }
}

/// Adds up the time in which a request waits for providers. Waits that overlap, as those of an attempt and its hedge,
/// count once.
#[derive(Debug, Default)]
pub(super) struct ProviderClock {
    past: Duration,
    current: Option<WaitPeriod>,
}

/// A period in which the request waits for at least one thing.
#[derive(Debug, Clone, Copy)]
struct WaitPeriod {
    since: Instant,
    last_end: Instant,
}

impl ProviderClock {
    /// Begins a wait. If another one is not over, this one overlaps with it.
    pub(super) fn begin(&mut self, since: Instant) {
        self.current.get_or_insert(WaitPeriod { since, last_end: since });
    }

    /// Ends a wait. `others_continue` is whether another one is not over.
    pub(super) fn end(&mut self, at: Instant, others_continue: bool) {
        let Some(WaitPeriod { since, last_end }) = self.current.take() else { return };
        let last_end = last_end.max(at);
        if others_continue {
            self.current = Some(WaitPeriod { since, last_end });
        } else {
            self.past += last_end.saturating_duration_since(since);
        }
    }

    /// Returns the time until `now`, with that of a wait that is not over.
    pub(super) fn total(&self, now: Instant) -> Duration {
        let current = self.current.map(|period| now.saturating_duration_since(period.since));
        self.past + current.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn waits_that_follow_each_other_are_added_without_the_time_between_them() {
        let start = Instant::now();
        let mut clock = ProviderClock::default();
        clock.begin(start + ms(2));
        clock.end(start + ms(10), false);
        clock.begin(start + ms(15));
        clock.end(start + ms(20), false);
        assert_eq!(clock.total(start + ms(100)), ms(13));
    }

    #[test]
    fn an_attempt_and_its_hedge_count_once_in_whatever_order_they_end() {
        let start = Instant::now();
        for (first_end, last_end) in [(10, 30), (30, 10)] {
            let mut clock = ProviderClock::default();
            clock.begin(start);
            clock.begin(start + ms(5));
            clock.end(start + ms(first_end), true);
            clock.end(start + ms(last_end), false);
            assert_eq!(clock.total(start + ms(100)), ms(30), "{first_end} {last_end}");
        }
    }

    #[test]
    fn a_wait_that_is_not_over_counts_until_now() {
        let start = Instant::now();
        let mut clock = ProviderClock::default();
        clock.end(start, false);
        assert_eq!(clock.total(start + ms(5)), Duration::ZERO);
        clock.begin(start + ms(5));
        clock.end(start + ms(7), true);
        assert_eq!(clock.total(start + ms(9)), ms(4));
    }

    #[test]
    fn a_wait_before_a_request_is_sent_is_added_if_the_others_are_known() {
        let failure = || Failure::new(crate::types::Class::Internal, "no");
        let known = TimedResult::from_failure(failure()).after_wait(ms(3));
        assert_eq!(known.provider_time, Some(ms(3)));
        let unknown = TimedResult::unknown(Err(Box::new(failure().into()))).after_wait(ms(3));
        assert_eq!(unknown.provider_time, None);
    }

    proptest! {
        /// Attempts with a hedge for some of them, as an execution records them: the clock returns the length of the union
        /// of their intervals.
        #[test]
        fn the_total_is_the_length_of_the_union_of_all_waits(
            waits in prop::collection::vec((0..50_u64, 1..50_u64, prop::option::of((0..50_u64, 1..50_u64))), 0..20),
        ) {
            let start = Instant::now();
            let mut clock = ProviderClock::default();
            let mut now = 0;
            let mut is_covered = vec![false; 4_000];
            for (pause, length, hedge) in waits {
                let since = now + pause;
                let until = since + length;
                is_covered[since as usize..until as usize].fill(true);
                clock.begin(start + ms(since));
                now = until;
                if let Some((delay, hedge_length)) = hedge.filter(|(delay, _)| *delay < length) {
                    let hedge_since = since + delay;
                    let hedge_until = hedge_since + hedge_length;
                    is_covered[hedge_since as usize..hedge_until as usize].fill(true);
                    clock.begin(start + ms(hedge_since));
                    clock.end(start + ms(until.min(hedge_until)), true);
                    now = until.max(hedge_until);
                }
                clock.end(start + ms(now), false);
            }
            let covered = is_covered.iter().filter(|is_covered| **is_covered).count() as u64;
            prop_assert_eq!(clock.total(start + ms(now)), ms(covered));
        }
    }
}
