//! Dependency graph of steps, and its topological order.
//!
//! Steps are represented by their indices.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Steps that need each other's answers, without a cycle.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Graph {
    needs: Vec<Vec<usize>>,
    order: Vec<usize>,
    needed: Vec<bool>,
}

impl Graph {
    /// Creates a graph in which step `n` needs the steps `needs[n]`.
    ///
    /// # Errors
    /// The cycles, each as the steps on it: every step needs the next, the last needs the first.
    pub(super) fn new(mut needs: Vec<Vec<usize>>) -> Result<Self, Vec<Vec<usize>>> {
        let count = needs.len();
        let mut needed = vec![false; count];
        for step in &mut needs {
            step.retain(|need| *need < count);
            step.sort_unstable();
            step.dedup();
            step.iter().for_each(|need| needed[*need] = true);
        }
        let mut sorter = Sorter::new(&needs);
        let mut cycles = Vec::new();
        loop {
            sorter.sort();
            let Some(stuck) = sorter.remaining.iter().position(|remaining| *remaining) else { break };
            let cycle = sorter.cycle_from(stuck);
            // Remove the cycle, to find further cycles.
            cycle.iter().for_each(|step| sorter.release(*step));
            cycles.push(cycle);
        }
        let order = sorter.order;
        if cycles.is_empty() { Ok(Self { needs, order, needed }) } else { Err(cycles) }
    }

    /// Returns the steps that `step` needs, in the order of the file.
    pub(super) fn needs(&self, step: usize) -> &[usize] {
        self.needs.get(step).map_or(&[], Vec::as_slice)
    }

    /// Returns whether any step needs `step`.
    pub(super) fn is_needed(&self, step: usize) -> bool {
        self.needed.get(step).copied().unwrap_or(false)
    }

    /// Returns the size of the largest set of steps that do not need each other, directly or through other steps.
    ///
    /// By Dilworth's theorem, this is the number of steps minus the size of a maximum matching between steps and
    /// the steps that they need (Fulkerson 1956).
    pub(super) fn width(&self) -> usize {
        let count = self.needs.len();
        let mut all_needs = vec![vec![false; count]; count];
        for step in &self.order {
            for need in self.needs(*step) {
                let of_need = all_needs[*need].clone();
                for (needs, needs_of_need) in all_needs[*step].iter_mut().zip(of_need) {
                    *needs |= needs_of_need;
                }
                all_needs[*step][*need] = true;
            }
        }
        let mut matched = vec![None; count];
        let matches = (0..count).filter(|step| {
            let mut visited = vec![false; count];
            find_augmenting_path(*step, &all_needs, &mut matched, &mut visited)
        });
        count - matches.count()
    }

    /// Returns all steps, each after the steps it needs, and otherwise in the order of the file.
    pub(super) fn order(&self) -> &[usize] {
        &self.order
    }
}

/// Matches `step` with a step that it needs, and rematches others if necessary. Returns whether that succeeded.
fn find_augmenting_path(
    step: usize,
    all_needs: &[Vec<bool>],
    matched: &mut [Option<usize>],
    visited: &mut [bool],
) -> bool {
    for need in 0..matched.len() {
        if !all_needs[step][need] || std::mem::replace(&mut visited[need], true) {
            continue;
        }
        let is_free = match matched[need] {
            Some(other) => find_augmenting_path(other, all_needs, matched, visited),
            None => true,
        };
        if is_free {
            matched[need] = Some(step);
            return true;
        }
    }
    false
}

/// Sorts steps topologically, lowest index first, until none is left or the remaining steps are in or behind
/// cycles.
struct Sorter<'n> {
    needs: &'n [Vec<usize>],
    needed_by: Vec<Vec<usize>>,
    unmet: Vec<usize>,
    ready: BinaryHeap<Reverse<usize>>,
    remaining: Vec<bool>,
    order: Vec<usize>,
}

impl<'n> Sorter<'n> {
    fn new(needs: &'n [Vec<usize>]) -> Self {
        let mut needed_by = vec![Vec::new(); needs.len()];
        for (step, needs) in needs.iter().enumerate() {
            needs.iter().for_each(|need| needed_by[*need].push(step));
        }
        let unmet: Vec<usize> = needs.iter().map(Vec::len).collect();
        let ready = unmet.iter().enumerate().filter(|(_, unmet)| **unmet == 0).map(|(step, _)| Reverse(step));
        Self {
            needs,
            needed_by,
            ready: ready.collect(),
            unmet,
            remaining: vec![true; needs.len()],
            order: vec![],
        }
    }

    fn sort(&mut self) {
        while let Some(Reverse(step)) = self.ready.pop() {
            if self.remaining[step] {
                self.order.push(step);
                self.release(step);
            }
        }
    }

    fn release(&mut self, step: usize) {
        self.remaining[step] = false;
        for waiting in &self.needed_by[step] {
            self.unmet[*waiting] = self.unmet[*waiting].saturating_sub(1);
            if self.unmet[*waiting] == 0 {
                self.ready.push(Reverse(*waiting));
            }
        }
    }

    /// Follows needs from a stuck step until a step repeats. Every stuck step needs a stuck step.
    fn cycle_from(&self, stuck: usize) -> Vec<usize> {
        let mut path = vec![stuck];
        loop {
            let last = path[path.len() - 1];
            let Some(next) = self.needs[last].iter().copied().find(|need| self.remaining[*need]) else {
                return path;
            };
            if let Some(start) = path.iter().position(|step| *step == next) {
                return path.split_off(start);
            }
            path.push(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn independent_steps_keep_the_order_of_the_file() {
        let graph = Graph::new(vec![vec![], vec![2], vec![], vec![0, 1]]).unwrap();
        assert_eq!(graph.order(), [0, 2, 1, 3]);
        assert_eq!(graph.needs(3), [0, 1]);
        assert!(graph.is_needed(2) && !graph.is_needed(3));
    }

    #[test]
    fn every_cycle_is_found_completely() {
        let cycles = Graph::new(vec![vec![1], vec![2], vec![0], vec![3], vec![0], vec![]]).unwrap_err();
        assert_eq!(cycles, [vec![0, 1, 2], vec![3]]);
    }

    #[test]
    fn a_step_that_needs_a_cycle_is_not_part_of_the_reported_cycle() {
        let cycles = Graph::new(vec![vec![1], vec![2], vec![1]]).unwrap_err();
        assert_eq!(cycles, [vec![1, 2]]);
    }

    proptest! {
        #[test]
        fn any_needs_give_an_order_or_real_cycles(
            needs in proptest::collection::vec(proptest::collection::vec(0_usize..12, 0..4), 0..12)
        ) {
            let count = needs.len();
            let valid_needs = |step: usize| needs[step].iter().filter(move |need| **need < count);
            match Graph::new(needs.clone()) {
                Ok(graph) => {
                    let mut sorted = graph.order().to_vec();
                    sorted.sort_unstable();
                    prop_assert_eq!(sorted, (0..count).collect::<Vec<_>>());
                    let rank = |step: usize| graph.order().iter().position(|other| *other == step);
                    for step in 0..count {
                        for need in valid_needs(step) {
                            prop_assert!(rank(*need) < rank(step));
                        }
                    }
                }
                Err(cycles) => for cycle in cycles {
                    for (position, step) in cycle.iter().enumerate() {
                        prop_assert!(valid_needs(*step).any(|need| *need == cycle[(position + 1) % cycle.len()]));
                    }
                },
            }
        }
    }
}
