//! The router: selects the target of every [`Request`], retries it, and fails over to other targets.
//!
//! The [`Router`] actor orders the targets of a route by the health that the providers report. What happens to one
//! request (which target is called next, when, and when the request fails) is decided by a [`RetryPlan`], a plain
//! struct. The sequence of messages is described in `client.rs`. Callers outside of runs use a [`RouterHandle`].

mod actor;
mod attempt;
mod client;
mod completion_interval;
mod counts;
mod embedding;
mod embedding_batch;
mod execution;
mod handle;
mod hedge;
mod live_log;
mod other_requests;
mod outage;
mod pending_call;
mod pending_requests;
mod policy;
mod provider_time;
mod request;
mod request_metrics;
mod response_stream;
mod retry_plan;
mod scope;
mod scope_queue;
mod settings;
mod shared_routes;
mod stop_signal;
mod target;

pub use actor::Router;
pub use client::{WaitBound, admit_request, send_request, settle};
pub use counts::{CallCounts, CallsEnded};
pub use embedding::{EmbeddingRequest, Embeddings};
pub use embedding_batch::EmbeddingBatcher;
pub use handle::RouterHandle;
pub use hedge::HedgeAfter;
pub use request::{Request, StreamMode};
pub use request_metrics::RequestMetrics;
pub use response_stream::ResponseStream;
pub use retry_plan::{Candidate, HasOtherKey, IsProbe, NextAction, RetryPlan};
pub use scope::{Scope, ScopePermit, ScopeWait, Scopes};
pub use settings::{Policy, RetrySettings, Route, Target};
pub use shared_routes::{RouteTable, SharedRoutes};
pub use stop_signal::StopSignal;
pub use target::{RouteHandle, TargetHandle};
