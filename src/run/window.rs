//! How many items may be in flight: as many as the providers can take, and no more.
//!
//! So memory is the same for a thousand items and for a million. Pure.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::provider;

/// Fewest items in flight: below this, chance would leave providers idle.
const LEAST: usize = 4;

/// Most items in flight; beyond this they only wait.
const MOST: usize = 10_000;

/// How far an item may be ahead of the oldest one in flight when lines are to keep the order of the
/// input, in windows. Lines that are done earlier wait in memory.
const WINDOWS_AHEAD: u64 = 16;

/// Items that have ended and wait for the disk which take no place from others, where nobody has set a window:
/// each commit takes some milliseconds, and providers would be idle meanwhile. No more than the window holds: what
/// waits is lost if the store fails.
const SETTLING: usize = 512;

/// The part of the window that is asked for at once, at least, where nobody has set one: every asking wakes the
/// source and then the run, and some of such a window only waits in the providers' queues anyway.
const PART: usize = 16;

/// The size of the window, and what bounds it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    size: usize,
    most: usize,
    settling: usize,
    /// At least the window's size divided by this is asked for at once; `usize::MAX` asks for each item by itself.
    part: usize,
    ordered: bool,
    patience: Duration,
    /// Most requests that an item has at once.
    width: usize,
}

impl Window {
    /// Makes a window of at most `most` items; `None` leaves it to the providers. `patience` is the shortest
    /// time that a step has, `width` the requests that an item has at once.
    pub(super) fn new(most: Option<usize>, ordered: bool, patience: Duration, width: usize) -> Self {
        let (settling, part) = if most.is_some() { (0, usize::MAX) } else { (SETTLING, PART) };
        Self { size: LEAST, most: most.unwrap_or(MOST).max(1), settling, part, ordered, patience, width }
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Takes on the size that these providers can take together.
    pub(super) fn fit(&mut self, providers: &[Arc<provider::State>]) {
        let now = Instant::now();
        let capacity = providers.iter().map(|provider| provider.capacity(self.patience, now)).sum();
        self.resize(capacity);
    }

    fn resize(&mut self, capacity: usize) {
        let width = self.width.max(1);
        self.size = (capacity / width).max(LEAST.div_ceil(width)).min(self.most);
    }

    /// Returns how many more items may come, when `busy` are under way and `settling` have ended and wait for the
    /// disk, the one with the number `oldest` is the first of them, and the next to come would have the number
    /// `next`.
    pub(super) fn room(&self, busy: usize, settling: usize, oldest: Option<u64>, next: u64) -> usize {
        let room = self.size.saturating_sub(busy + settling.saturating_sub(self.settling.min(self.size)));
        let room = match oldest {
            Some(oldest) if self.ordered => {
                let most_ahead = WINDOWS_AHEAD * self.size as u64;
                room.min(usize::try_from((oldest + most_ahead).saturating_sub(next)).unwrap_or(room))
            }
            _ => room,
        };
        // What is left out now is asked for when one of those under way has ended.
        if room < self.size / self.part { 0 } else { room }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_follows_the_providers_within_its_bounds() {
        let mut window = Window::new(Some(100), false, Duration::MAX, 1);
        for (capacity, size) in [(0, 4), (50, 50), (5_000, 100)] {
            window.resize(capacity);
            assert_eq!(window.size(), size);
        }
        assert_eq!(window.room(60, 10, Some(3), 1_000_000), 30, "a window that is set is not exceeded");
    }

    #[test]
    fn items_with_many_requests_at_once_are_as_many_fewer() {
        let mut window = Window::new(None, false, Duration::MAX, 8);
        for (capacity, size) in [(0, 1), (64, 8), (70, 8), (8_000, 1_000)] {
            window.resize(capacity);
            assert_eq!(window.size(), size);
        }
    }

    #[test]
    fn what_waits_for_the_disk_takes_no_place_until_it_is_much() {
        let mut window = Window::new(None, false, Duration::MAX, 1);
        window.resize(100);
        assert_eq!(window.room(60, 0, None, 0), 40);
        assert_eq!(window.room(60, 100, None, 0), 40);
        assert_eq!(window.room(60, 130, None, 0), 10);
        assert_eq!([window.room(94, 0, None, 0), window.room(95, 0, None, 0)], [6, 0], "one by one is dear");
        assert_eq!(window.room(60, 1_000, None, 0), 0);
    }

    #[test]
    fn no_item_begins_while_a_window_of_others_waits_for_the_disk_beside_those_in_flight() {
        let mut window = Window::new(None, false, Duration::MAX, 1);
        for size in [4, 100, 600, 5_000] {
            window.resize(size);
            let at_once = (0..).find(|settling| window.room(0, *settling, None, 0) == 0).unwrap();
            assert!(at_once <= 2 * size, "{at_once} of a window of {size}");
        }
    }

    #[test]
    fn a_slow_item_holds_back_those_far_ahead_of_it_only_in_order() {
        let mut window = Window::new(None, true, Duration::MAX, 1);
        window.resize(10);
        assert_eq!(window.room(1, 0, Some(5), 100), 9);
        assert_eq!(window.room(1, 0, Some(5), 163), 2);
        assert_eq!(window.room(1, 0, Some(5), 165), 0);
    }
}
