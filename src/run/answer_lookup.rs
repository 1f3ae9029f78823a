//! Reads answers of the answer cache. Requests that arrive while a query is under way share the next one.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::warn;

use crate::store::{CachedAnswer, Store};
use crate::types::{Fingerprint, error_chain};

/// The most keys of one query. The answers to all of them are in memory at once.
const MAX_KEYS: usize = 512;

/// The queries of one store.
pub(super) struct AnswerLookup {
    store: Arc<dyn Store>,
    runtime: Handle,
    waiting: Mutex<Waiting>,
    /// Whether an error was logged. A cache that cannot be read delays nothing: the requests are sent.
    has_warned: AtomicBool,
}

#[derive(Default)]
struct Waiting {
    lookups: Vec<Lookup>,
    /// Whether a query is under way. When it ends, it begins the next one.
    is_reading: bool,
}

/// A caller that waits for the answers to its keys.
struct Lookup {
    keys: Vec<Fingerprint>,
    found: oneshot::Sender<Vec<Arc<CachedAnswer>>>,
}

impl AnswerLookup {
    pub(super) fn new(store: Arc<dyn Store>, runtime: Handle) -> Arc<Self> {
        Arc::new(Self { store, runtime, waiting: Mutex::default(), has_warned: AtomicBool::new(false) })
    }

    /// Returns the answers with these keys, in any order. There are none if the store cannot be read.
    pub(super) async fn find(self: &Arc<Self>, keys: Vec<Fingerprint>) -> Vec<Arc<CachedAnswer>> {
        let (found_tx, found) = oneshot::channel();
        let begins = {
            let mut waiting = self.lock();
            waiting.lookups.push(Lookup { keys, found: found_tx });
            !std::mem::replace(&mut waiting.is_reading, true)
        };
        if begins {
            // Not under the lock: a runtime that is shutting down drops the task here, and its drop takes the lock.
            drop(self.runtime.spawn(Reading { lookup: self.clone(), has_ended: false }.run()));
        }
        found.await.unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns lookups for one query; `None`, and that no query is under way, if none waits.
    fn next(&self) -> Option<Vec<Lookup>> {
        let mut waiting = self.lock();
        let mut keys = 0;
        let fits = |lookup: &Lookup| {
            keys += lookup.keys.len();
            keys <= MAX_KEYS
        };
        let number = waiting.lookups.iter().map(fits).take_while(|fits| *fits).count();
        let number = number.max(1).min(waiting.lookups.len());
        let lookups: Vec<_> = waiting.lookups.drain(..number).collect();
        waiting.is_reading = !lookups.is_empty();
        waiting.is_reading.then_some(lookups)
    }

    async fn read(&self, lookups: Vec<Lookup>) {
        let keys: Vec<_> = lookups.iter().flat_map(|lookup| lookup.keys.iter().copied()).collect();
        let answers = match self.store.cached_answers(&keys).await {
            Ok(answers) => answers,
            Err(error) => {
                if !self.has_warned.swap(true, Relaxed) {
                    let error = error_chain(&error);
                    warn!(%error, "the answer cache cannot be read, so requests are sent");
                }
                Vec::new()
            }
        };
        let answers: HashMap<_, _> =
            answers.into_iter().map(|answer| (answer.key, Arc::new(answer))).collect();
        for Lookup { keys, found } in lookups {
            let of_keys = keys.iter().filter_map(|key| answers.get(key).cloned()).collect();
            // The caller may have stopped waiting.
            drop(found.send(of_keys));
        }
    }
}

impl fmt::Debug for AnswerLookup {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.store, out)
    }
}

/// The task that queries the store. If it panics or is dropped, no caller waits forever.
struct Reading {
    lookup: Arc<AnswerLookup>,
    /// Whether it has left further lookups to the next task.
    has_ended: bool,
}

impl Reading {
    async fn run(mut self) {
        while let Some(lookups) = self.lookup.next() {
            self.lookup.read(lookups).await;
        }
        self.has_ended = true;
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let left = {
            let mut waiting = self.lookup.lock();
            waiting.is_reading = false;
            std::mem::take(&mut waiting.lookups)
        };
        drop(left);
    }
}
