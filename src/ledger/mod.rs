//! Commits what must survive: many records at a time, in the order in which they came.
//!
//! While one commit is under way the next one gathers, so that a fast run pays for few and a slow one waits for
//! none. A commit is a task of its own: its panic costs a second try, no record. Whoever hands in records is
//! told when they are durable, or that they never will be; after the first failure nothing more is taken, so
//! that nobody pays for answers that cannot be kept. Knows nothing of what it keeps.

#[cfg(test)]
#[cfg(feature = "sqlite")]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::error;

use crate::chaos;
use crate::store::{Record, Store};
use crate::types::whole_story;

/// Panics in a row of the task that commits after which it is given up.
const PANICS: u32 = 3;

/// Why nothing can be kept any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unkept(pub Arc<str>);

/// Where records are handed in. Clones are the same ledger.
#[derive(Clone)]
pub struct Ledger(Arc<Shared>);

struct Shared {
    store: Arc<dyn Store>,
    runtime: Handle,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    next: Batch,
    /// Whether a commit is under way; it looks for the next batch when it ends.
    committing: bool,
    panics: u32,
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
        Self(Arc::new(Shared { store, runtime, inner: Mutex::default() }))
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
            self.0.commit_next(&mut inner);
        }
        drop(inner);
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
    /// Begins the next commit, if there is anything to commit and none is under way.
    fn commit_next(self: &Arc<Self>, inner: &mut Inner) {
        if inner.committing || inner.next.waiting.is_empty() || inner.broken.is_some() {
            return;
        }
        inner.committing = true;
        let commit = Commit { shared: self.clone(), batch: std::mem::take(&mut inner.next), result: None };
        drop(self.runtime.spawn(commit.run()));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A commit under way. However its task ends, its batch is dealt with.
struct Commit {
    shared: Arc<Shared>,
    batch: Batch,
    result: Option<Result<(), Unkept>>,
}

impl Commit {
    async fn run(mut self) {
        chaos::point("ledger.commit");
        let written = self.shared.store.write(&self.batch.records).await;
        chaos::point("ledger.committed");
        self.result = Some(written.map_err(|error| Unkept(whole_story(&error).into())));
    }
}

impl Drop for Commit {
    fn drop(&mut self) {
        let shared = self.shared.clone();
        let mut inner = shared.lock();
        inner.committing = false;
        let result = match self.result.take() {
            Some(result) => {
                inner.panics = 0;
                result
            }
            None if inner.panics + 1 < PANICS => {
                inner.panics += 1;
                // Written twice is as good as once: a record says everything that its session knows.
                let Batch { records, waiting } = std::mem::take(&mut inner.next);
                self.batch.records.extend(records);
                self.batch.waiting.extend(waiting);
                inner.next = std::mem::take(&mut self.batch);
                return shared.commit_next(&mut inner);
            }
            None => Err(Unkept("the task that writes down answers panicked again and again".into())),
        };
        let mut told = std::mem::take(&mut self.batch.waiting);
        if let Err(why) = &result {
            error!(%why, "answers cannot be kept any more");
            inner.broken = Some(why.clone());
            // What was handed in meanwhile is not kept either.
            told.append(&mut std::mem::take(&mut inner.next).waiting);
        }
        shared.commit_next(&mut inner);
        drop(inner);
        // Whoever does not wait has gone.
        told.into_iter().for_each(|one| drop(one.send(result.clone())));
    }
}
