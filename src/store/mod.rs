//! Keeps what must survive: runs, their items, every answer, and what it cost.
//!
//! A [`Store`] says what can be kept and read; `Sqlite` is the one that is there. Whatever SQL there is, is in
//! here. A record is kept whole or not at all, and what is read back is what was written: each row carries a
//! seal, so that a damaged file is refused instead of believed. Decides nothing about runs or items.

mod call_count;
mod error;
#[cfg_attr(not(feature = "sqlite"), expect(dead_code, reason = "only a store takes locks"))]
mod lock;
mod record;
mod run;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(test)]
#[cfg(feature = "sqlite")]
mod tests;
mod url;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::types::{Booked, Day, ItemKey, LaneName, ProviderName, StepName};

pub use call_count::CallCount;
pub use error::Error;
pub use lock::RunLock;
pub use record::{
    FileStamp, ItemHead, ItemNumber, KnownItem, KnownStep, Record, SettledRecord, StepRecord, StepState,
};
pub use run::{KnownRun, Outline, RunNumber, RunState, Sums};
#[cfg(feature = "sqlite")]
pub use sqlite::Sqlite;
pub use url::{StoreUrl, StoreUrlError};

/// How long a read or a write waits for another process that writes, before it fails.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(30);

/// What can be kept, and read again. Whatever returns `Ok` is durable.
///
/// # Errors
/// Each of them: when the store cannot be read or written, or what it holds is damaged. Nothing has been
/// changed then.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Returns every run, the latest first.
    fn runs(&self) -> Answer<'_, Vec<KnownRun>>;

    /// Returns a run.
    fn run(&self, run: RunNumber) -> Answer<'_, KnownRun>;

    /// Returns how far a run has come.
    fn state(&self, run: RunNumber) -> Answer<'_, RunState>;

    /// Notes how far a run has come, and nothing else.
    fn set(&self, run: RunNumber, state: RunState) -> Answer<'_, ()>;

    /// Returns the latest run of that identity.
    fn find<'a>(&'a self, identity: &'a str) -> Answer<'a, Option<KnownRun>>;

    /// Begins a run that has nothing yet, in state [`RunState::Open`] and without a session.
    fn create<'a>(&'a self, identity: &'a str, outline: &'a Outline) -> Answer<'a, RunNumber>;

    /// Takes the right to work on a run.
    ///
    /// # Errors
    /// [`Error::Busy`] when another process has it.
    fn lock(&self, run: RunNumber) -> Result<RunLock, Error>;

    /// Returns the files that are used while `run` is at work, whether they are there yet or not.
    fn files(&self, run: RunNumber) -> Vec<PathBuf> {
        let _ = run;
        Vec::new()
    }

    /// Returns whether anybody works on a run.
    fn is_at_work(&self, run: RunNumber) -> bool;

    /// Begins a session of a run. A changed outline is kept, and with `anew` no settlement of an earlier edition
    /// counts any more.
    fn begin<'a>(&'a self, run: RunNumber, outline: Option<&'a Outline>, anew: bool) -> Answer<'a, Session>;

    /// Notes how far a run has come, and what is to be told of it. One that was cancelled stays so, unless it is
    /// complete.
    fn touch<'a>(&'a self, run: RunNumber, state: RunState, outcome: &'a Value) -> Answer<'a, ()>;

    /// Notes what is to be told of a run. Its state and the time of its last change stay as they are.
    fn note<'a>(&'a self, run: RunNumber, outcome: &'a Value) -> Answer<'a, ()>;

    /// Keeps all of these records, or none, and books today what their steps cost more than the session had
    /// recorded of them before.
    fn write<'a>(&'a self, records: &'a [Record]) -> Answer<'a, ()>;

    /// Returns what is known of the items of these keys, in their order.
    fn look_up<'a>(&'a self, run: RunNumber, keys: &'a [ItemKey]) -> Answer<'a, Vec<Option<KnownItem>>>;

    /// Returns at most `most` of the items that were begun after `after`, in their order.
    fn items(&self, run: RunNumber, after: ItemNumber, most: u32) -> Answer<'_, Vec<KnownItem>>;

    /// Returns at most `most` of the items that have failed and were begun after `after`, in their order.
    fn failed(&self, run: RunNumber, after: ItemNumber, most: u32) -> Answer<'_, Vec<KnownItem>>;

    /// Returns how many items a run has, and what they took.
    fn sums(&self, run: RunNumber) -> Answer<'_, Sums>;

    /// Returns how many items of these groups a run has, each from its first to its last; nothing of what they took.
    fn counts<'a>(&'a self, run: RunNumber, groups: &'a [(i64, i64)]) -> Answer<'a, Sums>;

    /// Returns what was booked on a day, UTC, of all runs, also of those that are forgotten.
    fn spent_on(&self, day: Day) -> Answer<'_, BTreeMap<ProviderName, Booked>>;

    /// Returns what was booked of a run, on all days.
    fn spent_by(&self, run: RunNumber) -> Answer<'_, BTreeMap<ProviderName, Booked>>;

    /// Books what a run spent beside what its records say: calls whose end nobody was told.
    fn book<'a>(
        &'a self,
        run: RunNumber,
        day: Day,
        spent: &'a BTreeMap<ProviderName, Booked>,
    ) -> Answer<'a, ()>;

    /// Counts calls that have left, by target, for the limits of a day.
    fn count_calls<'a>(&'a self, calls: &'a BTreeMap<LaneName, u64>) -> Answer<'a, ()>;

    /// Returns the calls of the last 24 hours that were counted, of all runs, also of those that are forgotten.
    fn calls_of_day(&self) -> Answer<'_, Vec<CallCount>>;

    /// Returns how many items have an answer to each step.
    fn answers(&self, run: RunNumber) -> Answer<'_, BTreeMap<StepName, u64>>;

    /// Brings what is in a journal beside the database into it, as far as that holds up nobody.
    fn fold(&self) -> Answer<'_, ()> {
        std::future::ready(Ok(())).boxed()
    }

    /// Forgets runs and everything of them, except what they have spent. Their room is used again, and
    /// [`shrink`](Self::shrink) gives it back.
    fn forget<'a>(&'a self, runs: &'a [RunNumber]) -> Answer<'a, ()>;

    /// Gives the room of forgotten runs back to the system, unless a run is at work.
    fn shrink(&self) -> Answer<'_, ()>;
}

/// What a store answers, later.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Error>>;

/// A run at work.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    /// Which time it is at work, from 1.
    pub session: i64,
    /// The edition of its pipeline.
    pub edition: i64,
    /// The number of its last item; 0 without any.
    pub last_item: ItemNumber,
}
