//! The Router actor: picks the provider for every [`Ask`], and another when that one fails.
//!
//! It plans from its own picture of the providers' health and asks nobody. What happens to one ask
//! (which lane next, when, when to give up) is a [`Plan`], a plain struct.

mod actor;
mod ask;
mod attempt;
mod counts;
mod flow;
mod hedge;
mod lane;
mod others;
mod out;
mod plan;
mod policy;
mod question;
mod settings;
mod unusable;

/// What an ask hears that comes too late.
const STOPPED: &str = "pointsman is stopping and takes no more questions";

pub use actor::Router;
pub use ask::{Ask, StopSignal};
pub use counts::{CallCounts, CallsEnded};
pub use hedge::HedgeAfter;
pub use lane::{LaneHandle, RouteHandle};
pub use plan::{Candidate, KeyLeft, Plan, Probe, Step};
pub use question::question;
pub use settings::{Lane, Policy, RetrySettings, Route};
