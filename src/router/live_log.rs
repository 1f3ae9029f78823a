//! The attempts of a request while it is executed, for a caller that may end before the request does: a member of a
//! joined request for embeddings, or the permit of a scope.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::provider::{DispatchSignal, Dispatched};
use crate::types::{AttemptLog, FailedAttempt, TargetName};

/// The attempts of a request that is executed. The execution updates it.
#[derive(Debug, Default)]
pub(super) struct LiveLog(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    attempts: AttemptLog,
    failed_attempts: Vec<FailedAttempt>,
    calls: Vec<SubmittedCall>,
}

#[derive(Debug)]
struct SubmittedCall {
    target: TargetName,
    hedge: bool,
    submitted_at: Instant,
    signal: Arc<DispatchSignal>,
}

/// The attempts of a request at one time.
#[derive(Debug, Default)]
pub(super) struct LiveAttempts {
    /// The attempts that have ended.
    pub(super) attempts: AttemptLog,
    /// Those of them that failed.
    pub(super) failed_attempts: Vec<FailedAttempt>,
    pub(super) in_flight: Vec<InFlightCall>,
}

/// A call that was sent and has not ended.
#[derive(Debug)]
pub(super) struct InFlightCall {
    pub(super) target: TargetName,
    pub(super) hedge: bool,
    pub(super) submitted_at: Instant,
    pub(super) dispatched: Dispatched,
}

impl LiveLog {
    /// Removes everything: an execution starts, and the calls of one that was lost are unknown.
    pub(super) fn clear(&self) {
        *self.lock() = State::default();
    }

    /// Adds a call that is submitted to this target.
    pub(super) fn add_call(&self, target: &TargetName, hedge: bool, signal: &Arc<DispatchSignal>) {
        let call = SubmittedCall {
            target: target.clone(),
            hedge,
            submitted_at: Instant::now(),
            signal: signal.clone(),
        };
        self.lock().calls.push(call);
    }

    /// Sets the attempts that have ended.
    pub(super) fn set_ended(&self, attempts: &AttemptLog, failed_attempts: &[FailedAttempt]) {
        let mut state = self.lock();
        state.attempts = attempts.clone();
        state.failed_attempts = failed_attempts.to_vec();
    }

    /// Returns the attempts up to now.
    pub(super) fn snapshot(&self) -> LiveAttempts {
        let state = self.lock();
        let has_failed = |target: &TargetName, number: u64| {
            state.failed_attempts.iter().any(|failed| failed.target == *target && failed.number == number)
        };
        let in_flight = state.calls.iter().filter_map(|call| {
            let dispatched = call.signal.dispatched()?.clone();
            (!has_failed(&call.target, dispatched.number)).then(|| InFlightCall {
                target: call.target.clone(),
                hedge: call.hedge,
                submitted_at: call.submitted_at,
                dispatched,
            })
        });
        LiveAttempts {
            in_flight: in_flight.collect(),
            attempts: state.attempts.clone(),
            failed_attempts: state.failed_attempts.clone(),
        }
    }

    /// Estimates the tokens of the calls of which a part of the answer has been received.
    pub(super) fn received_tokens(&self) -> u64 {
        let state = self.lock();
        let dispatched = state.calls.iter().filter_map(|call| call.signal.dispatched());
        dispatched.map(|dispatched| dispatched.usage.received_tokens()).fold(0, u64::saturating_add)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
