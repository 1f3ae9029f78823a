//! In which order the lanes of a route are tried.
//!
//! Pure; the order is a suggestion, and what a lane then says decides.

use crate::provider::LaneHealth;

use super::settings::Policy;

/// Chooses for one route, and remembers whose turn it is.
#[derive(Debug)]
pub(super) struct Chooser {
    policy: Policy,
    weights: Vec<u32>,
    /// How far each lane is behind its share (smooth weighted round-robin: after every choice each
    /// lane gains its weight and the chosen one pays the sum).
    credit: Vec<i64>,
}

impl Chooser {
    pub(super) fn new(policy: Policy, weights: Vec<u32>) -> Self {
        Self { policy, credit: vec![0; weights.len()], weights }
    }

    /// Returns the lanes' numbers in the order in which they should be tried: those that are well
    /// first, those that are out last.
    pub(super) fn order(&mut self, health: &[LaneHealth]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.weights.len()).collect();
        let sum = if self.policy == Policy::Weighted { self.take_turns(health) } else { 0 };
        if self.policy == Policy::Weighted {
            order.sort_by_key(|lane| std::cmp::Reverse(self.credit[*lane]));
        }
        // Stable: within one health the policy's order stays.
        order.sort_by_key(|lane| match health.get(*lane) {
            Some(LaneHealth::Good) | None => 0,
            Some(LaneHealth::Poor) => 1,
            Some(LaneHealth::Out) => 2,
        });
        if let Some(chosen) = order.first() {
            self.credit[*chosen] -= sum;
        }
        order
    }

    /// Gives every lane that is well its weight, and returns their sum. The others gain nothing: on their
    /// return they would otherwise take everything.
    fn take_turns(&mut self, health: &[LaneHealth]) -> i64 {
        let mut sum = 0;
        for (lane, (credit, weight)) in self.credit.iter_mut().zip(&self.weights).enumerate() {
            match health.get(lane) {
                Some(LaneHealth::Good) | None => {
                    *credit += i64::from(*weight);
                    sum += i64::from(*weight);
                }
                Some(LaneHealth::Poor | LaneHealth::Out) => *credit = 0,
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::LaneHealth::{Good, Out, Poor};
    use super::*;

    #[test]
    fn priority_takes_the_first_that_is_well() {
        let mut chooser = Chooser::new(Policy::Priority, vec![1, 1, 1]);
        assert_eq!(chooser.order(&[Poor, Good, Out]), [1, 0, 2]);
        assert_eq!(chooser.order(&[Good, Good, Good]), [0, 1, 2]);
    }

    #[test]
    fn weighted_lanes_are_chosen_in_proportion() {
        let mut chooser = Chooser::new(Policy::Weighted, vec![3, 1]);
        let first = (0..400).filter(|_| chooser.order(&[Good, Good])[0] == 0).count();
        assert_eq!(first, 300);
    }

    #[test]
    fn a_lane_that_comes_back_does_not_take_everything() {
        let mut chooser = Chooser::new(Policy::Weighted, vec![1, 1]);
        for _ in 0..1_000 {
            assert_eq!(chooser.order(&[Good, Poor])[0], 0);
        }
        // What the first lane did alone is not held against it for ever.
        let first = (0..100).filter(|_| chooser.order(&[Good, Good])[0] == 0).count();
        assert!((49..=51).contains(&first), "{first}");
    }
}
