//! The memory of an item in progress.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::budget::MemoryBudget;
use super::holder::Holder;
use super::response::ResponseMemory;

/// Bytes held until the last clone is dropped.
#[derive(Clone, Default)]
pub struct HeldMemory(pub(super) Option<Arc<Holder>>);

impl MemoryBudget {
    /// Waits until `bytes` are free, after all earlier waits. More than the total fits when
    /// nothing else is held. Cancelling it takes nothing.
    pub async fn take(self: &Arc<Self>, bytes: usize) -> HeldMemory {
        let number = self.acquire(bytes).await;
        HeldMemory(Some(Arc::new(Holder::new(self.clone(), number, bytes))))
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

    /// Creates the memory of a response to a request of this holder. `is_batch` is whether the request has
    /// batch priority. If this is empty, the response becomes a holder of the process's budget itself.
    pub fn response(&self, is_batch: bool) -> ResponseMemory {
        ResponseMemory::new(self.0.clone(), is_batch)
    }

    /// Records that its item waits for something other than its own response, such as the response to
    /// another request: the responses of other items must be able to finish meanwhile.
    pub fn park(&self) {
        if let Some(held) = &self.0 {
            held.budget.lock().end_overflow(|overflow| overflow.holder == held.number);
        }
    }

    /// Returns how long its responses have waited for memory, in total.
    pub fn waited(&self) -> Duration {
        self.0.as_ref().map_or(Duration::ZERO, |held| Duration::from_millis(held.waited_millis.load(Relaxed)))
    }
}

impl fmt::Debug for HeldMemory {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.as_ref().map_or(0, |held| held.bytes.load(Relaxed));
        write!(out, "HeldMemory({bytes})")
    }
}

/// Held memory is not part of the value that it belongs to, so any two are equal.
impl PartialEq for HeldMemory {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
