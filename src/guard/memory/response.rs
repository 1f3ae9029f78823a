//! The memory of one response while it is read, and the part of it that its answer keeps.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::oneshot;

use super::budget::{MemoryBudget, Overflow, Rank, Waiting};
use super::holder::Holder;

/// Bounds of the bytes taken at once, so that the lock of the budget is not needed for each event of a
/// stream.
const MIN_STEP_BYTES: usize = 64 << 10;
const MAX_STEP_BYTES: usize = 1 << 20;

/// Bytes that a response holds until it is dropped.
pub struct ResponseMemory {
    /// Holder of the response; `None` for a response without a holder that has held nothing yet.
    holder: Option<Arc<Holder>>,
    is_batch: bool,
    /// Number of the response; 0 before it has held anything.
    number: u64,
    bytes: usize,
}

impl ResponseMemory {
    pub(super) fn new(holder: Option<Arc<Holder>>, is_batch: bool) -> Self {
        Self { holder, is_batch, number: 0, bytes: 0 }
    }

    /// Holds at least `bytes` in total, if there is memory for them and no other response waits. Returns
    /// whether it does.
    pub fn try_hold(&mut self, bytes: usize) -> bool {
        let Some(step) = self.step(bytes) else { return true };
        let (holder, response) = self.holder_and_number();
        let mut inner = holder.budget.lock();
        let overflows = inner.overflow == Some(Overflow { holder: holder.number, response });
        let is_granted = overflows || inner.waiting.is_empty() && inner.fits(step);
        if is_granted {
            inner.add(step);
            self.bytes += step;
        }
        is_granted
    }

    /// Waits until it holds at least `bytes` in total. Cancelling it takes no more than it has.
    pub async fn hold(&mut self, bytes: usize) {
        if self.try_hold(bytes) {
            return;
        }
        let Some(step) = self.step(bytes) else { return };
        let (holder, response) = self.holder_and_number();
        Wait::begin(holder, response, self.is_batch, step).granted().await;
        self.bytes += step;
    }

    /// Adds to the time that the holder's responses have waited.
    pub fn record_wait(&self, time: Duration) {
        if let Some(holder) = &self.holder {
            holder.waited_millis.fetch_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), Relaxed);
        }
    }

    /// Ends the response with an answer, of which its holder keeps this many bytes. An overflow passes to
    /// the holder.
    pub fn keep(mut self, bytes: usize) {
        self.transfer_to_holder(bytes);
        // The overflow belongs to the holder now.
        self.number = 0;
    }

    /// Ends the response without an answer; its holder keeps this many bytes of what arrived.
    pub fn fail(mut self, bytes: usize) {
        self.transfer_to_holder(bytes);
    }

    fn transfer_to_holder(&mut self, bytes: usize) {
        let before = std::mem::take(&mut self.bytes);
        let Some(holder) = self.holder.as_ref().filter(|_| before > 0 || bytes > 0) else { return };
        holder.bytes.fetch_add(bytes, Relaxed);
        if bytes > before {
            holder.budget.lock().add(bytes - before);
        } else {
            holder.budget.give_back(before - bytes, |_| false);
        }
    }

    /// Returns how many bytes to take to hold this many; `None` if they are held.
    fn step(&self, bytes: usize) -> Option<usize> {
        let missing = bytes.checked_sub(self.bytes).filter(|missing| *missing > 0)?;
        Some(missing.max((self.bytes / 4).clamp(MIN_STEP_BYTES, MAX_STEP_BYTES)))
    }

    /// Returns the holder and the number of the response, and creates them if there are none.
    fn holder_and_number(&mut self) -> (Arc<Holder>, u64) {
        let holder = self.holder.get_or_insert_with(|| {
            let budget = MemoryBudget::of_process();
            let number = budget.lock().next_number();
            Arc::new(Holder::new(budget, number, 0))
        });
        if self.number == 0 {
            self.number = holder.budget.lock().next_number();
        }
        (holder.clone(), self.number)
    }
}

impl Drop for ResponseMemory {
    fn drop(&mut self) {
        // A small response never took any memory.
        if let Some(holder) = self.holder.as_ref().filter(|_| self.number > 0) {
            let number = self.number;
            holder.budget.give_back(self.bytes, |overflow| overflow.response == number);
        }
    }
}

impl fmt::Debug for ResponseMemory {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "ResponseMemory({})", self.bytes)
    }
}

/// A wait for memory. Dropping it before it is over takes nothing.
struct Wait {
    budget: Arc<MemoryBudget>,
    rank: Rank,
    bytes: usize,
    granted: oneshot::Receiver<()>,
    is_over: bool,
}

impl Wait {
    fn begin(holder: Arc<Holder>, response: u64, is_batch: bool, bytes: usize) -> Self {
        let budget = holder.budget.clone();
        let (sender, granted) = oneshot::channel();
        let mut inner = budget.lock();
        let rank = Rank { is_batch, holder: holder.number, wait: inner.next_number() };
        inner.waiting.insert(rank, Waiting { bytes, response, granted: sender });
        inner.serve();
        drop(inner);
        Self { budget, rank, bytes, granted, is_over: false }
    }

    async fn granted(mut self) {
        // The sender is dropped only with the budget, so an error cannot occur while `self.budget` is held.
        let _ = (&mut self.granted).await;
        self.is_over = true;
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let was_waiting = self.budget.lock().waiting.remove(&self.rank).is_some();
        // Memory granted meanwhile is returned. The call also serves the next wait, which may need less.
        self.budget.give_back(if was_waiting { 0 } else { self.bytes }, |_| false);
    }
}
