//! Admission of calls: when a call may be sent, and what it reserves.
//!
//! [`scheduler`] decides; [`queue`] orders the waiting calls; a [`permit`](permit::Permit) holds what a call has taken
//! until it ends.

pub(super) mod budget;
pub(super) mod check;
pub(super) mod daily_usage;
pub(super) mod decision;
pub(super) mod estimate;
pub(super) mod eviction;
pub(super) mod evidence;
pub(super) mod fair_queue;
pub(super) mod grant;
pub(super) mod inbox;
pub(super) mod outcome;
pub(super) mod output_accounting;
pub(super) mod permit;
pub(super) mod queue;
pub(super) mod queued_call;
pub(super) mod reservation;
pub(super) mod response_headers;
pub(super) mod run_queue;
pub(super) mod scheduler;
pub(super) mod submit;
pub(super) mod token_estimate;
pub(super) mod token_stats;
pub(super) mod usage_bounds;
