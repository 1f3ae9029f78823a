//! What is kept of a run as a whole.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use crate::types::Spent;

/// The number of a run in its store, by which people name it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunNumber(pub i64);

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

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// It is at work, or died at work: whether anybody holds its lock tells which.
    Open,
    /// All of its input was dealt with.
    Complete,
    /// It was told to stop.
    Stopped,
    /// A spending cap was met.
    Paused,
    /// Its input, its output or the store failed.
    Broken,
    /// It was given up: the same command begins another one.
    Cancelled,
}

impl RunState {
    #[cfg(feature = "sqlite")]
    const ALL: [Self; 6] =
        [Self::Open, Self::Complete, Self::Stopped, Self::Paused, Self::Broken, Self::Cancelled];

    /// Returns the word by which it is kept and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Complete => "complete",
            Self::Stopped => "stopped",
            Self::Paused => "paused",
            Self::Broken => "broken",
            Self::Cancelled => "cancelled",
        }
    }

    #[cfg(feature = "sqlite")]
    pub(super) fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// What a run is: kept when it begins, and renewed when a change of it is accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct Outline {
    /// The pipeline's name.
    pub name: String,
    /// Where everything is: the pipeline's file, that of the items, the output.
    pub places: Value,
    /// The text of the pipeline.
    pub pipeline: String,
    /// What the answers depend on: the steps' fingerprints, the models of the routes, their prices.
    pub grounds: Value,
}

/// A run as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownRun {
    /// Its number.
    pub number: RunNumber,
    /// By what the same command finds it again.
    pub identity: String,
    /// What it is.
    pub outline: Outline,
    /// Counts the accepted changes that make items be dealt with anew, from 1.
    pub edition: i64,
    /// How often it has been at work.
    pub sessions: i64,
    /// How far it has come.
    pub state: RunState,
    /// When it began, and when it was last begun, went on or ended; in milliseconds since 1970.
    pub begun: i64,
    /// As `begun`.
    pub touched: i64,
    /// What its last session told at its end; null before.
    pub outcome: Value,
}

/// How many items a run has, and what they took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Items that have an answer to some step and are not settled.
    pub open: u64,
    /// Settled items whose every step was answered.
    pub completed: u64,
    /// Settled items that failed.
    pub failed: u64,
    /// Settled items of which no step was due.
    pub skipped: u64,
    /// What all their calls took.
    pub spent: Spent,
}

impl Sums {
    /// Returns how many items have settled.
    pub fn settled(&self) -> u64 {
        self.completed + self.failed + self.skipped
    }

    /// Returns what is left without the items of `some`; what all of them took stays.
    #[must_use]
    pub fn without(self, some: Self) -> Self {
        Self {
            open: self.open.saturating_sub(some.open),
            completed: self.completed.saturating_sub(some.completed),
            failed: self.failed.saturating_sub(some.failed),
            skipped: self.skipped.saturating_sub(some.skipped),
            spent: self.spent,
        }
    }
}
