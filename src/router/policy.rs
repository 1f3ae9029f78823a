//! The order in which the targets of a route are tried.
//!
//! Pure. The order is a preference: a target may still reject the call.

use crate::provider::TargetHealth;

use super::settings::Policy;

/// Orders the targets of one route, by priority or by weight.
#[derive(Debug)]
pub(super) struct TargetSelector {
    policy: Policy,
    weights: Vec<u32>,
    /// Credit of each target in a smooth weighted round-robin: before every choice each healthy target gains its
    /// weight, and the chosen target loses the sum of the weights.
    credit: Vec<i64>,
}

impl TargetSelector {
    pub(super) fn new(policy: Policy, weights: Vec<u32>) -> Self {
        Self { policy, credit: vec![0; weights.len()], weights }
    }

    /// Returns the target indexes in the order in which they should be tried: healthy targets first, then
    /// degraded, then unavailable ones.
    pub(super) fn order(&mut self, health: &[TargetHealth]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.weights.len()).collect();
        let total_weight = if self.policy == Policy::Weighted { self.add_weights(health) } else { 0 };
        if self.policy == Policy::Weighted {
            order.sort_by_key(|target| std::cmp::Reverse(self.credit[*target]));
        }
        // The sort is stable: targets of the same health keep the order of the policy.
        order.sort_by_key(|target| match health.get(*target) {
            Some(TargetHealth::Healthy) | None => 0,
            Some(TargetHealth::Degraded) => 1,
            Some(TargetHealth::Unavailable) => 2,
        });
        if let Some(chosen) = order.first() {
            self.credit[*chosen] -= total_weight;
        }
        order
    }

    /// Adds its weight to the credit of every healthy target and returns the sum of these weights. The credit of
    /// other targets is reset: otherwise they would receive all requests when they recover.
    fn add_weights(&mut self, health: &[TargetHealth]) -> i64 {
        let mut sum = 0;
        for (target, (credit, weight)) in self.credit.iter_mut().zip(&self.weights).enumerate() {
            match health.get(target) {
                Some(TargetHealth::Healthy) | None => {
                    *credit += i64::from(*weight);
                    sum += i64::from(*weight);
                }
                Some(TargetHealth::Degraded | TargetHealth::Unavailable) => *credit = 0,
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::TargetHealth::{Degraded, Healthy, Unavailable};
    use super::*;

    #[test]
    fn priority_selects_the_first_healthy_target() {
        let mut selector = TargetSelector::new(Policy::Priority, vec![1, 1, 1]);
        assert_eq!(selector.order(&[Degraded, Healthy, Unavailable]), [1, 0, 2]);
        assert_eq!(selector.order(&[Healthy, Healthy, Healthy]), [0, 1, 2]);
    }

    #[test]
    fn weighted_targets_are_selected_in_proportion_to_their_weights() {
        let mut selector = TargetSelector::new(Policy::Weighted, vec![3, 1]);
        let first = (0..400).filter(|_| selector.order(&[Healthy, Healthy])[0] == 0).count();
        assert_eq!(first, 300);
    }

    #[test]
    fn a_recovered_target_does_not_receive_all_requests() {
        let mut selector = TargetSelector::new(Policy::Weighted, vec![1, 1]);
        for _ in 0..1_000 {
            assert_eq!(selector.order(&[Healthy, Degraded])[0], 0);
        }
        // The first target answered alone meanwhile, and is not penalized for that.
        let first = (0..100).filter(|_| selector.order(&[Healthy, Healthy])[0] == 0).count();
        assert!((49..=51).contains(&first), "{first}");
    }
}
