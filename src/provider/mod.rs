//! The Provider actor: one account at one vendor, with its keys, its pacing and its queue.
//!
//! A [`Call`] waits here until the account's limits, its concurrency and the lane's breaker let it
//! leave. What a provider knows lives in a [`State`] that every life of the actor shares, so a
//! restart forgets nothing; what it holds of that state it holds as a permit that gives itself back.
//!
//! No provider knows of another: failing over is the router's.

mod actor;
mod book;
mod call;
mod clocks;
mod exchange;
mod key;
mod key_source;
mod lane;
mod mask;
mod model;
mod outlook;
mod permit;
mod queue;
mod settings;
mod snapshot;
mod state;
mod times;
mod transport;

pub use actor::{Provider, TellHealth};
pub use call::{Call, Departure, HealthChanged, LaneHealth, Left, Refused, Replied};
pub use key_source::{Env, HeaderSource, Key, KeyError, KeySource};
pub use model::Model;
pub use settings::{Limits, Settings, Timeouts, parse_base_url};
pub use snapshot::{LaneSnapshot, Snapshot};
pub use state::{Account, State};
pub use transport::Error;
