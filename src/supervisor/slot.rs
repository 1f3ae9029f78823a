//! Stable handle of a child whose address changes with each incarnation.
//!
//! A slot holds an address, which keeps its actor alive, and whether another incarnation may follow. It
//! never starts or stops a child.

use std::fmt;
use std::sync::Arc;

use actix::{Actor, Addr};
use arc_swap::ArcSwapOption;
use tokio::sync::watch;

/// The stable handle of a child. Clones share it; reading it takes no lock.
pub struct Slot<A: Actor>(Arc<SlotState<A>>);

struct SlotState<A: Actor> {
    addr: ArcSwapOption<Addr<A>>,
    /// Whether no incarnation follows by itself any more.
    retired: watch::Sender<bool>,
}

impl<A: Actor> Slot<A> {
    /// Returns the address of the current incarnation; `None` while there is none.
    pub fn get(&self) -> Option<Addr<A>> {
        self.shared().map(|addr| Addr::clone(&addr))
    }

    /// Returns the address as [`get`](Self::get) does, without the two allocations of cloning it.
    pub fn shared(&self) -> Option<Arc<Addr<A>>> {
        self.0.addr.load_full().filter(|addr| addr.connected())
    }

    /// Returns whether no further incarnation follows by itself: the child has exhausted its restarts, or
    /// was removed.
    pub fn is_retired(&self) -> bool {
        *self.0.retired.borrow()
    }

    /// Waits until no further incarnation follows by itself.
    pub async fn retired(&self) {
        // The slot itself holds the sender, so it cannot be closed.
        let _ = self.0.retired.subscribe().wait_for(|retired| *retired).await;
    }

    /// Records that an incarnation is about to start.
    pub(super) fn reopen(&self) {
        self.0.retired.send_if_modified(std::mem::take);
    }

    pub(super) fn set(&self, addr: Addr<A>) {
        self.0.addr.store(Some(Arc::new(addr)));
    }

    pub(super) fn clear(&self) {
        self.0.addr.store(None);
    }

    /// Records that no further incarnation follows by itself.
    pub(super) fn retire(&self) {
        self.clear();
        self.0.retired.send_if_modified(|retired| !std::mem::replace(retired, true));
    }
}

impl<A: Actor> From<Addr<A>> for Slot<A> {
    /// Creates the slot of an actor that no supervisor restarts.
    fn from(addr: Addr<A>) -> Self {
        let slot = Self::default();
        slot.set(addr);
        slot
    }
}

impl<A: Actor> Clone for Slot<A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<A: Actor> Default for Slot<A> {
    fn default() -> Self {
        Self(Arc::new(SlotState { addr: ArcSwapOption::empty(), retired: watch::Sender::new(false) }))
    }
}

impl<A: Actor> fmt::Debug for Slot<A> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(if self.shared().is_some() { "Slot(occupied)" } else { "Slot(empty)" })
    }
}
