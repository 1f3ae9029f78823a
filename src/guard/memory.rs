//! A limit on the bytes that records, prompts, replies and answers in progress may take together, in the whole process.
//!
//! Intake waits for room, in order, and a reply that is being read waits in the middle of being read
//! ([`ReplyMemory`]). What else belongs to an item in progress (its prompts, what a small answer becomes) is counted
//! without waiting: an item that waited for memory while it holds some could wait for itself. Sizes are estimates.
//!
//! Replies wait in the order of their items, the oldest first, and before intake. So that they cannot all wait for each
//! other, one of them may take more than there is: it *overflows*. There is one such place. It is free again once the reply
//! is given up, its item has ended and given its memory back, or its item waits for something else
//! ([`HeldMemory::park`]). While replies wait, the place is taken by one that does not wait.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as Turn, Notify, oneshot};

#[cfg(test)]
mod histories;
mod reply;
#[cfg(test)]
mod tests;

pub use reply::ReplyMemory;

/// The total when nothing else is said.
pub const DEFAULT_TOTAL: usize = 1 << 30;

/// The budget of this process.
static PROCESS: LazyLock<Arc<MemoryBudget>> = LazyLock::new(|| Arc::new(MemoryBudget::new(DEFAULT_TOTAL)));

/// Bytes that may be held together.
#[derive(Debug)]
pub struct MemoryBudget {
    inner: Mutex<Inner>,
    /// Held by the intake whose turn it is to wait for room.
    turn: Turn<()>,
    freed: Notify,
}

#[derive(Debug)]
struct Inner {
    total: usize,
    used: usize,
    /// The most that was held at once.
    peak: usize,
    /// Numbers that were given to holders, replies and waits, so that the older is the smaller.
    numbers: u64,
    waiting: BTreeMap<Rank, Waiting>,
    overflow: Option<Overflow>,
}

/// Which reply is served first: those of people, then the oldest item's, then the one that waits the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    is_batch: bool,
    holder: u64,
    wait: u64,
}

/// A reply that waits for more memory.
#[derive(Debug)]
struct Waiting {
    bytes: usize,
    reply: u64,
    granted: oneshot::Sender<()>,
}

/// The reply that may take more than there is, and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Overflow {
    holder: u64,
    reply: u64,
}

impl MemoryBudget {
    /// Makes a budget of so many bytes.
    pub fn new(total: usize) -> Self {
        let inner = Inner { total, used: 0, peak: 0, numbers: 0, waiting: BTreeMap::new(), overflow: None };
        Self { inner: Mutex::new(inner), turn: Turn::new(()), freed: Notify::new() }
    }

    /// Returns the budget that everything in this process shares.
    pub fn of_process() -> Arc<Self> {
        PROCESS.clone()
    }

    /// Changes the total. What is held stays held.
    pub fn set_total(&self, total: usize) {
        let mut inner = self.lock();
        inner.total = total;
        inner.serve();
        drop(inner);
        self.freed.notify_waiters();
    }

    /// Returns how many bytes are held.
    pub fn used(&self) -> usize {
        self.lock().used
    }

    /// Returns how many bytes were held at once, at most.
    pub fn peak(&self) -> usize {
        self.lock().peak
    }

    /// Waits until there is room for `bytes`, after all who wait already. More than the total fits when nothing else
    /// is held. Cancelling it takes nothing.
    pub async fn take(self: &Arc<Self>, bytes: usize) -> HeldMemory {
        let _turn = self.turn.lock().await;
        loop {
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            if let Some(number) = self.try_take(bytes) {
                return HeldMemory(Some(Arc::new(Held::new(self.clone(), number, bytes))));
            }
            freed.await;
        }
    }

    /// Takes `bytes` if there is room for them; returns the number of the holder.
    fn try_take(&self, bytes: usize) -> Option<u64> {
        let mut inner = self.lock();
        let fits = inner.waiting.is_empty() && (inner.used == 0 || inner.fits(bytes));
        fits.then(|| {
            inner.add(bytes);
            inner.number()
        })
    }

    /// Takes bytes back, and the place of the reply that overflows if that is `of` those that held them.
    fn give_back(&self, bytes: usize, of: impl FnOnce(Overflow) -> bool) {
        let mut inner = self.lock();
        inner.used = inner.used.saturating_sub(bytes);
        inner.end_overflow(of);
        drop(inner);
        self.freed.notify_waiters();
    }

    /// A panic while the lock was held leaves numbers: go on with them.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn fits(&self, bytes: usize) -> bool {
        self.used.saturating_add(bytes) <= self.total
    }

    fn add(&mut self, bytes: usize) {
        self.used = self.used.saturating_add(bytes);
        self.peak = self.peak.max(self.used);
    }

    /// Gives the replies that wait, in their order, what there is, and the first for which there is not enough the place of
    /// the one that overflows.
    fn serve(&mut self) {
        while let Some((rank, first)) = self.waiting.first_key_value() {
            let overflow = Overflow { holder: rank.holder, reply: first.reply };
            if !self.fits(first.bytes) {
                if self.overflow.is_some_and(|other| other != overflow) {
                    return;
                }
                self.overflow = Some(overflow);
            }
            let Some((_, Waiting { bytes, granted, .. })) = self.waiting.pop_first() else { return };
            self.add(bytes);
            // One that does not wait any more finds that it was granted, and gives it back.
            let _ = granted.send(());
        }
    }

    /// Takes the place of the reply that overflows back, if that is one `of` those, and serves all that wait.
    fn end_overflow(&mut self, of: impl FnOnce(Overflow) -> bool) {
        self.overflow = self.overflow.filter(|overflow| !of(*overflow));
        self.serve();
    }
}

/// Bytes that are held until the last clone of this is dropped.
#[derive(Clone, Default)]
pub struct HeldMemory(Option<Arc<Held>>);

struct Held {
    budget: Arc<MemoryBudget>,
    /// Its number among the holders: the older is the smaller.
    number: u64,
    bytes: AtomicUsize,
    /// How many milliseconds its replies have waited for memory.
    waited: AtomicU64,
}

impl Held {
    fn new(budget: Arc<MemoryBudget>, number: u64, bytes: usize) -> Self {
        Self { budget, number, bytes: AtomicUsize::new(bytes), waited: AtomicU64::new(0) }
    }
}

impl HeldMemory {
    /// Holds more, without waiting.
    pub fn add(&self, bytes: usize) {
        if let Some(held) = &self.0 {
            held.bytes.fetch_add(bytes, Relaxed);
            held.budget.lock().add(bytes);
        }
    }

    /// Makes the memory of a reply to a request of this holder; `is_batch` is whether people do not wait for it. Where this
    /// is empty, the reply is a holder of the process's budget itself.
    pub fn reply(&self, is_batch: bool) -> ReplyMemory {
        ReplyMemory::new(self.0.clone(), is_batch)
    }

    /// Notes that its owner waits for something else than its own reply, such as the reply to another request: replies of
    /// others must be able to end meanwhile.
    pub fn park(&self) {
        if let Some(held) = &self.0 {
            held.budget.lock().end_overflow(|overflow| overflow.holder == held.number);
        }
    }

    /// Returns how long its replies have waited for memory, all together.
    pub fn waited(&self) -> Duration {
        self.0.as_ref().map_or(Duration::ZERO, |held| Duration::from_millis(held.waited.load(Relaxed)))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let (number, bytes) = (self.number, *self.bytes.get_mut());
        self.budget.give_back(bytes, |overflow| overflow.holder == number);
    }
}

impl fmt::Debug for HeldMemory {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.as_ref().map_or(0, |held| held.bytes.load(Relaxed));
        write!(out, "HeldMemory({bytes})")
    }
}

/// What is held is no part of a value.
impl PartialEq for HeldMemory {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
