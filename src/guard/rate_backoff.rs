//! Reduction of a nominal rate after 429 responses to calls that respected it.
//!
//! This happens with a shared account, a lowered limit, or a limit that is not known exactly. The factor
//! falls to the measured rate of accepted calls, stays near that for a while, and then grows back. Growth
//! follows CUBIC (RFC 9438): flat around the rate that was rejected last, and steeper the longer no 429
//! response comes. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Seconds for which the factor stays below the rejected rate before it reaches that rate again.
const PLATEAU_SECONDS: f64 = 15.0;

/// Growth beyond the plateau: the factor has grown by this share of the plateau after another
/// `PLATEAU_SECONDS`.
const GROWTH_STEEPNESS: f64 = 2.0;

/// A reduction leaves at least this share of the previous factor.
const MIN_REMAINING_SHARE: f64 = 0.3;

/// A reduction leaves at most this share of the previous factor.
const MAX_REMAINING_SHARE: f64 = 0.98;

/// The smallest factor: some calls must be accepted, or nothing can be measured.
const MIN_FACTOR: f64 = 0.01;

/// A reduction for another 429 response of the same incident leaves at most this share.
const MAX_REMAINING_SHARE_OF_REPEAT: f64 = 0.8;

/// Permits that the nominal rate must have allowed since the incident began, before the accepted rate is
/// used; and the share that a reduction leaves before that.
const MIN_PERMITS_FOR_MEASUREMENT: f64 = 4.0;
const REMAINING_SHARE_UNMEASURED: f64 = 0.8;

/// A 429 response this soon after another belongs to the same incident: the first reduction was too small.
const MAX_GAP_WITHIN_INCIDENT: Duration = Duration::from_secs(3);

/// Time constant, in seconds, over which the accepted rate is averaged.
const MEASUREMENT_SECONDS: f64 = 3.0;

/// The factor by which a nominal rate is reduced.
#[derive(Debug)]
pub(super) struct RateBackoff {
    /// The latest reduction.
    reduction: Option<Reduction>,
    /// Average of permits accepted per second, as of `measured_at`.
    accepted_per_second: f64,
    measured_at: Instant,
    /// Start of the measurement.
    measuring_since: Instant,
    /// The current series of 429 responses.
    incident: Option<Incident>,
}

/// A series of 429 responses. At a 429 response the provider's bucket is empty, so what it accepts until
/// the next one is the rate that it grants.
#[derive(Debug, Clone, Copy)]
struct Incident {
    started_at: Instant,
    last: Instant,
    /// Permits sent since the start, less those that were rejected.
    sent: f64,
}

#[derive(Debug, Clone, Copy)]
struct Reduction {
    at: Instant,
    /// The factor right after the reduction.
    to: f64,
    /// The factor around which the provider began to reject calls.
    ceiling: f64,
}

impl RateBackoff {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            reduction: None,
            accepted_per_second: 0.0,
            measured_at: now,
            measuring_since: now,
            incident: None,
        }
    }

    /// Returns the factor at `now`, above 0 and at most 1.
    pub(super) fn factor(&self, now: Instant) -> f64 {
        self.reduction.map_or(1.0, |reduction| reduction.factor_at(now))
    }

    /// Counts permits that are being sent.
    pub(super) fn record_sent(&mut self, permits: u64) {
        if let Some(incident) = &mut self.incident {
            incident.sent += permits as f64;
        }
    }

    /// Undoes [`Self::record_sent`] for a call that was not sent. The incident may have begun since.
    pub(super) fn rollback(&mut self, permits: u64) {
        if let Some(incident) = &mut self.incident {
            incident.sent = (incident.sent - permits as f64).max(0.0);
        }
    }

    /// Counts permits that the provider accepted.
    pub(super) fn record_accepted(&mut self, permits: u64, now: Instant) {
        self.accepted_per_second = self.accepted_per_second_at(now) + permits as f64 / MEASUREMENT_SECONDS;
        self.measured_at = self.measured_at.max(now);
    }

    /// Reduces the factor after a 429 response to a call of `permits` that was sent at `sent_at`, with a
    /// nominal rate of `per_second`. Calls that were sent before the last reduction belong to the same
    /// overload and reduce nothing.
    pub(super) fn record_throttled(&mut self, permits: u64, per_second: f64, sent_at: Instant, now: Instant) {
        let is_stale = self.reduction.is_some_and(|reduction| sent_at <= reduction.at);
        let recent = self
            .incident
            .filter(|incident| now.saturating_duration_since(incident.last) < MAX_GAP_WITHIN_INCIDENT);
        let mut incident = recent.unwrap_or(Incident { started_at: now, last: now, sent: permits as f64 });
        incident.sent -= permits as f64;
        incident.last = now;
        self.incident = Some(incident);
        if is_stale {
            return;
        }
        let previous = self.factor(now);
        let duration = now.saturating_duration_since(incident.started_at).as_secs_f64();
        // An isolated 429 response reduces little: the recently accepted rate shows what is granted. Within
        // an incident that rate is outdated, because the limit has fallen, and the permits sent since its
        // first 429 response count.
        let is_measured =
            now.saturating_duration_since(self.measuring_since).as_secs_f64() >= MEASUREMENT_SECONDS;
        let (granted, max_share) = match recent {
            Some(_) if duration * per_second >= MIN_PERMITS_FOR_MEASUREMENT => {
                (incident.sent.max(0.0) / duration, MAX_REMAINING_SHARE_OF_REPEAT)
            }
            Some(_) => (previous * per_second * REMAINING_SHARE_UNMEASURED, MAX_REMAINING_SHARE_OF_REPEAT),
            None if is_measured => (self.accepted_per_second_at(now), MAX_REMAINING_SHARE),
            None => (previous * per_second, MAX_REMAINING_SHARE),
        };
        let measured = granted / per_second;
        let to = measured.clamp(previous * MIN_REMAINING_SHARE, previous * max_share).max(MIN_FACTOR);
        let ceiling = measured.clamp(to, previous.max(to));
        self.reduction = Some(Reduction { at: now, to, ceiling });
    }

    /// Removes the reduction and restarts the measurement.
    pub(super) fn reset(&mut self, now: Instant) {
        self.reduction = None;
        self.incident = None;
        self.accepted_per_second = 0.0;
        self.measuring_since = now;
    }

    fn accepted_per_second_at(&self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.measured_at).as_secs_f64();
        self.accepted_per_second * (-passed / MEASUREMENT_SECONDS).exp()
    }
}

impl Reduction {
    fn factor_at(&self, now: Instant) -> f64 {
        let progress = now.saturating_duration_since(self.at).as_secs_f64() / PLATEAU_SECONDS - 1.0;
        let scale = if progress < 0.0 { 1.0 - self.to / self.ceiling } else { GROWTH_STEEPNESS };
        (self.ceiling * (1.0 + scale * progress.powi(3))).clamp(MIN_FACTOR, 1.0)
    }
}

/// Returns the longest time after the last 429 response until a factor of `from` is 1 again.
#[cfg(test)]
fn max_recovery_time(from: f64) -> Duration {
    Duration::from_secs_f64(PLATEAU_SECONDS * (1.0 + ((1.0 / from - 1.0) / GROWTH_STEEPNESS).cbrt()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sends calls at the reduced rate for so many seconds against a provider that grants `granted` of 20 a
    /// second. Returns how many calls were accepted and how many rejected.
    fn simulate(backoff: &mut RateBackoff, start: Instant, seconds: u64, granted: f64) -> (u32, u32) {
        let mut bucket = 0.0_f64;
        let mut due = 0.0;
        let mut accepted = 0;
        let mut rejected = 0;
        for tick in 0..seconds * 1_000 {
            let now = start + Duration::from_millis(tick);
            bucket = (bucket + 0.02 * granted).min(20.0 * granted);
            due += 0.02 * backoff.factor(now);
            if due >= 1.0 {
                due -= 1.0;
                backoff.record_sent(1);
                if bucket >= 1.0 {
                    bucket -= 1.0;
                    accepted += 1;
                    backoff.record_accepted(1, now);
                } else {
                    rejected += 1;
                    backoff.record_throttled(1, 20.0, now, now);
                }
            }
        }
        (accepted, rejected)
    }

    #[test]
    fn an_isolated_429_reduces_the_rate_only_slightly() {
        let start = Instant::now();
        let mut backoff = RateBackoff::new(start);
        assert_eq!(simulate(&mut backoff, start, 20, 1.1).1, 0);
        let now = start + Duration::from_secs(20);
        backoff.record_throttled(1, 20.0, now, now);
        assert!(backoff.factor(now) > 0.9, "{}", backoff.factor(now));
        assert!(backoff.factor(now + Duration::from_secs(10)) > 0.95);
    }

    #[test]
    fn a_limit_that_falls_to_a_third_is_found_and_used() {
        let start = Instant::now();
        let mut backoff = RateBackoff::new(start);
        simulate(&mut backoff, start, 20, 1.0);
        let fallen = start + Duration::from_secs(20);
        let (accepted, rejected) = simulate(&mut backoff, fallen, 60, 1.0 / 3.0);
        assert!(accepted > 340, "{accepted} of 400");
        assert!(rejected <= 16, "{rejected}");
        let back = fallen + Duration::from_secs(60);
        assert_eq!(simulate(&mut backoff, back, 30, 1.0).1, 0);
        assert!(backoff.factor(back + Duration::from_secs(30)) > 0.9);
    }

    #[test]
    fn calls_sent_before_a_reduction_cause_no_second_one() {
        let start = Instant::now();
        let mut backoff = RateBackoff::new(start);
        let now = start + Duration::from_secs(1);
        backoff.record_throttled(1, 20.0, now, now);
        let once = backoff.factor(now);
        (0..50).for_each(|_| backoff.record_throttled(1, 20.0, now, now + Duration::from_millis(5)));
        assert_eq!(backoff.factor(now), once);
    }

    proptest! {
        #[test]
        fn the_factor_stays_within_its_bounds_and_always_recovers(
            events in prop::collection::vec((0u64..20_000, any::<bool>()), 1..200),
        ) {
            let mut now = Instant::now();
            let mut backoff = RateBackoff::new(now);
            for (pause, is_throttled) in events {
                now += Duration::from_millis(pause);
                if is_throttled {
                    backoff.record_throttled(1, 20.0, now, now);
                } else {
                    backoff.record_accepted(1, now);
                }
                let factor = backoff.factor(now);
                prop_assert!((MIN_FACTOR..=1.0).contains(&factor), "{factor}");
            }
            prop_assert!(backoff.factor(now + max_recovery_time(MIN_FACTOR)) > 0.999);
        }
    }
}
