//! The router: selects the target of every [`Request`], retries it, and fails over to other targets.
//!
//! The [`Router`] actor orders the targets of a route by the health that the providers report. What happens to one
//! request (which target is called next, when, and when the request fails) is decided by a [`RetryPlan`], a plain
//! struct. The sequence of messages is described in `client.rs`. Callers outside of runs use a [`RouterHandle`].

mod actor;
mod attempt;
mod client;
mod counts;
mod embedding;
mod execution;
mod handle;
mod hedge;
mod other_requests;
mod outage;
mod pending_call;
mod policy;
mod request;
mod response_stream;
mod retry_plan;
mod settings;
mod target;

pub use actor::Router;
pub use client::send_request;
pub use counts::{CallCounts, CallsEnded};
pub use embedding::{EmbeddingRequest, Embeddings};
pub use handle::RouterHandle;
pub use hedge::HedgeAfter;
pub use request::{Request, StopSignal, StreamMode};
pub use response_stream::ResponseStream;
pub use retry_plan::{Candidate, HasOtherKey, IsProbe, NextAction, RetryPlan};
pub use settings::{Policy, RetrySettings, Route, Target};
pub use target::{RouteHandle, TargetHandle};
