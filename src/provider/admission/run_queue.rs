//! The queued calls of one run, of one model and one priority, ordered by rank and by arrival within one rank.

use std::collections::BTreeMap;

use super::fair_queue::{Backlog, FairQueue};
use crate::types::RunId;

/// Up to this many calls of one run are counted exactly; above it, the number ahead is interpolated from the
/// ranks.
const MAX_COUNTED_CALLS: usize = 64;

/// Sort key of the calls of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::provider) struct Order {
    /// The rank that the run assigned.
    pub(in crate::provider) rank: u64,
    /// The arrival number.
    pub(in crate::provider) arrival: u64,
}

/// The calls of one run.
#[derive(Debug)]
pub(in crate::provider) struct RunQueue<T> {
    calls: BTreeMap<Order, (u64, T)>,
}

/// The runs of one scope.
pub(in crate::provider) type ScopeQueue<T> = FairQueue<RunId, RunQueue<T>>;

impl<T> Default for RunQueue<T> {
    fn default() -> Self {
        Self { calls: BTreeMap::new() }
    }
}

impl<T> Backlog for RunQueue<T> {
    fn next_cost(&self) -> u64 {
        self.calls.first_key_value().map_or(0, |(_, (cost, _))| *cost)
    }

    fn len(&self) -> usize {
        self.calls.len()
    }
}

impl<T> Backlog for ScopeQueue<T> {
    fn next_cost(&self) -> u64 {
        self.first().and_then(|(_, run)| self.get(run)).map_or(0, Backlog::next_cost)
    }

    fn len(&self) -> usize {
        FairQueue::len(self)
    }
}

impl<T> RunQueue<T> {
    /// Estimates how many calls precede a new call of this rank. If there are more than [`MAX_COUNTED_CALLS`], assumes
    /// that the ranks are spread evenly.
    pub(in crate::provider) fn len_before(&self, rank: u64) -> usize {
        let end = Order { rank, arrival: u64::MAX };
        if self.calls.len() <= MAX_COUNTED_CALLS {
            return self.calls.range(..=end).count();
        }
        let Some((first, _)) = self.calls.first_key_value() else { return 0 };
        let Some((last, _)) = self.calls.last_key_value() else { return 0 };
        match rank {
            rank if rank < first.rank => 0,
            rank if rank >= last.rank => self.calls.len(),
            rank => {
                let share = (rank - first.rank + 1) as f64 / (last.rank - first.rank + 1) as f64;
                (self.calls.len() as f64 * share).ceil() as usize
            }
        }
    }

    /// Adds a call at its sort position.
    pub(in crate::provider) fn push(&mut self, order: Order, cost: u64, call: T) {
        self.calls.insert(order, (cost, call));
    }

    /// Returns the first call.
    pub(in crate::provider) fn next(&self) -> Option<(Order, &T)> {
        self.calls.first_key_value().map(|(order, (_, call))| (*order, call))
    }

    /// Removes the first call if it is still the one at `order`, and returns it with its cost.
    pub(in crate::provider) fn pop(&mut self, order: Order) -> Option<(u64, T)> {
        self.next().filter(|(first, _)| *first == order)?;
        self.calls.pop_first().map(|(_, call)| call)
    }

    /// Returns the calls in their order.
    pub(in crate::provider) fn calls(&self) -> impl Iterator<Item = &T> {
        self.calls.values().map(|(_, call)| call)
    }

    pub(in crate::provider) fn all(&self, keep: impl FnMut(&T) -> bool) -> bool {
        self.calls.values().map(|(_, call)| call).all(keep)
    }

    /// Removes all calls for which `keep` is false and returns them with their arrival numbers.
    pub(in crate::provider) fn take_unless(&mut self, keep: impl Fn(&T) -> bool) -> Vec<(u64, T)> {
        let removed = self.calls.extract_if(.., |_, (_, call)| !keep(call));
        removed.map(|(order, (_, call))| (order.arrival, call)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(rank: u64, arrival: u64) -> Order {
        Order { rank, arrival }
    }

    #[test]
    fn the_calls_of_a_run_are_taken_in_the_order_of_their_ranks() {
        let mut queue = RunQueue::default();
        for (arrival, rank) in [(1, 7), (2, 3), (3, 7), (4, 1), (5, 3)] {
            queue.push(order(rank, arrival), 1, arrival);
        }
        assert_eq!([0, 1, 3, 6, 7].map(|rank| queue.len_before(rank)), [0, 1, 3, 3, 5]);
        let next = |queue: &mut RunQueue<u64>| {
            let (order, _) = queue.next()?;
            queue.pop(order)
        };
        let order_out: Vec<u64> = std::iter::from_fn(|| next(&mut queue).map(|(_, call)| call)).collect();
        assert_eq!(order_out, [4, 2, 5, 1, 3]);
    }

    #[test]
    fn the_number_of_calls_ahead_is_interpolated_from_the_rank_in_a_long_queue() {
        let mut queue = RunQueue::default();
        (0..1_000).for_each(|index| queue.push(order(100 + index / 2, index), 1, ()));
        assert_eq!([99, 100, 349, 599, 700].map(|rank| queue.len_before(rank)), [0, 2, 500, 1_000, 1_000]);
    }
}
