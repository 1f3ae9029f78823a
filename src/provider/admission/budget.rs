//! Reservation of the expected cost of a call, from before it is sent until it is booked.
//!
//! The budget of a scope reserves the maximum cost instead, because its callers determine how long the answers are.
//! Nothing leaks: a reservation that is dropped before the call is sent is returned; one that is dropped later
//! is booked as uncertain cost. Independent of rate limits and breakers.

use std::sync::Arc;

use crate::guard::{BudgetScope, ReserveError, SharedBudget, TokenCost};
use crate::types::{
    Cause, Charged, Class, Completion, Day, Failure, ModelName, NanoUsd, Price, ProviderName, Spend,
};

use crate::provider::call::{Call, Rejection};
use crate::provider::unreported_usage::UnreportedUsage;

/// The budgets that a provider's calls spend, in addition to those of their run and their scope.
#[derive(Debug, Default)]
pub(in crate::provider) struct Budgets {
    provider: Option<ProviderName>,
    /// Whether the provider is simulated: its answers cost nothing unless a price is configured.
    is_simulated: bool,
    budgets: Vec<Arc<SharedBudget>>,
    /// The day of the last check. The budget of a scope begins a new day when one of its calls is checked.
    today: Option<Day>,
}

/// Why the budget of a call cannot be reserved.
pub(in crate::provider) enum BudgetError {
    /// Calls in flight hold the rest of the budget.
    Contended(SharedBy),
    Rejected(Rejection),
}

/// Whose calls spend a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::provider) enum SharedBy {
    /// Those of one run.
    Run,
    /// Those of one scope.
    Scope,
    /// All calls of a provider, or of all providers.
    All,
}

/// The tokens from which the reserved costs of a call are computed.
#[derive(Debug, Clone, Copy)]
pub(in crate::provider) struct CallTokens {
    pub(in crate::provider) expected: TokenCost,
    /// The maximum, if the call spends the budget of a scope; else what is expected.
    pub(in crate::provider) max: TokenCost,
}

/// The reserved budget of one call.
#[derive(Debug)]
pub(in crate::provider) struct BudgetReservation {
    budgets: Vec<Arc<SharedBudget>>,
    provider: ProviderName,
    is_stored: bool,
    price: Option<Price>,
    /// What the budget of a scope reserves.
    max_cost: NanoUsd,
    usage: Arc<UnreportedUsage>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Reserved,
    Sent,
    Settled,
}

impl Budgets {
    pub(in crate::provider) fn new(
        provider: ProviderName,
        is_simulated: bool,
        budgets: Vec<Arc<SharedBudget>>,
    ) -> Self {
        Self { provider: Some(provider), is_simulated, budgets, today: None }
    }

    /// Sets the budgets of the provider. Reserved costs stay with the budgets that they were taken from.
    pub(in crate::provider) fn set(&mut self, budgets: Vec<Arc<SharedBudget>>) {
        self.budgets = budgets;
        if let Some(today) = self.today {
            self.roll_over(today);
        }
    }

    /// Starts a new day with nothing spent if the date has changed.
    pub(in crate::provider) fn roll_over(&mut self, today: Day) {
        self.today = Some(today);
        self.budgets.iter().for_each(|budget| budget.roll_over(today));
    }

    /// Returns the rejection if a budget of the call is exhausted.
    pub(in crate::provider) fn cap_reached(&self, call: &Call) -> Option<Rejection> {
        self.of(call).find_map(|budget| Some(refused(budget, budget.cap_failure()?)))
    }

    /// Reserves the cost of a call with these tokens.
    pub(in crate::provider) fn reserve(
        &self,
        call: &Call,
        price: Option<Price>,
        tokens: CallTokens,
    ) -> Result<BudgetReservation, BudgetError> {
        let is_stored = call.budget.as_ref().is_some_and(|budget| budget.is_persisted());
        let provider = self.provider.clone().unwrap_or_else(|| "".into());
        let usage_of = |tokens| UnreportedUsage::new(price, tokens, call.prompt.shared_prefix);
        let usage = usage_of(tokens.expected);
        let max_cost = if tokens.max == tokens.expected {
            usage.expected_cost()
        } else {
            usage_of(tokens.max).expected_cost()
        };
        let mut reservation = BudgetReservation {
            budgets: Vec::new(),
            provider,
            is_stored,
            price,
            max_cost,
            usage: Arc::new(usage),
            stage: Stage::Reserved,
        };
        if price.is_none() && self.is_simulated {
            return Ok(reservation);
        }
        // Requests for embeddings that were joined are divided if they do not fit together.
        let is_divisible = call.prompt.embedding.is_some() && call.prompt.embedding_inputs().nth(1).is_some();
        for budget in self.of(call) {
            if price.is_none() && budget.is_capped() {
                let refused = Rejection::Budget {
                    failure: unpriced(&reservation.provider, &call.model),
                    for_all_targets: false,
                };
                return Err(BudgetError::Rejected(refused));
            }
            let cost = reservation.cost_for(budget);
            // Reservations of other budgets are returned when `reservation` is dropped.
            let reserved = if is_divisible { budget.reserve_divisible(cost) } else { budget.reserve(cost) };
            match reserved {
                Ok(()) => reservation.budgets.push(budget.clone()),
                Err(ReserveError::Contended) => {
                    return Err(BudgetError::Contended(shared_by(budget)));
                }
                Err(ReserveError::Exhausted) => {
                    let met = budget
                        .cap_failure()
                        .unwrap_or_else(|| Failure::new(Class::Budget, "the budget is exhausted"));
                    return Err(BudgetError::Rejected(refused(budget, met)));
                }
                Err(ReserveError::Oversized) => {
                    let failure = budget.oversized_failure(cost);
                    // Another target may be cheaper.
                    let refused = Rejection::Budget { failure, for_all_targets: false };
                    return Err(BudgetError::Rejected(refused));
                }
            }
        }
        Ok(reservation)
    }

    fn of<'a>(&'a self, call: &'a Call) -> impl Iterator<Item = &'a Arc<SharedBudget>> {
        if let Some((budget, today)) = call.scope_budget.as_ref().zip(self.today) {
            budget.roll_over(today);
        }
        call.budget.iter().chain(&call.scope_budget).chain(&self.budgets)
    }
}

fn shared_by(budget: &SharedBudget) -> SharedBy {
    match budget.scope() {
        BudgetScope::Run => SharedBy::Run,
        BudgetScope::Scope(_) => SharedBy::Scope,
        BudgetScope::Day | BudgetScope::Provider(_) => SharedBy::All,
    }
}

/// If a provider's own budget is exhausted, other providers can still answer; the budget of a run, a scope or a day
/// applies to all.
fn refused(budget: &SharedBudget, failure: Failure) -> Rejection {
    let for_all_targets = match budget.scope() {
        BudgetScope::Run | BudgetScope::Scope(_) | BudgetScope::Day => true,
        BudgetScope::Provider(_) => false,
    };
    Rejection::Budget { failure, for_all_targets }
}

fn unpriced(provider: &ProviderName, model: &ModelName) -> Failure {
    let problem = format!("{provider}/{model} has no price, and spending is capped");
    let message = format!("{problem}: write its price in the configuration");
    Failure::new(Class::Budget, message).with_cause(Cause::NeverWithinBudget)
}

impl BudgetReservation {
    /// Returns what the call has used, as long as its provider has not reported it.
    pub(in crate::provider) fn usage(&self) -> &Arc<UnreportedUsage> {
        &self.usage
    }

    /// Returns what a budget reserves. The callers of a scope determine how long its answers are, so its budget reserves
    /// the maximum: else short answers would make the long ones after them look cheap.
    fn cost_for(&self, budget: &SharedBudget) -> NanoUsd {
        match budget.scope() {
            BudgetScope::Scope(_) => self.max_cost,
            BudgetScope::Run | BudgetScope::Day | BudgetScope::Provider(_) => self.usage.expected_cost(),
        }
    }

    /// Marks the call as sent: from now on it may cost something.
    pub(in crate::provider) fn mark_sent(&mut self) {
        self.stage = Stage::Sent;
    }

    /// Marks the call as not sent after all: it costs nothing.
    pub(in crate::provider) fn mark_unsent(&mut self) {
        if self.stage == Stage::Sent {
            self.stage = Stage::Reserved;
        }
    }

    /// Books the cost of the call and returns it.
    pub(in crate::provider) fn settle(&mut self, result: &Result<Completion, Failure>) -> Spend {
        let (usage, charged) = match result {
            Ok(completion) => (completion.usage, Charged::Maybe),
            Err(failure) => (failure.usage.as_deref().copied(), failure.charged),
        };
        let known = self.price.zip(usage).and_then(|(price, usage)| price.cost(&usage));
        let booked = match (known, charged) {
            (Some(cost), _) => Spend { cost, ..Spend::default() },
            (None, Charged::No) => Spend::default(),
            (None, Charged::Maybe) => self.uncertain(),
        };
        self.book(booked);
        booked
    }

    /// Books the reservation, or the cost of what was received if it is higher, as uncertain cost, unless the call is
    /// booked already. Returns what was booked.
    pub(in crate::provider) fn settle_uncertain(&mut self) -> Spend {
        if self.stage != Stage::Sent {
            return Spend::default();
        }
        let booked = self.uncertain();
        self.book(booked);
        booked
    }

    /// The spend of a call whose usage is unknown.
    fn uncertain(&self) -> Spend {
        Spend { uncertain_cost: self.usage.fix_cost(), ..Spend::default() }
    }

    fn book(&mut self, booked: Spend) {
        self.stage = Stage::Settled;
        for budget in std::mem::take(&mut self.budgets) {
            budget.settle(self.cost_for(&budget), &self.provider, booked, self.is_stored);
        }
    }
}

impl Drop for BudgetReservation {
    fn drop(&mut self) {
        self.settle_uncertain();
        if self.stage == Stage::Reserved {
            self.book(Spend::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::guard::RecordedSpend;
    use crate::provider::state::tests::call;
    use crate::types::{Tokens, Usage};

    const PRICE: Price =
        Price { input: 1.0, output: 5.0, cached: None, cache_write: None, cache_write_1h: None, long: None };

    /// A call of 10 input tokens and so many output tokens.
    fn tokens(output: u64) -> CallTokens {
        let expected = TokenCost { input: 10, output };
        CallTokens { expected, max: expected }
    }

    /// Calls of 10 input and 20 output tokens, with an expected cost of 110,000 nano-dollars.
    fn reserve(
        budgets: &Budgets,
        run: &Arc<SharedBudget>,
        price: Option<Price>,
    ) -> Result<BudgetReservation, BudgetError> {
        let call = Call { budget: Some(run.clone()), ..call(std::time::Duration::from_secs(9)) };
        budgets.reserve(&call, price, tokens(20))
    }

    fn budgets(run: u64, provider: u64) -> (Budgets, Arc<SharedBudget>) {
        let of_provider = SharedBudget::for_day(BudgetScope::Provider("a".into()), NanoUsd(provider));
        let run = SharedBudget::for_run(Some(NanoUsd(run)), Spend::default(), true);
        (Budgets::new("a".into(), false, vec![of_provider]), run)
    }

    fn failed(class: Class) -> Failure {
        Failure::new(class, "no")
    }

    #[test]
    fn however_a_call_ends_its_reservation_is_returned_and_its_possible_cost_is_booked() {
        let (budgets, run) = budgets(1_000_000, 1_000_000);
        let usage = Usage { input: Tokens(10), output: Tokens(4), ..Usage::default() };
        let completion = Completion { usage: Some(usage), ..Completion::default() };
        let mut total = Spend::default();
        for (result, cost, uncertain) in [
            (Some(Ok(completion.clone())), 30_000, 0),
            (Some(Ok(Completion { usage: None, ..completion })), 0, 110_000),
            (Some(Err(failed(Class::RateLimit))), 0, 0),
            (Some(Err(failed(Class::Timeout).maybe_charged())), 0, 110_000),
            (Some(Err(failed(Class::Truncated).with_usage(Some(usage)))), 30_000, 0),
            (None, 0, 110_000),
        ] {
            let Ok(mut reservation) = reserve(&budgets, &run, Some(PRICE)) else {
                panic!("the budget is large enough")
            };
            reservation.mark_sent();
            assert_eq!(run.status().reserved, NanoUsd(110_000));
            result.as_ref().map(|result| reservation.settle(result));
            drop(reservation);
            total += Spend { cost: NanoUsd(cost), uncertain_cost: NanoUsd(uncertain) };
            for budget in [&run, &budgets.budgets[0]] {
                assert_eq!(
                    (budget.status().reserved, budget.status().spent),
                    (NanoUsd(0), total),
                    "{result:?}"
                );
            }
        }
        assert_eq!(run.by_provider()[&ProviderName::from("a")], total);
    }

    #[test]
    fn however_a_call_without_usage_ends_at_least_what_was_received_is_booked() {
        let (budgets, run) = budgets(10_000_000, 10_000_000);
        let mut total = Spend::default();
        for result in [
            None,
            Some(Err(failed(Class::Timeout).maybe_charged())),
            Some(Err(failed(Class::Cancelled).maybe_charged())),
            // Its usage was discarded.
            Some(Ok(Completion { usage: None, ..Completion::default() })),
        ] {
            let Ok(mut reservation) = reserve(&budgets, &run, Some(PRICE)) else {
                panic!("the budget is large enough")
            };
            reservation.mark_sent();
            reservation.usage().record_output(300);
            let logged = reservation.usage().fix_cost();
            // What is received after the cost was logged does not count.
            reservation.usage().record_output(600);
            result.as_ref().map(|result| reservation.settle(result));
            drop(reservation);
            // 10 tokens of input and 100 of output.
            assert_eq!(logged, NanoUsd(510_000));
            total += Spend { uncertain_cost: logged, ..Spend::default() };
            for budget in [&run, &budgets.budgets[0]] {
                let status = budget.status();
                assert_eq!((status.reserved, status.spent), (NanoUsd(0), total), "{result:?}");
            }
        }
    }

    #[test]
    fn the_reservation_of_a_call_that_was_not_sent_after_all_is_returned() {
        let (budgets, run) = budgets(1_000_000, 1_000_000);
        let Ok(mut reservation) = reserve(&budgets, &run, Some(PRICE)) else {
            panic!("the budget is large enough")
        };
        reservation.mark_sent();
        reservation.mark_unsent();
        drop(reservation);
        for budget in [&run, &budgets.budgets[0]] {
            assert_eq!((budget.status().reserved, budget.status().spent), (NanoUsd(0), Spend::default()));
        }
    }

    #[test]
    fn a_reservation_that_one_budget_refuses_is_returned_to_the_others() {
        let (budgets, run) = budgets(1_000_000, 150_000);
        let first = reserve(&budgets, &run, Some(PRICE));
        assert!(matches!(reserve(&budgets, &run, Some(PRICE)), Err(BudgetError::Contended(SharedBy::All))));
        assert_eq!(run.status().reserved, NanoUsd(110_000));
        // A call that was not sent has cost nothing.
        drop(first);
        assert_eq!((run.status().reserved, run.status().spent), (NanoUsd(0), Spend::default()));
    }

    #[test]
    fn the_budget_of_a_scope_is_reserved_and_settled_like_that_of_a_run_and_begins_again_at_midnight() {
        let (mut budgets, _) = budgets(1_000_000, 1_000_000);
        budgets.roll_over(Day(7));
        let of_scope = SharedBudget::for_day(BudgetScope::Scope("team-a".into()), NanoUsd(150_000));
        let scoped = Call { scope_budget: Some(of_scope.clone()), ..call(std::time::Duration::from_secs(9)) };
        let reserve = |budgets: &Budgets| budgets.reserve(&scoped, Some(PRICE), tokens(20));
        let Ok(mut first) = reserve(&budgets) else { panic!("the budget is large enough") };
        assert_eq!(of_scope.status().reserved, NanoUsd(110_000));
        // Calls of other scopes do not wait.
        assert!(matches!(reserve(&budgets), Err(BudgetError::Contended(SharedBy::Scope))));
        first.mark_sent();
        drop(first);
        assert_eq!((of_scope.status().reserved, of_scope.status().spent.total().0), (NanoUsd(0), 110_000));
        // A cheaper call, or the call at a cheaper target, may still fit.
        assert!(matches!(
            reserve(&budgets),
            Err(BudgetError::Rejected(Rejection::Budget { for_all_targets: false, .. }))
        ));
        assert!(budgets.cap_reached(&scoped).is_none());
        let cheap = budgets.reserve(&scoped, Some(PRICE), tokens(6));
        let Ok(mut cheap) = cheap else { panic!("40,000 nano-dollars are left") };
        cheap.mark_sent();
        drop(cheap);
        assert!(matches!(
            reserve(&budgets),
            Err(BudgetError::Rejected(Rejection::Budget { for_all_targets: true, .. }))
        ));
        assert!(budgets.cap_reached(&scoped).is_some());
        budgets.roll_over(Day(8));
        assert!(budgets.cap_reached(&scoped).is_none());
        assert!(reserve(&budgets).is_ok());
    }

    #[test]
    fn the_budget_of_a_scope_reserves_the_maximum_cost_and_the_others_what_is_expected() {
        let (mut budgets, run) = budgets(1_000_000, 1_000_000);
        budgets.roll_over(Day(7));
        let of_scope = SharedBudget::for_day(BudgetScope::Scope("team-a".into()), NanoUsd(1_000_000));
        let scope_budget = Some(of_scope.clone());
        let scoped =
            Call { budget: Some(run.clone()), scope_budget, ..call(std::time::Duration::from_secs(9)) };
        // Expected are 20,000 nano-dollars, and at most 510,000.
        let tokens = CallTokens { max: TokenCost { input: 10, output: 100 }, ..tokens(2) };
        let all = [&run, &budgets.budgets[0], &of_scope];
        let reserved = || all.map(|budget| budget.status().reserved.0);
        let Ok(unsent) = budgets.reserve(&scoped, Some(PRICE), tokens) else { panic!("there is budget") };
        assert_eq!(reserved(), [20_000, 20_000, 510_000]);
        // Two such calls could cost more than the cap, however little is expected.
        let second = budgets.reserve(&scoped, Some(PRICE), tokens);
        assert!(matches!(second, Err(BudgetError::Contended(SharedBy::Scope))));
        assert_eq!(reserved(), [20_000, 20_000, 510_000]);
        drop(unsent);
        assert_eq!(reserved(), [0, 0, 0]);
        let Ok(mut sent) = budgets.reserve(&scoped, Some(PRICE), tokens) else { panic!("there is budget") };
        sent.mark_sent();
        let usage = Some(Usage { input: Tokens(10), output: Tokens(100), ..Usage::default() });
        sent.settle(&Ok(Completion { usage, ..Completion::default() }));
        drop(sent);
        assert_eq!(reserved(), [0, 0, 0]);
        for budget in all {
            assert_eq!(budget.status().spent.total(), NanoUsd(510_000));
        }
        // Less is left than the call may cost. A shorter one is sent.
        let BudgetError::Rejected(Rejection::Budget { failure, for_all_targets: false }) =
            budgets.reserve(&scoped, Some(PRICE), tokens).unwrap_err()
        else {
            panic!("the call may cost more than what is left")
        };
        assert!(failure.message.ends_with("the call may cost $0.000510"), "{failure}");
        assert_eq!(reserved(), [0, 0, 0]);
        let shorter = CallTokens { max: TokenCost { input: 10, output: 90 }, ..tokens };
        assert!(budgets.reserve(&scoped, Some(PRICE), shorter).is_ok());
    }

    proptest! {
        /// Calls cost at most their maximum, whatever was expected, and end in any order.
        #[test]
        fn calls_within_their_maximum_never_exceed_the_budget_of_a_scope(
            cap in 0u64..3_000_000,
            calls in proptest::collection::vec(
                (0u64..20, 0u64..200, 0u64..220, 0u8..4, 0usize..8),
                1..80,
            ),
        ) {
            let (mut budgets, run) = budgets(1_000_000_000, 1_000_000_000);
            budgets.roll_over(Day(7));
            let of_scope = SharedBudget::for_day(BudgetScope::Scope("team-a".into()), NanoUsd(cap));
            let scope_budget = Some(of_scope.clone());
            let scoped =
                Call { budget: Some(run.clone()), scope_budget, ..call(std::time::Duration::from_secs(9)) };
            let mut in_flight = Vec::new();
            for (expected, more, used, end, index) in calls {
                let max = TokenCost { input: 10, output: expected + more };
                let tokens = CallTokens { max, ..tokens(expected) };
                if let Ok(mut reservation) = budgets.reserve(&scoped, Some(PRICE), tokens) {
                    // The others are never sent.
                    if end > 0 {
                        reservation.mark_sent();
                    }
                    in_flight.push((reservation, used.min(max.output), end));
                }
                if index < in_flight.len() {
                    let (mut reservation, output, end) = in_flight.swap_remove(index);
                    let usage = Some(Usage { input: Tokens(10), output: Tokens(output), ..Usage::default() });
                    match end {
                        1 => {
                            reservation.settle(&Ok(Completion { usage, ..Completion::default() }));
                        }
                        2 => {
                            reservation.settle(&Err(failed(Class::RateLimit)));
                        }
                        _ => {}
                    }
                }
                let status = of_scope.status();
                prop_assert!(status.spent.total() + status.reserved <= NanoUsd(cap), "{status:?}");
            }
            drop(in_flight);
            prop_assert!(of_scope.status().spent.total() <= NanoUsd(cap));
            for budget in [&run, &budgets.budgets[0], &of_scope] {
                prop_assert_eq!(budget.status().reserved, NanoUsd(0));
                prop_assert_eq!(budget.status().spent, of_scope.status().spent);
            }
        }
    }

    #[test]
    fn a_call_that_costs_more_than_is_left_of_a_day_is_refused_alone() {
        for scope in [BudgetScope::Day, BudgetScope::Provider("a".into())] {
            let of_day = SharedBudget::for_day(scope, NanoUsd(1_000_000));
            let budgets = Budgets::new("a".into(), false, vec![of_day.clone()]);
            let call = call(std::time::Duration::from_secs(9));
            let large = budgets.reserve(&call, Some(PRICE), tokens(200));
            assert!(matches!(
                large,
                Err(BudgetError::Rejected(Rejection::Budget { for_all_targets: false, .. }))
            ));
            assert!(budgets.cap_reached(&call).is_none() && of_day.status().cap_reached.is_none());
            assert!(budgets.reserve(&call, Some(PRICE), tokens(20)).is_ok());
        }
    }

    #[test]
    fn the_budget_of_a_scope_counts_each_call_once_whether_a_store_records_it_or_not() {
        let (mut budgets, _) = budgets(1_000_000, 1_000_000);
        budgets.roll_over(Day(7));
        let of_scope = SharedBudget::for_day(BudgetScope::Scope("team-a".into()), NanoUsd(1_000_000));
        let send = |run: Option<Arc<SharedBudget>>| {
            let scope_budget = Some(of_scope.clone());
            let call = Call { budget: run, scope_budget, ..call(std::time::Duration::from_secs(9)) };
            let reserved = budgets.reserve(&call, Some(PRICE), tokens(20));
            let Ok(mut reservation) = reserved else { panic!("the budget is large enough") };
            // Dropped after it was sent, it costs 110,000 nano-dollars.
            reservation.mark_sent();
        };
        send(Some(SharedBudget::for_run(None, Spend::default(), true)));
        send(Some(SharedBudget::for_run(None, Spend::default(), false)));
        send(None);
        assert_eq!(of_scope.status().spent.total(), NanoUsd(330_000));
        // The store has the call of the stored run, and later also 50,000 of another process.
        let recorded = |uncertain| RecordedSpend {
            of_today: Spend { uncertain_cost: NanoUsd(uncertain), ..Spend::default() },
            ..RecordedSpend::default()
        };
        of_scope.sync_from_store(Day(7), recorded(110_000));
        assert_eq!(of_scope.status().spent.total(), NanoUsd(330_000));
        of_scope.sync_from_store(Day(7), recorded(160_000));
        assert_eq!(of_scope.status().spent.total(), NanoUsd(380_000));
    }

    #[test]
    fn a_call_without_a_price_is_refused_if_spending_is_capped_unless_it_is_simulated() {
        let (mut budgets, run) = budgets(1_000_000, 1_000_000);
        let refused = reserve(&budgets, &run, None);
        assert!(matches!(
            refused,
            Err(BudgetError::Rejected(Rejection::Budget { for_all_targets: false, .. }))
        ));
        budgets.is_simulated = true;
        assert!(reserve(&budgets, &run, None).is_ok());
        let free = SharedBudget::for_run(None, Spend::default(), false);
        assert!(reserve(&Budgets::new("a".into(), false, Vec::new()), &free, None).is_ok());
    }
}
