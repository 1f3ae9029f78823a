//! Makes the requests of a step wait while another one warms the provider's cache.
//!
//! Shared by the items of a run. `cache_warmup.rs` decides which requests wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::cache_warmup::{CacheWarmup, LeaderNumber, MAX_WAIT, WarmupDecision, WarmupEnd};
use super::gate::RunRoute;
use crate::pipeline::definition::{Pipeline, Step};
use crate::types::{CacheTtl, SharedPrefix};

/// The gates of the steps of a run.
#[derive(Debug)]
pub(super) struct WarmupGates {
    /// One per step; `None` if none of its targets caches the beginning of its requests.
    steps: Vec<Option<Arc<WarmupGate>>>,
    /// Whether the run has so few items that no request can use what another one has written.
    is_single_item: bool,
}

/// The gate of one step.
#[derive(Debug)]
pub(super) struct WarmupGate {
    warmup: Mutex<CacheWarmup>,
    leader_ended: Notify,
}

/// A request that has passed a gate. If it leads, the others wait until it is dropped.
pub(super) struct PassedRequest {
    gate: Arc<WarmupGate>,
    leader: Option<LeaderNumber>,
    end: WarmupEnd,
}

impl WarmupGates {
    /// Creates the gates of a run with these routes. `items` is the number of its items, if it is known.
    pub(super) fn new(pipeline: &Pipeline, routes: &[RunRoute], items: Option<u64>) -> Arc<Self> {
        let gate = |step: &Step| {
            let shared = step.shared_prefix.as_ref()?.shared();
            let route = routes.iter().find(|route| route.name == step.route)?;
            route.caches(&shared).then(|| WarmupGate::new(shared.ttl))
        };
        let is_single_item = items.is_some_and(|items| items < 2);
        let steps = pipeline.steps().iter().map(|step| gate(step).filter(|_| !is_single_item));
        Arc::new(Self { steps: steps.collect(), is_single_item })
    }

    /// Returns the gate of a step, if its requests use the cache.
    pub(super) fn gate(&self, step: usize) -> Option<&Arc<WarmupGate>> {
        self.steps.get(step)?.as_ref()
    }

    /// Returns the shared beginning with which a request that has passed is sent.
    pub(super) fn prefix_to_send(
        &self,
        prefix: SharedPrefix,
        passed: Option<&PassedRequest>,
    ) -> Option<SharedPrefix> {
        let ttl = passed.map_or(prefix.ttl, PassedRequest::ttl);
        (!self.is_single_item).then(|| prefix.with_ttl(ttl))
    }
}

impl WarmupGate {
    pub(super) fn new(ttl: CacheTtl) -> Arc<Self> {
        Arc::new(Self { warmup: Mutex::new(CacheWarmup::new(ttl)), leader_ended: Notify::new() })
    }

    /// Passes a request, unless it has to wait.
    pub(super) fn try_pass(self: &Arc<Self>) -> Option<PassedRequest> {
        let now = Instant::now();
        match self.lock().decide(now) {
            WarmupDecision::Lead(leader) => Some(self.passed(Some(leader))),
            WarmupDecision::Send => Some(self.passed(None)),
            WarmupDecision::Wait => None,
        }
    }

    /// Passes a request at once.
    pub(super) fn pass_now(self: &Arc<Self>) -> PassedRequest {
        self.try_pass().unwrap_or_else(|| {
            self.lock().send_without_waiting(Instant::now());
            self.passed(None)
        })
    }

    /// Passes a request as soon as it does not have to wait, and after [`MAX_WAIT`] at the latest.
    pub(super) async fn pass(self: &Arc<Self>) -> PassedRequest {
        let latest = Instant::now() + MAX_WAIT;
        loop {
            let leader_ended = self.leader_ended.notified();
            tokio::pin!(leader_ended);
            // Before the decision, so that no later end is missed.
            leader_ended.as_mut().enable();
            if let Some(passed) = self.try_pass() {
                return passed;
            }
            tokio::select! {
                () = leader_ended => {}
                () = sleep_until(latest) => {
                    if self.lock().abandon_leader(Instant::now()) {
                        self.leader_ended.notify_waiters();
                    }
                    return self.pass_now();
                }
            }
        }
    }

    fn passed(self: &Arc<Self>, leader: Option<LeaderNumber>) -> PassedRequest {
        PassedRequest { gate: self.clone(), leader, end: WarmupEnd::Dropped }
    }

    /// A panic while the lock was held leaves only counts, which stay usable.
    fn lock(&self) -> MutexGuard<'_, CacheWarmup> {
        self.warmup.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PassedRequest {
    /// Returns how long the provider is to keep the beginning.
    fn ttl(&self) -> CacheTtl {
        self.gate.lock().ttl()
    }

    /// Records how the request ended.
    pub(super) fn finish(mut self, end: WarmupEnd) {
        self.end = end;
    }
}

impl Drop for PassedRequest {
    fn drop(&mut self) {
        let must_decide = self.gate.lock().record_end(self.leader, self.end, Instant::now());
        if must_decide {
            self.gate.leader_ended.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;
    use futures_util::future::join_all;
    use tokio::time::sleep;

    use super::*;

    fn gate() -> Arc<WarmupGate> {
        WarmupGate::new(CacheTtl::FiveMinutes)
    }

    #[tokio::test(start_paused = true)]
    async fn followers_pass_together_when_the_leader_was_processed() {
        let gate = gate();
        let started = Instant::now();
        let leader = gate.try_pass().unwrap();
        assert!(gate.try_pass().is_none());
        let followers = join_all((0..50).map(|_| async {
            let passed = gate.pass().await;
            let at = started.elapsed().as_secs();
            passed.finish(WarmupEnd::Processed);
            at
        }));
        let lead = async {
            sleep(Duration::from_secs(4)).await;
            leader.finish(WarmupEnd::Processed);
        };
        let (passed_at, ()) = tokio::join!(followers, lead);
        assert_eq!(passed_at, [4; 50]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_leader_releases_the_next_one() {
        let gate = gate();
        let leader = gate.try_pass().unwrap();
        let mut next = Box::pin(gate.pass());
        let mut last = Box::pin(gate.pass());
        assert!(next.as_mut().now_or_never().is_none() && last.as_mut().now_or_never().is_none());
        drop(leader);
        let next = next.await;
        assert!(last.as_mut().now_or_never().is_none(), "the next one leads, so the others still wait");
        next.finish(WarmupEnd::Failed);
        last.await.finish(WarmupEnd::Processed);
        assert!(gate.try_pass().is_some_and(|passed| passed.leader.is_none()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_does_not_wait_longer_than_the_limit() {
        let gate = gate();
        let leader = gate.try_pass().unwrap();
        let started = Instant::now();
        let passed = gate.pass().await;
        assert_eq!(started.elapsed().as_secs(), MAX_WAIT.as_secs());
        assert!(passed.leader.is_some(), "it leads instead");
        assert!(gate.try_pass().is_none());
        passed.finish(WarmupEnd::Processed);
        assert!(gate.try_pass().is_some_and(|passed| passed.leader.is_none()));
        leader.finish(WarmupEnd::Failed);
        assert!(gate.try_pass().is_some_and(|passed| passed.leader.is_none()));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_wait_together_for_a_leader_that_hangs_pass_together() {
        let gate = gate();
        let _leader = gate.try_pass().unwrap();
        let started = Instant::now();
        let passed = join_all((0..20).map(|_| gate.pass())).await;
        assert_eq!(started.elapsed().as_secs(), MAX_WAIT.as_secs());
        assert_eq!(passed.iter().filter(|passed| passed.leader.is_some()).count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_must_not_wait_leads_if_no_other_one_does() {
        let gate = gate();
        let leader = gate.pass_now();
        assert!(leader.leader.is_some());
        assert!(gate.pass_now().leader.is_none());
        leader.finish(WarmupEnd::Processed);
    }
}
