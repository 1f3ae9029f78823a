//! Hedging: a second call in parallel to a call in flight, when it is sent and to which target.
//!
//! A call is hedged if it is slow and the route enables hedging, or if its target is unresponsive.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::provider::Dispatched;
use crate::router::pending_call::PendingCall;
use crate::router::target::TargetHandle;

use super::Execution;

/// Minimum time in flight before the first check whether the target is unresponsive.
const MIN_TIME_IN_FLIGHT: Duration = Duration::from_secs(5);
/// Interval between two such checks.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(1);

impl Execution {
    /// Waits until a call has been in flight for so long that it is hedged. Its time in the queue does not count,
    /// because a hedge would not make the queue shorter. Nor does the time in which its response waits for memory.
    pub(super) fn hedge_due(&self, call: &PendingCall) -> impl Future<Output = ()> + use<> {
        let watched =
            self.hedging.as_ref().map(|(after, _)| (*after, self.targets[call.meta.target].clone()));
        let dispatched = call.wait_dispatched();
        let signal = call.dispatch_signal();
        async move {
            if let Some((after, target)) = watched {
                let Dispatched { at, .. } = dispatched.await;
                if let Some(wait) = target.hedge_delay(after) {
                    let mut until = at + wait;
                    while Instant::now() < until {
                        sleep_until(until).await;
                        let paused = signal.as_ref().map(|signal| signal.paused_for()).unwrap_or_default();
                        until = at + wait + paused;
                    }
                    return;
                }
            }
            std::future::pending().await
        }
    }

    /// Hedges a slow call, if another target can send the hedge at once and the hedge budget admits it.
    pub(super) fn send_hedge(&self, target: usize) -> Option<PendingCall> {
        let (_, hedges) = self.hedging.as_ref()?;
        let hedge_target = self.free_hedge_target(target)?;
        hedges.try_take().then(|| self.submit_hedge(hedge_target))
    }

    /// Waits until a call without response headers is hedged: because its target has become unresponsive since the
    /// call was sent, or because the call has been in flight for so long that the provider may accept connections
    /// and never answer. The first check is at `from` or later.
    pub(super) fn unresponsive_hedge_due(
        &self,
        call: &PendingCall,
        from: Instant,
    ) -> impl Future<Output = ()> + use<> {
        let target = &self.targets[call.meta.target];
        let watched = self.unresponsive_hedging.as_ref().map(|(min, _)| (*min, target.clone()));
        let watched = watched.zip(call.dispatch_signal());
        let dispatched = call.wait_dispatched();
        async move {
            if let Some(((min, target), signal)) = watched {
                let Dispatched { at, .. } = dispatched.await;
                let mut next_check = from.max(at + min.min(MIN_TIME_IN_FLIGHT));
                loop {
                    sleep_until(next_check).await;
                    let now = Instant::now();
                    next_check = now + min.min(CHECK_INTERVAL);
                    if signal.has_headers() {
                        break;
                    }
                    if target.is_unresponsive()
                        || signal.is_hanging()
                        || unresponsive_after(&target, min).is_some_and(|after| now >= at + after)
                    {
                        return;
                    }
                }
            }
            std::future::pending().await
        }
    }

    /// Hedges a call to an unresponsive target, if another target can send the hedge at once.
    ///
    /// If the target is known to have become unresponsive since the call was sent, every such call is hedged:
    /// their number is at most that of the calls in flight at that time. Otherwise one call is hedged per provider
    /// until the provider has answered. Neither takes from the hedge budget.
    pub(super) fn send_unresponsive_hedge(&self, call: &PendingCall) -> Option<PendingCall> {
        let (min, _) = self.unresponsive_hedging.as_ref().filter(|(_, hedges)| !hedges.is_draining())?;
        let index = call.meta.target;
        let target = &self.targets[index];
        let signal = call.dispatch_signal()?;
        let dispatched_at = signal.dispatched()?.at;
        let is_known = target.is_unresponsive() || signal.is_hanging();
        let now = Instant::now();
        let is_due = unresponsive_after(target, *min).is_some_and(|after| now >= dispatched_at + after);
        if !is_known && !is_due {
            return None;
        }
        // A hedge of a hanging call may also be queued at another target: its request is older than most in that
        // queue.
        let queue_elsewhere = || self.healthy_hedge_target(index).filter(|_| is_known);
        // Without another target, the same one is called again: as its probe, or when it works again.
        let call_again = || {
            let may_call = is_known && (signal.is_hanging() || target.needs_probe(Instant::now()));
            may_call.then_some(index)
        };
        let hedge_target = self.free_hedge_target(index).or_else(queue_elsewhere).or_else(call_again)?;
        (is_known || target.provider.try_hedge()).then(|| self.submit_hedge(hedge_target))
    }

    /// Returns whether a call was sent, its target has become unresponsive since, and no response headers were
    /// received.
    pub(super) fn is_hanging(&self, call: &PendingCall) -> bool {
        let Some(signal) = call.dispatch_signal() else { return false };
        signal.is_hanging()
            || !signal.has_headers()
                && signal.dispatched().is_some()
                && self.targets[call.meta.target].is_unresponsive()
    }

    fn free_hedge_target(&self, target: usize) -> Option<usize> {
        let now = Instant::now();
        let mut candidates = self.plan.hedge_candidates(target, now).into_iter();
        candidates.find(|candidate| self.targets[*candidate].has_capacity(now))
    }

    fn healthy_hedge_target(&self, target: usize) -> Option<usize> {
        let now = Instant::now();
        let mut candidates = self.plan.hedge_candidates(target, now).into_iter();
        candidates.find(|candidate| self.targets[*candidate].is_healthy(now))
    }

    fn submit_hedge(&self, target: usize) -> PendingCall {
        let call = self.build_call(target, true, false, false);
        self.add_to_live_log(target, true, &call);
        PendingCall::send(target, &self.targets[target], true, call)
    }
}

/// Returns the time in flight without response headers after which the provider may never answer: `min`, or twice
/// its longest time to response headers if that is longer. `None` if it sends whole responses, because no time before
/// the end of an answer is long: such a call is hedged only once its target is known to be unresponsive.
fn unresponsive_after(target: &TargetHandle, min: Duration) -> Option<Duration> {
    target.provider.max_header_latency().map(|longest| min.max(longest * 2))
}
