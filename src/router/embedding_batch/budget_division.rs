//! Divides a joined request that costs more than what is left of a budget into groups that fit. Pure.
//!
//! The members are sent in the order of their sizes, in one group after another. A group that does not fit is rejected
//! without a call, and the next one is at most half as large. A single member that does not fit ends the division: the
//! others are not smaller, and what is left of a budget does not grow within a day. So the number of rejected groups is
//! at most the logarithm of the size of all members.

use std::collections::VecDeque;

/// The division of one request.
#[derive(Debug)]
pub(super) struct BudgetDivision<M> {
    /// Members that are not sent, the smallest first.
    open: VecDeque<M>,
    size_of: fn(&M) -> u64,
    /// The largest size of a group with more than one member.
    max_size: u64,
}

impl<M> BudgetDivision<M> {
    /// Creates the division of a request that does not fit.
    pub(super) fn new(mut members: Vec<M>, size_of: fn(&M) -> u64) -> Self {
        members.sort_by_key(size_of);
        let max_size = half_of_all(&members, size_of);
        Self { open: members.into(), size_of, max_size }
    }

    /// Returns the group that is sent now; `None` if there is none.
    pub(super) fn next_group(&mut self) -> Option<Vec<M>> {
        let first = self.open.pop_front()?;
        let mut size = (self.size_of)(&first);
        let mut group = vec![first];
        while let Some(next) = self.open.front() {
            size = size.saturating_add((self.size_of)(next));
            if size > self.max_size {
                break;
            }
            group.extend(self.open.pop_front());
        }
        Some(group)
    }

    /// Records that the last group does not fit. Returns the members that fail: all of them if it is a single one.
    pub(super) fn record_rejected(&mut self, group: Vec<M>) -> Vec<M> {
        if group.len() < 2 {
            return group.into_iter().chain(std::mem::take(&mut self.open)).collect();
        }
        self.max_size = self.max_size.min(half_of_all(&group, self.size_of));
        for member in group.into_iter().rev() {
            self.open.push_front(member);
        }
        Vec::new()
    }
}

fn half_of_all<M>(members: &[M], size_of: fn(&M) -> u64) -> u64 {
    members.iter().map(size_of).fold(0, u64::saturating_add) / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a division has done.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Divided {
        /// The sizes of the members that were answered.
        answered: Vec<u64>,
        failed: Vec<u64>,
        rejected_groups: usize,
    }

    /// Divides a request with members of these sizes; `left` is what is left of the budget.
    fn divide(sizes: &[u64], mut left: u64) -> Divided {
        let mut division = BudgetDivision::new(sizes.to_vec(), |size| *size);
        let mut divided = Divided::default();
        while let Some(group) = division.next_group() {
            let cost: u64 = group.iter().sum();
            if cost <= left {
                left -= cost;
                divided.answered.extend(group);
            } else {
                divided.rejected_groups += 1;
                divided.failed.extend(division.record_rejected(group));
            }
        }
        divided
    }

    #[test]
    fn members_are_answered_while_the_budget_lasts_and_the_others_fail_after_a_few_rejections() {
        let divided = divide(&[10; 300], 500);
        assert_eq!((divided.answered.len(), divided.failed.len()), (50, 250));
        assert!(divided.rejected_groups <= 9, "{}", divided.rejected_groups);
    }

    #[test]
    fn an_exhausted_budget_takes_few_rejections() {
        let divided = divide(&[1; 2_048], 0);
        assert_eq!((divided.answered.len(), divided.failed.len()), (0, 2_048));
        assert!(divided.rejected_groups <= 12, "{}", divided.rejected_groups);
    }

    #[test]
    fn only_members_that_do_not_fit_alone_fail() {
        let divided = divide(&[900, 1, 2, 800, 3], 100);
        assert_eq!((divided.answered, divided.failed), (vec![1, 2, 3], vec![800, 900]));
    }

    proptest! {
        #[test]
        fn each_member_ends_once_and_one_fails_only_if_it_does_not_fit(
            sizes in prop::collection::vec(1..2_000_u64, 2..300),
            left in 0..400_000_u64,
        ) {
            let divided = divide(&sizes, left);
            let mut all = [divided.answered.clone(), divided.failed.clone()].concat();
            all.sort_unstable();
            let mut expected = sizes;
            expected.sort_unstable();
            prop_assert_eq!(all, expected);
            let rest = left - divided.answered.iter().sum::<u64>();
            prop_assert!(divided.failed.iter().all(|size| *size > rest), "{} left: {:?}", rest, divided);
            prop_assert!(divided.rejected_groups <= 21, "{}", divided.rejected_groups);
        }
    }
}
