//! The limit on the bytes held together, and the order in which responses get memory.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, Notify, oneshot};

use crate::telemetry::{Samples, table};

/// The total if nothing else is configured.
pub const DEFAULT_TOTAL: usize = 1 << 30;

/// The budget of this process.
static PROCESS: LazyLock<Arc<MemoryBudget>> = LazyLock::new(|| Arc::new(MemoryBudget::new(DEFAULT_TOTAL)));

/// A limit on bytes held together.
#[derive(Debug)]
pub struct MemoryBudget {
    inner: Mutex<Inner>,
    /// Held by the intake that gets memory next.
    intake_lock: AsyncMutex<()>,
    freed: Notify,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) total: usize,
    used: usize,
    /// The most bytes held at once.
    peak: usize,
    /// The last number given to a holder, response or wait; older ones have smaller numbers.
    last_number: u64,
    pub(super) waiting: BTreeMap<Rank, Waiting>,
    pub(super) overflow: Option<Overflow>,
}

/// Order in which responses are served: interactive ones first, then by the age of the item, then by the
/// time of the wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) is_batch: bool,
    pub(super) holder: u64,
    pub(super) wait: u64,
}

/// A response that waits for more memory.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) bytes: usize,
    pub(super) response: u64,
    pub(super) granted: oneshot::Sender<()>,
}

/// The response that may exceed the total, and its holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overflow {
    pub(super) holder: u64,
    pub(super) response: u64,
}

impl MemoryBudget {
    /// Creates a budget of this many bytes.
    pub fn new(total: usize) -> Self {
        let inner =
            Inner { total, used: 0, peak: 0, last_number: 0, waiting: BTreeMap::new(), overflow: None };
        Self { inner: Mutex::new(inner), intake_lock: AsyncMutex::new(()), freed: Notify::new() }
    }

    /// Returns the budget shared by everything in this process.
    pub fn of_process() -> Arc<Self> {
        PROCESS.clone()
    }

    /// Changes the total. Memory that is held stays held.
    pub fn set_total(&self, total: usize) {
        let mut inner = self.lock();
        inner.total = total;
        inner.serve();
        drop(inner);
        self.freed.notify_waiters();
    }

    /// Returns the bytes held.
    pub fn used(&self) -> usize {
        self.lock().used
    }

    /// Returns the most bytes held at once.
    pub fn peak(&self) -> usize {
        self.lock().peak
    }

    /// Adds its values to `samples`.
    pub fn report_metrics(&self, samples: &mut Samples) {
        samples.gauge(&table::MEMORY_RESERVED_BYTES, &[], self.used() as f64);
    }

    /// Waits until `bytes` are free, after all earlier waits, and takes them; returns the number of
    /// the holder. Cancelling it takes nothing.
    pub(super) async fn acquire(&self, bytes: usize) -> u64 {
        let _lock = self.intake_lock.lock().await;
        loop {
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            if let Some(number) = self.try_take(bytes) {
                return number;
            }
            freed.await;
        }
    }

    /// Takes `bytes` if they are free; returns the number of the holder.
    fn try_take(&self, bytes: usize) -> Option<u64> {
        let mut inner = self.lock();
        let fits = inner.waiting.is_empty() && (inner.used == 0 || inner.fits(bytes));
        fits.then(|| {
            inner.add(bytes);
            inner.next_number()
        })
    }

    /// Returns bytes, and ends the overflow if `is_of` matches it.
    pub(super) fn give_back(&self, bytes: usize, is_of: impl FnOnce(Overflow) -> bool) {
        let mut inner = self.lock();
        inner.used = inner.used.saturating_sub(bytes);
        inner.end_overflow(is_of);
        drop(inner);
        self.freed.notify_waiters();
    }

    /// A panic while the lock was held leaves only numbers, so a poisoned lock is usable.
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    pub(super) fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    pub(super) fn fits(&self, bytes: usize) -> bool {
        self.used.saturating_add(bytes) <= self.total
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.used = self.used.saturating_add(bytes);
        self.peak = self.peak.max(self.used);
    }

    /// Grants memory to waiting responses in their order, and the overflow to the first one that does not
    /// fit.
    pub(super) fn serve(&mut self) {
        while let Some((rank, first)) = self.waiting.first_key_value() {
            let overflow = Overflow { holder: rank.holder, response: first.response };
            if !self.fits(first.bytes) {
                if self.overflow.is_some_and(|other| other != overflow) {
                    return;
                }
                self.overflow = Some(overflow);
            }
            let Some((_, Waiting { bytes, granted, .. })) = self.waiting.pop_first() else { return };
            self.add(bytes);
            // A response that no longer waits notices that the memory was granted and returns it.
            let _ = granted.send(());
        }
    }

    /// Ends the overflow if `is_of` matches it, and serves all that wait.
    pub(super) fn end_overflow(&mut self, is_of: impl FnOnce(Overflow) -> bool) {
        self.overflow = self.overflow.filter(|overflow| !is_of(*overflow));
        self.serve();
    }
}
