//! Counts of the items of a run, and its cost.

use serde::Serialize;

use crate::run::{Items, LastReport, Progress};
use crate::store::{RunTotals, StoredRun};
use crate::types::NanoUsd;

/// Counts of the items of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[non_exhaustive]
pub struct ItemCounts {
    /// Items with all their answers.
    pub completed: u64,
    /// Items that failed.
    pub failed: u64,
    /// Items whose conditions were all false.
    pub skipped: u64,
    /// Items that were started, and are unfinished although no session is in progress.
    pub unfinished: u64,
    /// Records of the input that were not items.
    pub rejected: u64,
}

/// The counts and the cost of a run.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RunCounted {
    pub(super) items: ItemCounts,
    /// In US dollars; `None` if nothing is known.
    pub(super) cost_usd: Option<f64>,
}

impl RunCounted {
    /// Returns those of the session in progress.
    pub(super) fn now(progress: &Progress) -> Self {
        Self { items: counts(&progress.items), cost_usd: progress.cost_usd }
    }

    /// Returns those that the only session of a run has reported; `None` if there are more sessions, or no report.
    pub(super) fn of_only_session(run: &StoredRun) -> Option<Self> {
        let (items, cost_usd) = LastReport::of_only_session(run)?;
        let unfinished = LastReport::of(run).unfinished(0);
        Some(Self { items: ItemCounts { unfinished, ..counts(&items) }, cost_usd })
    }

    /// Returns those over all sessions, of which the rows of the items have `totals`.
    pub(super) fn of_rows(run: &StoredRun, totals: &RunTotals) -> Self {
        let last = LastReport::of(run);
        let items = ItemCounts {
            completed: totals.completed,
            failed: totals.failed,
            skipped: totals.skipped,
            unfinished: last.unfinished(totals.open),
            rejected: last.rejected,
        };
        Self { items, cost_usd: totals.known_cost().map(NanoUsd::dollars) }
    }
}

fn counts(items: &Items) -> ItemCounts {
    ItemCounts {
        completed: items.completed,
        failed: items.failed,
        skipped: items.skipped,
        unfinished: items.unfinished + items.paused,
        rejected: items.rejected,
    }
}
