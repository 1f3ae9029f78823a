//! Whether any target of a request is usable, and if not, when a retry may succeed.
//!
//! Read-only. The returned times may be estimates; a time that the provider named is in the failure.

use std::time::Duration;

use tokio::time::Instant;

use crate::provider::Outage;
use crate::types::{Attribution, Cause, Class, Failure};

use super::target::TargetHandle;

/// Expected duration of the probe of a target that was down.
const EXPECTED_PROBE_DURATION: Duration = Duration::from_secs(1);

/// Returns the index of the target that recovers first and why it is not usable within `max_wait`; `None` if any
/// target is usable.
pub(super) fn common_outage(
    targets: &[TargetHandle],
    max_wait: Duration,
    now: Instant,
) -> Option<(usize, Outage)> {
    let mut first: Option<(usize, Outage)> = None;
    for (index, target) in targets.iter().enumerate() {
        let outage = target.provider.outage(&target.name.model, max_wait, now)?;
        // Time alone does not bring back a target that is out of service.
        let order = |outage: &Outage| (outage.failure.cause == Some(Cause::OutOfService), outage.retry_at);
        if first.as_ref().is_none_or(|(_, earliest)| order(&outage) < order(earliest)) {
            first = Some((index, outage));
        }
    }
    first
}

/// Returns the expected wait until a retry of a request that ended with `failure` may succeed; `None` if waiting
/// does not help or a target is usable now.
pub(super) fn expected_wait(targets: &[TargetHandle], failure: &Failure, now: Instant) -> Option<Duration> {
    match failure.class.attribution() {
        Attribution::Attempt | Attribution::Limit | Attribution::Account => {}
        Attribution::Router if failure.class == Class::Deadline => {}
        Attribution::Request | Attribution::Router => return None,
    }
    let named = failure.credible_retry_after();
    let Some((_, outage)) = common_outage(targets, Duration::ZERO, now) else { return named };
    Some(outage.retry_at.map_or(EXPECTED_PROBE_DURATION, |at| at.saturating_duration_since(now)))
}
