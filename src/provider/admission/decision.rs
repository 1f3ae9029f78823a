//! Admission of calls: queues them, decides which is sent next, and rejects those that cannot be sent in time.
//!
//! The scheduler decides, under the lock of the state; the responses are sent here.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::warn;

use crate::chaos;
use crate::clock;
use crate::types::Day;

use super::estimate::Estimate;
use super::permit::Permit;
use super::queued_call::{IncomingCall, QueuedCall};
use super::scheduler::{Decision, Scheduler};
use crate::provider::call::{Call, Rejection};
use crate::provider::keys::key::ReadyKey;
use crate::provider::state::State;

/// A call that is ready to be sent.
#[derive(Debug)]
pub(in crate::provider) struct ReadyCall {
    pub(in crate::provider) queued: QueuedCall,
    pub(in crate::provider) key: ReadyKey,
    pub(in crate::provider) permit: Permit,
}

/// What the scheduler allows now.
pub(in crate::provider) enum NextCall {
    /// Send this call.
    Ready(Box<ReadyCall>),
    /// The next call may be sent at that instant.
    WaitUntil(Instant),
    /// Nothing can be sent before another call arrives or a call in flight ends.
    Idle,
}

impl State {
    /// Queues a call, or sends the rejection at once.
    pub(in crate::provider) fn enqueue(&self, incoming: IncomingCall, now: Instant) {
        let IncomingCall { call, responder, requested_at } = incoming;
        if responder.is_closed() {
            return;
        }
        if let Some(successor) = self.successor() {
            return successor.submit_with(call, responder);
        }
        // Outside the lock: a long prompt takes a millisecond to read.
        let settings = self.settings();
        let model = settings.models.get(&call.model);
        let estimate = Estimate::of(&call.prompt, model, settings.format);
        let mut scheduler = self.lock();
        chaos::point("state.enqueue");
        let wall_clock = clock::now();
        scheduler.budgets.roll_over(day_of(wall_clock));
        let check = |scheduler: &Scheduler| {
            scheduler.check_admissible(self.name(), &settings, &call, estimate, now, wall_clock)
        };
        let mut admissible = check(&scheduler);
        if matches!(admissible, Err(Rejection::Busy { .. })) && scheduler.remove_abandoned(now) {
            admissible = check(&scheduler);
        }
        match admissible {
            Ok(expected) => {
                let key = call.queue_key(expected.total());
                let call = Arc::new(call);
                scheduler.queue.push(key, QueuedCall { call, responder, requested_at, estimate });
            }
            Err(rejection) => {
                drop(scheduler);
                responder.send(Err(rejection));
            }
        }
    }

    /// Decides about the next call.
    pub(in crate::provider) fn next(self: &Arc<Self>, now: Instant) -> NextCall {
        // Created before the lock is taken, so that it is dropped after the release of the lock: its drop takes
        // the lock again.
        let mut permit = Permit::empty(self.clone());
        let mut scheduler = self.lock();
        scheduler.budgets.roll_over(day_of(clock::now()));
        loop {
            chaos::point("state.next");
            match scheduler.next(fastrand::f64, now) {
                Decision::Dispatch(admitted) => {
                    let (queued, key, grant, budget) = *admitted;
                    permit.attach(grant, budget);
                    chaos::point("state.admitted");
                    return NextCall::Ready(Box::new(ReadyCall { queued, key, permit }));
                }
                Decision::Reject(waiting, rejection) => {
                    if matches!(rejection, Rejection::RetryBudgetExhausted { .. })
                        && !scheduler.retries_exhausted
                    {
                        scheduler.retries_exhausted = true;
                        warn!(provider = %self.name(), "retry budget exhausted, retries wait for it");
                    }
                    waiting.responder.send(Err(rejection));
                }
                Decision::Wait(until) => return NextCall::WaitUntil(until),
                Decision::Idle => return NextCall::Idle,
            }
        }
    }

    /// Rejects queued calls whose caller is gone, whose deadline has passed or whose budget is exhausted, and
    /// opens the breakers of unresponsive targets; calls that wait for those are evicted.
    pub(in crate::provider) fn sweep(&self, now: Instant) {
        let is_worth_waiting =
            |waiting: &QueuedCall| !waiting.responder.is_closed() && waiting.call.deadline > now;
        let mut guard = self.lock();
        let scheduler = &mut *guard;
        scheduler.budgets.roll_over(day_of(clock::now()));
        let cap_reached = |call: &Call| scheduler.budgets.cap_reached(call);
        let expired = scheduler
            .queue
            .take_unless(|waiting| is_worth_waiting(waiting) && cap_reached(&waiting.call).is_none());
        let with_reason = |waiting: QueuedCall| {
            (cap_reached(&waiting.call).unwrap_or(Rejection::Busy { until: now }), waiting)
        };
        let expired: Vec<_> = expired.into_iter().map(with_reason).collect();
        let unresponsive = scheduler.detect_unresponsive(fastrand::f64, now);
        let evicted = scheduler.evict(now);
        drop(guard);
        for model in unresponsive {
            warn!(provider = %self.name(), %model, "target is unresponsive, opening its breaker");
        }
        for (rejection, waiting) in expired {
            waiting.responder.send(Err(rejection));
        }
        for (waiting, rejection) in evicted {
            waiting.responder.send(Err(rejection));
        }
    }
}

fn day_of(wall_clock: Timestamp) -> Day {
    Day::at(wall_clock.as_millisecond())
}
