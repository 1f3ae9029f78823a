//! Eviction of queued calls from a provider that cannot take them now, so that the router sends them elsewhere.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::queued_call::QueuedCall;
use super::scheduler::Scheduler;
use crate::provider::call::Rejection;
use crate::provider::target::Target;
use crate::types::{Failure, ModelName};

/// How long a call waits behind an open breaker before it is evicted although no other target was healthy when
/// it was queued.
const MAX_WAIT_BEHIND_OPEN_BREAKER: Duration = Duration::from_secs(5);

/// Why the calls of a target are evicted.
struct Eviction {
    rejection: Rejection,
    reason: EvictionReason,
}

#[derive(Clone, Copy)]
enum EvictionReason {
    /// The provider asked for a long wait.
    Held,
    /// A breaker is open. `is_full` means that no call that it admits could be sent either.
    Open { is_full: bool },
}

/// How long the queue is not searched again for abandoned calls, because the search looks at each call.
const ABANDONED_SEARCH_INTERVAL: Duration = Duration::from_millis(50);

impl Scheduler {
    /// Removes the queued calls whose caller is gone, so that no call is rejected because of them. Returns whether
    /// there were any.
    pub(in crate::provider) fn remove_abandoned(&mut self, now: Instant) -> bool {
        if self.abandoned_searched_at.is_some_and(|at| now < at + ABANDONED_SEARCH_INTERVAL) {
            return false;
        }
        self.abandoned_searched_at = Some(now);
        !self.queue.take_unless(|queued| !queued.responder.is_closed()).is_empty()
    }

    /// Removes the queued calls that could go elsewhere, of targets whose provider asked for a long wait and of
    /// targets whose breaker is open, where they might wait for calls that hang. Returns them with the reason.
    pub(in crate::provider) fn evict(&mut self, now: Instant) -> Vec<(QueuedCall, Rejection)> {
        let eviction = |(model, _): (&ModelName, usize)| Some((model.clone(), self.eviction(model, now)?));
        let evictions: HashMap<ModelName, Eviction> =
            self.queue.waiting_by_model().filter_map(eviction).collect();
        if evictions.is_empty() {
            return Vec::new();
        }
        let keeps = |queued: &QueuedCall| {
            evictions.get(&queued.call.model).is_none_or(|eviction| eviction.reason.keeps(queued, now))
        };
        let evicted = self.queue.take_unless(keeps).into_iter();
        evicted
            .filter_map(|queued| {
                let rejection = evictions.get(&queued.call.model)?.rejection.clone();
                Some((queued, rejection))
            })
            .collect()
    }

    /// Removes the queued calls of targets that an operator has taken out of service. Returns them with the reason.
    pub(in crate::provider) fn evict_out_of_service(&mut self) -> Vec<(QueuedCall, Rejection)> {
        let reason = |(model, _): (&ModelName, usize)| Some((model.clone(), self.rejects_queued(model)?));
        let reasons: HashMap<ModelName, Failure> = self.queue.waiting_by_model().filter_map(reason).collect();
        if reasons.is_empty() {
            return Vec::new();
        }
        let evicted = self.queue.take_unless(|queued| !reasons.contains_key(&queued.call.model)).into_iter();
        evicted
            .filter_map(|queued| {
                let failure = reasons.get(&queued.call.model)?.clone();
                Some((queued, Rejection::OutOfService(failure)))
            })
            .collect()
    }

    fn eviction(&self, model: &ModelName, now: Instant) -> Option<Eviction> {
        let target: &Target = self.targets.get(model)?;
        if let Some(until) = self.long_hold_until(target, now) {
            return Some(Eviction { rejection: Rejection::Busy { until }, reason: EvictionReason::Held });
        }
        let rejection = self.check_breakers(target, false, now).err()?;
        let is_full = !self.may_dispatch(model, now);
        Some(Eviction { rejection, reason: EvictionReason::Open { is_full } })
    }
}

impl EvictionReason {
    fn keeps(self, queued: &QueuedCall, now: Instant) -> bool {
        let call = &queued.call;
        match self {
            Self::Held => call.only_option,
            Self::Open { is_full } => {
                let is_early =
                    now.saturating_duration_since(queued.requested_at) < MAX_WAIT_BEHIND_OPEN_BREAKER;
                call.only_option || call.only_option_now && (!is_full || is_early)
            }
        }
    }
}
