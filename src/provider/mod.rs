//! The Provider actor: one account at one vendor, with its keys, its pacing and its queue.
//!
//! A [`Call`] waits here until the account's limits, its concurrency and the lane's breaker let it
//! leave. What a provider knows lives in a [`State`] that every life of the actor shares, so a
//! restart forgets nothing; what it holds of that state it holds as a permit that gives itself back.
//! A call is laid down in that state, too, and not in the actor's mailbox, which a panic would empty.
//!
//! No provider knows of another: failing over is the router's.

mod actor;
mod arrivals;
mod base_url;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod book;
mod call;
mod characters;
mod clocks;
mod day;
mod estimate;
mod events;
mod exchange;
mod first_attempts;
mod header_mask;
mod header_source;
mod key;
mod key_command;
mod key_error;
mod key_file;
mod key_files;
mod key_source;
mod keys;
mod lane;
mod limit_use;
mod limits;
mod line;
mod mask;
mod model;
mod money;
mod outage;
mod outcome;
mod outgoing;
mod outlet;
mod outlook;
mod output_habit;
mod patience;
mod permit;
mod proxy;
mod queue;
mod reached;
mod redirect;
mod refused_requests;
mod reply_limit;
mod reservation;
mod settings;
mod silence;
mod sizes;
mod snapshot;
mod standing;
mod state;
mod step_times;
mod suspicion;
mod this_machine;
mod times;
mod transport;
mod turn_away;
mod unheard;
mod usage_bounds;
mod window;

pub use actor::{Provider, TellHealth};
pub use arrivals::{Awaited, ReplyToCall};
pub use base_url::{AddressError, advise_base_url, parse_base_url};
pub use call::{Call, Departure, HealthChanged, LaneHealth, Left, Refused, Replied};
pub use estimate::prompt_tokens;
pub use first_attempts::{FirstAttempts, Neighbours};
pub use header_source::HeaderSource;
pub(crate) use header_source::is_secret_header;
pub use key::KeyId;
pub use key_error::KeyError;
pub use key_source::{Env, Key, KeySource, process_env};
pub use limit_use::LimitUse;
pub use limits::Limits;
pub use model::Model;
pub use outage::Outage;
pub use outlet::CallThreads;
pub use outlook::CapacityShare;
pub use patience::Patience;
pub use proxy::malformed_proxies;
pub use settings::{Reserve, Settings, Timeouts};
pub use snapshot::{LaneSnapshot, RestingKey, Snapshot};
pub use state::{Account, State};
pub use transport::Error;
