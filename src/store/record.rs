//! Records of items and steps, as they are written and read.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::types::{Attempt, AttemptLog, Failure, Fingerprint, ItemKey, ItemStatus, ScopeName, StepName};

use super::run::RunNumber;

/// The number of an item in its run, in the order in which items were started, from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemNumber(pub i64);

impl fmt::Display for ItemNumber {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, out)
    }
}

/// A change of one item. It is written completely or not at all.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The run.
    pub run: RunNumber,
    /// The number of the session, from 1.
    pub session: i64,
    /// The scope of the session, whose spend the steps add to; empty for none. It is not stored with the item.
    pub scope: ScopeName,
    /// The item.
    pub item: Arc<ItemHead>,
    /// The steps that changed in this session. Each replaces this session's earlier record of the step; records of other
    /// sessions stay.
    pub steps: Vec<StepRecord>,
    /// The outcome of the item; `None` while it is in progress.
    pub outcome: Option<OutcomeRecord>,
}

/// The identity of an item.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemHead {
    /// Its number in the run.
    pub number: ItemNumber,
    /// Its key.
    pub key: ItemKey,
    /// The fingerprint of all its fields.
    pub content: Fingerprint,
    /// The line of the input on which it begins.
    pub line: u64,
    /// Its fields as JSON; `None` if they are not stored.
    pub input: Option<Arc<str>>,
}

/// The result of one step of an item in one session.
#[derive(Debug, Clone, PartialEq)]
pub struct StepRecord {
    /// The step.
    pub step: StepName,
    /// Its state.
    pub state: StepState,
    /// The fingerprint of everything that shaped the answer; `None` without an answer.
    pub answer_key: Option<Fingerprint>,
    /// The validated answer; null without an answer.
    pub answer: Value,
    /// The failure, if it failed.
    pub failure: Option<Failure>,
    /// Whether a simulated provider answered one of its requests.
    pub simulated: bool,
    /// The attempts of this session.
    pub attempts: AttemptLog,
    /// The earlier session that has the answer, if this session restored it and sent no request.
    pub restored_from: Option<i64>,
    /// The files that were attached to the request.
    pub files: Vec<FileStamp>,
    /// The attempt that gave the answer, if the answer was taken from the answer cache and no request was sent. Another
    /// item or another run has paid for it.
    pub reused: Option<Box<Attempt>>,
    /// The key of the answer in the answer cache: under it, the answer of a request is added to the cache, and a use of the
    /// cache is counted. `None` without a cache. It is not stored with the step.
    pub cache_key: Option<Fingerprint>,
}

impl StepRecord {
    /// Returns the attempt that gave the answer, if the record has one.
    pub fn answered_by(&self) -> Option<&Attempt> {
        self.reused.as_deref().or_else(|| self.attempts.answered_attempt())
    }
}

/// The metadata of a file when it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStamp {
    /// Its path.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// The time of the last change of its content, in nanoseconds since 1970.
    pub modified: i64,
    /// The time of the last change of its content or metadata, in nanoseconds since 1970; 0 if the system does not provide it.
    pub changed: i64,
}

/// The state of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// It has a validated answer.
    Answered,
    /// It failed; no more requests are sent for it.
    Failed,
    /// Its condition was false.
    Skipped,
    /// A request was sent, and it has not finished.
    Open,
}

impl StepState {
    /// Returns the word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Open => "open",
        }
    }

    #[cfg(feature = "sqlite")]
    pub(super) fn parse(word: &str) -> Option<Self> {
        [Self::Answered, Self::Failed, Self::Skipped, Self::Open]
            .into_iter()
            .find(|state| state.as_str() == word)
    }
}

/// The outcome of an item.
#[derive(Debug, Clone, PartialEq)]
pub struct OutcomeRecord {
    /// How it ended.
    pub status: ItemStatus,
    /// The failed step and its failure.
    pub error: Option<(StepName, Failure)>,
    /// The duration from its start in this session until it finished.
    pub duration: Duration,
    /// The number of its actors: more than one if an actor died.
    pub incarnations: u64,
    /// The revision of the run in which it finished. An outcome of an earlier revision is no longer valid.
    pub revision: i64,
    /// The session in which it finished: the output line is made from the records of that session. `None` in a database
    /// of an earlier version that has records of several sessions.
    pub session: Option<i64>,
}

/// A stored item.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredItem {
    /// Its identity.
    pub head: ItemHead,
    /// Its outcome, if it has finished.
    pub outcome: Option<OutcomeRecord>,
    /// The records of its steps, in the order of the sessions.
    pub steps: Vec<StoredStep>,
}

/// A stored record of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredStep {
    /// The session that wrote it.
    pub session: i64,
    /// The record. If the answer was restored, it is that of the earlier session.
    pub record: StepRecord,
    /// The attempt that produced the answer, if there is one.
    pub answered_by: Option<Attempt>,
}
