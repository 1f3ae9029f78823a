//! Inbox of a provider: calls that its actor has not handled yet.
//!
//! Callers push calls here and not into the actor's mailbox, because a restart of the actor drops its mailbox. A
//! panic loses only the call that is being handled, and not the calls behind it. One message notifies the actor of
//! all pushed calls. The inbox holds at most as many calls as the queue. It makes no decisions about calls and runs no
//! foreign code under its lock.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix::{Message, Recipient};
use tokio::time::Instant;

use super::queued_call::{CallResponder, IncomingCall};

/// Notifies the actor that the inbox has calls.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(in crate::provider) struct CallsArrived;

/// The calls that the actor has not handled yet, oldest first.
#[derive(Debug)]
pub(in crate::provider) struct Inbox {
    max_calls: AtomicUsize,
    state: Mutex<InboxState>,
}

/// Why a call was not added, with the responder of the call.
#[derive(Debug)]
pub(in crate::provider) enum PushError {
    /// There is no actor.
    NoActor(CallResponder),
    /// The inbox is full.
    Full(CallResponder),
}

#[derive(Debug, Default)]
struct InboxState {
    calls: VecDeque<IncomingCall>,
    /// The running actor; without one, calls are rejected.
    actor: Option<Arc<Recipient<CallsArrived>>>,
    /// Whether the actor has handled all calls and waits for a notification.
    awaits_notification: bool,
    /// Incarnations that have started.
    incarnations: u64,
    /// When the last incarnation ended; `None` before the first one and while one runs.
    down_since: Option<Instant>,
}

impl Inbox {
    /// Creates an inbox for at most so many calls.
    pub(in crate::provider) fn new(max_calls: usize) -> Self {
        Self { max_calls: AtomicUsize::new(max_calls), state: Mutex::default() }
    }

    /// Sets how many calls it holds at most. Calls beyond it stay.
    pub(in crate::provider) fn set_max_calls(&self, max_calls: usize) {
        self.max_calls.store(max_calls, Relaxed);
    }

    /// Adds a call. Returns the actor if it must be notified.
    ///
    /// # Errors
    /// If there is no actor or the inbox is full.
    pub(in crate::provider) fn push(
        &self,
        incoming: IncomingCall,
    ) -> Result<Option<Arc<Recipient<CallsArrived>>>, PushError> {
        let mut state = self.lock();
        let Some(actor) = state.actor.clone() else { return Err(PushError::NoActor(incoming.responder)) };
        if state.calls.len() >= self.max_calls.load(Relaxed) {
            return Err(PushError::Full(incoming.responder));
        }
        state.calls.push_back(incoming);
        Ok(std::mem::take(&mut state.awaits_notification).then_some(actor))
    }

    /// Removes the oldest call. When there is none, the actor is notified of the next one.
    pub(in crate::provider) fn next(&self) -> Option<IncomingCall> {
        let mut state = self.lock();
        let next = state.calls.pop_front();
        state.awaits_notification = next.is_none();
        next
    }

    pub(in crate::provider) fn len(&self) -> usize {
        self.lock().calls.len()
    }

    /// Returns when the oldest call was submitted.
    pub(in crate::provider) fn oldest_requested_at(&self) -> Option<Instant> {
        self.lock().calls.front().map(|incoming| incoming.requested_at)
    }

    pub(in crate::provider) fn incarnation_started(&self, actor: Arc<Recipient<CallsArrived>>) {
        let mut state = self.lock();
        state.actor = Some(actor);
        // Notifications to an earlier incarnation are lost. The new one reads the inbox when it starts.
        state.awaits_notification = false;
        state.down_since = None;
        state.incarnations += 1;
    }

    /// Records the end of an incarnation. Returns how many have started so far.
    pub(in crate::provider) fn incarnation_ended(&self, now: Instant) -> u64 {
        let mut state = self.lock();
        let actor = state.actor.take();
        state.down_since.get_or_insert(now);
        let incarnations = state.incarnations;
        drop(state);
        // The last address of an actor closes its mailbox: outside the lock.
        drop(actor);
        incarnations
    }

    /// Removes all calls; `None` if a further incarnation has started since `incarnations` were counted.
    pub(in crate::provider) fn take_orphans(&self, incarnations: u64) -> Option<VecDeque<IncomingCall>> {
        let mut state = self.lock();
        (state.incarnations == incarnations).then(|| std::mem::take(&mut state.calls))
    }

    /// Returns whether the actor is running.
    pub(in crate::provider) fn has_actor(&self) -> bool {
        self.lock().actor.is_some()
    }

    /// Returns when the last incarnation ended; `None` before the first one and while one runs.
    pub(in crate::provider) fn down_since(&self) -> Option<Instant> {
        self.lock().down_since
    }

    fn lock(&self) -> MutexGuard<'_, InboxState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
