//! The calls of one lane and one priority: runs stand in line, each with its calls in order of arrival.
//!
//! A place in line is the number of the turn or arrival that gave it; the smallest is first. Nothing is kept
//! of a run that waits no longer.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::types::RunId;

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
    /// Each with the number of its arrival.
    calls: VecDeque<(u64, T)>,
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

    /// Returns how many calls of runs other than `run` wait, counting at most `each` of any; up to twice
    /// as many for runs that have about `each`.
    pub(super) fn len_of_others(&self, run: RunId, each: usize) -> usize {
        self.crowd.at_most(each, self.len_of(run))
    }

    /// Puts the call that arrived with this number behind its run's; a run that does not wait yet joins the
    /// line at its end.
    pub(super) fn push(&mut self, run: RunId, arrival: u64, call: T) {
        let joined = self.runs.entry(run).or_insert_with(|| {
            self.order.insert(arrival, run);
            Run { place: arrival, calls: VecDeque::new() }
        });
        self.crowd.moved(joined.calls.len(), joined.calls.len() + 1);
        joined.calls.push_back((arrival, call));
    }

    /// Returns the run that is first, with its place.
    pub(super) fn first(&self) -> Option<(u64, RunId)> {
        self.order.first_key_value().map(|(place, run)| (*place, *run))
    }

    /// Returns the call of `run` that has waited longest, with the number of its arrival.
    pub(super) fn oldest(&self, run: RunId) -> Option<(u64, &T)> {
        self.runs.get(&run)?.calls.front().map(|(arrival, call)| (*arrival, call))
    }

    /// Takes out the call of `run` that has waited longest. The run keeps its place.
    pub(super) fn pop(&mut self, run: RunId) -> Option<T> {
        let waiting = self.runs.get_mut(&run)?;
        let (_, call) = waiting.calls.pop_front()?;
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
        let keep = |call: &(u64, T)| keep(&call.1);
        // Mostly there is nothing to take, and looking moves nothing.
        let touched = self.runs.iter().filter(|(_, run)| !run.calls.iter().all(keep));
        let touched: Vec<RunId> = touched.map(|(run, _)| *run).collect();
        let mut taken = Vec::new();
        for run in touched {
            let Some(waiting) = self.runs.get_mut(&run) else { continue };
            let before = waiting.calls.len();
            let (kept, gone): (VecDeque<_>, VecDeque<_>) = waiting.calls.drain(..).partition(keep);
            self.crowd.moved(before, kept.len());
            waiting.calls = kept;
            taken.extend(gone);
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

    #[test]
    fn nothing_is_kept_of_a_run_that_waits_no_longer() {
        let (mut line, run) = (Line::new(), RunId::next());
        for round in 0..1000 {
            line.push(run, round, ());
            line.push(RunId::next(), round + 1_000_000, ());
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
