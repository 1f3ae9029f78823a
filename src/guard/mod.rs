//! May this call leave now?
//!
//! Limits, concurrency, breaker, budgets of money and retries, and back-off are plain structs: they are given `now`, and
//! hold no clock, no socket and no actor. Whoever owns one asks it and does the waiting.

mod backoff;
mod breaker;
mod budget;
mod burst;
mod ceiling;
mod concurrency;
mod daily;
mod limit;
mod limits;
mod memory;
mod meter;
mod objections;
mod outcomes;
mod payoff;
mod purse;
mod rate;
mod rate_estimate;
mod retry_budget;
mod settings;
mod share;
mod standing;
mod told;
mod windows;

pub use backoff::Backoff;
pub use breaker::{Breaker, BreakerState, Pass};
pub use budget::{Budget, Met, Unreserved};
pub use burst::BurstSettings;
pub use concurrency::{Concurrency, Ended, Ticket};
pub use limits::{Hearing, Left, Limits, Need, NeverFits, RateLimits, Standings};
pub use memory::{DEFAULT_TOTAL as DEFAULT_MEMORY, HeldMemory, MemoryBudget, ReplyMemory};
pub use meter::Meter;
pub use outcomes::Trouble;
pub use purse::{Purse, PurseOf, PurseState};
pub use rate::Rate;
pub use retry_budget::RetryBudget;
pub use settings::{BreakerSettings, ConcurrencySettings, RetryBudgetSettings};
pub use standing::Standing;
