//! The rows of the recorded spend, for reports.

use crate::types::{Day, ProviderName, ScopeName, Spend};

use super::run::RunNumber;

/// The largest number of rows of spend that a store returns at once.
pub const MAX_SPENDING_ROWS: u32 = 100_000;

/// The spend of a run at one provider on one day, UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpendingRow {
    /// The day on which it was recorded.
    pub day: Day,
    /// The provider.
    pub provider: ProviderName,
    /// The run; [`RunNumber::NONE`] for requests outside of runs.
    pub run: RunNumber,
    /// The name of the run's pipeline; `None` if the run was deleted, and for requests outside of runs.
    pub pipeline: Option<String>,
    /// The cost.
    pub spend: Spend,
}

/// The spend of a run within one scope on one day, UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeSpendingRow {
    /// The day on which it was recorded.
    pub day: Day,
    /// The scope.
    pub scope: ScopeName,
    /// The run; [`RunNumber::NONE`] for requests outside of runs.
    pub run: RunNumber,
    /// The name of the run's pipeline; `None` if the run was deleted, and for requests outside of runs.
    pub pipeline: Option<String>,
    /// The cost.
    pub spend: Spend,
}
