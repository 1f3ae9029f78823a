//! Why a target can answer no request now: what a run holds for.
//!
//! Only looks; nothing here changes a number.

use std::time::Duration;

use tokio::time::Instant;

use crate::guard::{BreakerState, Trouble};
use crate::types::{Cause, Class, Failure, ModelName};

use super::book::Book;
use super::lane::{ASSUMED_NEED, Lane};

/// Why a target can answer no request now.
#[derive(Debug, Clone, PartialEq)]
pub struct Outage {
    /// The failure that says why.
    pub failure: Failure,
    /// When it is worth trying again; `None` where that is now, or an attempt is finding out.
    pub retry_at: Option<Instant>,
    /// Whether an attempt is finding out.
    pub is_probed: bool,
    /// Whether the provider, or a limit, named that time: before it no attempt can succeed.
    pub is_named: bool,
    /// Whether waiting can mend it. A key that is refused and comes from no file stays what it is.
    pub can_mend: bool,
}

impl Book {
    /// Returns why no request can be answered by `model` within `patience`; `None` where some may.
    pub(super) fn outage(&self, model: &ModelName, patience: Duration, now: Instant) -> Option<Outage> {
        let lane = self.lanes.get(model)?;
        self.out_of_keys(model, now)
            .or_else(|| self.unreachable(lane, now))
            .or_else(|| self.held_back(lane, patience, now))
    }

    fn out_of_keys(&self, model: &ModelName, now: Instant) -> Option<Outage> {
        let (until, failure) = self.keys.rest_of_all(model, now)?;
        let is_named = failure.retry_after.is_some();
        let has_answered = self.lanes.values().any(|lane| lane.counts.answered > 0);
        let can_mend = failure.class != Class::Auth || has_answered && self.keys.any_has_file();
        Some(Outage { failure: failure.clone(), retry_at: Some(until), is_probed: false, is_named, can_mend })
    }

    fn unreachable(&self, lane: &Lane, now: Instant) -> Option<Outage> {
        let is_down = |breaker: &crate::guard::Breaker| {
            let trouble = breaker.trouble().filter(|trouble| *trouble != Trouble::Share);
            trouble.is_some() && breaker.state(now) != BreakerState::Closed
        };
        let (breaker, last) = if is_down(&self.door) {
            (&self.door, self.at_the_door.as_ref())
        } else if is_down(&lane.breaker) {
            (&lane.breaker, lane.last.as_ref())
        } else {
            return None;
        };
        let silent = || Failure::new(Class::Timeout, "it accepts requests and does not answer");
        let failure = last.cloned().unwrap_or_else(silent);
        // What has only ever sent what is no API's does not become one by waiting, and a model that does not exist does
        // not begin to.
        let is_misconfigured =
            failure.cause.is_some_and(Cause::is_of_no_api) || failure.class == Class::NotFound;
        let can_mend = !is_misconfigured || lane.counts.answered > 0;
        let (retry_at, is_probed) = (breaker.rests_until(now), breaker.is_probing());
        Some(Outage { failure, retry_at, is_probed, is_named: false, can_mend })
    }

    fn held_back(&self, lane: &Lane, patience: Duration, now: Instant) -> Option<Outage> {
        let need = lane.usual_need().unwrap_or(ASSUMED_NEED);
        let expected = self.limits.expected(0, need, now).max(lane.limits.expected(0, need, now));
        if expected.saturating_duration_since(now) <= patience {
            return None;
        }
        let failure = if self.held_for(lane, now) > patience {
            let throttled = || Failure::new(Class::RateLimit, "the provider asked to wait");
            lane.asked_to_wait.clone().unwrap_or_else(throttled)
        } else {
            let message = "its configured limits (requests_per_day) leave room for no request";
            Failure::new(Class::Quota, message).because(Cause::ConfiguredLimit)
        };
        Some(Outage { failure, retry_at: Some(expected), is_probed: false, is_named: true, can_mend: true })
    }
}
