//! The window: how many items may be in flight, as many as the providers have capacity for.
//!
//! So memory use is the same for a thousand items and for a million. Pure.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::provider;

/// Minimum number of items in flight: with fewer, providers would sometimes be idle.
const MIN_WINDOW: usize = 4;

/// Maximum number of items in flight if none is configured: more would only wait.
pub const MAX_WINDOW: usize = 10_000;

/// Maximum number of items in flight whose requests share calls, unless the providers have capacity for more calls. The
/// vector of each may take some hundred kilobytes.
const MAX_JOINED_WINDOW: usize = 2_000;

/// With output in the order of the input: maximum distance of an item from the oldest one in flight, as a multiple of the window.
/// Lines that are ready earlier wait in memory.
const MAX_WINDOWS_AHEAD: u64 = 16;

/// Finished items that wait to be committed and do not count against the window, if no window is configured. A
/// commit takes some milliseconds, and providers would be idle meanwhile. Never more than the window, because
/// items that wait are lost if the store fails.
const MAX_UNCOMMITTED_ITEMS: usize = 512;

/// If no window is configured, a request to the source is for at least the window divided by this: each request
/// wakes the source and then the run, and some items of such a window only wait in the providers' queues
/// anyway.
const MIN_REQUEST_DIVISOR: usize = 16;

/// The size of the window, and its bounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    size: usize,
    max_size: usize,
    max_uncommitted: usize,
    /// At least the size divided by this is requested at once; `usize::MAX` requests each item separately.
    min_request_divisor: usize,
    ordered: bool,
    min_step_deadline: Duration,
    /// Most requests of an item at the same time.
    width: usize,
    /// How many items have their requests in one call.
    items_per_call: usize,
}

impl Window {
    /// Creates a window of at most `max_size` items; `None` leaves the size to the providers.
    /// `min_step_deadline` is the shortest deadline of the steps, `width` the most requests of an item at the
    /// same time.
    pub(super) fn new(
        max_size: Option<usize>,
        ordered: bool,
        min_step_deadline: Duration,
        width: usize,
    ) -> Self {
        let (max_size, max_uncommitted, min_request_divisor) = match max_size {
            Some(max_size) => (max_size.max(1), 0, usize::MAX),
            None => (MAX_WINDOW, MAX_UNCOMMITTED_ITEMS, MIN_REQUEST_DIVISOR),
        };
        Self {
            size: MIN_WINDOW,
            max_size,
            max_uncommitted,
            min_request_divisor,
            ordered,
            min_step_deadline,
            width,
            items_per_call: 1,
        }
    }

    /// Sets how many items have their requests in one call.
    #[must_use]
    pub(super) fn with_items_per_call(self, items_per_call: usize) -> Self {
        Self { items_per_call: items_per_call.max(1), ..self }
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Sets the size to the total capacity of these providers.
    pub(super) fn fit_to(&mut self, providers: &[Arc<provider::State>]) {
        let now = Instant::now();
        let capacity = providers.iter().map(|provider| provider.capacity(self.min_step_deadline, now)).sum();
        self.resize(capacity);
    }

    fn resize(&mut self, capacity: usize) {
        let width = self.width.max(1);
        let joined = capacity.max(MIN_WINDOW).saturating_mul(self.items_per_call).min(MAX_JOINED_WINDOW);
        let capacity = if self.items_per_call > 1 { capacity.max(joined) } else { capacity };
        self.size = (capacity / width).max(MIN_WINDOW.div_ceil(width)).min(self.max_size);
    }

    /// Returns how many more items may be requested, if `busy` are in flight and `uncommitted` have finished
    /// and wait to be committed. `oldest` is the number of the oldest item in flight, `next` the number of the
    /// next item.
    pub(super) fn free_slots(
        &self,
        busy: usize,
        uncommitted: usize,
        oldest: Option<u64>,
        next: u64,
    ) -> usize {
        let free =
            self.size.saturating_sub(busy + uncommitted.saturating_sub(self.max_uncommitted.min(self.size)));
        let free = match oldest {
            Some(oldest) if self.ordered => {
                let max_ahead = MAX_WINDOWS_AHEAD * self.size as u64;
                free.min(usize::try_from((oldest + max_ahead).saturating_sub(next)).unwrap_or(free))
            }
            _ => free,
        };
        // The remaining slots are used when an item in flight has ended.
        if free < self.size / self.min_request_divisor { 0 } else { free }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_follows_the_capacity_of_the_providers_within_its_bounds() {
        let mut window = Window::new(Some(100), false, Duration::MAX, 1);
        for (capacity, size) in [(0, 4), (50, 50), (5_000, 100)] {
            window.resize(capacity);
            assert_eq!(window.size(), size);
        }
        assert_eq!(window.free_slots(60, 10, Some(3), 1_000_000), 30, "a configured window is not exceeded");
    }

    #[test]
    fn items_with_many_concurrent_requests_make_the_window_smaller() {
        let mut window = Window::new(None, false, Duration::MAX, 8);
        for (capacity, size) in [(0, 1), (64, 8), (70, 8), (8_000, 1_000)] {
            window.resize(capacity);
            assert_eq!(window.size(), size);
        }
    }

    #[test]
    fn items_whose_requests_share_calls_make_the_window_larger() {
        let mut window = Window::new(None, false, Duration::MAX, 1).with_items_per_call(50);
        for (capacity, size) in [(0, 200), (10, 500), (100, 2_000), (5_000, 5_000)] {
            window.resize(capacity);
            assert_eq!(window.size(), size);
        }
    }

    #[test]
    fn items_waiting_to_be_committed_do_not_count_until_they_are_many() {
        let mut window = Window::new(None, false, Duration::MAX, 1);
        window.resize(100);
        assert_eq!(window.free_slots(60, 0, None, 0), 40);
        assert_eq!(window.free_slots(60, 100, None, 0), 40);
        assert_eq!(window.free_slots(60, 130, None, 0), 10);
        assert_eq!(
            [window.free_slots(94, 0, None, 0), window.free_slots(95, 0, None, 0)],
            [6, 0],
            "single items are not requested"
        );
        assert_eq!(window.free_slots(60, 1_000, None, 0), 0);
    }

    #[test]
    fn no_item_starts_while_a_whole_window_of_others_waits_to_be_committed() {
        let mut window = Window::new(None, false, Duration::MAX, 1);
        for size in [4, 100, 600, 5_000] {
            window.resize(size);
            let max_uncommitted =
                (0..).find(|uncommitted| window.free_slots(0, *uncommitted, None, 0) == 0).unwrap();
            assert!(max_uncommitted <= 2 * size, "{max_uncommitted} of a window of {size}");
        }
    }

    #[test]
    fn a_slow_item_delays_items_far_ahead_of_it_only_in_input_order() {
        let mut window = Window::new(None, true, Duration::MAX, 1);
        window.resize(10);
        assert_eq!(window.free_slots(1, 0, Some(5), 100), 9);
        assert_eq!(window.free_slots(1, 0, Some(5), 163), 2);
        assert_eq!(window.free_slots(1, 0, Some(5), 165), 0);
    }
}
