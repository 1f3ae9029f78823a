//! Money budget: a call's estimated cost is reserved before it is sent, and settled with its real cost.
//!
//! A call is sent only if the spend, all reservations and its own estimate fit under the cap together. So
//! the total spend is at most the cap plus what calls in flight cost beyond their reservations. Once a call
//! is rejected because it can never fit, the cap is reached and stays so. A budget of independent callers
//! ([`OversizedCall::Rejected`]) rejects only that call while anything is left. Pure; independent of prices.

use crate::types::{NanoUsd, Spend};

/// A cap and what counts against it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Budget {
    cap: Option<NanoUsd>,
    spent: Spend,
    reserved: NanoUsd,
    in_flight: u64,
    cap_reached: Option<CapReached>,
    oversized_call: OversizedCall,
}

/// What a call that costs more than what is left means for the budget.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OversizedCall {
    /// The cap is reached: the calls of a run are alike.
    #[default]
    ReachesCap,
    /// Only this call is rejected, because other callers have cheaper calls.
    Rejected,
}

/// Why nothing can be reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReserveError {
    /// The call may fit once calls in flight have cost less than reserved.
    Contended,
    /// The call does not fit, whatever the calls in flight cost. The cap is reached.
    Exhausted,
    /// The call does not fit, whatever the calls in flight cost. A cheaper one may.
    Oversized,
}

/// The state when a cap was reached: when a call no longer fitted, or when one had cost more than what was
/// left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CapReached {
    /// Estimated cost of that call.
    pub estimate: NanoUsd,
    /// Calls in flight, the one that had cost too much included.
    pub in_flight: u64,
    /// What was reserved for them.
    pub reserved: NanoUsd,
}

impl Budget {
    /// Creates a budget of which `spent` is used already; without a cap it only counts.
    pub fn new(cap: Option<NanoUsd>, spent: Spend) -> Self {
        Self { cap, spent, ..Self::default() }
    }

    /// Sets what a call means that costs more than what is left.
    #[must_use]
    pub fn with_oversized_call(self, oversized_call: OversizedCall) -> Self {
        Self { oversized_call, ..self }
    }

    /// Reserves the estimated cost of a call.
    ///
    /// # Errors
    /// If it does not fit now, or not at all.
    pub fn reserve(&mut self, estimate: NanoUsd) -> Result<(), ReserveError> {
        self.reserve_as(estimate, self.oversized_call)
    }

    /// Reserves the estimated cost of a call that its caller divides if it does not fit. While anything is left, such a
    /// call does not reach the cap: a part of it may fit.
    ///
    /// # Errors
    /// As [`reserve`](Self::reserve).
    pub fn reserve_divisible(&mut self, estimate: NanoUsd) -> Result<(), ReserveError> {
        self.reserve_as(estimate, OversizedCall::Rejected)
    }

    fn reserve_as(&mut self, estimate: NanoUsd, oversized_call: OversizedCall) -> Result<(), ReserveError> {
        if let Some(cap) = self.cap {
            let min_total = self.spent.total() + estimate;
            if self.cap_reached.is_some() {
                return Err(ReserveError::Exhausted);
            }
            if min_total > cap {
                match oversized_call {
                    OversizedCall::Rejected if self.spent.total() < cap => {
                        return Err(ReserveError::Oversized);
                    }
                    OversizedCall::Rejected | OversizedCall::ReachesCap => {}
                }
                self.cap_reached =
                    Some(CapReached { estimate, in_flight: self.in_flight, reserved: self.reserved });
                return Err(ReserveError::Exhausted);
            }
            if min_total + self.reserved > cap {
                return Err(ReserveError::Contended);
            }
        }
        self.reserved += estimate;
        self.in_flight += 1;
        Ok(())
    }

    /// Releases the reservation of a call and adds its cost: nothing if it was not sent.
    pub fn settle(&mut self, estimate: NanoUsd, cost: Spend) {
        let total = self.spent.total() + cost.total();
        if self.cap_reached.is_none() && self.cap.is_some_and(|cap| total > cap) {
            self.cap_reached =
                Some(CapReached { estimate, in_flight: self.in_flight, reserved: self.reserved });
        }
        self.reserved = self.reserved.saturating_sub(estimate);
        self.in_flight = self.in_flight.saturating_sub(1);
        self.spent += cost;
    }

    /// Raises the spend to at least `recorded`.
    pub fn spent_at_least(&mut self, recorded: Spend) {
        self.spent.cost = self.spent.cost.max(recorded.cost);
        self.spent.uncertain_cost = self.spent.uncertain_cost.max(recorded.uncertain_cost);
    }

    /// Sets the cap; `None` removes it. What was spent stays. A reached cap is open again if the new one is higher than the
    /// spend.
    pub fn set_cap(&mut self, cap: Option<NanoUsd>) {
        if self.cap != cap {
            self.cap = cap;
            self.cap_reached = self.cap_reached.filter(|_| cap.is_some_and(|cap| self.spent.total() >= cap));
        }
    }

    /// Starts again with nothing spent, as at the start of a day; reservations of calls in flight stay.
    pub fn reset(&mut self) {
        self.spent = Spend::default();
        self.cap_reached = None;
    }

    /// Returns the cap, if there is one.
    pub fn cap(&self) -> Option<NanoUsd> {
        self.cap
    }

    /// Returns the spend.
    pub fn spent(&self) -> Spend {
        self.spent
    }

    /// Returns what is reserved for calls in flight.
    pub fn reserved(&self) -> NanoUsd {
        self.reserved
    }

    /// Returns the state when the cap was reached; `None` while it is not reached.
    pub fn cap_reached(&self) -> Option<CapReached> {
        self.cap_reached
    }

    /// Returns by how much the spend exceeds the cap.
    pub fn overshoot(&self) -> NanoUsd {
        self.cap.map_or(NanoUsd(0), |cap| self.spent.total().saturating_sub(cap))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn capped(cap: u64) -> Budget {
        Budget::new(Some(NanoUsd(cap)), Spend::default())
    }

    fn cost(cost: u64) -> Spend {
        Spend { cost: NanoUsd(cost), ..Spend::default() }
    }

    #[test]
    fn a_call_waits_while_calls_in_flight_may_cost_less_and_is_rejected_if_they_did_not() {
        let mut budget = capped(100);
        assert_eq!(budget.reserve(NanoUsd(60)), Ok(()));
        assert_eq!(budget.reserve(NanoUsd(60)), Err(ReserveError::Contended));
        budget.settle(NanoUsd(60), cost(30));
        assert_eq!(budget.reserve(NanoUsd(60)), Ok(()));
        budget.settle(NanoUsd(60), cost(50));
        assert_eq!(budget.reserve(NanoUsd(21)), Err(ReserveError::Exhausted));
        // It would fit, but no call is sent once the cap is reached.
        assert_eq!(budget.reserve(NanoUsd(20)), Err(ReserveError::Exhausted));
        assert_eq!((budget.spent().total(), budget.overshoot()), (NanoUsd(80), NanoUsd(0)));
    }

    #[test]
    fn a_budget_of_independent_callers_rejects_only_the_call_that_does_not_fit_until_nothing_is_left() {
        let mut budget = capped(100).with_oversized_call(OversizedCall::Rejected);
        assert_eq!(budget.reserve(NanoUsd(101)), Err(ReserveError::Oversized));
        assert_eq!((budget.cap_reached(), budget.reserved()), (None, NanoUsd(0)));
        assert_eq!(budget.reserve(NanoUsd(60)), Ok(()));
        assert_eq!(budget.reserve(NanoUsd(60)), Err(ReserveError::Contended));
        budget.settle(NanoUsd(60), cost(60));
        assert_eq!(budget.reserve(NanoUsd(41)), Err(ReserveError::Oversized));
        assert_eq!(budget.reserve(NanoUsd(40)), Ok(()));
        budget.settle(NanoUsd(40), cost(40));
        assert_eq!(budget.cap_reached(), None);
        assert_eq!(budget.reserve(NanoUsd(1)), Err(ReserveError::Exhausted));
        assert!(budget.cap_reached().is_some());
    }

    #[test]
    fn a_call_that_can_be_divided_does_not_reach_the_cap_of_a_run_while_a_part_of_it_fits() {
        let mut budget = capped(100);
        assert_eq!(budget.reserve_divisible(NanoUsd(101)), Err(ReserveError::Oversized));
        assert_eq!(budget.reserve_divisible(NanoUsd(60)), Ok(()));
        assert_eq!(budget.reserve_divisible(NanoUsd(60)), Err(ReserveError::Contended));
        budget.settle(NanoUsd(60), cost(60));
        assert_eq!(budget.reserve_divisible(NanoUsd(41)), Err(ReserveError::Oversized));
        assert_eq!(budget.cap_reached(), None);
        assert_eq!(budget.reserve(NanoUsd(41)), Err(ReserveError::Exhausted));
        assert_eq!(budget.reserve_divisible(NanoUsd(1)), Err(ReserveError::Exhausted), "the cap is reached");
        let mut spent = capped(100);
        spent.reserve(NanoUsd(100)).unwrap();
        spent.settle(NanoUsd(100), cost(100));
        assert_eq!(spent.reserve_divisible(NanoUsd(2)), Err(ReserveError::Exhausted), "nothing is left");
        assert!(spent.cap_reached().is_some());
    }

    #[test]
    fn an_uncertain_cost_counts_and_is_reported_separately() {
        let mut budget = capped(100);
        budget.reserve(NanoUsd(60)).unwrap();
        budget.settle(NanoUsd(60), Spend { cost: NanoUsd(0), uncertain_cost: NanoUsd(60) });
        assert_eq!(budget.reserve(NanoUsd(60)), Err(ReserveError::Exhausted));
        assert_eq!(budget.spent(), Spend { cost: NanoUsd(0), uncertain_cost: NanoUsd(60) });
    }

    #[test]
    fn a_new_day_starts_with_only_the_reservations_of_calls_in_flight() {
        let mut budget = capped(100);
        budget.reserve(NanoUsd(90)).unwrap();
        budget.settle(NanoUsd(90), cost(90));
        budget.reserve(NanoUsd(10)).unwrap();
        assert_eq!(budget.reserve(NanoUsd(11)), Err(ReserveError::Exhausted));
        assert_eq!(
            budget.cap_reached(),
            Some(CapReached { estimate: NanoUsd(11), in_flight: 1, reserved: NanoUsd(10) })
        );
        budget.reset();
        assert_eq!((budget.cap_reached(), budget.reserved()), (None, NanoUsd(10)));
        assert_eq!(budget.reserve(NanoUsd(91)), Err(ReserveError::Contended));
    }

    #[test]
    fn a_call_that_costs_more_than_what_is_left_reaches_the_cap() {
        let mut budget = capped(100);
        (0..3).for_each(|_| budget.reserve(NanoUsd(30)).unwrap());
        budget.settle(NanoUsd(30), cost(101));
        assert_eq!(
            budget.cap_reached(),
            Some(CapReached { estimate: NanoUsd(30), in_flight: 3, reserved: NanoUsd(90) })
        );
        assert_eq!(budget.reserve(NanoUsd(0)), Err(ReserveError::Exhausted));
        (0..2).for_each(|_| budget.settle(NanoUsd(30), cost(20)));
        assert_eq!((budget.reserved(), budget.overshoot()), (NanoUsd(0), NanoUsd(41)));
    }

    #[test]
    fn without_a_cap_every_call_fits_and_is_counted() {
        let mut budget = Budget::new(None, cost(5));
        budget.reserve(NanoUsd(u64::MAX)).unwrap();
        budget.settle(NanoUsd(u64::MAX), cost(7));
        assert_eq!((budget.spent().total(), budget.overshoot()), (NanoUsd(12), NanoUsd(0)));
    }

    proptest! {
        /// Calls are sent and end in any order, and cost any amount.
        #[test]
        fn the_spend_is_at_most_the_cap_and_what_calls_cost_beyond_their_reservations(
            cap in 0u64..5_000,
            before in 0u64..1_000,
            rejects_oversized in any::<bool>(),
            steps in proptest::collection::vec((1u64..500, 0u64..900, 0usize..6, any::<bool>()), 1..200),
        ) {
            let oversized_call =
                if rejects_oversized { OversizedCall::Rejected } else { OversizedCall::ReachesCap };
            let mut budget =
                Budget::new(Some(NanoUsd(cap)), cost(before)).with_oversized_call(oversized_call);
            let mut in_flight = Vec::new();
            let mut excess = 0;
            let mut spent = before;
            let mut settle = |budget: &mut Budget, (estimate, real): (u64, u64), is_uncertain: bool| {
                let settled = if is_uncertain {
                    Spend { cost: NanoUsd(0), uncertain_cost: NanoUsd(estimate) }
                } else {
                    cost(real)
                };
                excess += settled.total().0.saturating_sub(estimate);
                spent += settled.total().0;
                budget.settle(NanoUsd(estimate), settled);
                (excess, spent)
            };
            let mut sums = (0, before);
            for (estimate, real, index, is_uncertain) in steps {
                let was_reached = budget.cap_reached().is_some();
                match budget.reserve(NanoUsd(estimate)) {
                    Ok(()) => {
                        prop_assert!(!was_reached);
                        in_flight.push((estimate, real));
                    }
                    Err(ReserveError::Contended) => {
                        prop_assert!(!in_flight.is_empty(), "nothing would ever wake the call")
                    }
                    Err(ReserveError::Exhausted) => prop_assert!(budget.cap_reached().is_some()),
                    Err(ReserveError::Oversized) => {
                        prop_assert!(rejects_oversized && budget.cap_reached().is_none());
                        prop_assert!(budget.spent().total() < NanoUsd(cap));
                    }
                }
                if index < in_flight.len() {
                    sums = settle(&mut budget, in_flight.swap_remove(index), is_uncertain);
                }
            }
            for call in in_flight {
                sums = settle(&mut budget, call, false);
            }
            prop_assert_eq!((budget.reserved(), budget.spent().total().0), (NanoUsd(0), sums.1));
            prop_assert!(sums.1 <= cap.max(before) + sums.0, "{sums:?} of {cap}");
            prop_assert_eq!(budget.overshoot().0, sums.1.saturating_sub(cap));
        }
    }
}
