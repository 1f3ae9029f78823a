//! Commits records to the store in batches, in the order in which they arrive.
//!
//! While a commit is under way, the next batch collects records. A fast run therefore makes few commits, and a
//! slow run does not wait for a batch to fill. Each commit is a task of its own: if it panics, it is tried again
//! and no record is lost. The caller that submits records gets a future. It resolves when they are durable, or
//! with an error if they never will be. After the first failure no record is accepted, so that no call is paid for
//! whose answer cannot be stored.
//!
//! A task is spawned only after the lock is released: a runtime that is shutting down drops the task within the
//! call that spawns it, and the task's drop takes the lock.

mod metrics;
#[cfg(test)]
#[cfg(feature = "sqlite")]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::error;

use crate::chaos;
use crate::store::{self, Record, Store};
use crate::types::{TargetName, error_chain};

pub use metrics::LedgerMetrics;

/// After this many consecutive panics a commit fails.
const MAX_CONSECUTIVE_PANICS: u32 = 3;

/// Why records cannot be stored any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CommitError(pub Arc<str>);

/// Returns the number of calls to each target that were sent since the last call of this function.
pub type SentCalls = Box<dyn Fn() -> BTreeMap<TargetName, u64> + Send + Sync>;

/// A queue of records for one store. Clones share the queue.
#[derive(Clone)]
pub struct Ledger(Arc<Shared>);

struct Shared {
    store: Arc<dyn Store>,
    runtime: Handle,
    /// The sent calls, which each commit adds to the store's counts.
    sent_calls: Option<SentCalls>,
    metrics: Arc<LedgerMetrics>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    next: Batch,
    /// Whether a commit is under way. When it ends, it starts the next one.
    committing: bool,
    broken: Option<CommitError>,
}

/// Records that are committed together, and the callers that wait for the commit.
#[derive(Default)]
struct Batch {
    records: Vec<Record>,
    waiters: Vec<oneshot::Sender<Result<(), CommitError>>>,
}

impl Ledger {
    /// Creates the ledger of `store`; commits run on `runtime`.
    pub fn new(store: Arc<dyn Store>, runtime: Handle) -> Self {
        Self::counting(store, runtime, None)
    }

    /// As [`new`](Self::new); each commit also adds the calls that `sent_calls` returns to the store's counts.
    pub fn counting(store: Arc<dyn Store>, runtime: Handle, sent_calls: Option<SentCalls>) -> Self {
        let metrics = Arc::default();
        Self(Arc::new(Shared { store, runtime, sent_calls, metrics, inner: Mutex::default() }))
    }

    /// Counts its commits in `metrics`. It has no effect on a ledger that was cloned.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Arc<LedgerMetrics>) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.0) {
            shared.metrics = metrics;
        }
        self
    }

    /// Returns the store, for reading.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }

    /// Hands in records that belong together, and returns when they are durable. They are committed also if the
    /// returned future is dropped.
    ///
    /// # Errors
    /// If they will never be durable.
    pub fn record(
        &self,
        records: Vec<Record>,
    ) -> impl Future<Output = Result<(), CommitError>> + Send + 'static + use<> {
        let (durable_tx, durable) = oneshot::channel();
        let mut inner = self.0.lock();
        let broken = inner.broken.clone();
        if broken.is_none() {
            inner.next.records.extend(records);
            inner.next.waiters.push(durable_tx);
        }
        let next = self.0.next_commit(&mut inner);
        drop(inner);
        self.0.begin(next);
        async move {
            match broken {
                Some(why) => Err(why),
                None => durable.await.unwrap_or_else(|_| Err(CommitError("the ledger has stopped".into()))),
            }
        }
    }

    /// Returns when all records that were handed in before are durable.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub async fn flush(&self) -> Result<(), CommitError> {
        self.record(Vec::new()).await
    }

    /// Returns why records cannot be stored any more; `None` before the first failure.
    pub fn broken(&self) -> Option<CommitError> {
        self.0.lock().broken.clone()
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0.store, out)
    }
}

impl Shared {
    /// Returns the next commit, if there is a batch to commit and no commit is under way.
    fn next_commit(self: &Arc<Self>, inner: &mut Inner) -> Option<Commit> {
        if inner.committing || inner.next.waiters.is_empty() || inner.broken.is_some() {
            return None;
        }
        inner.committing = true;
        let batch = std::mem::take(&mut inner.next);
        Some(Commit { shared: self.clone(), batch, calls: BTreeMap::new(), result: None })
    }

    /// Starts a commit. The caller must not hold the lock: a runtime that has stopped drops the commit here.
    fn begin(&self, commit: Option<Commit>) {
        if let Some(commit) = commit {
            drop(self.runtime.spawn(commit.run()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A commit under way. Its drop sends the result to the waiting callers, however the task ends.
struct Commit {
    shared: Arc<Shared>,
    batch: Batch,
    /// Sent calls that the store has not counted yet.
    calls: BTreeMap<TargetName, u64>,
    /// `None` until the store has answered: a commit that is dropped before was dropped with its runtime.
    result: Option<Result<(), CommitError>>,
}

impl Commit {
    async fn run(mut self) {
        let started_at = Instant::now();
        let mut panics = 0;
        let result = loop {
            // Writing a record twice is safe: each record has the complete state of its session.
            match AssertUnwindSafe(self.write()).catch_unwind().await {
                Ok(result) => break result,
                Err(_) if panics + 1 < MAX_CONSECUTIVE_PANICS => panics += 1,
                Err(_) => {
                    break Err(CommitError("the task that commits answers panicked repeatedly".into()));
                }
            }
        };
        match &result {
            Ok(()) => self.shared.metrics.record_commit(self.batch.records.len(), started_at.elapsed()),
            Err(_) => self.shared.metrics.record_failed_commit(),
        }
        self.result = Some(result);
    }

    async fn write(&mut self) -> Result<(), CommitError> {
        let unkept = |error: store::Error| CommitError(error_chain(&error).into());
        chaos::point("ledger.commit");
        for (target, calls) in self.shared.sent_calls.iter().flat_map(|sent_calls| sent_calls()) {
            *self.calls.entry(target).or_default() += calls;
        }
        if !self.calls.is_empty() {
            self.shared.store.count_calls(&self.calls).await.map_err(unkept)?;
            // Cleared before anything can panic: a second try must not count the calls twice.
            self.calls.clear();
        }
        let written = self.shared.store.write_records(&self.batch.records).await;
        chaos::point("ledger.committed");
        written.map_err(unkept)
    }
}

impl Drop for Commit {
    fn drop(&mut self) {
        let stopped = || Err(CommitError("pointsman stopped before the answers were committed".into()));
        let result = self.result.take().unwrap_or_else(stopped);
        let mut waiters = std::mem::take(&mut self.batch.waiters);
        let mut inner = self.shared.lock();
        inner.committing = false;
        if let Err(why) = &result {
            error!(%why, "answers cannot be stored any more");
            inner.broken = Some(why.clone());
            // The records that were handed in meanwhile fail, too.
            waiters.append(&mut std::mem::take(&mut inner.next).waiters);
        }
        let next = self.shared.next_commit(&mut inner);
        drop(inner);
        self.shared.begin(next);
        // A caller that does not wait has dropped its receiver.
        waiters.into_iter().for_each(|waiter| drop(waiter.send(result.clone())));
    }
}
