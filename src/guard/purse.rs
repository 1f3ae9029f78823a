//! A budget that many share: all calls of a run, of a day, or of a provider's day.
//!
//! Reads no clock: its owner says which day it is. Never holds its lock while it asks anybody else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::types::{Booked, Class, Day, Failure, NanoUsd, ProviderName};

use super::budget::{Budget, Met, Unreserved};

/// Whose money a purse holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PurseOf {
    /// One run's.
    Run,
    /// Everybody's, from midnight to midnight, UTC.
    Day,
    /// A provider's, likewise.
    Provider(ProviderName),
}

/// A shared budget.
#[derive(Debug)]
pub struct Purse {
    of: PurseOf,
    kept: bool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    budget: Budget,
    day: Day,
    by_provider: BTreeMap<ProviderName, Booked>,
    /// Calls that may have cost something of which nothing is known.
    uncertain: u64,
    /// What of it no store knows.
    unkept: Booked,
}

/// How full a purse is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PurseState {
    /// The cap, if there is one.
    pub cap: Option<NanoUsd>,
    /// What is gone.
    pub spent: Booked,
    /// What is reserved for calls that are out.
    pub reserved: NanoUsd,
    /// How much more than the cap is gone.
    pub overshoot: NanoUsd,
    /// How things were when the cap was met; `None` while it is not.
    pub met: Option<Met>,
}

impl Purse {
    /// Makes the purse of a run that has spent `before` in earlier sessions. `kept` is whether a store learns
    /// what it spends.
    pub fn of_run(cap: Option<NanoUsd>, before: Booked, kept: bool) -> Arc<Self> {
        Arc::new(Self::new(PurseOf::Run, cap, before, kept))
    }

    /// Makes the purse of a day, everybody's or a provider's.
    pub fn of_day(of: PurseOf, cap: NanoUsd) -> Arc<Self> {
        Arc::new(Self::new(of, Some(cap), Booked::default(), false))
    }

    fn new(of: PurseOf, cap: Option<NanoUsd>, before: Booked, kept: bool) -> Self {
        let inner = Inner {
            budget: Budget::new(cap, before),
            day: Day::default(),
            by_provider: BTreeMap::new(),
            uncertain: 0,
            unkept: Booked::default(),
        };
        Self { of, kept, inner: Mutex::new(inner) }
    }

    /// Returns whose it is.
    pub fn of(&self) -> &PurseOf {
        &self.of
    }

    /// Returns whether a store learns what is spent from it.
    pub fn is_kept(&self) -> bool {
        self.kept
    }

    /// Returns whether it has a cap.
    pub fn is_capped(&self) -> bool {
        self.lock().budget.cap().is_some()
    }

    /// Says which day it is: a later one than before begins with nothing spent. A clock that steps back over midnight
    /// brings no money back; one that steps back by more than a day was wrong before.
    pub fn turn_to(&self, day: Day) {
        let mut inner = self.lock();
        let is_next = day > inner.day || day.0 < inner.day.0.saturating_sub(1);
        if is_next {
            inner.day = day;
            inner.unkept = Booked::default();
            inner.budget.restart();
        }
    }

    /// Learns what a store has booked for this day: by this process, and by others before it.
    pub fn store_has(&self, booked: Booked) {
        let mut inner = self.lock();
        let mut all = inner.unkept;
        all += booked;
        inner.budget.spent_at_least(all);
    }

    /// Reserves what a call is likely to cost.
    ///
    /// # Errors
    /// As [`Budget::reserve`].
    pub fn reserve(&self, likely: NanoUsd) -> Result<(), Unreserved> {
        self.lock().budget.reserve(likely)
    }

    /// Gives back what was reserved for a call that did not leave.
    pub fn give_back(&self, likely: NanoUsd) {
        self.lock().budget.settle(likely, Booked::default());
    }

    /// Books what a call to `provider` cost. `kept` is whether a store learns of it.
    pub fn settle(&self, likely: NanoUsd, provider: &ProviderName, cost: Booked, kept: bool) {
        let mut inner = self.lock();
        inner.budget.settle(likely, cost);
        inner.uncertain += u64::from(cost.perhaps > NanoUsd(0));
        if !kept {
            inner.unkept += cost;
        }
        // Only a run's store asks for it.
        if self.of == PurseOf::Run && cost != Booked::default() {
            *inner.by_provider.entry(provider.clone()).or_default() += cost;
        }
    }

    /// Returns what was spent since it was made, by provider; a run's only.
    pub fn by_provider(&self) -> BTreeMap<ProviderName, Booked> {
        self.lock().by_provider.clone()
    }

    /// Returns how many calls may have cost something of which nothing is known, since it was made.
    pub fn uncertain(&self) -> u64 {
        self.lock().uncertain
    }

    /// Returns how full it is.
    pub fn state(&self) -> PurseState {
        let Inner { budget, .. } = &*self.lock();
        PurseState {
            cap: budget.cap(),
            spent: budget.spent(),
            reserved: budget.reserved(),
            overshoot: budget.overshoot(),
            met: budget.met(),
        }
    }

    /// Says that the cap is met; `None` while it is not.
    pub fn met(&self) -> Option<Failure> {
        let PurseState { cap, spent, met, .. } = self.state();
        let (cap, met) = cap.zip(met)?;
        let whose = match &self.of {
            PurseOf::Run => "the run's cap".to_owned(),
            PurseOf::Day => "the day's cap (UTC)".to_owned(),
            PurseOf::Provider(provider) => format!("the day's cap (UTC) of provider {provider}"),
        };
        let (left, over) = (cap.less(spent.all()), spent.all().less(cap));
        // The sum itself would look like the cap, rounded.
        let how = if over > NanoUsd(0) {
            format!("{over} more is spent")
        } else {
            format!("{left} is left, and the next call is likely to cost {}", met.likely)
        };
        let message = format!("{whose} of {cap} is met: {how}");
        Some(Failure::new(Class::Budget, message))
    }

    /// A panic while the lock was held leaves numbers, not broken promises: go on with them.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(cost: u64) -> Booked {
        Booked { cost: NanoUsd(cost), ..Booked::default() }
    }

    #[test]
    fn a_day_knows_what_a_store_has_booked_and_counts_nothing_twice() {
        let purse = Purse::of_day(PurseOf::Day, NanoUsd(1_000));
        purse.turn_to(Day(7));
        purse.store_has(cost(100));
        for (spent, kept) in [(50, true), (30, false)] {
            purse.reserve(NanoUsd(60)).unwrap();
            purse.settle(NanoUsd(60), &"a".into(), cost(spent), kept);
        }
        assert_eq!(purse.state().spent, cost(180));
        // The store has the 50 as well by now, and 20 of another process; it never hears of the 30.
        purse.store_has(cost(170));
        assert_eq!(purse.state().spent, cost(200));
        purse.turn_to(Day(8));
        assert_eq!(purse.state().spent, cost(0));
    }

    #[test]
    fn a_clock_that_steps_back_over_midnight_brings_no_money_back() {
        let purse = Purse::of_day(PurseOf::Day, NanoUsd(1_000));
        purse.turn_to(Day(8));
        purse.reserve(NanoUsd(900)).unwrap();
        purse.settle(NanoUsd(900), &"a".into(), cost(900), true);
        purse.turn_to(Day(7));
        assert_eq!(purse.state().spent, cost(900));
        purse.turn_to(Day(8));
        assert_eq!(purse.state().spent, cost(900), "and the same day does not begin again");
        purse.turn_to(Day(9));
        assert_eq!(purse.state().spent, cost(0));
        // A year too far, until it was set right.
        purse.turn_to(Day(400));
        purse.reserve(NanoUsd(900)).unwrap();
        purse.turn_to(Day(9));
        assert_eq!(purse.state().spent, cost(0));
    }

    #[test]
    fn a_cap_that_is_met_says_whose_it_is_and_what_the_next_call_would_cost() {
        let purse = Purse::of_run(Some(NanoUsd(1_000_000_000)), cost(990_000_000), true);
        assert_eq!(purse.met(), None);
        purse.reserve(NanoUsd(20_000_000)).unwrap_err();
        let said =
            "the run's cap of $1.00 is met: $0.010000 is left, and the next call is likely to cost $0.020000";
        assert_eq!(purse.met().unwrap(), Failure::new(Class::Budget, said));
    }
}
