//! Submission of calls to a provider, and their rejection while its actor does not run.

use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;
use tokio::time::{Instant, sleep};

use crate::supervisor::Responder;
use crate::types::{Class, Failure};

use super::inbox::{CallsArrived, PushError};
use super::queued_call::{CallReceiver, CallResponder, IncomingCall};
use crate::provider::call::{Call, Rejection};
use crate::provider::state::State;

/// How long queued calls wait for the next incarnation of the actor before they are rejected and go to other
/// targets. A restart usually takes less.
const MAX_WAIT_FOR_RESTART: Duration = Duration::from_secs(2);

/// How long the actor may be down before it counts as permanently down. The supervisor waits this long before a
/// restart only after repeated failures.
const MAX_RESTART_DURATION: Duration = Duration::from_secs(10);

/// When a call is worth submitting again that found the inbox full: the actor handles thousands of calls meanwhile.
const INBOX_RETRY_INTERVAL: Duration = Duration::from_millis(50);

impl State {
    /// Submits a call, which is sent when the provider's limits admit it.
    ///
    /// # Errors
    /// If the provider's actor is not running, or has not handled as many calls as its queue holds.
    pub fn submit(&self, call: Call) -> Result<CallReceiver, Rejection> {
        let (responder, receiver) = Responder::channel();
        self.push_call(call, responder).map_err(|(_, rejection)| rejection)?;
        Ok(receiver)
    }

    /// Submits a call like [`Self::submit`]. `responder` also gets the rejection.
    pub fn submit_with(&self, call: Call, responder: CallResponder) {
        if let Err((responder, rejection)) = self.push_call(call, responder) {
            responder.send(Err(rejection));
        }
    }

    fn push_call(&self, call: Call, responder: CallResponder) -> Result<(), (CallResponder, Rejection)> {
        // A request that began before the change continues there.
        if let Some(successor) = self.successor() {
            return successor.push_call(call, responder);
        }
        let now = Instant::now();
        match self.inbox.push(IncomingCall { call, responder, requested_at: now }) {
            Ok(Some(actor)) => actor.do_send(CallsArrived),
            Ok(None) => {}
            Err(PushError::NoActor(responder)) => return Err((responder, self.unavailable(now))),
            Err(PushError::Full(responder)) => {
                return Err((responder, Rejection::Busy { until: now + INBOX_RETRY_INTERVAL }));
            }
        }
        Ok(())
    }

    /// Returns whether the provider's actor is running.
    pub fn is_up(&self) -> bool {
        self.successor().map_or_else(|| self.inbox.has_actor(), |successor| successor.is_up())
    }

    /// Records that an incarnation of the actor has started, at this address.
    pub(in crate::provider) fn incarnation_started(&self, actor: Arc<Recipient<CallsArrived>>) {
        self.inbox.incarnation_started(actor);
    }

    /// Records that an incarnation has ended. Rejects all queued calls if the next one does not start within
    /// [`MAX_WAIT_FOR_RESTART`], or when restarts are exhausted: without an actor they would never be sent.
    pub(in crate::provider) fn incarnation_ended(self: &Arc<Self>) {
        let state = self.clone();
        let incarnations = self.inbox.incarnation_ended(Instant::now());
        let reject_orphans = async move {
            tokio::select! {
                () = sleep(MAX_WAIT_FOR_RESTART) => {}
                () = state.slot().retired() => {}
            }
            state.reject_orphans(incarnations);
        };
        drop(self.runtime().spawn(reject_orphans));
    }

    fn reject_orphans(&self, incarnations: u64) {
        let Some(incoming) = self.inbox.take_orphans(incarnations) else { return };
        let queued = self.lock().queue.take_unless(|_| false);
        let queued = queued.into_iter().map(|call| call.responder);
        let rejection = self.unavailable(Instant::now());
        for responder in queued.chain(incoming.into_iter().map(|call| call.responder)) {
            responder.send(Err(rejection.clone()));
        }
    }

    /// Returns the rejection that names the reason why no actor is running.
    fn unavailable(&self, now: Instant) -> Rejection {
        let reject = |reason: String| {
            let message = format!("the actor of {} {reason}", self.name());
            Rejection::ActorDown(Failure::new(Class::Internal, message))
        };
        if let Some(reason) = self.out_of_service() {
            return Rejection::OutOfService(reason.failure());
        }
        if self.slot().is_retired() {
            return reject("is down: it used up its restarts".to_owned());
        }
        match self.inbox.down_since().map(|since| now.saturating_duration_since(since)) {
            Some(time) if time >= MAX_RESTART_DURATION => {
                reject(format!("has been down for {} s", time.as_secs()))
            }
            _ => Rejection::ActorRestarting,
        }
    }
}

#[cfg(test)]
mod tests;
