//! The Router actor: picks the provider for every [`Ask`], and another when that one fails.
//!
//! It plans from its own picture of the providers' health and asks nobody. What happens to one ask
//! (which lane next, when, when to give up) is a [`Plan`], a plain struct.

mod actor;
mod ask;
mod flow;
mod plan;
mod policy;
mod settings;

/// What an ask hears that comes too late.
const STOPPED: &str = "pointsman is stopping and takes no more questions";

pub use actor::{LaneHandle, RouteHandle, Router};
pub use ask::Ask;
pub use plan::{KeyLeft, Plan, Probe, Step};
pub use settings::{Lane, Policy, RetrySettings, Route};
