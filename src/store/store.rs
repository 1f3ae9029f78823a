//! The interface of a store.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::types::{Day, Fingerprint, ItemKey, ProviderName, ScopeName, Spend, StepName, TargetName};

use super::answer_cache::{CacheLimits, CachedAnswer, CachedTarget, PrunedAnswers};
use super::call_count::CallCount;
use super::document::{Document, DocumentKind, ExpectedVersion};
use super::error::Error;
use super::lock::RunLock;
use super::record::{ItemNumber, Record, StoredItem};
use super::run::{RunFilter, RunMetadata, RunNumber, RunState, RunTotals, StoredRun};
use super::spending::{ScopeSpendingRow, SpendingRow};

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

    /// Returns a page of the runs that a filter describes, the latest first.
    #[doc(hidden)]
    fn runs_page<'a>(&'a self, filter: &'a RunFilter) -> StoreFuture<'a, Vec<StoredRun>>;

    /// Returns the runs that a process works on, did not end, or stopped, whose identity begins with `identity_prefix`: those
    /// in state [`RunState::Running`] or [`RunState::Stopped`]. The earliest is first.
    #[doc(hidden)]
    fn unfinished_runs<'a>(&'a self, identity_prefix: &'a str) -> StoreFuture<'a, Vec<StoredRun>>;

    /// Returns a run.
    #[doc(hidden)]
    fn run(&self, run: RunNumber) -> StoreFuture<'_, StoredRun>;

    /// Returns the state of a run.
    #[doc(hidden)]
    fn state(&self, run: RunNumber) -> StoreFuture<'_, RunState>;

    /// Sets the state of a run and nothing else.
    #[doc(hidden)]
    fn set_state(&self, run: RunNumber, state: RunState) -> StoreFuture<'_, ()>;

    /// Sets the identity of a run and nothing else.
    #[doc(hidden)]
    fn set_identity<'a>(&'a self, run: RunNumber, identity: &'a str) -> StoreFuture<'a, ()>;

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

    /// Returns the spend of a day, UTC, of all runs including deleted ones, and of requests outside of runs.
    #[doc(hidden)]
    fn spent_on(&self, day: Day) -> StoreFuture<'_, BTreeMap<ProviderName, Spend>>;

    /// Returns the spend of a day, UTC, by scope, or that of one scope, of all runs including deleted ones, and of requests
    /// outside of runs. Runs without a scope are not included, and neither is what earlier versions recorded.
    #[doc(hidden)]
    fn scopes_spent_on<'a>(
        &'a self,
        day: Day,
        only: Option<&'a ScopeName>,
    ) -> StoreFuture<'a, BTreeMap<ScopeName, Spend>>;

    /// Returns the spend of a run on all days.
    #[doc(hidden)]
    fn spent_by(&self, run: RunNumber) -> StoreFuture<'_, BTreeMap<ProviderName, Spend>>;

    /// Adds spend that is in no record: attempts whose end was never reported, and requests outside of runs, whose `run` is
    /// [`RunNumber::NONE`]. `scope` is that of the session or of the requests; empty for none.
    #[doc(hidden)]
    fn add_spend<'a>(
        &'a self,
        run: RunNumber,
        scope: &'a ScopeName,
        day: Day,
        spent: &'a BTreeMap<ProviderName, Spend>,
    ) -> StoreFuture<'a, ()>;

    /// Returns the spend of the days from `from` to `to`, both included, by day, provider and run, of all runs including
    /// deleted ones, and of requests outside of runs.
    ///
    /// # Errors
    /// [`Error::TooMuchSpending`] if these are more than [`MAX_SPENDING_ROWS`](super::MAX_SPENDING_ROWS) rows.
    #[doc(hidden)]
    fn spending(&self, from: Day, to: Day) -> StoreFuture<'_, Vec<SpendingRow>>;

    /// Returns the spend of scopes of the days from `from` to `to`, both included, by day, scope and run. It includes what
    /// [`scopes_spent_on`](Self::scopes_spent_on) includes.
    ///
    /// # Errors
    /// As [`spending`](Self::spending).
    #[doc(hidden)]
    fn scope_spending(&self, from: Day, to: Day) -> StoreFuture<'_, Vec<ScopeSpendingRow>>;

    /// Counts calls that were sent, by target, for the daily limits.
    #[doc(hidden)]
    fn count_calls<'a>(&'a self, calls: &'a BTreeMap<TargetName, u64>) -> StoreFuture<'a, ()>;

    /// Returns the counted calls of the last 24 hours, of all runs including deleted ones.
    #[doc(hidden)]
    fn calls_of_last_day(&self) -> StoreFuture<'_, Vec<CallCount>>;

    /// Returns how many items have an answer for each step.
    #[doc(hidden)]
    fn answer_counts(&self, run: RunNumber) -> StoreFuture<'_, BTreeMap<StepName, u64>>;

    /// Returns the answers of the answer cache with these keys, in any order. A store without such a cache has none.
    #[doc(hidden)]
    fn cached_answers<'a>(&'a self, keys: &'a [Fingerprint]) -> StoreFuture<'a, Vec<CachedAnswer>> {
        let _ = keys;
        std::future::ready(Ok(Vec::new())).boxed()
    }

    /// Returns what the answer cache contains, by target.
    #[doc(hidden)]
    fn cached_targets(&self) -> StoreFuture<'_, Vec<CachedTarget>> {
        std::future::ready(Ok(Vec::new())).boxed()
    }

    /// Removes answers from the answer cache until it is within `limits`. Other writes can happen in between: it removes
    /// some at a time. The space is reused; [`vacuum`](Self::vacuum) returns it to the file system.
    #[doc(hidden)]
    fn prune_cache(&self, limits: CacheLimits) -> StoreFuture<'_, PrunedAnswers> {
        let _ = limits;
        std::future::ready(Ok(PrunedAnswers::default())).boxed()
    }

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

    /// Writes a few bytes and returns when they are durable, as a check that records can be written.
    ///
    /// Success proves that the file can be written, is still at its path, is not locked by another process, and that its disk
    /// accepts and keeps a small write. It does not prove that the disk has space for more: the journal reuses its space. It
    /// waits while another process is writing, at most 30 seconds, so a caller that answers in time needs a timeout.
    #[doc(hidden)]
    fn check_writable(&self) -> StoreFuture<'_, ()>;

    /// Writes the next version of a document. Its number is one above that of the latest version, which may be a deletion.
    /// `expires_at` is in milliseconds since 1970.
    ///
    /// # Errors
    /// [`Error::VersionConflict`] if the latest version is not the expected one: of two changes at the same time that expect
    /// the same version, one fails. [`Error::DocumentTooLarge`] and [`Error::DocumentTooDeep`].
    #[doc(hidden)]
    fn put_document<'a>(
        &'a self,
        kind: DocumentKind,
        name: &'a str,
        value: &'a Value,
        by: &'a str,
        expires_at: Option<i64>,
        expected: ExpectedVersion,
    ) -> StoreFuture<'a, Document>;

    /// Overwrites the latest version of a document, including its time and its writer, and keeps the number of the version.
    /// Writes the next version if there is none or if it is a deletion. For documents that change often and need no
    /// history: [`ExpectedVersion::Is`] does not notice that another caller has overwritten the same version.
    ///
    /// # Errors
    /// As [`put_document`](Self::put_document).
    #[doc(hidden)]
    fn replace_document<'a>(
        &'a self,
        kind: DocumentKind,
        name: &'a str,
        value: &'a Value,
        by: &'a str,
        expires_at: Option<i64>,
        expected: ExpectedVersion,
    ) -> StoreFuture<'a, Document>;

    /// Returns the latest version of a document; `None` if it is a deletion or has expired at `now`, in milliseconds since
    /// 1970.
    #[doc(hidden)]
    fn document<'a>(
        &'a self,
        kind: DocumentKind,
        name: &'a str,
        now: i64,
    ) -> StoreFuture<'a, Option<Document>>;

    /// Returns one version of a document, which may be a deletion or have expired.
    #[doc(hidden)]
    fn document_version<'a>(
        &'a self,
        kind: DocumentKind,
        name: &'a str,
        version: i64,
    ) -> StoreFuture<'a, Option<Document>>;

    /// Returns the versions of a document including deletions, the latest first, at most
    /// [`MAX_DOCUMENT_VERSIONS`](super::MAX_DOCUMENT_VERSIONS). Earlier ones stay readable by their numbers.
    #[doc(hidden)]
    fn document_versions<'a>(&'a self, kind: DocumentKind, name: &'a str) -> StoreFuture<'a, Vec<Document>>;

    /// Returns the latest versions of at most `max` documents whose names come after `after`, by name. Deleted documents
    /// are not included. Expired ones are, until they are removed.
    #[doc(hidden)]
    fn documents<'a>(
        &'a self,
        kind: DocumentKind,
        after: Option<&'a str>,
        max: u32,
    ) -> StoreFuture<'a, Vec<Document>>;

    /// Deletes a document and keeps its versions: writes a further version that is its deletion. Returns `false` and writes
    /// nothing if there is no document or it is deleted. An expired one is deleted.
    #[doc(hidden)]
    fn delete_document<'a>(&'a self, kind: DocumentKind, name: &'a str, by: &'a str)
    -> StoreFuture<'a, bool>;

    /// Removes a document with all its versions. Returns `false` if there was none.
    #[doc(hidden)]
    fn remove_document<'a>(&'a self, kind: DocumentKind, name: &'a str) -> StoreFuture<'a, bool>;

    /// Removes the documents whose latest version has expired at `now`, in milliseconds since 1970, with all their versions.
    /// Returns their number. Other writes can happen in between: it removes some at a time.
    #[doc(hidden)]
    fn remove_expired(&self, kind: DocumentKind, now: i64) -> StoreFuture<'_, u64>;
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
