//! The interface of a store.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::types::{Day, ItemKey, ProviderName, ScopeName, Spend, StepName, TargetName};

use super::call_count::CallCount;
use super::error::Error;
use super::lock::RunLock;
use super::record::{ItemNumber, Record, StoredItem};
use super::run::{RunMetadata, RunNumber, RunState, RunTotals, StoredRun};

/// How long a read or a write waits for another process that is writing before it fails.
pub(crate) const MAX_LOCK_WAIT: Duration = Duration::from_secs(30);

/// A store of runs, such as `Sqlite`, for the options of a stored run.
///
/// Its methods are for this crate and not a part of the API. Data is durable when a method returns `Ok`.
///
/// # Errors
/// Every method fails if the store cannot be read or written, or if its data is damaged. Nothing has been changed
/// in that case.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Returns all runs, the latest first.
    #[doc(hidden)]
    fn runs(&self) -> StoreFuture<'_, Vec<StoredRun>>;

    /// Returns a run.
    #[doc(hidden)]
    fn run(&self, run: RunNumber) -> StoreFuture<'_, StoredRun>;

    /// Returns the state of a run.
    #[doc(hidden)]
    fn state(&self, run: RunNumber) -> StoreFuture<'_, RunState>;

    /// Sets the state of a run and nothing else.
    #[doc(hidden)]
    fn set_state(&self, run: RunNumber, state: RunState) -> StoreFuture<'_, ()>;

    /// Returns the latest run with that identity.
    #[doc(hidden)]
    fn find_latest<'a>(&'a self, identity: &'a str) -> StoreFuture<'a, Option<StoredRun>>;

    /// Creates an empty run in state [`RunState::Running`], without a session.
    #[doc(hidden)]
    fn create<'a>(&'a self, identity: &'a str, metadata: &'a RunMetadata) -> StoreFuture<'a, RunNumber>;

    /// Takes the lock of a run. Only its holder may work on the run.
    ///
    /// # Errors
    /// [`Error::Busy`] if another process holds it.
    #[doc(hidden)]
    fn lock(&self, run: RunNumber) -> Result<RunLock, Error>;

    /// Returns the files that are used while `run` is in progress, including those that do not exist yet.
    #[doc(hidden)]
    fn files(&self, run: RunNumber) -> Vec<PathBuf> {
        let _ = run;
        Vec::new()
    }

    /// Returns whether a process holds the lock of a run.
    #[doc(hidden)]
    fn is_locked(&self, run: RunNumber) -> bool;

    /// Begins a session of a run. `metadata` replaces the stored metadata. `new_revision` invalidates the outcomes of
    /// all items.
    #[doc(hidden)]
    fn begin_session<'a>(
        &'a self,
        run: RunNumber,
        metadata: Option<&'a RunMetadata>,
        new_revision: bool,
    ) -> StoreFuture<'a, Session>;

    /// Sets the state and the outcome of a session that ends. A cancelled run stays cancelled, unless it is completed.
    #[doc(hidden)]
    fn finish_session<'a>(
        &'a self,
        run: RunNumber,
        state: RunState,
        outcome: &'a Value,
    ) -> StoreFuture<'a, ()>;

    /// Replaces the outcome of a run. Its state and `updated_at` do not change.
    #[doc(hidden)]
    fn record_outcome<'a>(&'a self, run: RunNumber, outcome: &'a Value) -> StoreFuture<'a, ()>;

    /// Writes all records or none. Adds to today's spend, and to that of the scope of the records, what the steps cost
    /// beyond what this session had recorded.
    #[doc(hidden)]
    fn write_records<'a>(&'a self, records: &'a [Record]) -> StoreFuture<'a, ()>;

    /// Returns the stored items with these keys, in the order of the keys.
    #[doc(hidden)]
    fn look_up<'a>(&'a self, run: RunNumber, keys: &'a [ItemKey])
    -> StoreFuture<'a, Vec<Option<StoredItem>>>;

    /// Returns at most `max` items after `after`, in order.
    #[doc(hidden)]
    fn items(&self, run: RunNumber, after: ItemNumber, max: u32) -> StoreFuture<'_, Vec<StoredItem>>;

    /// Returns at most `max` failed items after `after`, in order.
    #[doc(hidden)]
    fn failed(&self, run: RunNumber, after: ItemNumber, max: u32) -> StoreFuture<'_, Vec<StoredItem>>;

    /// Returns the counts of a run's items and their usage.
    #[doc(hidden)]
    fn totals(&self, run: RunNumber) -> StoreFuture<'_, RunTotals>;

    /// Returns the counts of the items in these ranges, both ends included, without their usage.
    #[doc(hidden)]
    fn item_counts<'a>(&'a self, run: RunNumber, groups: &'a [(i64, i64)]) -> StoreFuture<'a, RunTotals>;

    /// Fails if rows of a run are missing that were stored when a session of the run last began or ended.
    #[doc(hidden)]
    fn verify_rows(&self, run: RunNumber) -> StoreFuture<'_, ()>;

    /// Returns the error of a store whose data contradict each other, as `what` says.
    #[doc(hidden)]
    fn damage(&self, what: String) -> Error;

    /// Returns the spend of a day, UTC, of all runs including deleted ones.
    #[doc(hidden)]
    fn spent_on(&self, day: Day) -> StoreFuture<'_, BTreeMap<ProviderName, Spend>>;

    /// Returns the spend of a day, UTC, by scope, or that of one scope, of all runs including deleted ones. Runs without a scope are not
    /// included, and neither is what earlier versions recorded.
    #[doc(hidden)]
    fn scopes_spent_on<'a>(
        &'a self,
        day: Day,
        only: Option<&'a ScopeName>,
    ) -> StoreFuture<'a, BTreeMap<ScopeName, Spend>>;

    /// Returns the spend of a run on all days.
    #[doc(hidden)]
    fn spent_by(&self, run: RunNumber) -> StoreFuture<'_, BTreeMap<ProviderName, Spend>>;

    /// Adds spend that is in no record: attempts whose end was never reported. `scope` is that of the session; empty for
    /// none.
    #[doc(hidden)]
    fn add_spend<'a>(
        &'a self,
        run: RunNumber,
        scope: &'a ScopeName,
        day: Day,
        spent: &'a BTreeMap<ProviderName, Spend>,
    ) -> StoreFuture<'a, ()>;

    /// Counts calls that were sent, by target, for the daily limits.
    #[doc(hidden)]
    fn count_calls<'a>(&'a self, calls: &'a BTreeMap<TargetName, u64>) -> StoreFuture<'a, ()>;

    /// Returns the counted calls of the last 24 hours, of all runs including deleted ones.
    #[doc(hidden)]
    fn calls_of_last_day(&self) -> StoreFuture<'_, Vec<CallCount>>;

    /// Returns how many items have an answer for each step.
    #[doc(hidden)]
    fn answer_counts(&self, run: RunNumber) -> StoreFuture<'_, BTreeMap<StepName, u64>>;

    /// Copies the journal beside the database into it, as far as this delays no other connection.
    #[doc(hidden)]
    fn checkpoint(&self) -> StoreFuture<'_, ()> {
        std::future::ready(Ok(())).boxed()
    }

    /// Deletes runs with all their data, except their spend. The space is reused; [`vacuum`](Self::vacuum) returns it
    /// to the file system.
    #[doc(hidden)]
    fn delete_runs<'a>(&'a self, runs: &'a [RunNumber]) -> StoreFuture<'a, ()>;

    /// Returns the space of deleted runs to the file system, unless a run is in progress.
    #[doc(hidden)]
    fn vacuum(&self) -> StoreFuture<'_, ()>;
}

/// The result of a store operation.
pub type StoreFuture<'a, T> = BoxFuture<'a, Result<T, Error>>;

/// A session of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    /// The number of the session, from 1.
    pub number: i64,
    /// The current revision of the run.
    pub revision: i64,
    /// The number of the last item; 0 if there is none.
    pub last_item: ItemNumber,
}
