//! The calls of one lane and one priority: runs stand in line, each with its calls in order of their ranks, and of
//! arrival within one rank.
//!
//! A place in line is the number of the turn or arrival that gave it; the smallest is first. Nothing is kept
//! of a run that waits no longer.

use std::collections::{BTreeMap, HashMap};

use crate::types::RunId;

/// How many calls of one run are counted one by one.
const COUNTED: usize = 64;

/// The order of the calls of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Order {
    /// The rank that the run gave it.
    pub(super) rank: u64,
    /// The number of its arrival.
    pub(super) arrival: u64,
}

/// The runs that wait, with their calls.
#[derive(Debug)]
pub(super) struct Line<T> {
    order: BTreeMap<u64, RunId>,
    runs: HashMap<RunId, Run<T>>,
    crowd: Crowd,
}

#[derive(Debug)]
struct Run<T> {
    place: u64,
    calls: BTreeMap<Order, T>,
}

impl<T> Line<T> {
    pub(super) fn new() -> Self {
        Self { order: BTreeMap::new(), runs: HashMap::new(), crowd: Crowd::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Returns how many calls wait.
    pub(super) fn len(&self) -> usize {
        self.crowd.calls
    }

    /// Returns how many calls of `run` wait.
    pub(super) fn len_of(&self, run: RunId) -> usize {
        self.runs.get(&run).map_or(0, |run| run.calls.len())
    }

    /// Returns about how many calls of `run` go before one of this rank that came now. Many are not counted: ranks are
    /// taken for spread evenly.
    pub(super) fn len_before(&self, run: RunId, rank: u64) -> usize {
        let Some(run) = self.runs.get(&run) else { return 0 };
        let end = Order { rank, arrival: u64::MAX };
        if run.calls.len() <= COUNTED {
            return run.calls.range(..=end).count();
        }
        let (Some((first, _)), Some((last, _))) = (run.calls.first_key_value(), run.calls.last_key_value())
        else {
            return 0;
        };
        match rank {
            rank if rank < first.rank => 0,
            rank if rank >= last.rank => run.calls.len(),
            rank => {
                let share = (rank - first.rank + 1) as f64 / (last.rank - first.rank + 1) as f64;
                (run.calls.len() as f64 * share).ceil() as usize
            }
        }
    }

    /// Returns how many calls of runs other than `run` wait, counting at most `each` of any; up to twice
    /// as many for runs that have about `each`.
    pub(super) fn len_of_others(&self, run: RunId, each: usize) -> usize {
        self.crowd.at_most(each, self.len_of(run))
    }

    /// Puts a call among its run's, by its order; a run that does not wait yet joins the line at its end.
    pub(super) fn push(&mut self, run: RunId, order: Order, call: T) {
        let joined = self.runs.entry(run).or_insert_with(|| {
            self.order.insert(order.arrival, run);
            Run { place: order.arrival, calls: BTreeMap::new() }
        });
        self.crowd.moved(joined.calls.len(), joined.calls.len() + 1);
        joined.calls.insert(order, call);
    }

    /// Returns the run that is first, with its place.
    pub(super) fn first(&self) -> Option<(u64, RunId)> {
        self.order.first_key_value().map(|(place, run)| (*place, *run))
    }

    /// Returns the call of `run` that leaves first.
    pub(super) fn next_of(&self, run: RunId) -> Option<(Order, &T)> {
        self.runs.get(&run)?.calls.first_key_value().map(|(order, call)| (*order, call))
    }

    /// Takes out the call of `run` that leaves first. The run keeps its place.
    pub(super) fn pop(&mut self, run: RunId) -> Option<T> {
        let waiting = self.runs.get_mut(&run)?;
        let (_, call) = waiting.calls.pop_first()?;
        self.crowd.moved(waiting.calls.len() + 1, waiting.calls.len());
        self.leave_if_done(run);
        Some(call)
    }

    /// Gives `run` another place, if it waits.
    pub(super) fn move_to(&mut self, run: RunId, place: u64) {
        if let Some(waiting) = self.runs.get_mut(&run) {
            self.order.remove(&waiting.place);
            self.order.insert(place, run);
            waiting.place = place;
        }
    }

    /// Takes out everything that is not worth keeping, with the numbers of their arrivals.
    pub(super) fn take_unless(&mut self, keep: impl Fn(&T) -> bool) -> Vec<(u64, T)> {
        // Mostly there is nothing to take, and looking moves nothing.
        let touched = self.runs.iter().filter(|(_, run)| !run.calls.values().all(&keep));
        let touched: Vec<RunId> = touched.map(|(run, _)| *run).collect();
        let mut taken = Vec::new();
        for run in touched {
            let Some(waiting) = self.runs.get_mut(&run) else { continue };
            let before = waiting.calls.len();
            let gone = waiting.calls.extract_if(.., |_, call| !keep(call));
            taken.extend(gone.map(|(order, call)| (order.arrival, call)));
            self.crowd.moved(before, waiting.calls.len());
            self.leave_if_done(run);
        }
        taken
    }

    fn leave_if_done(&mut self, run: RunId) {
        if let Some(waiting) = self.runs.get(&run).filter(|run| run.calls.is_empty()) {
            self.order.remove(&waiting.place);
            self.runs.remove(&run);
        }
    }
}

/// How many runs wait with about how many calls, by powers of two: enough to say who would go first
/// without asking every run.
#[derive(Debug, Default)]
struct Crowd {
    /// The runs with one call, with two or three, with four to seven, and so on.
    groups: Vec<Group>,
    calls: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Group {
    runs: usize,
    calls: usize,
}

impl Crowd {
    /// Notes that a run has `after` calls that had `before`.
    fn moved(&mut self, before: usize, after: usize) {
        if let Some(group) = group(before).and_then(|number| self.groups.get_mut(number)) {
            group.runs -= 1;
            group.calls -= before;
            self.calls -= before;
        }
        if let Some(number) = group(after) {
            if self.groups.len() <= number {
                self.groups.resize(number + 1, Group::default());
            }
            self.groups[number].runs += 1;
            self.groups[number].calls += after;
            self.calls += after;
        }
    }

    /// Returns how many calls there are if no run counts for more than `each`, and one run with `but` calls
    /// not at all.
    fn at_most(&self, each: usize, but: usize) -> usize {
        let left_out = group(but);
        let counted = self.groups.iter().enumerate().map(|(number, group)| match left_out {
            Some(left_out) if left_out == number => {
                (group.calls - but).min((group.runs - 1).saturating_mul(each))
            }
            _ => group.calls.min(group.runs.saturating_mul(each)),
        });
        counted.sum()
    }
}

/// Returns the number of the group of runs with so many calls; `None` for no call.
fn group(calls: usize) -> Option<usize> {
    calls.checked_ilog2().map(|number| number as usize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order(rank: u64, arrival: u64) -> Order {
        Order { rank, arrival }
    }

    #[test]
    fn the_calls_of_a_run_leave_in_the_order_of_their_ranks() {
        let (mut line, run) = (Line::new(), RunId::next());
        for (arrival, rank) in [(1, 7), (2, 3), (3, 7), (4, 1), (5, 3)] {
            line.push(run, order(rank, arrival), arrival);
        }
        assert_eq!([0, 1, 3, 6, 7].map(|rank| line.len_before(run, rank)), [0, 1, 3, 3, 5]);
        let left: Vec<u64> = std::iter::from_fn(|| line.pop(run)).collect();
        assert_eq!(left, [4, 2, 5, 1, 3]);
    }

    #[test]
    fn of_many_calls_about_as_many_are_before_one_as_its_rank_says() {
        let (mut line, run) = (Line::new(), RunId::next());
        (0..1_000).for_each(|number| line.push(run, order(100 + number / 2, number), ()));
        assert_eq!(
            [99, 100, 349, 599, 700].map(|rank| line.len_before(run, rank)),
            [0, 2, 500, 1_000, 1_000]
        );
    }

    #[test]
    fn nothing_is_kept_of_a_run_that_waits_no_longer() {
        let (mut line, run) = (Line::new(), RunId::next());
        for round in 0..1000 {
            line.push(run, order(0, round), ());
            line.push(RunId::next(), order(0, round + 1_000_000), ());
            assert!(line.pop(run).is_some() && line.pop(run).is_none());
            assert_eq!(line.take_unless(|()| false).len(), 1);
            assert!(line.is_empty() && line.order.is_empty() && line.first().is_none());
        }
        assert_eq!(line.len(), 0);
    }

    proptest! {
        #[test]
        fn the_crowd_knows_how_many_would_go_first_within_a_factor_of_two(
            lengths in prop::collection::vec(1_usize..200, 1..20),
            each in 1_usize..300,
        ) {
            let mut crowd = Crowd::default();
            for length in &lengths {
                (0..*length).for_each(|before| crowd.moved(before, before + 1));
            }
            let real: usize = lengths[1..].iter().map(|length| (*length).min(each)).sum();
            let told = crowd.at_most(each, lengths[0]);
            prop_assert!(real <= told && told <= 2 * real, "{told} for {real}");
            prop_assert_eq!(crowd.at_most(200, 0), lengths.iter().sum::<usize>());
            lengths.iter().for_each(|length| crowd.moved(*length, 0));
            prop_assert_eq!((crowd.calls, crowd.at_most(each, 0)), (0, 0));
        }
    }
}
