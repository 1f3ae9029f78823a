//! A limit on the bytes that records, prompts and answers in progress may take together, in the whole process.
//!
//! Intake waits for room, in order. What belongs to an item that is in progress already is counted without waiting:
//! an item that waited for memory while it holds some could wait for itself. So the total can be passed by what the
//! items in progress become, and intake then waits for longer. Sizes are estimates.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};

use tokio::sync::{Mutex, Notify};

/// The total when nothing else is said.
pub const DEFAULT_TOTAL: usize = 1 << 30;

/// The budget of this process.
static PROCESS: LazyLock<Arc<MemoryBudget>> = LazyLock::new(|| Arc::new(MemoryBudget::new(DEFAULT_TOTAL)));

/// Bytes that may be held together.
#[derive(Debug)]
pub struct MemoryBudget {
    total: AtomicUsize,
    used: AtomicUsize,
    /// Held by the one whose turn it is to wait for room.
    turn: Mutex<()>,
    freed: Notify,
}

impl MemoryBudget {
    /// Makes a budget of so many bytes.
    pub fn new(total: usize) -> Self {
        Self {
            total: AtomicUsize::new(total),
            used: AtomicUsize::new(0),
            turn: Mutex::new(()),
            freed: Notify::new(),
        }
    }

    /// Returns the budget that everything in this process shares.
    pub fn of_process() -> Arc<Self> {
        PROCESS.clone()
    }

    /// Changes the total. What is held stays held.
    pub fn set_total(&self, total: usize) {
        self.total.store(total, Relaxed);
        self.freed.notify_waiters();
    }

    /// Returns how many bytes are held.
    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// Waits until there is room for `bytes`, after all who wait already. More than the total fits when nothing else
    /// is held. Cancelling it takes nothing.
    pub async fn take(self: &Arc<Self>, bytes: usize) -> HeldMemory {
        let _turn = self.turn.lock().await;
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            if self.try_take(bytes) {
                return HeldMemory(Some(Arc::new(Held {
                    budget: self.clone(),
                    bytes: AtomicUsize::new(bytes),
                })));
            }
            freed.await;
        }
    }

    fn try_take(&self, bytes: usize) -> bool {
        let total = self.total.load(Relaxed);
        let with = |used: usize| {
            let after = used.saturating_add(bytes);
            (used == 0 || after <= total).then_some(after)
        };
        self.used.fetch_update(Relaxed, Relaxed, with).is_ok()
    }
}

/// Bytes that are held until the last clone of this is dropped.
#[derive(Clone, Default)]
pub struct HeldMemory(Option<Arc<Held>>);

struct Held {
    budget: Arc<MemoryBudget>,
    bytes: AtomicUsize,
}

impl HeldMemory {
    /// Holds more, without waiting.
    pub fn add(&self, bytes: usize) {
        if let Some(held) = &self.0 {
            held.bytes.fetch_add(bytes, Relaxed);
            held.budget.used.fetch_add(bytes, Relaxed);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(*self.bytes.get_mut(), Relaxed);
        self.budget.freed.notify_waiters();
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn intake_waits_for_room_in_order() {
        let budget = Arc::new(MemoryBudget::new(100));
        let first = budget.take(70).await;
        let mut large = Box::pin(budget.take(60));
        let mut small = Box::pin(budget.take(10));
        assert!(large.as_mut().now_or_never().is_none());
        assert!(small.as_mut().now_or_never().is_none(), "it does not overtake");
        drop(first);
        let large = large.await;
        assert_eq!((budget.used(), small.now_or_never().is_some()), (60, true));
        drop(large);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn what_is_larger_than_the_total_passes_when_it_is_alone() {
        let budget = Arc::new(MemoryBudget::new(100));
        let one = budget.take(1).await;
        let mut huge = Box::pin(budget.take(1_000));
        assert!(huge.as_mut().now_or_never().is_none());
        drop(one);
        let huge = huge.await;
        assert!(budget.take(1).now_or_never().is_none());
        drop(huge);
        assert!(budget.take(1).now_or_never().is_some());
    }

    #[tokio::test]
    async fn what_an_item_in_progress_becomes_is_counted_without_waiting_and_slows_intake() {
        let budget = Arc::new(MemoryBudget::new(100));
        let item = budget.take(10).await;
        item.add(500);
        let clone = item.clone();
        drop(item);
        assert_eq!(budget.used(), 510);
        assert!(budget.take(1).now_or_never().is_none());
        drop(clone);
        assert_eq!(budget.used(), 0);
        assert!(budget.take(1).now_or_never().is_some());
    }

    #[tokio::test]
    async fn who_stops_waiting_leaves_the_turn_to_the_next() {
        let budget = Arc::new(MemoryBudget::new(100));
        let held = budget.take(100).await;
        let mut gone = Box::pin(budget.take(50));
        assert!(gone.as_mut().now_or_never().is_none());
        let mut next = Box::pin(budget.take(50));
        assert!(next.as_mut().now_or_never().is_none());
        drop(gone);
        drop(held);
        drop(next.await);
        assert_eq!(budget.used(), 0);
    }
}
