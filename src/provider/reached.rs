//! Whether connections that fail say something of the whole provider, or of single requests only.
//!
//! A firewall resets the connections of one request; a load balancer resets all, for a moment. What was heard of the
//! provider meanwhile tells one from the other. Pure.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::guard::Pass;

/// For how long no further attempt leaves after a failed connection while those in flight can tell more.
const DOUBT: Duration = Duration::from_secs(1);

/// How long a provider may say nothing before few failed connections are enough, at least and at most.
const QUIET_AT_LEAST: Duration = Duration::from_secs(1);
const QUIET_AT_MOST: Duration = Duration::from_secs(10);

/// A probe that has been in flight for so long has connected: the next one does not wait for its answer.
const CONNECTED: Duration = Duration::from_secs(1);

/// Whom a failed connection says something of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreachable {
    /// Its own request: one that left later had a word before.
    Request,
    /// Perhaps the provider: attempts in flight can still tell.
    Unclear,
    /// The provider: nothing has been heard of it for as long as attempts take.
    Provider,
}

/// What was heard of a provider, by any of its models.
#[derive(Debug, Default)]
pub(super) struct Reached {
    /// When the latest of the attempts that had a word had left.
    latest: Option<Instant>,
    /// When the latest word came.
    heard: Option<Instant>,
    /// When the first connection failed, where nothing had been heard before.
    first_failed: Option<Instant>,
    in_doubt_until: Option<Instant>,
    /// The attempts in flight, by their number, whose passes of the shared breaker are given back already.
    given_back: HashSet<u64>,
    probe: Option<(Pass, Instant)>,
}

impl Reached {
    /// Notes that an attempt that left at `left` had a word. Returns whether its pass is still to be given back.
    pub(super) fn heard(&mut self, number: u64, left: Instant, now: Instant) -> bool {
        self.latest = self.latest.max(Some(left));
        self.heard = Some(now);
        self.in_doubt_until = None;
        self.given_back.insert(number)
    }

    /// Forgets an attempt that has ended. Returns whether its pass is still to be given back.
    pub(super) fn ended(&mut self, number: u64) -> bool {
        !self.given_back.remove(&number)
    }

    /// Judges a failed connection of an attempt that left at `left`. `usual` is how many seconds attempts take.
    pub(super) fn judge(&mut self, left: Instant, usual: Option<f64>, now: Instant) -> Unreachable {
        if self.latest.is_some_and(|latest| latest > left) {
            return Unreachable::Request;
        }
        let usual = usual.map_or(Duration::ZERO, |seconds| Duration::from_secs_f64(seconds * 2.0));
        let quiet = usual.clamp(QUIET_AT_LEAST, QUIET_AT_MOST);
        let since = self.heard.unwrap_or(*self.first_failed.get_or_insert(now));
        let is_quiet = now.saturating_duration_since(since) >= quiet;
        if is_quiet { Unreachable::Provider } else { Unreachable::Unclear }
    }

    /// Holds further attempts back for a moment.
    pub(super) fn doubt(&mut self, now: Instant) {
        self.in_doubt_until = Some(now + DOUBT);
    }

    /// Returns until when it is in doubt whether the provider can be reached; `None` where it is not.
    pub(super) fn in_doubt_until(&self, now: Instant) -> Option<Instant> {
        self.in_doubt_until.filter(|until| *until > now)
    }

    /// Notes that a probe of the shared breaker leaves.
    pub(super) fn probes(&mut self, pass: Pass, now: Instant) {
        self.probe = Some((pass, now));
    }

    /// Returns the probe that has been in flight for so long that it has connected, once.
    pub(super) fn take_connected_probe(&mut self, now: Instant) -> Option<(Pass, Instant)> {
        self.probe.take_if(|(_, left)| now.saturating_duration_since(*left) >= CONNECTED)
    }

    #[cfg(test)]
    pub(super) fn given_back(&self) -> usize {
        self.given_back.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_connection_is_its_requests_where_one_that_left_later_had_a_word() {
        let (mut reached, start, second) = (Reached::default(), Instant::now(), Duration::from_secs(1));
        assert_eq!(reached.judge(start, None, start), Unreachable::Unclear);
        assert_eq!(reached.judge(start, None, start + second), Unreachable::Provider);
        assert!(reached.heard(1, start, start + second));
        let now = start + second;
        assert_eq!(reached.judge(start - second, Some(0.1), now), Unreachable::Request);
        assert_eq!(reached.judge(start, Some(0.1), now), Unreachable::Unclear);
        assert_eq!(reached.judge(start, Some(0.1), now + second), Unreachable::Provider);
        assert_eq!(reached.judge(start, Some(3.0), now + 5 * second), Unreachable::Unclear);
        assert_eq!(reached.judge(start, Some(60.0), now + 10 * second), Unreachable::Provider);
    }

    #[test]
    fn a_pass_is_given_back_once() {
        let (mut reached, now) = (Reached::default(), Instant::now());
        assert_eq!([reached.heard(1, now, now), reached.ended(1), reached.ended(2)], [true, false, true]);
        assert_eq!(reached.given_back(), 0);
    }
}
