//! How the last calls of a lane ended: how many failed in a row, and what share of a window.
//!
//! Says when it is too much; what follows from that is the breaker's.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::BreakerSettings;

/// Why a lane counts as failing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// Nothing but failures: it is down.
    Row,
    /// Too large a share of failures: it is ill, and answers at times.
    Share,
    /// Not a word for much longer than usual: perhaps it is only slow.
    Silence,
}

/// Outcomes remembered at most; at higher rates the share looks back less far than the window.
const MOST_REMEMBERED: usize = BreakerSettings::MOST_CALLS as usize;

/// What part of the calls that are out has to have failed before it says something of the others.
///
/// Failures come back before answers that were asked for at the same time: of many calls that are out,
/// five fast failures are no row yet, and twenty are no share. Calls that are out already cost nothing
/// more, so the price of waiting for more is this part of the calls at once, and only where a lane that
/// is down answers fast; where it is silent they are all out before the first fails.
const TELLING: u32 = 4;

/// The probability below which a row of failures is no chance, where calls fail at random with the share of before; the
/// outcomes that tell that share, and the longest row that is waited for.
const CHANCE: f64 = 1e-6;
const LEAST_BEFORE: usize = 10;
const LONGEST_ROW: u32 = 20;

/// How far the failure of one call says something of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Evidence {
    /// It may have failed all of them.
    Whole,
    /// No more than that there were too many, or that it is open whether others fail: it takes as many as are out to
    /// make a row.
    Overload,
    /// Nothing: others were answered meanwhile.
    Alone,
}

/// The outcomes of one lane since its breaker last moved.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    /// Calls that have not come back.
    out: u32,
    failures_in_a_row: u32,
    /// How many of those said that the provider is overloaded.
    overloads_in_a_row: u32,
    /// Outcomes within the window: when, and whether it failed.
    recent: VecDeque<(Instant, bool)>,
    recent_failures: usize,
}

impl Outcomes {
    /// Counts a call that leaves.
    pub(super) fn left(&mut self) {
        self.out = self.out.saturating_add(1);
    }

    /// Forgets a call that says nothing.
    pub(super) fn came_back(&mut self) {
        self.out = self.out.saturating_sub(1);
    }

    #[cfg(test)]
    pub(super) fn out(&self) -> u32 {
        self.out
    }

    /// Counts a success.
    pub(super) fn succeeded(&mut self, settings: &BreakerSettings, now: Instant) {
        self.came_back();
        (self.failures_in_a_row, self.overloads_in_a_row) = (0, 0);
        self.remember(settings, now, false);
    }

    /// Counts a failure.
    pub(super) fn failed(&mut self, settings: &BreakerSettings, evidence: Evidence, now: Instant) {
        self.came_back();
        self.remember(settings, now, true);
        if evidence == Evidence::Alone {
            return;
        }
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        self.overloads_in_a_row =
            self.overloads_in_a_row.saturating_add(u32::from(evidence == Evidence::Overload));
    }

    /// Returns whether there is a row: `failures` of them, and a quarter of the calls that are still out. A provider
    /// that is only overloaded refuses some and works on others, so of refusals alone it takes as many as are out. Where
    /// calls failed before, too, it takes as many as chance does not explain.
    pub(super) fn is_row(&self, settings: &BreakerSettings) -> bool {
        let are_overloads = self.overloads_in_a_row == self.failures_in_a_row;
        let telling = if are_overloads { self.out } else { self.out / TELLING };
        self.failures_in_a_row >= settings.failures.get().max(telling).max(self.row_by_chance())
    }

    /// Returns the length of a row that chance does not explain, with the share of failures before it: `n` with
    /// `share^n` below [`CHANCE`].
    fn row_by_chance(&self) -> u32 {
        let row = self.failures_in_a_row as usize;
        let before = self.recent.len().saturating_sub(row);
        let failed = self.recent_failures.saturating_sub(row);
        if before < LEAST_BEFORE || failed == 0 {
            return 0;
        }
        let length = CHANCE.ln() / (failed as f64 / before as f64).ln();
        // Where all have failed before, no row is too long.
        let is_shorter = length.is_finite() && length < f64::from(LONGEST_ROW);
        if is_shorter { length.ceil() as u32 } else { LONGEST_ROW }
    }

    /// Returns whether the last call failed, and failures of those that are out would make a row.
    pub(super) fn is_doubtful(&self, settings: &BreakerSettings) -> bool {
        let failures = self.failures_in_a_row;
        failures > 0 && failures.saturating_add(self.out) >= settings.failures.get()
    }

    /// Returns what is wrong, if it is too much.
    pub(super) fn trouble(&self, settings: &BreakerSettings) -> Option<Trouble> {
        if self.is_row(settings) {
            return Some(Trouble::Row);
        }
        let enough = self.recent.len() >= settings.min_calls.get().max(self.out / TELLING) as usize;
        let share = self.recent_failures as f64 / self.recent.len().max(1) as f64;
        (enough && share >= settings.failure_share).then_some(Trouble::Share)
    }

    fn remember(&mut self, settings: &BreakerSettings, now: Instant, failed: bool) {
        self.recent.push_back((now, failed));
        self.recent_failures += usize::from(failed);
        while let Some((at, failed)) = self.recent.front().copied() {
            if self.recent.len() <= MOST_REMEMBERED && now.saturating_duration_since(at) <= settings.window {
                break;
            }
            self.recent.pop_front();
            self.recent_failures -= usize::from(failed);
        }
    }
}
