//! May this call leave now?
//!
//! Rate, breaker and back-off are plain structs: they are given `now`, and hold no clock, no
//! socket and no actor. Whoever owns one asks it and does the waiting.

mod backoff;
mod breaker;
mod burst;
mod daily;
mod limit;
mod limits;
mod meter;
mod rate;
mod settings;
mod share;
mod told;

pub use backoff::Backoff;
pub use breaker::{Breaker, BreakerState, Pass};
pub use burst::BurstSettings;
pub use limits::{Hearing, Left, Limits, Need, NeverFits, RateLimits, Standings};
pub use meter::Meter;
pub use rate::Rate;
pub use settings::BreakerSettings;
pub use told::Standing;
