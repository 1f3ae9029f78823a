//! What a provider has observed: health of its targets, outages, latencies and utilization.

pub(super) mod first_attempts;
pub(super) mod header_latency;
pub(super) mod metrics;
mod metrics_report;
pub(super) mod outage;
pub(super) mod pending_attempts;
pub(super) mod reachability;
pub(super) mod recent_steps;
pub(super) mod refused_requests;
pub(super) mod snapshot;
pub(super) mod stats;
pub(super) mod step_latencies;
pub(super) mod target_health;
pub(super) mod unresponsive_timeouts;
pub(super) mod utilization;
