//! The memory of one reply while it is read, and what its answer keeps of it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Held, MemoryBudget, Overflow, Rank, Waiting};

/// The least and the most that is taken at once: the lock of the budget is not needed for each event of a stream.
const MIN_STEP: usize = 64 << 10;
const MAX_STEP: usize = 1 << 20;

/// Bytes that a reply holds until it is dropped.
pub struct ReplyMemory {
    /// Whose reply it is; `None` before it has held anything, where it is nobody's.
    holder: Option<Arc<Held>>,
    is_batch: bool,
    /// Its number among the replies; 0 before it has held anything.
    number: u64,
    bytes: usize,
}

impl ReplyMemory {
    pub(super) fn new(holder: Option<Arc<Held>>, is_batch: bool) -> Self {
        Self { holder, is_batch, number: 0, bytes: 0 }
    }

    /// Holds `bytes` at least, all together, if there is memory for them and no other reply waits. Returns whether it does.
    pub fn try_hold(&mut self, bytes: usize) -> bool {
        let Some(step) = self.step(bytes) else { return true };
        let (holder, reply) = self.begin();
        let mut inner = holder.budget.lock();
        let overflows = inner.overflow == Some(Overflow { holder: holder.number, reply });
        let is_granted = overflows || inner.waiting.is_empty() && inner.fits(step);
        if is_granted {
            inner.add(step);
            self.bytes += step;
        }
        is_granted
    }

    /// Waits until it holds `bytes` at least, all together. Cancelling it takes no more than it has.
    pub async fn hold(&mut self, bytes: usize) {
        if self.try_hold(bytes) {
            return;
        }
        let Some(step) = self.step(bytes) else { return };
        let (holder, reply) = self.begin();
        Wait::begin(holder, reply, self.is_batch, step).granted().await;
        self.bytes += step;
    }

    /// Notes how long it has waited.
    pub fn waited(&self, time: Duration) {
        if let Some(holder) = &self.holder {
            holder.waited.fetch_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), Relaxed);
        }
    }

    /// Ends the reply with an answer, of which its holder keeps so many bytes. It goes on to overflow if it did.
    pub fn keep(mut self, bytes: usize) {
        self.pass_on(bytes);
        // Its holder has the place now.
        self.number = 0;
    }

    /// Ends the reply without an answer; its holder keeps so many bytes of what came.
    pub fn fail(mut self, bytes: usize) {
        self.pass_on(bytes);
    }

    fn pass_on(&mut self, bytes: usize) {
        let before = std::mem::take(&mut self.bytes);
        let Some(holder) = self.holder.as_ref().filter(|_| before > 0 || bytes > 0) else { return };
        holder.bytes.fetch_add(bytes, Relaxed);
        if bytes > before {
            holder.budget.lock().add(bytes - before);
        } else {
            holder.budget.give_back(before - bytes, |_| false);
        }
    }

    /// Returns how many bytes are to be taken to hold so many; `None` when they are held.
    fn step(&self, bytes: usize) -> Option<usize> {
        let missing = bytes.checked_sub(self.bytes).filter(|missing| *missing > 0)?;
        Some(missing.max((self.bytes / 4).clamp(MIN_STEP, MAX_STEP)))
    }

    /// Returns its holder and its number, made where it has none.
    fn begin(&mut self) -> (Arc<Held>, u64) {
        let holder = self.holder.get_or_insert_with(|| {
            let budget = MemoryBudget::of_process();
            let number = budget.lock().number();
            Arc::new(Held::new(budget, number, 0))
        });
        if self.number == 0 {
            self.number = holder.budget.lock().number();
        }
        (holder.clone(), self.number)
    }
}

impl Drop for ReplyMemory {
    fn drop(&mut self) {
        // A small reply has never asked for any.
        if let Some(holder) = self.holder.as_ref().filter(|_| self.number > 0) {
            let number = self.number;
            holder.budget.give_back(self.bytes, |overflow| overflow.reply == number);
        }
    }
}

impl fmt::Debug for ReplyMemory {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "ReplyMemory({})", self.bytes)
    }
}

/// A wait for memory, which takes nothing when it is dropped before its end is known.
struct Wait {
    budget: Arc<MemoryBudget>,
    rank: Rank,
    bytes: usize,
    granted: oneshot::Receiver<()>,
    is_over: bool,
}

impl Wait {
    fn begin(holder: Arc<Held>, reply: u64, is_batch: bool, bytes: usize) -> Self {
        let budget = holder.budget.clone();
        let (sender, granted) = oneshot::channel();
        let mut inner = budget.lock();
        let rank = Rank { is_batch, holder: holder.number, wait: inner.number() };
        inner.waiting.insert(rank, Waiting { bytes, reply, granted: sender });
        inner.serve();
        drop(inner);
        Self { budget, rank, bytes, granted, is_over: false }
    }

    async fn granted(mut self) {
        // The sender is dropped only with the budget.
        let _ = (&mut self.granted).await;
        self.is_over = true;
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let waits = self.budget.lock().waiting.remove(&self.rank).is_some();
        // What was granted meanwhile is given back. The next may be one that needs less.
        self.budget.give_back(if waits { 0 } else { self.bytes }, |_| false);
    }
}
