//! Whether any target of a request can be used, and if not, when one is worth asking again.
//!
//! Only looks. A time that the provider named stands in the failure; what is found here may be an estimate.

use std::time::Duration;

use tokio::time::Instant;

use crate::provider::Outage;
use crate::types::{Class, Failure, Whose};

use super::lane::LaneHandle;

/// How long an attempt that finds out whether a target works again is expected to take.
const PROBE: Duration = Duration::from_secs(1);

/// A provider that names as long a wait as this does not mean it.
const MAX_CREDIBLE_RETRY_AFTER: Duration = Duration::from_hours(24);

/// Returns the number of the target that is worth asking first, and why it cannot be used within `patience`, where no
/// target can.
pub(super) fn outage(targets: &[LaneHandle], patience: Duration, now: Instant) -> Option<(usize, Outage)> {
    let mut first: Option<(usize, Outage)> = None;
    for (number, target) in targets.iter().enumerate() {
        let outage = target.provider.outage(&target.name.model, patience, now)?;
        if first.as_ref().is_none_or(|(_, known)| outage.retry_at < known.retry_at) {
            first = Some((number, outage));
        }
    }
    first
}

/// Returns how long it is expected to take until a request is worth sending again that ended with `failure`; `None`
/// where waiting changes nothing, or a target can be asked now.
pub(super) fn expected_wait(targets: &[LaneHandle], failure: &Failure, now: Instant) -> Option<Duration> {
    match failure.class.whose() {
        Whose::Attempt | Whose::Limit | Whose::Account => {}
        Whose::Ours if failure.class == Class::Deadline => {}
        Whose::Request | Whose::Ours => return None,
    }
    let named = failure.retry_after.filter(|wait| *wait < MAX_CREDIBLE_RETRY_AFTER);
    let Some((_, outage)) = outage(targets, Duration::ZERO, now) else { return named };
    Some(outage.retry_at.map_or(PROBE, |at| at.saturating_duration_since(now)))
}
