//! The sizes of the latest answers: what is usual, and what nearly all of them stay below.
//!
//! Holds a fixed number of them, however many come.

/// Answers that are remembered.
const LATEST: usize = 200;

/// Answers from which on the percentile is not found anew after each.
const MANY: usize = 48;

/// After how many it is then.
const EVERY: usize = 8;

/// The latest sizes, in tokens.
#[derive(Debug, Default)]
pub(super) struct Window {
    sizes: Vec<u32>,
    /// Which one the next takes the place of.
    oldest: usize,
    sum: u64,
    p95: u32,
}

impl Window {
    pub(super) fn len(&self) -> usize {
        self.sizes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sizes.is_empty()
    }

    pub(super) fn add(&mut self, size: u64) {
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        if self.sizes.len() < LATEST {
            self.sizes.push(size);
        } else {
            let gone = std::mem::replace(&mut self.sizes[self.oldest], size);
            self.sum -= u64::from(gone);
            self.oldest = (self.oldest + 1) % LATEST;
        }
        self.sum += u64::from(size);
        let count = self.sizes.len() + self.oldest;
        if self.sizes.len() <= MANY || count.is_multiple_of(EVERY) {
            self.p95 = p95(&self.sizes);
        }
    }

    /// Returns the size that 95 of 100 do not exceed; 0 before there was one.
    pub(super) fn p95(&self) -> u64 {
        u64::from(self.p95)
    }

    /// Returns the mean, rounded up; 0 before there was one.
    pub(super) fn mean(&self) -> u64 {
        self.sum.div_ceil(self.sizes.len().max(1) as u64)
    }
}

fn p95(sizes: &[u32]) -> u32 {
    let mut sizes = sizes.to_vec();
    let rank = (sizes.len() * 95).div_ceil(100).saturating_sub(1);
    if rank < sizes.len() { *sizes.select_nth_unstable(rank).1 } else { 0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nineteen_of_twenty_stay_within_the_percentile() {
        let mut window = Window::default();
        (1..=20).rev().for_each(|size| window.add(size * 10));
        assert_eq!((window.p95(), window.mean()), (190, 105));
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let mut window = Window::default();
        (0..1_000).for_each(|_| window.add(9_000));
        (0..LATEST).for_each(|_| window.add(7));
        assert_eq!((window.p95(), window.mean(), window.len()), (7, 7, LATEST));
    }

    proptest! {
        #[test]
        fn percentile_and_mean_stay_within_what_was_seen(
            sizes in proptest::collection::vec(0u64..100_000, 1..600),
        ) {
            let mut window = Window::default();
            for size in &sizes {
                window.add(*size);
            }
            let (least, most) = (*sizes.iter().min().unwrap(), *sizes.iter().max().unwrap());
            prop_assert!((least..=most).contains(&window.p95()), "{window:?}");
            prop_assert!((least..=most).contains(&window.mean()), "{window:?}");
            // At most EVERY of the latest are missing from it.
            let latest = &sizes[sizes.len().saturating_sub(LATEST)..];
            let above = latest.iter().filter(|size| **size > window.p95()).count();
            prop_assert!(above <= latest.len() / 20 + EVERY, "{above} above");
        }
    }
}
