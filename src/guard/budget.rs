//! Holds calls to a cap on money: what a call is likely to cost is reserved before it leaves, and settled with
//! what it did cost.
//!
//! A call leaves only if it fits beside everything that is reserved. So no more is spent than the cap and what
//! the calls in flight cost beyond what was reserved for them. Once a call was refused for good the cap is met,
//! and stays so. Pure; knows neither prices nor whose money it is.

use crate::types::{Booked, NanoUsd};

/// A cap, and what counts against it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Budget {
    cap: Option<NanoUsd>,
    spent: Booked,
    reserved: NanoUsd,
    calls: u64,
    met: Option<Met>,
}

/// Why nothing can be reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreserved {
    /// It may fit once calls that are out have cost less than was reserved for them.
    Busy,
    /// It does not fit, whatever becomes of the calls that are out.
    Met,
}

/// How things were when a cap was met: when a call did not fit any more, or one that came back had cost more than was
/// left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Met {
    /// What that call was likely to cost.
    pub likely: NanoUsd,
    /// Calls that were out, the one that came back among them.
    pub calls: u64,
    /// What was reserved for them.
    pub reserved: NanoUsd,
}

impl Budget {
    /// Makes a budget of which `spent` is gone already; without a cap it only counts.
    pub fn new(cap: Option<NanoUsd>, spent: Booked) -> Self {
        Self { cap, spent, ..Self::default() }
    }

    /// Reserves what a call is likely to cost.
    ///
    /// # Errors
    /// When it does not fit now, or not at all.
    pub fn reserve(&mut self, likely: NanoUsd) -> Result<(), Unreserved> {
        if let Some(cap) = self.cap {
            let least = self.spent.all() + likely;
            if self.met.is_some() {
                return Err(Unreserved::Met);
            }
            if least > cap {
                self.met = Some(Met { likely, calls: self.calls, reserved: self.reserved });
                return Err(Unreserved::Met);
            }
            if least + self.reserved > cap {
                return Err(Unreserved::Busy);
            }
        }
        self.reserved += likely;
        self.calls += 1;
        Ok(())
    }

    /// Gives back what was reserved for a call, and books what it cost: nothing if it did not leave.
    pub fn settle(&mut self, likely: NanoUsd, cost: Booked) {
        let all = self.spent.all() + cost.all();
        if self.met.is_none() && self.cap.is_some_and(|cap| all > cap) {
            self.met = Some(Met { likely, calls: self.calls, reserved: self.reserved });
        }
        self.reserved = self.reserved.less(likely);
        self.calls = self.calls.saturating_sub(1);
        self.spent += cost;
    }

    /// Learns that at least so much is gone.
    pub fn spent_at_least(&mut self, booked: Booked) {
        self.spent.cost = self.spent.cost.max(booked.cost);
        self.spent.perhaps = self.spent.perhaps.max(booked.perhaps);
    }

    /// Begins anew, as a day does; calls that are out stay out.
    pub fn restart(&mut self) {
        (self.spent, self.met) = (Booked::default(), None);
    }

    /// Returns the cap, if there is one.
    pub fn cap(&self) -> Option<NanoUsd> {
        self.cap
    }

    /// Returns what is gone.
    pub fn spent(&self) -> Booked {
        self.spent
    }

    /// Returns what is reserved for calls that are out.
    pub fn reserved(&self) -> NanoUsd {
        self.reserved
    }

    /// Returns how things were when the cap was met; `None` while it is not.
    pub fn met(&self) -> Option<Met> {
        self.met
    }

    /// Returns how much more than the cap is gone.
    pub fn overshoot(&self) -> NanoUsd {
        self.cap.map_or(NanoUsd(0), |cap| self.spent.all().less(cap))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn capped(cap: u64) -> Budget {
        Budget::new(Some(NanoUsd(cap)), Booked::default())
    }

    fn cost(cost: u64) -> Booked {
        Booked { cost: NanoUsd(cost), ..Booked::default() }
    }

    #[test]
    fn a_call_waits_while_those_that_are_out_may_cost_less_and_is_refused_when_they_have_not() {
        let mut budget = capped(100);
        assert_eq!(budget.reserve(NanoUsd(60)), Ok(()));
        assert_eq!(budget.reserve(NanoUsd(60)), Err(Unreserved::Busy));
        budget.settle(NanoUsd(60), cost(30));
        assert_eq!(budget.reserve(NanoUsd(60)), Ok(()));
        budget.settle(NanoUsd(60), cost(50));
        assert_eq!(budget.reserve(NanoUsd(21)), Err(Unreserved::Met));
        // It would fit, and yet no new call leaves once the cap was met.
        assert_eq!(budget.reserve(NanoUsd(20)), Err(Unreserved::Met));
        assert_eq!((budget.spent().all(), budget.overshoot()), (NanoUsd(80), NanoUsd(0)));
    }

    #[test]
    fn what_was_perhaps_charged_counts_and_is_told_apart() {
        let mut budget = capped(100);
        budget.reserve(NanoUsd(60)).unwrap();
        budget.settle(NanoUsd(60), Booked { cost: NanoUsd(0), perhaps: NanoUsd(60) });
        assert_eq!(budget.reserve(NanoUsd(60)), Err(Unreserved::Met));
        assert_eq!(budget.spent(), Booked { cost: NanoUsd(0), perhaps: NanoUsd(60) });
    }

    #[test]
    fn a_new_day_begins_with_nothing_but_the_calls_that_are_out() {
        let mut budget = capped(100);
        budget.reserve(NanoUsd(90)).unwrap();
        budget.settle(NanoUsd(90), cost(90));
        budget.reserve(NanoUsd(10)).unwrap();
        assert_eq!(budget.reserve(NanoUsd(11)), Err(Unreserved::Met));
        assert_eq!(budget.met(), Some(Met { likely: NanoUsd(11), calls: 1, reserved: NanoUsd(10) }));
        budget.restart();
        assert_eq!((budget.met(), budget.reserved()), (None, NanoUsd(10)));
        assert_eq!(budget.reserve(NanoUsd(91)), Err(Unreserved::Busy));
    }

    #[test]
    fn a_call_that_costs_more_than_is_left_meets_the_cap_with_those_that_are_out_beside_it() {
        let mut budget = capped(100);
        (0..3).for_each(|_| budget.reserve(NanoUsd(30)).unwrap());
        budget.settle(NanoUsd(30), cost(101));
        assert_eq!(budget.met(), Some(Met { likely: NanoUsd(30), calls: 3, reserved: NanoUsd(90) }));
        assert_eq!(budget.reserve(NanoUsd(0)), Err(Unreserved::Met));
        (0..2).for_each(|_| budget.settle(NanoUsd(30), cost(20)));
        assert_eq!((budget.reserved(), budget.overshoot()), (NanoUsd(0), NanoUsd(41)));
    }

    #[test]
    fn without_a_cap_everything_fits_and_is_counted() {
        let mut budget = Budget::new(None, cost(5));
        budget.reserve(NanoUsd(u64::MAX)).unwrap();
        budget.settle(NanoUsd(u64::MAX), cost(7));
        assert_eq!((budget.spent().all(), budget.overshoot()), (NanoUsd(12), NanoUsd(0)));
    }

    proptest! {
        /// Calls leave and end in any order, and cost anything.
        #[test]
        fn no_more_is_spent_than_the_cap_and_what_calls_cost_beyond_their_reservations(
            cap in 0u64..5_000,
            before in 0u64..1_000,
            steps in proptest::collection::vec((1u64..500, 0u64..900, 0usize..6, any::<bool>()), 1..200),
        ) {
            let mut budget = Budget::new(Some(NanoUsd(cap)), cost(before));
            let (mut out, mut beyond, mut spent) = (Vec::new(), 0, before);
            let mut end = |budget: &mut Budget, (likely, real): (u64, u64), perhaps: bool| {
                let booked = if perhaps {
                    Booked { cost: NanoUsd(0), perhaps: NanoUsd(likely) }
                } else {
                    cost(real)
                };
                beyond += booked.all().0.saturating_sub(likely);
                spent += booked.all().0;
                budget.settle(NanoUsd(likely), booked);
                (beyond, spent)
            };
            let mut sums = (0, before);
            for (likely, real, which, perhaps) in steps {
                let was_met = budget.met().is_some();
                match budget.reserve(NanoUsd(likely)) {
                    Ok(()) => {
                        prop_assert!(!was_met);
                        out.push((likely, real));
                    }
                    Err(Unreserved::Busy) => prop_assert!(!out.is_empty(), "nothing would ever wake it"),
                    Err(Unreserved::Met) => prop_assert!(budget.met().is_some()),
                }
                if which < out.len() {
                    sums = end(&mut budget, out.swap_remove(which), perhaps);
                }
            }
            for call in out {
                sums = end(&mut budget, call, false);
            }
            prop_assert_eq!((budget.reserved(), budget.spent().all().0), (NanoUsd(0), sums.1));
            prop_assert!(sums.1 <= cap.max(before) + sums.0, "{sums:?} of {cap}");
            prop_assert_eq!(budget.overshoot().0, sums.1.saturating_sub(cap));
        }
    }
}
