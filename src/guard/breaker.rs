//! Stops calling a lane that keeps failing.
//!
//! Closed: calls flow. Open: calls are refused. Half-open: one probe decides.
//! The breaker never sleeps and never reads a clock; its owner passes `now`.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Backoff, BreakerSettings};

/// Where a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Calls flow.
    Closed,
    /// Calls are refused.
    Open,
    /// One probe is under way, or due.
    HalfOpen,
}

impl BreakerState {
    /// Returns the word used in progress and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// Permission for one call. Its outcome counts only in the epoch that gave it: an answer that comes
/// late, after the breaker has moved, says nothing about the lane as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    epoch: u64,
    probe: bool,
}

impl Pass {
    /// Returns whether the call finds out for all others if the lane is well again.
    pub fn is_probe(self) -> bool {
        self.probe
    }
}

#[derive(Debug)]
enum State {
    Closed,
    Open { until: Instant },
    HalfOpen { probing: bool },
}

/// The breaker of one lane.
#[derive(Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    state: State,
    epoch: u64,
    /// Openings since it was last closed for good.
    openings: u32,
    failures_in_a_row: u32,
    /// Calls of this epoch that have not come back.
    out: u32,
    /// Outcomes within the window: when, and whether it failed.
    recent: VecDeque<(Instant, bool)>,
    recent_failures: usize,
}

/// Outcomes remembered at most; at higher rates the share looks back less far than the window.
const MOST_REMEMBERED: usize = 1_000;

impl Breaker {
    /// Makes a closed breaker.
    pub fn new(settings: BreakerSettings) -> Self {
        Self {
            settings,
            state: State::Closed,
            epoch: 0,
            openings: 0,
            failures_in_a_row: 0,
            out: 0,
            recent: VecDeque::new(),
            recent_failures: 0,
        }
    }

    /// Returns where it stands at `now`.
    pub fn state(&self, now: Instant) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::Open { until } if now < until => BreakerState::Open,
            State::Open { .. } | State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Returns whether a call would pass at `now`. False while a probe is under way.
    pub fn would_admit(&self, now: Instant) -> bool {
        match self.state {
            State::Closed => true,
            State::Open { until } => now >= until,
            State::HalfOpen { probing } => !probing,
        }
    }

    /// Lets a call pass, or not.
    ///
    /// # Errors
    /// When to ask again: for an open breaker the instant of its probe; `None` while a probe is under
    /// way, which takes as long as it takes.
    pub fn admit(&mut self, now: Instant) -> Result<Pass, Option<Instant>> {
        match self.state {
            State::Closed => {
                self.out = self.out.saturating_add(1);
                Ok(Pass { epoch: self.epoch, probe: false })
            }
            State::Open { until } if now < until => Err(Some(until)),
            State::HalfOpen { probing: true } => Err(None),
            State::Open { .. } | State::HalfOpen { probing: false } => {
                self.move_to(State::HalfOpen { probing: true });
                Ok(Pass { epoch: self.epoch, probe: true })
            }
        }
    }

    /// Counts a success. That of a probe closes the breaker.
    pub fn succeeded(&mut self, pass: Pass, now: Instant) {
        if pass.epoch != self.epoch {
            return;
        }
        self.out = self.out.saturating_sub(1);
        self.failures_in_a_row = 0;
        if pass.probe {
            self.openings = 0;
            self.move_to(State::Closed);
        } else {
            self.remember(now, false);
        }
    }

    /// Counts a failure of the provider. `jitter` lies in `0.0..1.0` and spreads the pause.
    pub fn failed(&mut self, pass: Pass, now: Instant, jitter: f64) {
        if pass.epoch != self.epoch {
            return;
        }
        self.out = self.out.saturating_sub(1);
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        self.remember(now, true);
        if pass.probe || self.is_too_much() {
            self.open(now, jitter);
        }
    }

    /// Takes back a pass whose call says nothing about the provider: it never left, or the caller was
    /// at fault, or it was cancelled.
    pub fn said_nothing(&mut self, pass: Pass) {
        if pass.epoch != self.epoch {
            return;
        }
        self.out = self.out.saturating_sub(1);
        if pass.probe {
            self.state = State::HalfOpen { probing: false };
        }
    }

    fn is_too_much(&self) -> bool {
        let enough = self.recent.len() >= self.settings.min_calls.get() as usize;
        let share = self.recent_failures as f64 / self.recent.len().max(1) as f64;
        // Failures come back before answers that were asked for at the same time: of many calls that are
        // out, five fast failures are no row yet. Calls that are out already cost nothing more.
        let row = self.settings.failures.get().max(self.out / 4);
        self.failures_in_a_row >= row || (enough && share >= self.settings.failure_share)
    }

    fn open(&mut self, now: Instant, jitter: f64) {
        self.openings = self.openings.saturating_add(1);
        let pauses = Backoff { base: self.settings.pause, max: self.settings.max_pause };
        self.move_to(State::Open { until: now + pauses.wait(self.openings, jitter) });
    }

    fn move_to(&mut self, state: State) {
        self.epoch += 1;
        self.state = state;
        self.failures_in_a_row = 0;
        self.out = 0;
        self.recent.clear();
        self.recent_failures = 0;
    }

    fn remember(&mut self, now: Instant, failed: bool) {
        self.recent.push_back((now, failed));
        self.recent_failures += usize::from(failed);
        while let Some((at, failed)) = self.recent.front().copied() {
            if self.recent.len() <= MOST_REMEMBERED
                && now.saturating_duration_since(at) <= self.settings.window
            {
                break;
            }
            self.recent.pop_front();
            self.recent_failures -= usize::from(failed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn opened() -> (Breaker, Instant) {
        let (mut breaker, now) = (Breaker::new(BreakerSettings::default()), Instant::now());
        for _ in 0..5 {
            let pass = breaker.admit(now).unwrap();
            breaker.failed(pass, now, 1.0);
        }
        (breaker, now)
    }

    #[test]
    fn five_failures_in_a_row_open_it() {
        let (mut breaker, now) = opened();
        assert_eq!(breaker.state(now), BreakerState::Open);
        assert_eq!(breaker.admit(now), Err(Some(now + Duration::from_secs(5))));
    }

    #[test]
    fn a_few_fast_failures_beside_many_calls_still_out_are_no_row() {
        let (mut breaker, now) = (Breaker::new(BreakerSettings::default()), Instant::now());
        let out: Vec<Pass> = (0..64).map(|_| breaker.admit(now).unwrap()).collect();
        for pass in &out[..10] {
            breaker.failed(*pass, now, 1.0);
        }
        assert_eq!(breaker.state(now), BreakerState::Closed);
        // A lane that is dead fails them all.
        for pass in &out[10..20] {
            breaker.failed(*pass, now, 1.0);
        }
        assert_eq!(breaker.state(now), BreakerState::Open);
    }

    #[test]
    fn one_failure_in_two_opens_it_after_twenty_calls() {
        let (mut breaker, now) = (Breaker::new(BreakerSettings::default()), Instant::now());
        for call in 0..20 {
            assert_eq!(breaker.state(now), BreakerState::Closed, "after {call} calls");
            let pass = breaker.admit(now).unwrap();
            if call % 2 == 0 { breaker.succeeded(pass, now) } else { breaker.failed(pass, now, 1.0) }
        }
        assert_eq!(breaker.state(now), BreakerState::Open);
    }

    #[test]
    fn failures_older_than_the_window_are_forgotten() {
        let (mut breaker, start) = (Breaker::new(BreakerSettings::default()), Instant::now());
        for call in 0..100u32 {
            let now = start + Duration::from_secs(20) * call;
            let pass = breaker.admit(now).unwrap();
            if call % 2 == 0 { breaker.succeeded(pass, now) } else { breaker.failed(pass, now, 1.0) }
        }
        assert_eq!(breaker.state(start + Duration::from_secs(2_000)), BreakerState::Closed);
    }

    #[test]
    fn exactly_one_probe_passes() {
        let (mut breaker, now) = opened();
        let due = now + Duration::from_secs(5);
        assert!(!breaker.would_admit(now) && breaker.would_admit(due));
        let probe = breaker.admit(due).unwrap();
        assert_eq!((breaker.admit(due), breaker.would_admit(due)), (Err(None), false));
        breaker.said_nothing(probe);
        assert!(breaker.would_admit(due) && breaker.admit(due).is_ok());
        assert_eq!(breaker.admit(due), Err(None));
    }

    #[test]
    fn a_probe_that_fails_doubles_the_pause() {
        let (mut breaker, now) = opened();
        let due = now + Duration::from_secs(5);
        let probe = breaker.admit(due).unwrap();
        breaker.failed(probe, due, 1.0);
        assert_eq!(breaker.admit(due), Err(Some(due + Duration::from_secs(10))));
    }

    #[test]
    fn a_late_failure_does_not_reopen_it() {
        let (mut breaker, now) = (Breaker::new(BreakerSettings::default()), Instant::now());
        let late: Vec<Pass> = (0..10).map(|_| breaker.admit(now).unwrap()).collect();
        for pass in &late[..5] {
            breaker.failed(*pass, now, 1.0);
        }
        let due = now + Duration::from_secs(5);
        let probe = breaker.admit(due).unwrap();
        breaker.succeeded(probe, due);
        for pass in &late[5..] {
            breaker.failed(*pass, due, 1.0);
        }
        assert_eq!(breaker.state(due), BreakerState::Closed);
    }

    proptest! {
        #[test]
        fn a_success_of_a_probe_always_closes(events in proptest::collection::vec((0u64..20_000, 0u8..4), 1..300)) {
            let (mut breaker, mut now) = (Breaker::new(BreakerSettings::default()), Instant::now());
            let mut out: Vec<Pass> = Vec::new();
            for (pause, event) in events {
                now += Duration::from_millis(pause);
                match event {
                    0 => if let Ok(pass) = breaker.admit(now) { out.push(pass) },
                    1 => if let Some(pass) = out.pop() {
                        breaker.succeeded(pass, now);
                        if pass.probe && pass.epoch + 1 == breaker.epoch {
                            prop_assert_eq!(breaker.state(now), BreakerState::Closed);
                        }
                    },
                    2 => if let Some(pass) = out.pop() { breaker.failed(pass, now, 0.5) },
                    _ => if let Some(pass) = out.pop() { breaker.said_nothing(pass) },
                }
                let probes = out.iter().filter(|pass| pass.probe && pass.epoch == breaker.epoch).count();
                prop_assert!(probes <= 1);
            }
            // Whatever happened, it lets a call through again in the end.
            for pass in out { breaker.said_nothing(pass) }
            now += Duration::from_secs(121);
            prop_assert!(breaker.admit(now).is_ok());
        }
    }
}
