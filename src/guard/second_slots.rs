//! One value for each of the last seconds.
//!
//! The caller passes `now`.

use std::ops::RangeBounds;

use tokio::time::Instant;

/// The values of the last `N` seconds, the current second included.
#[derive(Debug)]
pub(crate) struct SecondSlots<T, const N: usize> {
    origin: Instant,
    slots: [Slot<T>; N],
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot<T> {
    /// The second that it was last used for.
    second: u64,
    value: T,
}

impl<T: Copy + Default, const N: usize> SecondSlots<T, N> {
    pub(crate) fn new(now: Instant) -> Self {
        Self { origin: now, slots: [Slot::default(); N] }
    }

    /// Returns the number of the second at `now`. Seconds count from 1, so that an unused slot never matches the
    /// current second.
    pub(crate) fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.origin).as_secs() + 1
    }

    /// Returns the value of the second at `now`, which begins with the default.
    pub(crate) fn value_mut(&mut self, now: Instant) -> &mut T {
        let second = self.second(now);
        let slot = self.slot_mut(second);
        if slot.second != second {
            *slot = Slot { second, value: T::default() };
        }
        &mut slot.value
    }

    /// Returns the value of the second at `then`; `None` if its slot is used for another second.
    pub(crate) fn past_value_mut(&mut self, then: Instant) -> Option<&mut T> {
        let second = self.second(then);
        let slot = self.slot_mut(second);
        (slot.second == second).then_some(&mut slot.value)
    }

    /// Returns the values of these seconds, in no particular order.
    pub(crate) fn values(&self, seconds: impl RangeBounds<u64>) -> impl Iterator<Item = T> {
        let slots = self.slots.iter().filter(move |slot| seconds.contains(&slot.second));
        slots.map(|slot| slot.value)
    }

    fn slot_mut(&mut self, second: u64) -> &mut Slot<T> {
        &mut self.slots[(second % N as u64) as usize]
    }
}
