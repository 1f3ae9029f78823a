//! Caps on the cost of a run, and what counts against them, as progress and report show them.
//!
//! Read-only: the budgets themselves enforce the caps.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::guard::{BudgetScope, BudgetStatus, CapReached, SharedBudget};
use crate::types::{ProviderName, ScopeName};

/// The budgets that a run's requests spend from.
#[derive(Debug, Clone)]
pub struct RunBudgets {
    /// The run's own budget.
    pub own: Arc<SharedBudget>,
    /// The budget of the day, and those of its scope and of the providers of its routes.
    pub shared: Vec<Arc<SharedBudget>>,
}

/// A cap and what counts against it, in US dollars.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Cap {
    /// What it limits.
    #[serde(alias = "of")]
    pub scope: CapScope,
    /// The provider, if it is a provider's cap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<ProviderName>,
    /// The scope of the run's requests, if it is the cap of that scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope_name: Option<ScopeName>,
    /// The cap.
    pub cap_usd: f64,
    /// What all sessions of the run, or all runs or requests today, have spent. Includes the uncertain cost.
    pub spent_usd: f64,
    /// The uncertain part: attempts that may have been charged and whose usage is unknown count with what was
    /// expected, or with what was received if that is more.
    #[serde(alias = "perhaps_usd")]
    pub uncertain_usd: f64,
    /// What is reserved for attempts in flight.
    pub reserved_usd: f64,
    /// By how much spending exceeds the cap.
    pub overshoot_usd: f64,
    /// State when the cap was reached; `None` (`null`) before.
    #[serde(alias = "met")]
    pub reached: Option<CapHit>,
}

/// What a cap limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CapScope {
    /// All sessions of the run together.
    Run,
    /// All runs in a day, UTC.
    Day,
    /// One provider in a day.
    Provider,
    /// The scope of the run's requests in a day.
    Scope,
}

/// State when a cap was reached.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CapHit {
    /// Expected cost in US dollars of the attempt that did not fit, or that cost more than was left.
    #[serde(alias = "likely_usd")]
    pub estimate_usd: f64,
    /// Attempts in flight at that time, possibly including that one.
    pub calls_in_flight: u64,
    /// What was reserved for them, in US dollars.
    pub in_flight_usd: f64,
}

impl RunBudgets {
    /// Creates budgets without caps.
    pub fn uncapped() -> Self {
        Self { own: SharedBudget::for_run(None, Default::default(), false), shared: Vec::new() }
    }

    /// Returns all caps of the run, its own first.
    pub fn caps(&self) -> Vec<Cap> {
        [&self.own].into_iter().chain(&self.shared).filter_map(|budget| cap(budget)).collect()
    }

    /// Returns a message if a cap is reached, with the amount spent.
    pub fn cap_reached(&self) -> Option<String> {
        let failure = [&self.own].into_iter().chain(&self.shared).find_map(|budget| budget.cap_failure());
        failure.map(|failure| failure.message.to_string())
    }

    /// Returns the uncertain cost of this session in US dollars.
    pub fn uncertain_cost_usd(&self) -> f64 {
        self.own
            .by_provider()
            .values()
            .map(|spend| spend.uncertain_cost)
            .sum::<crate::types::NanoUsd>()
            .dollars()
    }
}

impl Cap {
    /// Returns the cap of a budget; `None` if it has none.
    #[doc(hidden)]
    pub fn of(budget: &SharedBudget) -> Option<Self> {
        cap(budget)
    }
}

fn cap(budget: &SharedBudget) -> Option<Cap> {
    let BudgetStatus { cap, spent, reserved, overshoot, cap_reached } = budget.status();
    let (scope, provider, scope_name) = match budget.scope() {
        BudgetScope::Run => (CapScope::Run, None, None),
        BudgetScope::Day => (CapScope::Day, None, None),
        BudgetScope::Provider(provider) => (CapScope::Provider, Some(provider.clone()), None),
        BudgetScope::Scope(name) => (CapScope::Scope, None, Some(name.clone())),
    };
    let reached = cap_reached.map(|CapReached { estimate, in_flight, reserved }| CapHit {
        estimate_usd: estimate.dollars(),
        calls_in_flight: in_flight,
        in_flight_usd: reserved.dollars(),
    });
    Some(Cap {
        scope,
        provider,
        scope_name,
        cap_usd: cap?.dollars(),
        spent_usd: spent.total().dollars(),
        uncertain_usd: spent.uncertain_cost.dollars(),
        reserved_usd: reserved.dollars(),
        overshoot_usd: overshoot.dollars(),
        reached,
    })
}
