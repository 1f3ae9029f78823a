//! The time in which the probes of a route wait for the limits of their scope. It says nothing about the targets, so that
//! it does not count as time of a hold.
//!
//! Pure: the caller passes `now`.

use std::time::Duration;

use tokio::time::Instant;

/// The waits of the probes of a route. They overlap only if a hold ends and another begins while a probe waits.
#[derive(Debug, Default)]
pub(super) struct ProbeWaits {
    /// How many probes wait.
    waiting: u32,
    /// Since when any of them waits.
    since: Option<Instant>,
    /// The beginning of the hold that `past` belongs to.
    hold_since: Option<Instant>,
    /// The ended waits in that hold.
    past: Duration,
}

impl ProbeWaits {
    /// Records that a probe begins to wait.
    pub(super) fn begin(&mut self, now: Instant) {
        self.waiting += 1;
        self.since.get_or_insert(now);
    }

    /// Records that a probe waits no longer. `hold_since` is the beginning of the hold that is in force.
    pub(super) fn end(&mut self, hold_since: Option<Instant>, now: Instant) {
        self.waiting = self.waiting.saturating_sub(1);
        if self.waiting > 0 {
            return;
        }
        if let Some(hold_since) = hold_since {
            self.past = self.in_hold(hold_since, now);
            self.hold_since = Some(hold_since);
        }
        self.since = None;
    }

    /// Returns the time in which probes have waited since the hold began.
    pub(super) fn in_hold(&self, hold_since: Instant, now: Instant) -> Duration {
        let past = if self.hold_since == Some(hold_since) { self.past } else { Duration::ZERO };
        let current = self.since.map(|since| now.saturating_duration_since(since.max(hold_since)));
        past + current.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_waits_of_a_hold_are_added() {
        let start = Instant::now();
        let mut waits = ProbeWaits::default();
        assert_eq!(waits.in_hold(start, start + SECOND), Duration::ZERO);
        waits.begin(start + 2 * SECOND);
        assert_eq!(waits.in_hold(start, start + 5 * SECOND), 3 * SECOND);
        waits.end(Some(start), start + 6 * SECOND);
        assert_eq!(waits.in_hold(start, start + 9 * SECOND), 4 * SECOND);
        waits.begin(start + 10 * SECOND);
        waits.end(Some(start), start + 11 * SECOND);
        assert_eq!(waits.in_hold(start, start + 20 * SECOND), 5 * SECOND);
    }

    #[test]
    fn waits_before_a_hold_do_not_count_for_it() {
        let start = Instant::now();
        let mut waits = ProbeWaits::default();
        waits.begin(start);
        waits.end(Some(start), start + 3 * SECOND);
        // The hold has ended, and another has begun while a probe of the first waits.
        waits.begin(start + 4 * SECOND);
        let second = start + 6 * SECOND;
        waits.begin(start + 7 * SECOND);
        assert_eq!(waits.in_hold(second, start + 8 * SECOND), 2 * SECOND);
        waits.end(Some(second), start + 9 * SECOND);
        waits.end(Some(second), start + 10 * SECOND);
        assert_eq!(waits.in_hold(second, start + 20 * SECOND), 4 * SECOND);
        waits.begin(start + 21 * SECOND);
        waits.end(None, start + 22 * SECOND);
        assert_eq!(waits.in_hold(start + 30 * SECOND, start + 31 * SECOND), Duration::ZERO);
    }
}
