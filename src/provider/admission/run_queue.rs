//! The queued calls of one model and one priority. Runs take turns; the calls of each run are ordered by rank,
//! and by arrival within one rank.
//!
//! A run's position is the number of the turn or arrival that assigned it. The lowest position is first. A run
//! without queued calls is removed.

use std::collections::{BTreeMap, HashMap};

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

/// The runs with queued calls.
#[derive(Debug)]
pub(in crate::provider) struct RunQueue<T> {
    order: BTreeMap<u64, RunId>,
    runs: HashMap<RunId, Run<T>>,
    backlog: BacklogHistogram,
}

#[derive(Debug)]
struct Run<T> {
    position: u64,
    calls: BTreeMap<Order, T>,
}

impl<T> RunQueue<T> {
    pub(in crate::provider) fn new() -> Self {
        Self { order: BTreeMap::new(), runs: HashMap::new(), backlog: BacklogHistogram::default() }
    }

    pub(in crate::provider) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Returns the number of queued calls.
    pub(in crate::provider) fn len(&self) -> usize {
        self.backlog.calls
    }

    /// Returns the number of queued calls of `run`.
    pub(in crate::provider) fn len_of(&self, run: RunId) -> usize {
        self.runs.get(&run).map_or(0, |run| run.calls.len())
    }

    /// Estimates how many calls of `run` precede a new call of this rank. If `run` has more than
    /// [`MAX_COUNTED_CALLS`], assumes that its ranks are spread evenly.
    pub(in crate::provider) fn len_before(&self, run: RunId, rank: u64) -> usize {
        let Some(run) = self.runs.get(&run) else { return 0 };
        let end = Order { rank, arrival: u64::MAX };
        if run.calls.len() <= MAX_COUNTED_CALLS {
            return run.calls.range(..=end).count();
        }
        let Some((first, _)) = run.calls.first_key_value() else { return 0 };
        let Some((last, _)) = run.calls.last_key_value() else { return 0 };
        match rank {
            rank if rank < first.rank => 0,
            rank if rank >= last.rank => run.calls.len(),
            rank => {
                let share = (rank - first.rank + 1) as f64 / (last.rank - first.rank + 1) as f64;
                (run.calls.len() as f64 * share).ceil() as usize
            }
        }
    }

    /// Returns how many calls of runs other than `run` are queued, counting at most `each` per run. The result
    /// is up to twice too large if runs have about `each` calls.
    pub(in crate::provider) fn len_of_others(&self, run: RunId, each: usize) -> usize {
        self.backlog.capped_total(each, self.len_of(run))
    }

    /// Adds a call to its run at its sort position. A run without queued calls joins at the end.
    pub(in crate::provider) fn push(&mut self, run: RunId, order: Order, call: T) {
        let entry = self.runs.entry(run).or_insert_with(|| {
            self.order.insert(order.arrival, run);
            Run { position: order.arrival, calls: BTreeMap::new() }
        });
        self.backlog.move_run(entry.calls.len(), entry.calls.len() + 1);
        entry.calls.insert(order, call);
    }

    /// Returns the first run, with its position.
    pub(in crate::provider) fn first(&self) -> Option<(u64, RunId)> {
        self.order.first_key_value().map(|(position, run)| (*position, *run))
    }

    /// Returns the first call of `run`.
    pub(in crate::provider) fn next_of(&self, run: RunId) -> Option<(Order, &T)> {
        self.runs.get(&run)?.calls.first_key_value().map(|(order, call)| (*order, call))
    }

    /// Removes the first call of `run`. The run keeps its position.
    pub(in crate::provider) fn pop(&mut self, run: RunId) -> Option<T> {
        let waiting = self.runs.get_mut(&run)?;
        let (_, call) = waiting.calls.pop_first()?;
        self.backlog.move_run(waiting.calls.len() + 1, waiting.calls.len());
        self.remove_if_empty(run);
        Some(call)
    }

    /// Moves `run` to `position` if it has queued calls.
    pub(in crate::provider) fn move_to(&mut self, run: RunId, position: u64) {
        if let Some(waiting) = self.runs.get_mut(&run) {
            self.order.remove(&waiting.position);
            self.order.insert(position, run);
            waiting.position = position;
        }
    }

    /// Removes all calls for which `keep` is false and returns them with their arrival numbers.
    pub(in crate::provider) fn take_unless(&mut self, keep: impl Fn(&T) -> bool) -> Vec<(u64, T)> {
        // Usually nothing is removed, and the check moves nothing.
        let affected = self.runs.iter().filter(|(_, run)| !run.calls.values().all(&keep));
        let affected: Vec<RunId> = affected.map(|(run, _)| *run).collect();
        let mut removed_calls = Vec::new();
        for run in affected {
            let Some(waiting) = self.runs.get_mut(&run) else { continue };
            let before = waiting.calls.len();
            let removed = waiting.calls.extract_if(.., |_, call| !keep(call));
            removed_calls.extend(removed.map(|(order, call)| (order.arrival, call)));
            self.backlog.move_run(before, waiting.calls.len());
            self.remove_if_empty(run);
        }
        removed_calls
    }

    fn remove_if_empty(&mut self, run: RunId) {
        if let Some(waiting) = self.runs.get(&run).filter(|run| run.calls.is_empty()) {
            self.order.remove(&waiting.position);
            self.runs.remove(&run);
        }
    }
}

/// Histogram of runs by their number of queued calls, in powers of two. It estimates how many calls precede
/// another without visiting every run.
#[derive(Debug, Default)]
struct BacklogHistogram {
    /// The runs with 1 call, with 2 or 3, with 4 to 7, and so on.
    buckets: Vec<Bucket>,
    calls: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    runs: usize,
    calls: usize,
}

impl BacklogHistogram {
    /// Records that a run that had `before` calls has `after` now.
    fn move_run(&mut self, before: usize, after: usize) {
        if let Some(bucket) = bucket_index(before).and_then(|index| self.buckets.get_mut(index)) {
            bucket.runs -= 1;
            bucket.calls -= before;
            self.calls -= before;
        }
        if let Some(index) = bucket_index(after) {
            if self.buckets.len() <= index {
                self.buckets.resize(index + 1, Bucket::default());
            }
            self.buckets[index].runs += 1;
            self.buckets[index].calls += after;
            self.calls += after;
        }
    }

    /// Returns the number of calls if each run counts for at most `each`, and one run with `excluded` calls for
    /// none.
    fn capped_total(&self, each: usize, excluded: usize) -> usize {
        let excluded_bucket = bucket_index(excluded);
        let counted = self.buckets.iter().enumerate().map(|(index, bucket)| match excluded_bucket {
            Some(excluded_bucket) if excluded_bucket == index => {
                (bucket.calls - excluded).min((bucket.runs - 1).saturating_mul(each))
            }
            _ => bucket.calls.min(bucket.runs.saturating_mul(each)),
        });
        counted.sum()
    }
}

/// Returns the index of the bucket of runs with so many calls; `None` for 0 calls.
fn bucket_index(calls: usize) -> Option<usize> {
    calls.checked_ilog2().map(|index| index as usize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order(rank: u64, arrival: u64) -> Order {
        Order { rank, arrival }
    }

    #[test]
    fn the_calls_of_a_run_are_taken_in_the_order_of_their_ranks() {
        let mut queue = RunQueue::new();
        let run = RunId::next();
        for (arrival, rank) in [(1, 7), (2, 3), (3, 7), (4, 1), (5, 3)] {
            queue.push(run, order(rank, arrival), arrival);
        }
        assert_eq!([0, 1, 3, 6, 7].map(|rank| queue.len_before(run, rank)), [0, 1, 3, 3, 5]);
        let order_out: Vec<u64> = std::iter::from_fn(|| queue.pop(run)).collect();
        assert_eq!(order_out, [4, 2, 5, 1, 3]);
    }

    #[test]
    fn the_number_of_calls_ahead_is_interpolated_from_the_rank_in_a_long_queue() {
        let mut queue = RunQueue::new();
        let run = RunId::next();
        (0..1_000).for_each(|index| queue.push(run, order(100 + index / 2, index), ()));
        assert_eq!(
            [99, 100, 349, 599, 700].map(|rank| queue.len_before(run, rank)),
            [0, 2, 500, 1_000, 1_000]
        );
    }

    #[test]
    fn a_run_without_queued_calls_is_removed() {
        let mut queue = RunQueue::new();
        let run = RunId::next();
        for round in 0..1000 {
            queue.push(run, order(0, round), ());
            queue.push(RunId::next(), order(0, round + 1_000_000), ());
            assert!(queue.pop(run).is_some() && queue.pop(run).is_none());
            assert_eq!(queue.take_unless(|()| false).len(), 1);
            assert!(queue.is_empty() && queue.order.is_empty() && queue.first().is_none());
        }
        assert_eq!(queue.len(), 0);
    }

    proptest! {
        #[test]
        fn the_backlog_histogram_is_right_within_a_factor_of_two(
            lengths in prop::collection::vec(1_usize..200, 1..20),
            each in 1_usize..300,
        ) {
            let mut backlog = BacklogHistogram::default();
            for length in &lengths {
                (0..*length).for_each(|before| backlog.move_run(before, before + 1));
            }
            let exact: usize = lengths[1..].iter().map(|length| (*length).min(each)).sum();
            let estimated = backlog.capped_total(each, lengths[0]);
            prop_assert!(exact <= estimated && estimated <= 2 * exact, "{estimated} for {exact}");
            prop_assert_eq!(backlog.capped_total(200, 0), lengths.iter().sum::<usize>());
            lengths.iter().for_each(|length| backlog.move_run(*length, 0));
            prop_assert_eq!((backlog.calls, backlog.capped_total(each, 0)), (0, 0));
        }
    }
}
