//! Puts what comes in any order back into the order of its numbers.
//!
//! Its owner keeps it small by asking before it starts another item. It never waits and never gives
//! anything out twice.

use std::collections::BTreeMap;

/// Holds back what came before its turn.
#[derive(Debug)]
pub struct Reorder<T> {
    next: u64,
    /// `None` for a number that was skipped.
    held: BTreeMap<u64, Option<T>>,
}

impl<T> Default for Reorder<T> {
    fn default() -> Self {
        Self { next: 0, held: BTreeMap::new() }
    }
}

impl<T> Reorder<T> {
    /// Starts at number 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes `value` under its number, and returns everything whose turn has come, in order.
    ///
    /// A number whose turn is over comes out at once: late is better than lost.
    pub fn push(&mut self, number: u64, value: T) -> Vec<T> {
        if number < self.next {
            return vec![value];
        }
        let before = self.held.insert(number, Some(value)).flatten();
        before.into_iter().chain(self.drain()).collect()
    }

    /// Says that `number` will never come, and returns everything whose turn has come, in order.
    pub fn skip(&mut self, number: u64) -> Vec<T> {
        if number >= self.next {
            self.held.entry(number).or_insert(None);
        }
        self.drain()
    }

    /// Returns everything that is still held, in order, as if the missing numbers were skipped.
    pub fn finish(&mut self) -> Vec<T> {
        if let Some((last, _)) = self.held.last_key_value() {
            self.next = last.saturating_add(1);
        }
        std::mem::take(&mut self.held).into_values().flatten().collect()
    }

    /// Returns how many values are held back.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Returns the lowest number that has not come.
    pub fn missing(&self) -> u64 {
        self.next
    }

    /// Returns whether the item of this number may start, if never more than `bound` are to be held
    /// back or under way.
    pub fn may_start(&self, number: u64, bound: u64) -> bool {
        number < self.next.saturating_add(bound)
    }

    fn drain(&mut self) -> Vec<T> {
        let mut due = Vec::new();
        while let Some(value) = self.held.remove(&self.next) {
            due.extend(value);
            self.next += 1;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_the_order_of_coming_everything_leaves_in_order_and_once(
            order in Just((0..60_u64).collect::<Vec<_>>()).prop_shuffle(),
            skipped in prop::collection::hash_set(0..60_u64, 0..20),
        ) {
            let mut reorder = Reorder::new();
            let mut out = Vec::new();
            for (pushed, number) in order.into_iter().enumerate() {
                let due = if skipped.contains(&number) { reorder.skip(number) } else { reorder.push(number, number) };
                out.extend(due);
                prop_assert!(reorder.missing() as usize + reorder.held() == pushed + 1);
            }
            let expected: Vec<u64> = (0..60).filter(|number| !skipped.contains(number)).collect();
            prop_assert_eq!(out, expected);
            prop_assert_eq!(reorder.held(), 0);
        }

        #[test]
        fn one_who_asks_before_starting_never_holds_more_than_the_bound(
            picks in prop::collection::vec(any::<prop::sample::Index>(), 200),
            bound in 1..10_u64,
        ) {
            let mut reorder = Reorder::new();
            let mut under_way = Vec::new();
            let mut next = 0;
            for pick in picks {
                while reorder.may_start(next, bound) {
                    under_way.push(next);
                    next += 1;
                }
                let number = under_way.swap_remove(pick.index(under_way.len()));
                reorder.push(number, number);
                prop_assert!(reorder.held() + under_way.len() <= bound as usize);
            }
        }
    }

    #[test]
    fn what_comes_late_or_twice_is_not_lost() {
        let mut reorder = Reorder::new();
        assert_eq!(reorder.push(0, 'a'), ['a']);
        assert_eq!(reorder.push(0, 'b'), ['b']);
        assert!(reorder.push(2, 'c').is_empty());
        assert_eq!(reorder.push(2, 'd'), ['c']);
        assert_eq!(reorder.finish(), ['d']);
        assert_eq!((reorder.held(), reorder.missing()), (0, 3));
    }
}
