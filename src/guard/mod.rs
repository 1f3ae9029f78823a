//! May this call leave now?
//!
//! Rate, concurrency, breaker, retry budget and back-off are plain structs: they are given `now`, and
//! hold no clock, no socket and no actor. Whoever owns one asks it and does the waiting.

mod backoff;
mod breaker;
mod concurrency;
mod limits;
mod meter;
mod outcomes;
mod payoff;
mod rate;
mod retry_budget;
mod settings;

pub use backoff::Backoff;
pub use breaker::{Breaker, BreakerState, Pass};
pub use concurrency::{Concurrency, Ended, Ticket};
pub use limits::{Limits, Need, NeverFits, RateLimits};
pub use meter::Meter;
pub use outcomes::Trouble;
pub use rate::Rate;
pub use retry_budget::RetryBudget;
pub use settings::{BreakerSettings, ConcurrencySettings, RetryBudgetSettings};
