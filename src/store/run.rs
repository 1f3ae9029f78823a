//! What is stored of a run as a whole.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::types::{NanoUsd, UsageTotals};

/// The number of a run in its store. Users refer to a run by it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunNumber(pub i64);

impl RunNumber {
    /// No run. Spend of requests outside of runs is recorded under it. Stored runs have numbers from 1.
    pub const NONE: Self = Self(0);
}

impl fmt::Display for RunNumber {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, out)
    }
}

impl FromStr for RunNumber {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// A process works on it, or died while it did. The lock of the run tells which.
    Running,
    /// All of the input was processed.
    Completed,
    /// The user stopped it.
    Stopped,
    /// It waits for its user: a cap was reached, or a failure that waiting does not remove.
    Paused,
    /// The input, the output or the store failed.
    IoFailed,
    /// The user cancelled it: the same command begins a new run.
    Cancelled,
}

impl RunState {
    #[cfg(feature = "sqlite")]
    const ALL: [Self; 6] =
        [Self::Running, Self::Completed, Self::Stopped, Self::Paused, Self::IoFailed, Self::Cancelled];

    /// Returns the word in the database and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Stopped => "stopped",
            Self::Paused => "paused",
            Self::IoFailed => "io_error",
            Self::Cancelled => "cancelled",
        }
    }

    #[cfg(feature = "sqlite")]
    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// The description of a run. It is written at the start and when a change is accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct RunMetadata {
    /// The pipeline's name.
    pub name: String,
    /// The command: the paths of the pipeline, the items and the outputs, and its options.
    pub command: Value,
    /// The text of the pipeline.
    pub pipeline: String,
    /// What the answers depend on: the fingerprints of the steps, the models of the routes, and their prices.
    pub manifest: Value,
}

/// A stored run.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRun {
    /// Its number.
    pub number: RunNumber,
    /// The identity by which the same command finds it again.
    pub identity: String,
    /// Its description.
    pub metadata: RunMetadata,
    /// The number of accepted changes after which items are processed again, from 1.
    pub revision: i64,
    /// The number of its sessions.
    pub sessions: i64,
    /// Its state.
    pub state: RunState,
    /// When it was created, in milliseconds since 1970.
    pub created_at: i64,
    /// When a session last began or ended, in milliseconds since 1970.
    pub updated_at: i64,
    /// The outcome of its last session; null before its end.
    pub outcome: Value,
}

/// Which runs a page contains. Its default is an empty page of all runs: `max` is 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Only runs in this state.
    pub state: Option<RunState>,
    /// Only runs of the pipeline with this name.
    pub name: Option<String>,
    /// Only runs whose identity begins like this.
    pub identity_prefix: Option<String>,
    /// Only runs with smaller numbers: the last run of the previous page.
    pub before: Option<RunNumber>,
    /// The largest number of runs.
    pub max: u32,
}

/// The counts of a run's items, and their usage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunTotals {
    /// Unfinished items that have an answer to at least one step.
    pub open: u64,
    /// Finished items with an answer to every step whose condition was true.
    pub completed: u64,
    /// Items that failed.
    pub failed: u64,
    /// Finished items whose conditions were all false.
    pub skipped: u64,
    /// The usage of all items.
    pub usage: UsageTotals,
}

impl RunTotals {
    /// Returns the number of finished items.
    pub fn finished(&self) -> u64 {
        self.completed + self.failed + self.skipped
    }

    /// Returns the known part of the cost; `None` if nothing is known.
    pub fn known_cost(&self) -> Option<NanoUsd> {
        let is_known = self.usage.calls_of_unknown_cost == 0 || self.usage.cost.0 > 0;
        is_known.then_some(self.usage.cost)
    }

    /// Returns the counts without the items of `some`. The usage stays.
    #[must_use]
    pub fn without(self, some: Self) -> Self {
        Self {
            open: self.open.saturating_sub(some.open),
            completed: self.completed.saturating_sub(some.completed),
            failed: self.failed.saturating_sub(some.failed),
            skipped: self.skipped.saturating_sub(some.skipped),
            usage: self.usage,
        }
    }
}
