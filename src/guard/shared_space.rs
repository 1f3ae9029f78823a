//! Bounded space that several flows share, such as a queue that several scopes fill: how much of it one flow may take.
//!
//! Dynamic thresholds (A. K. Choudhury and E. L. Hahne, "Dynamic queue length thresholds for shared-memory packet
//! switches", IEEE/ACM Transactions on Networking 6(2), 1998): a flow may grow while it is shorter than a multiple of the
//! free space. So one flow alone may take the whole bound, several get about equal parts, and some space is always left
//! for a flow that has none.

/// Returns whether a flow may take one more place. `of_flow` and `of_all` are the places that are taken. While they are
/// fewer than the bound, every flow has room; together flows take at most a tenth more.
pub fn has_room(bound: usize, of_flow: usize, of_all: usize) -> bool {
    // Kept for other flows. With it, the threshold of one flow alone is exactly the bound.
    let reserve = (bound / 10).max(1);
    let free = bound.saturating_add(reserve).saturating_sub(of_all);
    of_flow.saturating_mul(reserve) < bound.saturating_mul(free)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lets flows take places until none has room, in this order of turns.
    fn fill(bound: usize, flows: usize, turns: &[usize]) -> Vec<usize> {
        let mut taken = vec![0; flows];
        for turn in turns {
            let flow = turn % flows;
            if has_room(bound, taken[flow], taken.iter().sum()) {
                taken[flow] += 1;
            }
        }
        for flow in (0..flows).cycle().take(flows * 2 * bound) {
            if has_room(bound, taken[flow], taken.iter().sum()) {
                taken[flow] += 1;
            }
        }
        taken
    }

    #[test]
    fn two_flows_get_half_each_if_both_want_all() {
        assert_eq!(fill(4_096, 2, &[]), [2_146, 2_145]);
        assert_eq!(fill(10, 2, &[]), [6, 5]);
    }

    #[test]
    fn a_flow_without_places_finds_one_although_another_has_taken_the_bound() {
        for bound in [1, 2, 9, 10, 4_096] {
            assert!(has_room(bound, 0, bound), "{bound}");
            assert!(!has_room(bound, bound, bound), "{bound}");
        }
    }

    proptest! {
        #[test]
        fn one_flow_takes_exactly_the_bound(bound in 1usize..5_000) {
            prop_assert_eq!(fill(bound, 1, &[]), [bound]);
        }

        #[test]
        fn flows_never_take_more_than_a_tenth_above_the_bound(
            bound in 1usize..200,
            flows in 1usize..8,
            turns in proptest::collection::vec(0usize..8, 0..400),
        ) {
            let taken = fill(bound, flows, &turns);
            prop_assert!(taken.iter().sum::<usize>() <= bound + (bound / 10).max(1));
            prop_assert!(taken.iter().all(|taken| *taken <= bound));
        }
    }
}
