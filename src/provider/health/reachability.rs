//! Decides whether failed connections concern the whole provider or single requests.
//!
//! A firewall resets the connections of one request; a load balancer resets all connections for a moment.
//! Responses of the provider meanwhile distinguish the two. Pure.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::guard::BreakerToken;

/// How long no further attempt is sent after a failed connection, while those in flight can show more.
const FAILED_CONNECTION_HOLD: Duration = Duration::from_secs(1);

/// After this time without a response, few failed connections are enough; lower and upper bound.
const MIN_QUIET: Duration = Duration::from_secs(1);
const MAX_QUIET: Duration = Duration::from_secs(10);

/// A probe that has been in flight for this long has connected: the next probe does not wait for its response.
const ASSUMED_CONNECTED_AFTER: Duration = Duration::from_secs(1);

/// What a failed connection is evidence about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::provider) enum ConnectFailureScope {
    /// Its own request: an attempt that was sent later had a response before.
    Request,
    /// Possibly the provider: attempts in flight can still show it.
    Unclear,
    /// The provider: it has sent no response for as long as attempts usually take.
    Provider,
}

/// Responses of a provider, of any of its models.
#[derive(Debug, Default)]
pub(in crate::provider) struct Reachability {
    /// The latest send time among attempts with a response.
    latest_responsive_sent_at: Option<Instant>,
    /// When the latest response arrived.
    last_response_at: Option<Instant>,
    /// When the first connection failed, before any response.
    first_failed_at: Option<Instant>,
    hold_until: Option<Instant>,
    /// The attempts in flight, by number, whose tokens of the endpoint breaker are already returned.
    released: HashSet<u64>,
    probe: Option<(BreakerToken, Instant)>,
}

impl Reachability {
    /// Records the response headers of an attempt that was sent at `sent_at`. Returns whether its breaker token
    /// is still to be returned.
    pub(in crate::provider) fn record_response(
        &mut self,
        number: u64,
        sent_at: Instant,
        now: Instant,
    ) -> bool {
        self.latest_responsive_sent_at = self.latest_responsive_sent_at.max(Some(sent_at));
        self.last_response_at = Some(now);
        self.hold_until = None;
        self.released.insert(number)
    }

    /// Removes an attempt that has ended. Returns whether its breaker token is still to be returned.
    pub(in crate::provider) fn remove(&mut self, number: u64) -> bool {
        !self.released.remove(&number)
    }

    /// Classifies a failed connection of an attempt that was sent at `sent_at`. `mean_latency` is in seconds.
    pub(in crate::provider) fn classify(
        &mut self,
        sent_at: Instant,
        mean_latency: Option<f64>,
        now: Instant,
    ) -> ConnectFailureScope {
        if self
            .latest_responsive_sent_at
            .is_some_and(|latest_responsive_sent_at| latest_responsive_sent_at > sent_at)
        {
            return ConnectFailureScope::Request;
        }
        let mean_latency =
            mean_latency.map_or(Duration::ZERO, |seconds| Duration::from_secs_f64(seconds * 2.0));
        let quiet = mean_latency.clamp(MIN_QUIET, MAX_QUIET);
        let since = self.last_response_at.unwrap_or(*self.first_failed_at.get_or_insert(now));
        let is_quiet = now.saturating_duration_since(since) >= quiet;
        if is_quiet { ConnectFailureScope::Provider } else { ConnectFailureScope::Unclear }
    }

    /// Holds further attempts back for a moment.
    pub(in crate::provider) fn start_hold(&mut self, now: Instant) {
        self.hold_until = Some(now + FAILED_CONNECTION_HOLD);
    }

    /// Returns until when attempts are held back; `None` if they are not.
    pub(in crate::provider) fn hold_until(&self, now: Instant) -> Option<Instant> {
        self.hold_until.filter(|until| *until > now)
    }

    /// Records a probe of the endpoint breaker.
    pub(in crate::provider) fn record_probe(&mut self, breaker_token: BreakerToken, now: Instant) {
        self.probe = Some((breaker_token, now));
    }

    /// Removes a probe that was not sent.
    pub(in crate::provider) fn discard_probe(&mut self) {
        self.probe = None;
    }

    /// Returns, once, the probe that has been in flight for so long that it has connected.
    pub(in crate::provider) fn take_connected_probe(
        &mut self,
        now: Instant,
    ) -> Option<(BreakerToken, Instant)> {
        self.probe.take_if(|(_, sent_at)| now.saturating_duration_since(*sent_at) >= ASSUMED_CONNECTED_AFTER)
    }

    #[cfg(test)]
    pub(in crate::provider) fn released(&self) -> usize {
        self.released.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_connection_concerns_its_request_if_a_later_attempt_had_a_response() {
        let mut reachability = Reachability::default();
        let start = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(reachability.classify(start, None, start), ConnectFailureScope::Unclear);
        assert_eq!(reachability.classify(start, None, start + second), ConnectFailureScope::Provider);
        assert!(reachability.record_response(1, start, start + second));
        let now = start + second;
        assert_eq!(reachability.classify(start - second, Some(0.1), now), ConnectFailureScope::Request);
        assert_eq!(reachability.classify(start, Some(0.1), now), ConnectFailureScope::Unclear);
        assert_eq!(reachability.classify(start, Some(0.1), now + second), ConnectFailureScope::Provider);
        assert_eq!(reachability.classify(start, Some(3.0), now + 5 * second), ConnectFailureScope::Unclear);
        assert_eq!(
            reachability.classify(start, Some(60.0), now + 10 * second),
            ConnectFailureScope::Provider
        );
    }

    #[test]
    fn a_breaker_token_is_returned_once() {
        let mut reachability = Reachability::default();
        let now = Instant::now();
        assert_eq!(
            [reachability.record_response(1, now, now), reachability.remove(1), reachability.remove(2)],
            [true, false, true]
        );
        assert_eq!(reachability.released(), 0);
    }
}
