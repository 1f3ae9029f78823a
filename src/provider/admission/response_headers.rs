//! Updates of the scheduler when the response headers of a call arrive.

use tokio::time::Instant;

use crate::guard::{HeaderScope, RateLimitStatuses};
use crate::wire::RateLimitHeaders;

use super::grant::Grant;
use super::scheduler::Scheduler;

/// What response headers changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::provider) struct HeaderEffects {
    /// Queued calls may now be sent.
    pub(in crate::provider) wakes_queue: bool,
    /// The router must be notified.
    pub(in crate::provider) health_changed: bool,
}

impl Scheduler {
    /// Applies the response headers of a call as soon as they arrive. Returns what changed.
    pub(in crate::provider) fn on_headers(
        &mut self,
        grant: &Grant,
        headers: &RateLimitHeaders,
        accepted: bool,
        now: Instant,
    ) -> HeaderEffects {
        self.record_reachable(grant, now);
        let Some(target) = self.targets.get_mut(&grant.model) else { return HeaderEffects::default() };
        let had_room = target.concurrency.has_capacity(target.is_rate_limited(&self.limits));
        let was_tripped = target.breaker.trip_reason().is_some();
        let mut statuses = rate_limit_statuses(headers);
        if accepted {
            statuses =
                statuses.without_limits_below(target.token_stats.min_input(grant.reservation.estimate.input));
        }
        target.record_response(grant.number, now);
        if accepted && grant.target_token.is_probe() {
            target.mark_recovered(grant.number);
        }
        let account_scope = if target.has_own_limits { HeaderScope::MatchingOnly } else { HeaderScope::Own };
        self.limits.apply_headers(&statuses, &grant.shared, account_scope, now);
        if target.has_own_limits {
            target.limits.apply_headers(&statuses, &grant.own, target.header_scope(), now);
        }
        if accepted {
            self.keys.on_accepted(&grant.key, &grant.model);
            self.limits.record_accepted(&grant.shared, now);
            target.limits.record_accepted(&grant.own, now);
            target.concurrency.record_accepted(grant.in_flight, now);
            target.record_accepted(grant.in_flight.sent_at(), now);
            target.not_found.record_accepted();
        }
        target.blocked_until = None;
        let has_recovered = was_tripped && target.breaker.trip_reason().is_none();
        let has_room = !had_room && target.concurrency.has_capacity(target.is_rate_limited(&self.limits));
        let health_changed = has_recovered || std::mem::take(&mut self.endpoint_breaker_closed);
        HeaderEffects {
            wakes_queue: !self.queue.is_empty() && (self.rate_limited || has_room),
            health_changed,
        }
    }

    /// Records that the provider is reachable: a response to a call has begun, whatever it contains.
    fn record_reachable(&mut self, grant: &Grant, now: Instant) {
        let mut has_closed = false;
        if self.reachability.record_response(grant.number, grant.in_flight.sent_at(), now) {
            has_closed = self.endpoint_breaker.record_success(grant.endpoint_token, now);
        }
        // Another probe may have been sent since.
        has_closed |= grant.endpoint_token.is_probe() && self.endpoint_breaker.force_close();
        if has_closed {
            self.endpoint_breaker_closed = true;
            for target in self.targets.values_mut() {
                target.mark_recovered(grant.number);
                target.concurrency.restart_after_outage(now);
            }
        }
    }
}

fn rate_limit_statuses(headers: &RateLimitHeaders) -> RateLimitStatuses {
    RateLimitStatuses {
        requests: headers.requests,
        requests_per_second: headers.requests_per_second,
        tokens: headers.tokens,
        input_tokens: headers.input_tokens,
        output_tokens: headers.output_tokens,
    }
}
