//! Commits what must survive: many records at a time, in the order in which they came.
//!
//! While one commit is under way the next one gathers, so that a fast run pays for few and a slow one waits for
//! none. A commit is a task of its own: its panic costs a second try, no record. Whoever hands in records is
//! told when they are durable, or that they never will be; after the first failure nothing more is taken, so
//! that nobody pays for answers that cannot be kept. Knows nothing of what it keeps.
//!
//! A task is spawned only after the lock is released: a runtime that is shutting down drops the task within the
//! call that spawns it, and the task's drop takes the lock.

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
use tracing::error;

use crate::chaos;
use crate::store::{self, Record, Store};
use crate::types::{LaneName, whole_story};

/// Panics in a row of the task that commits after which it is given up.
const PANICS: u32 = 3;

/// Why nothing can be kept any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unkept(pub Arc<str>);

/// Returns the calls to each target that have left since it was last called.
pub type LeftCalls = Box<dyn Fn() -> BTreeMap<LaneName, u64> + Send + Sync>;

/// Where records are handed in. Clones are the same ledger.
#[derive(Clone)]
pub struct Ledger(Arc<Shared>);

struct Shared {
    store: Arc<dyn Store>,
    runtime: Handle,
    /// What the store counts with each commit.
    left_calls: Option<LeftCalls>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    next: Batch,
    /// Whether a commit is under way; it looks for the next batch when it ends.
    committing: bool,
    broken: Option<Unkept>,
}

/// Records that are committed together, and who waits for that.
#[derive(Default)]
struct Batch {
    records: Vec<Record>,
    waiting: Vec<oneshot::Sender<Result<(), Unkept>>>,
}

impl Ledger {
    /// Makes the ledger of `store`; commits run on `runtime`.
    pub fn new(store: Arc<dyn Store>, runtime: Handle) -> Self {
        Self::counting(store, runtime, None)
    }

    /// As [`new`](Self::new), and each commit has the store count the calls that `left_calls` returns.
    pub fn counting(store: Arc<dyn Store>, runtime: Handle, left_calls: Option<LeftCalls>) -> Self {
        Self(Arc::new(Shared { store, runtime, left_calls, inner: Mutex::default() }))
    }

    /// Returns the store that it writes to, for reading.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }

    /// Hands in records that belong together, and returns when they are durable. They are kept also if nobody
    /// waits for that.
    ///
    /// # Errors
    /// When they are not, and never will be.
    pub fn record(
        &self,
        records: Vec<Record>,
    ) -> impl Future<Output = Result<(), Unkept>> + Send + 'static + use<> {
        let (told, durable) = oneshot::channel();
        let mut inner = self.0.lock();
        let broken = inner.broken.clone();
        if broken.is_none() {
            inner.next.records.extend(records);
            inner.next.waiting.push(told);
        }
        let next = self.0.next_commit(&mut inner);
        drop(inner);
        self.0.begin(next);
        async move {
            match broken {
                Some(why) => Err(why),
                None => durable.await.unwrap_or_else(|_| Err(Unkept("the ledger has stopped".into()))),
            }
        }
    }

    /// Returns when everything is durable that was handed in before.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub async fn settle(&self) -> Result<(), Unkept> {
        self.record(Vec::new()).await
    }

    /// Returns why nothing can be kept any more; `None` while all is well.
    pub fn broken(&self) -> Option<Unkept> {
        self.0.lock().broken.clone()
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0.store, out)
    }
}

impl Shared {
    /// Returns the next commit, if there is anything to commit and none is under way.
    fn next_commit(self: &Arc<Self>, inner: &mut Inner) -> Option<Commit> {
        if inner.committing || inner.next.waiting.is_empty() || inner.broken.is_some() {
            return None;
        }
        inner.committing = true;
        let batch = std::mem::take(&mut inner.next);
        Some(Commit { shared: self.clone(), batch, calls: BTreeMap::new(), result: None })
    }

    /// Begins a commit. The caller does not hold the lock: a runtime that has stopped drops the commit here.
    fn begin(&self, commit: Option<Commit>) {
        if let Some(commit) = commit {
            drop(self.runtime.spawn(commit.run()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A commit under way. However its task ends, its batch is dealt with.
struct Commit {
    shared: Arc<Shared>,
    batch: Batch,
    /// Calls that the store has yet to count.
    calls: BTreeMap<LaneName, u64>,
    /// `None` until the store has said something: a commit that is dropped before was dropped with its runtime.
    result: Option<Result<(), Unkept>>,
}

impl Commit {
    async fn run(mut self) {
        let mut panics = 0;
        let result = loop {
            // Written twice is as good as once: a record says everything that its session knows.
            match AssertUnwindSafe(self.write()).catch_unwind().await {
                Ok(result) => break result,
                Err(_) if panics + 1 < PANICS => panics += 1,
                Err(_) => {
                    break Err(Unkept("the task that writes down answers panicked again and again".into()));
                }
            }
        };
        self.result = Some(result);
    }

    async fn write(&mut self) -> Result<(), Unkept> {
        let unkept = |error: store::Error| Unkept(whole_story(&error).into());
        chaos::point("ledger.commit");
        for (target, calls) in self.shared.left_calls.iter().flat_map(|left_calls| left_calls()) {
            *self.calls.entry(target).or_default() += calls;
        }
        if !self.calls.is_empty() {
            self.shared.store.count_calls(&self.calls).await.map_err(unkept)?;
            // Before anything can panic: a second try must not count them twice.
            self.calls.clear();
        }
        let written = self.shared.store.write(&self.batch.records).await;
        chaos::point("ledger.committed");
        written.map_err(unkept)
    }
}

impl Drop for Commit {
    fn drop(&mut self) {
        let stopped = || Err(Unkept("everything was stopped before the answers were written down".into()));
        let result = self.result.take().unwrap_or_else(stopped);
        let mut told = std::mem::take(&mut self.batch.waiting);
        let mut inner = self.shared.lock();
        inner.committing = false;
        if let Err(why) = &result {
            error!(%why, "answers cannot be kept any more");
            inner.broken = Some(why.clone());
            // What was handed in meanwhile is not kept either.
            told.append(&mut std::mem::take(&mut inner.next).waiting);
        }
        let next = self.shared.next_commit(&mut inner);
        drop(inner);
        self.shared.begin(next);
        // Whoever does not wait has gone.
        told.into_iter().for_each(|one| drop(one.send(result.clone())));
    }
}
