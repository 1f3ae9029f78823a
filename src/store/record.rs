//! What is written down of an item's way, and read again.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::types::{Attempt, Failure, Fingerprint, ItemKey, ItemStatus, StepName, Trail};

use super::run::RunNumber;

/// The place of an item in its run, in the order in which items were begun, from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemNumber(pub i64);

impl fmt::Display for ItemNumber {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, out)
    }
}

/// What happened to one item, to be kept whole or not at all.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The run that it belongs to.
    pub run: RunNumber,
    /// Which time the run is at work, from 1.
    pub session: i64,
    /// The item.
    pub item: Arc<ItemHead>,
    /// What became of some of its steps in this session: each replaces what this session had recorded of the
    /// step, and stands beside what earlier ones had.
    pub steps: Vec<StepRecord>,
    /// How the item ended; `None` while it is on its way.
    pub settled: Option<SettledRecord>,
}

/// Who an item is.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemHead {
    /// Its place in the run.
    pub number: ItemNumber,
    /// Its key.
    pub key: ItemKey,
    /// What it consisted of.
    pub content: Fingerprint,
    /// The line of the input on which it began.
    pub line: u64,
    /// Its fields as JSON; `None` where they are not kept.
    pub input: Option<Arc<str>>,
}

/// What became of one step of an item.
#[derive(Debug, Clone, PartialEq)]
pub struct StepRecord {
    /// The step.
    pub step: StepName,
    /// In one word.
    pub state: StepState,
    /// What shaped its answer; `None` without an answer.
    pub shaped: Option<Fingerprint>,
    /// Its answer, checked; null without one.
    pub answer: Value,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Whether a played provider had a part in it.
    pub practice: bool,
    /// Every attempt of this session.
    pub trail: Trail,
    /// The earlier session that has the answer, where this one asked nothing because it was valid still.
    pub recalled: Option<i64>,
    /// The files that were attached to the question.
    pub files: Vec<FileStamp>,
}

/// A file as it was when it was read, as far as the file system says it without another read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStamp {
    /// Where it was.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// When its content was last modified, in nanoseconds since 1970.
    pub modified: i64,
    /// When anything of it last changed, its name included; as `modified`, and 0 where no system says it.
    pub changed: i64,
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// It has an answer that passed its check.
    Answered,
    /// It has none, and is asked no more.
    Failed,
    /// It was not due: its condition was false.
    Skipped,
    /// It has been asked, and is not over.
    Open,
}

impl StepState {
    /// Returns the word by which it is kept.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Open => "open",
        }
    }

    #[cfg(feature = "sqlite")]
    pub(super) fn from_word(word: &str) -> Option<Self> {
        [Self::Answered, Self::Failed, Self::Skipped, Self::Open]
            .into_iter()
            .find(|state| state.as_str() == word)
    }
}

/// How an item ended.
#[derive(Debug, Clone, PartialEq)]
pub struct SettledRecord {
    /// In one word.
    pub status: ItemStatus,
    /// Why it failed, and at which step.
    pub error: Option<(StepName, Failure)>,
    /// From its start in this session until it settled.
    pub took: Duration,
    /// Actors that it had: more than one when the first died.
    pub lives: u64,
    /// The edition of the pipeline that it went through; an older one does not count any more.
    pub edition: i64,
    /// The session that settled it: the records of that session make up its line. `None` in a database of an
    /// earlier version that has records of several sessions.
    pub session: Option<i64>,
}

/// An item that the store knows.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownItem {
    /// Who it is.
    pub head: ItemHead,
    /// How it ended, if it has.
    pub settled: Option<SettledRecord>,
    /// What became of its steps, in the order of the sessions.
    pub steps: Vec<KnownStep>,
}

/// A record of a step, read again.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownStep {
    /// The session that wrote it.
    pub session: i64,
    /// What it says. Where the answer was recalled, it is that of the earlier session.
    pub record: StepRecord,
    /// The attempt that gave the answer, if there is one.
    pub answered_by: Option<Attempt>,
}
