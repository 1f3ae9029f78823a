//! Names a child whose address changes with each life.
//!
//! A slot keeps its child alive (an address is held), and never starts or stops one.

use std::fmt;
use std::sync::Arc;

use actix::{Actor, Addr};
use arc_swap::ArcSwapOption;

/// The stable name of a child. Clones share it; reading it takes no lock.
pub struct Slot<A: Actor>(Arc<ArcSwapOption<Addr<A>>>);

impl<A: Actor> Slot<A> {
    /// Returns the address of the present life; `None` while there is none.
    pub fn get(&self) -> Option<Addr<A>> {
        self.shared().map(|addr| Addr::clone(&addr))
    }

    /// Returns the address as [`get`](Self::get) does, without the two allocations that cloning one costs.
    pub fn shared(&self) -> Option<Arc<Addr<A>>> {
        self.0.load_full().filter(|addr| addr.connected())
    }

    pub(super) fn set(&self, addr: Addr<A>) {
        self.0.store(Some(Arc::new(addr)));
    }

    pub(super) fn clear(&self) {
        self.0.store(None);
    }
}

impl<A: Actor> From<Addr<A>> for Slot<A> {
    /// Makes the name of an actor that no supervisor restarts.
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
        Self(Arc::default())
    }
}

impl<A: Actor> fmt::Debug for Slot<A> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(if self.shared().is_some() { "Slot(occupied)" } else { "Slot(empty)" })
    }
}
