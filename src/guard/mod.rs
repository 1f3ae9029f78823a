//! Admission control for calls to providers: rate limits, concurrency limit, circuit breaker, money budget,
//! retry budget, back-off and memory budget.
//!
//! Every guard is a plain struct. The caller passes `now`; a guard holds no clock, no socket and no actor.
//! The owner of a guard calls it and does the waiting.

mod advertised;
mod backoff;
mod breaker;
mod budget;
mod burst;
mod ceiling;
mod concurrency;
mod daily_quota;
mod ewma;
mod gcra;
mod limit;
mod memory;
mod meter;
mod outcome_window;
mod overload_detector;
mod rate_backoff;
mod rate_estimate;
mod rate_limiter;
mod rate_limits;
mod retry_budget;
mod scope_limits;
mod second_slots;
mod settings;
mod shared_budget;
mod shared_space;
mod throughput_probe;
mod window_detector;

pub use backoff::Backoff;
pub use breaker::{Breaker, BreakerState, BreakerToken};
pub use budget::{Budget, CapReached, OversizedCall, ReserveError};
pub use burst::BurstSettings;
pub use concurrency::{ConcurrencyLimit, ConcurrencyOutcome, InFlightToken, ReductionCause};
pub use daily_quota::ExhaustedQuota;
pub use ewma::Ewma;
pub use gcra::GcraLimiter;
pub use memory::{DEFAULT_TOTAL as DEFAULT_MEMORY, HeldMemory, MemoryBudget, ResponseMemory};
pub use meter::Meter;
pub use outcome_window::TripReason;
pub use rate_limiter::{HeaderScope, KnownLimit, NeverFits, RateLimiter, SentCall, TokenCost, TokenLimits};
pub use rate_limits::{RateLimitStatuses, RateLimits};
pub use retry_budget::RetryBudget;
pub use scope_limits::{Backlog, NotYet, ScopeLimiter, ScopeSettings};
pub(crate) use second_slots::SecondSlots;
pub use settings::{BreakerSettings, ConcurrencySettings, RetryBudgetSettings};
pub use shared_budget::{BudgetScope, BudgetStatus, RecordedSpend, SharedBudget};
pub use shared_space::has_room;
