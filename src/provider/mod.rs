//! The provider actor. A provider is one account at one vendor, with its keys, rate limits and queue.
//!
//! A [`Call`] is queued here until the account's rate limits, the concurrency limit and the target's breaker
//! admit it. All data is in a [`State`] that every incarnation of the actor shares, so that a restart loses
//! nothing. A permit holds what a call takes from that state and returns it when it is dropped. Calls are
//! placed in an inbox of that state, because a panic of the actor empties the actor's mailbox.
//!
//! In the order of a call: `admission/submit.rs` places it in the inbox, `admission/check.rs` decides whether it may
//! be queued, `admission/scheduler.rs` chooses the next call of `admission/queue.rs` and takes a grant for it,
//! `admission/permit.rs` holds the grant, `dispatch/worker.rs` sends the call, and `admission/outcome.rs` applies the
//! result.
//!
//! A call has had a *response* when response headers have arrived, is *accepted* when they are those of a success,
//! and is *answered* when the response is complete.
//!
//! Providers do not depend on each other. The router does the failover.

mod actor;
mod admission;
mod answer_stream;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod call;
mod dispatch;
mod document_secrets;
mod extra_fields;
mod health;
mod keys;
mod limits;
mod model;
mod model_list;
mod out_of_service;
mod reconfigure;
mod service;
mod settings;
mod state;
mod target;
mod unreported_usage;

pub use admission::estimate::prompt_tokens;
pub use admission::queued_call::{CallReceiver, CallReply, CallResponder};
pub use answer_stream::{AnswerReader, AnswerStream, AnswerWriter, WriteError};
pub use call::{Call, CallResult, DispatchSignal, Dispatched, HealthChanged, Rejection, TargetHealth};
pub use dispatch::base_url::{AddressError, advise_base_url, parse_base_url};
pub use dispatch::client_pool::IoThreads;
pub use dispatch::proxy::malformed_proxies;
pub use dispatch::transport::Error;
pub(crate) use document_secrets::{find_secrets, guess_secrets};
pub use health::first_attempts::{FirstAttempts, Neighbours};
pub use health::outage::Outage;
pub use health::snapshot::{KeyCooldown, KeySnapshot, Snapshot, TargetSnapshot};
pub use health::target_health::CapacityShare;
pub use health::unresponsive_timeouts::UnresponsiveTimeouts;
pub use health::utilization::{LimitSnapshot, LimitUtilization};
pub use keys::header_source::HeaderSource;
pub(crate) use keys::header_source::is_secret_header;
pub use keys::key::KeyId;
pub use keys::key_error::KeyError;
pub use keys::key_source::{Env, Key, KeySource, process_env};
pub use limits::Limits;
pub use model::Model;
pub use model_list::list_models;
pub use out_of_service::OutOfService;
pub use reconfigure::PreparedUpdate;
pub use settings::{OutputReservation, Settings, Timeouts};
pub use state::{Account, HealthSink, Provider, State};
pub use unreported_usage::UnreportedUsage;
