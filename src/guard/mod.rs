//! May this call leave now?
//!
//! Rate, breaker and back-off are plain structs: they are given `now`, and hold no clock, no
//! socket and no actor. Whoever owns one asks it and does the waiting.

mod backoff;
mod breaker;
mod limits;
mod meter;
mod rate;
mod settings;

pub use backoff::Backoff;
pub use breaker::{Breaker, BreakerState, Pass};
pub use limits::{Limits, Need, NeverFits, RateLimits};
pub use meter::Meter;
pub use rate::Rate;
pub use settings::BreakerSettings;
