//! One holder of memory: an item in progress, or a response without one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use super::budget::MemoryBudget;

/// Returns its bytes, and the overflow if it has it, when it is dropped.
pub(super) struct Holder {
    pub(super) budget: Arc<MemoryBudget>,
    /// Number of the holder; older ones have smaller numbers.
    pub(super) number: u64,
    pub(super) bytes: AtomicUsize,
    /// Milliseconds for which its responses have waited for memory.
    pub(super) waited_millis: AtomicU64,
}

impl Holder {
    pub(super) fn new(budget: Arc<MemoryBudget>, number: u64, bytes: usize) -> Self {
        let bytes = AtomicUsize::new(bytes);
        Self { budget, number, bytes, waited_millis: AtomicU64::new(0) }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let number = self.number;
        let bytes = *self.bytes.get_mut();
        self.budget.give_back(bytes, |overflow| overflow.holder == number);
    }
}
