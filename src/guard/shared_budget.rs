//! A budget shared between threads: of all calls of a run, of a day, or of the day of a provider or a scope.
//!
//! Reads no clock; the owner passes the day. The lock is never held while other code is called.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::types::{Cause, Class, Day, Failure, NanoUsd, ProviderName, ScopeName, Spend};

use super::budget::{Budget, CapReached, OversizedCall, ReserveError};

/// What a budget applies to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BudgetScope {
    /// One run.
    Run,
    /// All runs, from midnight to midnight UTC.
    Day,
    /// One provider, from midnight to midnight UTC.
    Provider(ProviderName),
    /// One scope, from midnight to midnight UTC.
    Scope(ScopeName),
}

/// A shared budget.
#[derive(Debug)]
pub struct SharedBudget {
    scope: BudgetScope,
    is_persisted: bool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    budget: Budget,
    day: Day,
    by_provider: BTreeMap<ProviderName, Spend>,
    /// Calls that may have been charged with an unknown cost.
    uncertain_calls: u64,
    /// The part of the spend that no store has.
    unpersisted: Spend,
}

/// What a store has recorded as spent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecordedSpend {
    /// On this day.
    pub of_today: Spend,
    /// On the day after, by the clock at that time.
    pub of_next_day: Spend,
}

/// A snapshot of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetStatus {
    /// The cap, if there is one.
    pub cap: Option<NanoUsd>,
    /// The spend.
    pub spent: Spend,
    /// What is reserved for calls in flight.
    pub reserved: NanoUsd,
    /// By how much the spend exceeds the cap.
    pub overshoot: NanoUsd,
    /// The state when the cap was reached; `None` while it is not reached.
    pub cap_reached: Option<CapReached>,
}

impl SharedBudget {
    /// Creates the budget of a run that spent `before` in earlier sessions. `is_persisted` is whether a store
    /// records what it spends.
    pub fn for_run(cap: Option<NanoUsd>, before: Spend, is_persisted: bool) -> Arc<Self> {
        Arc::new(Self::new(BudgetScope::Run, cap, before, is_persisted))
    }

    /// Creates the budget of a day, for all runs, for a provider or for a scope.
    pub fn for_day(scope: BudgetScope, cap: NanoUsd) -> Arc<Self> {
        Arc::new(Self::new(scope, Some(cap), Spend::default(), false))
    }

    fn new(scope: BudgetScope, cap: Option<NanoUsd>, before: Spend, is_persisted: bool) -> Self {
        let oversized_call = match &scope {
            BudgetScope::Run => OversizedCall::ReachesCap,
            BudgetScope::Day | BudgetScope::Provider(_) | BudgetScope::Scope(_) => OversizedCall::Rejected,
        };
        let inner = Inner {
            budget: Budget::new(cap, before).with_oversized_call(oversized_call),
            day: Day::default(),
            by_provider: BTreeMap::new(),
            uncertain_calls: 0,
            unpersisted: Spend::default(),
        };
        Self { scope, is_persisted, inner: Mutex::new(inner) }
    }

    /// Returns what the budget applies to.
    pub fn scope(&self) -> &BudgetScope {
        &self.scope
    }

    /// Returns whether a store records what is spent.
    pub fn is_persisted(&self) -> bool {
        self.is_persisted
    }

    /// Returns whether it has a cap.
    pub fn is_capped(&self) -> bool {
        self.lock().budget.cap().is_some()
    }

    /// Sets the cap; `None` removes it. What was spent stays.
    pub fn set_cap(&self, cap: Option<NanoUsd>) {
        self.lock().budget.set_cap(cap);
    }

    /// Sets the day: a later day starts with nothing spent. A clock that steps back over midnight resets
    /// nothing; a step back by more than a day means that the clock was wrong before.
    pub fn roll_over(&self, day: Day) {
        let mut inner = self.lock();
        let is_next = day > inner.day || day.0 < inner.day.0.saturating_sub(1);
        if is_next {
            inner.day = day;
            inner.unpersisted = Spend::default();
            inner.budget.reset();
        }
    }

    /// Raises the spend to what a store has recorded for `today` and the day after, by this process and by others. What was
    /// recorded before the clock stepped back over midnight is of the day after. If this budget has begun that day
    /// already, only that counts.
    pub fn sync_from_store(&self, today: Day, recorded: RecordedSpend) {
        self.roll_over(today);
        let mut inner = self.lock();
        let mut total = inner.unpersisted;
        if inner.day <= today {
            total += recorded.of_today;
        }
        total += recorded.of_next_day;
        inner.budget.spent_at_least(total);
    }

    /// Reserves the estimated cost of a call.
    ///
    /// # Errors
    /// As [`Budget::reserve`].
    pub fn reserve(&self, estimate: NanoUsd) -> Result<(), ReserveError> {
        self.lock().budget.reserve(estimate)
    }

    /// Reserves the estimated cost of a call that its caller divides if it does not fit.
    ///
    /// # Errors
    /// As [`Budget::reserve_divisible`].
    pub fn reserve_divisible(&self, estimate: NanoUsd) -> Result<(), ReserveError> {
        self.lock().budget.reserve_divisible(estimate)
    }

    /// Releases the reservation of a call that was not sent.
    pub fn give_back(&self, estimate: NanoUsd) {
        self.lock().budget.settle(estimate, Spend::default());
    }

    /// Releases the reservation of a call to `provider` and adds its cost. `is_persisted` is whether a
    /// store records it.
    pub fn settle(&self, estimate: NanoUsd, provider: &ProviderName, cost: Spend, is_persisted: bool) {
        let mut inner = self.lock();
        inner.budget.settle(estimate, cost);
        inner.uncertain_calls += u64::from(cost.uncertain_cost > NanoUsd(0));
        if !is_persisted {
            inner.unpersisted += cost;
        }
        // Only the store of a run reads it.
        if self.scope == BudgetScope::Run && cost != Spend::default() {
            *inner.by_provider.entry(provider.clone()).or_default() += cost;
        }
    }

    /// Returns the spend by provider since the budget was made; only of a run.
    pub fn by_provider(&self) -> BTreeMap<ProviderName, Spend> {
        self.lock().by_provider.clone()
    }

    /// Returns the number of calls since the budget was made that may have been charged with an unknown
    /// cost.
    pub fn uncertain_calls(&self) -> u64 {
        self.lock().uncertain_calls
    }

    /// Returns a snapshot.
    pub fn status(&self) -> BudgetStatus {
        let Inner { budget, .. } = &*self.lock();
        BudgetStatus {
            cap: budget.cap(),
            spent: budget.spent(),
            reserved: budget.reserved(),
            overshoot: budget.overshoot(),
            cap_reached: budget.cap_reached(),
        }
    }

    /// Returns the failure that reports that the cap is reached; `None` while it is not reached.
    pub fn cap_failure(&self) -> Option<Failure> {
        let BudgetStatus { cap, spent, cap_reached, .. } = self.status();
        let (cap, cap_reached) = cap.zip(cap_reached)?;
        let cap_name = self.cap_name();
        let left = cap.saturating_sub(spent.total());
        let excess = spent.total().saturating_sub(cap);
        // The rounded total would look equal to the cap.
        let detail = if excess > NanoUsd(0) {
            format!("{excess} more is spent")
        } else {
            format!("{left} is left, and the next call {} {}", self.estimate_verb(), cap_reached.estimate)
        };
        let message = format!("{cap_name} of {cap} is reached: {detail}");
        Some(Failure::new(Class::Budget, message))
    }

    /// Returns the failure of a call that costs more than what is left.
    pub fn oversized_failure(&self, estimate: NanoUsd) -> Failure {
        let BudgetStatus { cap, spent, .. } = self.status();
        let cap = cap.unwrap_or_default();
        let left = cap.saturating_sub(spent.total());
        let cap_name = self.cap_name();
        let verb = self.estimate_verb();
        // Another day would not help.
        let is_never_admitted = estimate > cap;
        let detail = if is_never_admitted {
            format!("the call alone {verb} {estimate}")
        } else {
            format!("{left} is left, and the call {verb} {estimate}")
        };
        let message = format!("{cap_name} of {cap} does not admit the call: {detail}");
        let failure = Failure::new(Class::Budget, message);
        if is_never_admitted { failure.with_cause(Cause::NeverWithinBudget) } else { failure }
    }

    /// Returns what an estimate says about the cost of a call.
    fn estimate_verb(&self) -> &'static str {
        match &self.scope {
            BudgetScope::Run | BudgetScope::Day | BudgetScope::Provider(_) => "is likely to cost",
            // It reserves the maximum.
            BudgetScope::Scope(_) => "may cost",
        }
    }

    fn cap_name(&self) -> String {
        match &self.scope {
            BudgetScope::Run => "the run's cap".to_owned(),
            BudgetScope::Day => "the day's cap (UTC)".to_owned(),
            BudgetScope::Provider(provider) => format!("the day's cap (UTC) of provider {provider}"),
            BudgetScope::Scope(scope) => format!("the day's cap (UTC) of scope {scope}"),
        }
    }

    /// A panic while the lock was held leaves no broken invariants, only numbers, so a poisoned lock is
    /// usable.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(cost: u64) -> Spend {
        Spend { cost: NanoUsd(cost), ..Spend::default() }
    }

    fn today(of_today: u64) -> RecordedSpend {
        RecordedSpend { of_today: cost(of_today), ..RecordedSpend::default() }
    }

    #[test]
    fn what_a_store_recorded_before_midnight_does_not_count_for_a_day_that_has_begun_meanwhile() {
        let budget = SharedBudget::for_day(BudgetScope::Day, NanoUsd(1_000));
        let recorded = RecordedSpend { of_today: cost(900), of_next_day: cost(40) };
        // The clock has stepped back over midnight after 40 were spent.
        budget.sync_from_store(Day(7), recorded);
        assert_eq!(budget.status().spent, cost(940));
        budget.roll_over(Day(8));
        assert_eq!(budget.status().spent, cost(0));
        // The day was read before the store, and midnight has passed in between.
        budget.sync_from_store(Day(7), recorded);
        assert_eq!(budget.status().spent, cost(40));
        budget.sync_from_store(Day(8), today(50));
        assert_eq!(budget.status().spent, cost(50));
    }

    #[test]
    fn the_spend_of_a_day_includes_what_a_store_has_recorded_and_counts_nothing_twice() {
        let budget = SharedBudget::for_day(BudgetScope::Day, NanoUsd(1_000));
        budget.roll_over(Day(7));
        budget.sync_from_store(Day(7), today(100));
        for (spent, is_persisted) in [(50, true), (30, false)] {
            budget.reserve(NanoUsd(60)).unwrap();
            budget.settle(NanoUsd(60), &"a".into(), cost(spent), is_persisted);
        }
        assert_eq!(budget.status().spent, cost(180));
        // The store now has the 50 as well, and 20 of another process; it never gets the 30.
        budget.sync_from_store(Day(7), today(170));
        assert_eq!(budget.status().spent, cost(200));
        budget.roll_over(Day(8));
        assert_eq!(budget.status().spent, cost(0));
    }

    #[test]
    fn a_clock_that_steps_back_over_midnight_does_not_reset_the_spend() {
        let budget = SharedBudget::for_day(BudgetScope::Day, NanoUsd(1_000));
        budget.roll_over(Day(8));
        budget.reserve(NanoUsd(900)).unwrap();
        budget.settle(NanoUsd(900), &"a".into(), cost(900), true);
        budget.roll_over(Day(7));
        assert_eq!(budget.status().spent, cost(900));
        budget.roll_over(Day(8));
        assert_eq!(budget.status().spent, cost(900), "the same day does not start again");
        budget.roll_over(Day(9));
        assert_eq!(budget.status().spent, cost(0));
        // The clock was a year ahead until it was corrected.
        budget.roll_over(Day(400));
        budget.reserve(NanoUsd(900)).unwrap();
        budget.roll_over(Day(9));
        assert_eq!(budget.status().spent, cost(0));
    }

    #[test]
    fn a_large_call_reaches_the_cap_of_a_run_but_not_that_of_a_day() {
        for scope in
            [BudgetScope::Day, BudgetScope::Provider("a".into()), BudgetScope::Scope("team-a".into())]
        {
            let budget = SharedBudget::for_day(scope.clone(), NanoUsd(1_000));
            assert_eq!(budget.reserve(NanoUsd(1_001)), Err(ReserveError::Oversized), "{scope:?}");
            assert_eq!((budget.cap_failure(), budget.reserve(NanoUsd(1_000))), (None, Ok(())), "{scope:?}");
        }
        let run = SharedBudget::for_run(Some(NanoUsd(1_000)), Spend::default(), false);
        assert_eq!(run.reserve(NanoUsd(1_001)), Err(ReserveError::Exhausted));
        assert!(run.cap_failure().is_some());
        let of_day = SharedBudget::for_day(BudgetScope::Day, NanoUsd(1_000_000_000));
        of_day.settle(NanoUsd(0), &"a".into(), cost(500_000_000), false);
        for (estimate, cause, detail) in [
            (800_000_000, None, "$0.50 is left, and the call is likely to cost $0.80"),
            (2_000_000_000, Some(Cause::NeverWithinBudget), "the call alone is likely to cost $2.00"),
        ] {
            let message = format!("the day's cap (UTC) of $1.00 does not admit the call: {detail}");
            let failure = of_day.oversized_failure(NanoUsd(estimate));
            assert_eq!(failure, Failure { cause, ..Failure::new(Class::Budget, message) });
        }
    }

    #[test]
    fn the_failure_of_a_reached_cap_names_the_scope_and_the_cost_of_the_next_call() {
        let budget = SharedBudget::for_run(Some(NanoUsd(1_000_000_000)), cost(990_000_000), true);
        assert_eq!(budget.cap_failure(), None);
        budget.reserve(NanoUsd(20_000_000)).unwrap_err();
        let message = "the run's cap of $1.00 is reached: $0.010000 is left, and the next call is likely to cost $0.020000";
        assert_eq!(budget.cap_failure().unwrap(), Failure::new(Class::Budget, message));
        let of_scope = SharedBudget::for_day(BudgetScope::Scope("team-a".into()), NanoUsd(1_000_000_000));
        // Other calls of the scope may be cheaper.
        assert_eq!(of_scope.reserve(NanoUsd(2_000_000_000)), Err(ReserveError::Oversized));
        assert_eq!(of_scope.cap_failure(), None);
        let message = "the day's cap (UTC) of scope team-a of $1.00 does not admit the call: the call alone may cost $2.00";
        let failure = of_scope.oversized_failure(NanoUsd(2_000_000_000));
        assert_eq!(failure, Failure::new(Class::Budget, message).with_cause(Cause::NeverWithinBudget));
        of_scope.reserve(NanoUsd(900_000_000)).unwrap();
        of_scope.settle(NanoUsd(900_000_000), &"a".into(), cost(1_000_000_001), false);
        let message = of_scope.cap_failure().unwrap().message;
        assert!(message.starts_with("the day's cap (UTC) of scope team-a of $1.00 is reached"), "{message}");
    }

    #[test]
    fn a_changed_cap_keeps_the_spend_and_opens_a_reached_cap_only_if_it_is_higher() {
        let budget = SharedBudget::for_day(BudgetScope::Day, NanoUsd(100));
        budget.settle(NanoUsd(0), &"a".into(), cost(120), false);
        assert!(budget.cap_failure().is_some());
        budget.set_cap(Some(NanoUsd(110)));
        assert_eq!(budget.reserve(NanoUsd(1)), Err(ReserveError::Exhausted));
        budget.set_cap(Some(NanoUsd(200)));
        assert_eq!((budget.cap_failure(), budget.status().spent), (None, cost(120)));
        assert_eq!(
            (budget.reserve(NanoUsd(80)), budget.reserve(NanoUsd(1))),
            (Ok(()), Err(ReserveError::Contended))
        );
        budget.set_cap(None);
        assert_eq!((budget.is_capped(), budget.reserve(NanoUsd(1_000))), (false, Ok(())));
    }
}
