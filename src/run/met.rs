//! Which items of a run its input had: a bit for each number.
//!
//! Plain data: a run of a million items takes 125 KB.

use crate::store::ItemNumber;

const BITS: u64 = u64::BITS as u64;

/// Numbers of items.
#[derive(Debug, Clone, Default)]
pub struct MetItems {
    words: Vec<u64>,
    last: i64,
}

impl MetItems {
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

    /// Returns whether an item is among them.
    pub fn contains(&self, item: ItemNumber) -> bool {
        let Ok(number) = u64::try_from(item.0) else { return false };
        self.words.get((number / BITS) as usize).is_some_and(|word| word & (1 << (number % BITS)) != 0)
    }

    /// Returns the items from 1 to `last`, or to the last of these, that are not among them: the first and the last
    /// of each group.
    pub fn missing(&self, last: ItemNumber) -> Vec<(i64, i64)> {
        let all = (1..=last.0.max(self.last)).map(ItemNumber);
        groups(all.filter(|item| !self.contains(*item)))
    }

    /// Returns what of `missing` is not among them.
    pub fn still_missing(&self, missing: &[(i64, i64)]) -> Vec<(i64, i64)> {
        let all = missing.iter().flat_map(|(first, last)| *first..=*last).map(ItemNumber);
        groups(all.filter(|item| !self.contains(*item)))
    }
}

/// Puts numbers that follow each other together.
fn groups(items: impl Iterator<Item = ItemNumber>) -> Vec<(i64, i64)> {
    let mut groups: Vec<(i64, i64)> = Vec::new();
    for ItemNumber(number) in items {
        match groups.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => groups.push((number, number)),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_in_groups() {
        let mut met = MetItems::default();
        assert_eq!(met.missing(ItemNumber(3)), [(1, 3)]);
        [2, 64, 65, 130].map(ItemNumber).into_iter().for_each(|item| met.insert(item));
        assert_eq!(met.missing(ItemNumber(0)), [(1, 1), (3, 63), (66, 129)]);
        assert_eq!(met.missing(ItemNumber(132)), [(1, 1), (3, 63), (66, 129), (131, 132)]);
        assert_eq!(met.still_missing(&[(1, 2), (64, 66)]), [(1, 1), (66, 66)]);
        assert!(met.contains(ItemNumber(64)) && !met.contains(ItemNumber(-1)));
    }
}
