//! Decides which request of a step warms the provider's cache for the others.
//!
//! A provider can read the beginning of a prompt from its cache only after it has processed a first prompt with the
//! beginning. Requests that are sent before that each pay for writing it. So the first request of a step is sent alone:
//! it is the leader. The others wait for its end, or for that of any other request that was processed. If it was not
//! processed, the next one leads. If the cache was not used for as long as the provider keeps it, the next request leads
//! again. Pure: the caller passes `now`.

use std::time::Duration;

use tokio::time::Instant;

use crate::types::CacheTtl;

/// How many leaders in a row may fail before the requests of the step are sent without waiting. They would otherwise be
/// sent one after another while all of them fail.
const MAX_FAILED_LEADERS: u32 = 3;

/// How long requests wait for one leader.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(30);

/// Number of requests from which the pace of a step is known.
const MIN_PACE_REQUESTS: u64 = 20;

/// Mean time between two requests from which the beginning is cached for an hour: with some more delay it would expire
/// after five minutes.
const MIN_SLOW_PACE: Duration = Duration::from_secs(240);

/// Mean time between two requests from which an hour is too short as well.
const MAX_SLOW_PACE: Duration = Duration::from_secs(3600);

/// Whether a request may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WarmupDecision {
    /// It is sent, and the others wait until it has ended.
    Lead(LeaderNumber),
    /// It is sent.
    Send,
    /// It waits for the end of the leader.
    Wait,
}

/// Identifies a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LeaderNumber(u64);

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WarmupEnd {
    /// A provider processed its prompt.
    Processed,
    /// No provider is known to have processed its prompt.
    Failed,
    /// It was dropped.
    Dropped,
}

/// The state of the cache for the requests of one step.
#[derive(Debug)]
pub(super) struct CacheWarmup {
    /// How long the setting of the step keeps it.
    configured_ttl: CacheTtl,
    /// The leader, and since when it leads.
    leader: Option<(LeaderNumber, Instant)>,
    last_leader: u64,
    /// Leaders that failed in a row.
    failed_leaders: u32,
    /// When a request was sent that used or filled the cache.
    used_at: Option<Instant>,
    /// Requests that were sent, and when the first and the last of them were.
    sent: u64,
    first_sent_at: Option<Instant>,
    last_sent_at: Option<Instant>,
}

impl CacheWarmup {
    pub(super) fn new(configured_ttl: CacheTtl) -> Self {
        Self {
            configured_ttl,
            leader: None,
            last_leader: 0,
            failed_leaders: 0,
            used_at: None,
            sent: 0,
            first_sent_at: None,
            last_sent_at: None,
        }
    }

    /// Decides whether a request may be sent now. It is sent unless it has to wait.
    pub(super) fn decide(&mut self, now: Instant) -> WarmupDecision {
        self.abandon_leader(now);
        if self.is_warm(now) {
            self.used_at = Some(now);
        } else if self.leader.is_some() {
            return WarmupDecision::Wait;
        } else if self.failed_leaders < MAX_FAILED_LEADERS {
            self.last_leader += 1;
            let leader = LeaderNumber(self.last_leader);
            self.leader = Some((leader, now));
            self.count_sent(now);
            return WarmupDecision::Lead(leader);
        }
        self.count_sent(now);
        WarmupDecision::Send
    }

    /// Records that a request is sent although it would have to wait.
    pub(super) fn send_without_waiting(&mut self, now: Instant) {
        self.count_sent(now);
    }

    /// Ends the wait for a leader that leads for [`MAX_WAIT`] or longer, and counts it as failed. Returns whether requests
    /// that wait must decide again.
    pub(super) fn abandon_leader(&mut self, now: Instant) -> bool {
        let is_late = |(_, since): &mut (LeaderNumber, Instant)| now.duration_since(*since) >= MAX_WAIT;
        let is_abandoned = self.leader.take_if(is_late).is_some();
        self.failed_leaders += u32::from(is_abandoned);
        is_abandoned
    }

    /// Records the end of a request. Returns whether requests that wait must decide again.
    pub(super) fn record_end(&mut self, leader: Option<LeaderNumber>, end: WarmupEnd, now: Instant) -> bool {
        let was_leader = leader.is_some() && self.leader.map(|(current, _)| current) == leader;
        match end {
            // Whichever request it was, the others can read what it has written.
            WarmupEnd::Processed => {
                self.failed_leaders = 0;
                self.used_at = self.used_at.max(Some(now));
                self.leader.take().is_some()
            }
            WarmupEnd::Failed | WarmupEnd::Dropped => {
                self.failed_leaders += u32::from(was_leader && end == WarmupEnd::Failed);
                self.leader.take_if(|_| was_leader).is_some()
            }
        }
    }

    /// Returns how long the provider is to keep the beginning: as long as the step sets it, or for an hour if the
    /// requests are so far apart that it would expire between them.
    pub(super) fn ttl(&self) -> CacheTtl {
        match (self.configured_ttl, self.pace()) {
            (CacheTtl::FiveMinutes, Some(pace)) if MIN_SLOW_PACE < pace && pace < MAX_SLOW_PACE => {
                CacheTtl::OneHour
            }
            (ttl, _) => ttl,
        }
    }

    /// Returns the mean time between two requests, once it is known.
    fn pace(&self) -> Option<Duration> {
        if self.sent < MIN_PACE_REQUESTS {
            return None;
        }
        let gaps = u32::try_from(self.sent - 1).unwrap_or(u32::MAX);
        Some(self.last_sent_at?.duration_since(self.first_sent_at?) / gaps)
    }

    fn is_warm(&self, now: Instant) -> bool {
        let kept = match self.ttl() {
            CacheTtl::FiveMinutes => Duration::from_secs(300),
            CacheTtl::OneHour => Duration::from_secs(3600),
        };
        self.used_at.is_some_and(|used_at| now.duration_since(used_at) < kept)
    }

    fn count_sent(&mut self, now: Instant) {
        self.sent += 1;
        self.first_sent_at.get_or_insert(now);
        self.last_sent_at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn warmup() -> CacheWarmup {
        CacheWarmup::new(CacheTtl::FiveMinutes)
    }

    #[track_caller]
    fn lead(warmup: &mut CacheWarmup) -> LeaderNumber {
        match warmup.decide(Instant::now()) {
            WarmupDecision::Lead(leader) => leader,
            other => panic!("it does not lead: {other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_request_is_sent_alone_and_the_others_follow_its_end() {
        let mut warmup = warmup();
        let leader = lead(&mut warmup);
        advance(Duration::from_secs(20)).await;
        assert_eq!(warmup.decide(Instant::now()), WarmupDecision::Wait);
        assert!(warmup.record_end(Some(leader), WarmupEnd::Processed, Instant::now()));
        for _ in 0..3 {
            assert_eq!(warmup.decide(Instant::now()), WarmupDecision::Send);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_request_leads_if_the_leader_fails_or_is_dropped() {
        let mut warmup = warmup();
        for end in [WarmupEnd::Failed, WarmupEnd::Dropped, WarmupEnd::Failed, WarmupEnd::Dropped] {
            let leader = lead(&mut warmup);
            assert_eq!(warmup.decide(Instant::now()), WarmupDecision::Wait);
            assert!(warmup.record_end(Some(leader), end, Instant::now()));
        }
        lead(&mut warmup);
    }

    #[tokio::test(start_paused = true)]
    async fn after_several_failed_leaders_requests_do_not_wait_until_one_was_processed() {
        let mut warmup = warmup();
        for _ in 0..MAX_FAILED_LEADERS {
            let leader = lead(&mut warmup);
            warmup.record_end(Some(leader), WarmupEnd::Failed, Instant::now());
        }
        assert_eq!(warmup.decide(Instant::now()), WarmupDecision::Send);
        assert!(!warmup.record_end(None, WarmupEnd::Processed, Instant::now()));
        advance(Duration::from_secs(300)).await;
        lead(&mut warmup);
    }

    #[tokio::test(start_paused = true)]
    async fn any_request_that_was_processed_ends_the_wait_for_the_leader() {
        let mut warmup = warmup();
        let first = lead(&mut warmup);
        warmup.record_end(Some(first), WarmupEnd::Dropped, Instant::now());
        let second = lead(&mut warmup);
        warmup.send_without_waiting(Instant::now());
        assert!(!warmup.record_end(None, WarmupEnd::Failed, Instant::now()));
        assert!(!warmup.record_end(Some(first), WarmupEnd::Failed, Instant::now()));
        assert_eq!(warmup.decide(Instant::now()), WarmupDecision::Wait);
        assert!(warmup.record_end(None, WarmupEnd::Processed, Instant::now()));
        assert_eq!(warmup.decide(Instant::now()), WarmupDecision::Send);
        assert!(!warmup.record_end(Some(second), WarmupEnd::Failed, Instant::now()));
        assert_eq!(warmup.decide(Instant::now()), WarmupDecision::Send);
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_does_not_end_is_abandoned_and_counts_as_failed() {
        let mut warmup = warmup();
        for _ in 0..MAX_FAILED_LEADERS {
            lead(&mut warmup);
            advance(MAX_WAIT / 2).await;
            assert!(!warmup.abandon_leader(Instant::now()));
            advance(MAX_WAIT / 2).await;
            assert!(warmup.abandon_leader(Instant::now()));
        }
        assert_eq!(warmup.decide(Instant::now()), WarmupDecision::Send);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_takes_long_fills_the_cache_when_it_ends() {
        let mut warmup = warmup();
        let leader = lead(&mut warmup);
        advance(Duration::from_secs(400)).await;
        warmup.record_end(Some(leader), WarmupEnd::Processed, Instant::now());
        assert_eq!(warmup.decide(Instant::now()), WarmupDecision::Send);
    }

    #[tokio::test(start_paused = true)]
    async fn each_use_keeps_the_cache_and_without_one_the_next_request_leads_again() {
        for (ttl, seconds) in [(CacheTtl::FiveMinutes, 300), (CacheTtl::OneHour, 3600)] {
            let mut warmup = CacheWarmup::new(ttl);
            let leader = lead(&mut warmup);
            warmup.record_end(Some(leader), WarmupEnd::Processed, Instant::now());
            for _ in 0..3 {
                advance(Duration::from_secs(seconds - 1)).await;
                assert_eq!(warmup.decide(Instant::now()), WarmupDecision::Send);
            }
            advance(Duration::from_secs(seconds)).await;
            lead(&mut warmup);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_pace_keeps_the_cache_for_an_hour_once_it_is_known() {
        for (seconds, expected) in [
            (0, CacheTtl::FiveMinutes),
            (240, CacheTtl::FiveMinutes),
            (241, CacheTtl::OneHour),
            (3599, CacheTtl::OneHour),
            (3600, CacheTtl::FiveMinutes),
        ] {
            let mut warmup = warmup();
            let mut always = CacheWarmup::new(CacheTtl::OneHour);
            for number in 1..=MIN_PACE_REQUESTS {
                assert_eq!(warmup.ttl(), CacheTtl::FiveMinutes, "{number}");
                warmup.send_without_waiting(Instant::now());
                always.send_without_waiting(Instant::now());
                if number < MIN_PACE_REQUESTS {
                    advance(Duration::from_secs(seconds)).await;
                }
            }
            assert_eq!((warmup.ttl(), always.ttl()), (expected, CacheTtl::OneHour), "{seconds}");
        }
    }
}
