//! Puts values that arrive in any order back into the order of their numbers.
//!
//! The caller bounds its size by calling [`may_start`](ReorderBuffer::may_start) before it starts another item.
//! It never blocks, and it returns each value once.

use std::collections::BTreeMap;

/// Buffers values until all values with lower numbers have arrived or were skipped.
#[derive(Debug)]
pub struct ReorderBuffer<T> {
    next: u64,
    /// `None` for a number that was skipped.
    buffered: BTreeMap<u64, Option<T>>,
}

impl<T> Default for ReorderBuffer<T> {
    fn default() -> Self {
        Self { next: 0, buffered: BTreeMap::new() }
    }
}

impl<T> ReorderBuffer<T> {
    /// Starts at number 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes `value` under its number and returns, in order, every value that is now ready.
    ///
    /// A value whose number was already passed is returned at once, so that it is not lost.
    pub fn push(&mut self, number: u64, value: T) -> Vec<T> {
        if number < self.next {
            return vec![value];
        }
        let before = self.buffered.insert(number, Some(value)).flatten();
        before.into_iter().chain(self.drain()).collect()
    }

    /// Records that `number` will never arrive and returns, in order, every value that is now ready.
    pub fn skip(&mut self, number: u64) -> Vec<T> {
        if number >= self.next {
            self.buffered.entry(number).or_insert(None);
        }
        self.drain()
    }

    /// Returns every buffered value in order, as if the missing numbers had been skipped.
    pub fn finish(&mut self) -> Vec<T> {
        if let Some((last, _)) = self.buffered.last_key_value() {
            self.next = last.saturating_add(1);
        }
        std::mem::take(&mut self.buffered).into_values().flatten().collect()
    }

    /// Returns how many values are buffered.
    pub fn buffered(&self) -> usize {
        self.buffered.len()
    }

    /// Returns the lowest number that has not arrived.
    pub fn missing(&self) -> u64 {
        self.next
    }

    /// Returns whether the item with this number may start so that at most `bound` items are buffered or in
    /// flight.
    pub fn may_start(&self, number: u64, bound: u64) -> bool {
        number < self.next.saturating_add(bound)
    }

    fn drain(&mut self) -> Vec<T> {
        let mut ready = Vec::new();
        while let Some(value) = self.buffered.remove(&self.next) {
            ready.extend(value);
            self.next += 1;
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn values_that_arrive_in_any_order_leave_in_order_and_once(
            order in Just((0..60_u64).collect::<Vec<_>>()).prop_shuffle(),
            skipped in prop::collection::hash_set(0..60_u64, 0..20),
        ) {
            let mut reorder = ReorderBuffer::new();
            let mut out = Vec::new();
            for (pushed, number) in order.into_iter().enumerate() {
                let ready = if skipped.contains(&number) { reorder.skip(number) } else { reorder.push(number, number) };
                out.extend(ready);
                prop_assert!(reorder.missing() as usize + reorder.buffered() == pushed + 1);
            }
            let expected: Vec<u64> = (0..60).filter(|number| !skipped.contains(number)).collect();
            prop_assert_eq!(out, expected);
            prop_assert_eq!(reorder.buffered(), 0);
        }

        #[test]
        fn a_caller_that_checks_may_start_never_buffers_more_than_the_bound(
            picks in prop::collection::vec(any::<prop::sample::Index>(), 200),
            bound in 1..10_u64,
        ) {
            let mut reorder = ReorderBuffer::new();
            let mut in_flight = Vec::new();
            let mut next = 0;
            for pick in picks {
                while reorder.may_start(next, bound) {
                    in_flight.push(next);
                    next += 1;
                }
                let number = in_flight.swap_remove(pick.index(in_flight.len()));
                reorder.push(number, number);
                prop_assert!(reorder.buffered() + in_flight.len() <= bound as usize);
            }
        }
    }

    #[test]
    fn a_value_that_arrives_late_or_twice_is_not_lost() {
        let mut reorder = ReorderBuffer::new();
        assert_eq!(reorder.push(0, 'a'), ['a']);
        assert_eq!(reorder.push(0, 'b'), ['b']);
        assert!(reorder.push(2, 'c').is_empty());
        assert_eq!(reorder.push(2, 'd'), ['c']);
        assert_eq!(reorder.finish(), ['d']);
        assert_eq!((reorder.buffered(), reorder.missing()), (0, 3));
    }
}
