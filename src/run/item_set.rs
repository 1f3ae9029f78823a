//! A set of item numbers, one bit per number: for example the items that the input of a run has.
//!
//! A run of a million items takes 125 KB.

use crate::store::ItemNumber;

const BITS: u64 = u64::BITS as u64;

/// A set of item numbers.
#[derive(Debug, Clone, Default)]
pub struct ItemSet {
    words: Vec<u64>,
    last: i64,
}

impl ItemSet {
    /// Adds an item.
    pub fn insert(&mut self, item: ItemNumber) {
        let Ok(number) = u64::try_from(item.0) else { return };
        let word = (number / BITS) as usize;
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (number % BITS);
        self.last = self.last.max(item.0);
    }

    /// Returns whether the set contains an item.
    pub fn contains(&self, item: ItemNumber) -> bool {
        let Ok(number) = u64::try_from(item.0) else { return false };
        self.words.get((number / BITS) as usize).is_some_and(|word| word & (1 << (number % BITS)) != 0)
    }

    /// Returns the items from 1 to `last`, or to the highest number in the set, that it does not contain, as
    /// ranges with both ends included.
    pub fn missing_ranges(&self, last: ItemNumber) -> Vec<(i64, i64)> {
        let all = (1..=last.0.max(self.last)).map(ItemNumber);
        ranges(all.filter(|item| !self.contains(*item)))
    }

    /// Returns the part of `missing` that the set does not contain.
    pub fn still_missing(&self, missing: &[(i64, i64)]) -> Vec<(i64, i64)> {
        let all = missing.iter().flat_map(|(first, last)| *first..=*last).map(ItemNumber);
        ranges(all.filter(|item| !self.contains(*item)))
    }
}

/// Merges consecutive numbers into ranges.
fn ranges(items: impl Iterator<Item = ItemNumber>) -> Vec<(i64, i64)> {
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for ItemNumber(number) in items {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_items_are_returned_as_ranges() {
        let mut items = ItemSet::default();
        assert_eq!(items.missing_ranges(ItemNumber(3)), [(1, 3)]);
        [2, 64, 65, 130].map(ItemNumber).into_iter().for_each(|item| items.insert(item));
        assert_eq!(items.missing_ranges(ItemNumber(0)), [(1, 1), (3, 63), (66, 129)]);
        assert_eq!(items.missing_ranges(ItemNumber(132)), [(1, 1), (3, 63), (66, 129), (131, 132)]);
        assert_eq!(items.still_missing(&[(1, 2), (64, 66)]), [(1, 1), (66, 66)]);
        assert!(items.contains(ItemNumber(64)) && !items.contains(ItemNumber(-1)));
    }
}
