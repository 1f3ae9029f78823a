//! A call that was submitted to a provider, as seen by the execution of its request.
//!
//! Dropping a [`PendingCall`] aborts the call.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot::error::RecvError;
use tokio::time::{Instant, timeout_at};

use crate::provider::{
    AnswerWriter, Call, CallReceiver, CallReply, CallResult, DispatchSignal, Dispatched, Rejection,
};
use crate::supervisor::Responder as ReplyTo;
use crate::types::{Class, Failure, KeyLabel, NanoUsd};

use super::target::TargetHandle;

/// How long a call is awaited after its deadline. A call in flight ends at its deadline by itself, and its result
/// contains the cost.
const GRACE_AFTER_DEADLINE: Duration = Duration::from_millis(250);

/// Metadata of a submitted call.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallMeta {
    /// The index of its target.
    pub(super) target: usize,
    /// Whether it is a hedge of another call.
    pub(super) hedge: bool,
    pub(super) submitted_at: Instant,
    /// Its number among the calls that write to the stream of the request; `None` if it does not write.
    pub(super) stream_number: Option<u64>,
}

/// A call that was submitted to a provider.
pub(super) struct PendingCall {
    pub(super) meta: CallMeta,
    deadline: Instant,
    dispatch_signal: Option<Arc<DispatchSignal>>,
    receiver: CallReceiver,
}

/// How a call ended.
pub(super) enum CallEnd {
    /// It was sent, and its result was received.
    Finished(Box<CallResult>),
    /// It was not sent.
    Rejected(Rejection),
    /// It was lost in a panic of the provider's actor before it was sent.
    Lost(Failure),
    /// It was sent, and no result was received until its deadline and the grace period had passed.
    TimedOut(AbortedCall),
}

impl CallEnd {
    /// Returns when a call ended; for one without a result, when that is noticed.
    pub(super) fn ended_at(&self, meta: CallMeta) -> Instant {
        match self {
            Self::Finished(call) => meta.submitted_at + call.waited + call.took,
            Self::Rejected(_) | Self::Lost(_) | Self::TimedOut(_) => Instant::now(),
        }
    }
}

/// A call that was aborted after it was sent.
pub(super) struct AbortedCall {
    /// Its sequence number at the provider.
    pub(super) number: u64,
    pub(super) key: KeyLabel,
    /// Time from submission to dispatch.
    pub(super) waited: Duration,
    /// Time from dispatch until it was aborted.
    pub(super) took: Duration,
    /// The cost that may have been charged, as it is booked.
    pub(super) uncertain_cost: NanoUsd,
}

impl PendingCall {
    /// Submits `call` to the target with the index `target`.
    pub(super) fn send(target: usize, handle: &TargetHandle, hedge: bool, call: Call) -> Self {
        let stream_number = call.stream.as_ref().map(AnswerWriter::number);
        let meta = CallMeta { target, hedge, submitted_at: Instant::now(), stream_number };
        let deadline = call.deadline;
        let dispatch_signal = call.dispatch_signal.clone();
        let (responder, receiver) = ReplyTo::channel();
        handle.provider.submit_with(call, responder);
        Self { meta, deadline, dispatch_signal, receiver }
    }

    /// Takes over a call that the caller of the request has awaited until now.
    pub(super) fn take_over(
        meta: CallMeta,
        deadline: Instant,
        dispatch_signal: Option<Arc<DispatchSignal>>,
        receiver: CallReceiver,
    ) -> Self {
        Self { meta, deadline, dispatch_signal, receiver }
    }

    /// Waits until it has ended.
    pub(super) async fn wait_end(&mut self) -> CallEnd {
        let received = loop {
            // Time in which the response waits for memory extends the deadline.
            let paused = self.paused_for();
            let received =
                timeout_at(self.deadline + paused + GRACE_AFTER_DEADLINE, &mut self.receiver).await;
            if received.is_ok() || self.paused_for() == paused {
                break received;
            }
        };
        let not_sent = || CallEnd::Rejected(Rejection::Busy { until: Instant::now() });
        match received {
            Ok(result) => call_end(result),
            Err(_) if self.withdraw() => not_sent(),
            Err(_) => self.aborted().map_or_else(not_sent, CallEnd::TimedOut),
        }
    }

    fn paused_for(&self) -> Duration {
        self.dispatch_signal.as_ref().map(|signal| signal.paused_for()).unwrap_or_default()
    }

    /// Withdraws it. Returns `true` if it was not sent; then it will not be sent.
    pub(super) fn withdraw(&self) -> bool {
        self.dispatch_signal.as_ref().is_some_and(|signal| signal.withdraw())
    }

    /// Returns the data of the call for the case that it is aborted; `None` if it was not sent.
    fn aborted(&self) -> Option<AbortedCall> {
        let dispatched = self.dispatch_signal.as_ref()?.dispatched()?;
        let waited = dispatched.at.saturating_duration_since(self.meta.submitted_at);
        Some(AbortedCall {
            number: dispatched.number,
            key: dispatched.key.clone(),
            waited,
            took: dispatched.at.elapsed(),
            uncertain_cost: dispatched.usage.fix_cost(),
        })
    }

    /// Returns the signal that reports its dispatch.
    pub(super) fn dispatch_signal(&self) -> Option<Arc<DispatchSignal>> {
        self.dispatch_signal.clone()
    }

    /// Waits until the call is sent; forever if the dispatch is not reported.
    pub(super) fn wait_dispatched(&self) -> impl Future<Output = Dispatched> + use<> {
        let signal = self.dispatch_signal.clone();
        async move {
            match signal {
                Some(signal) => signal.wait_dispatched().await.clone(),
                None => std::future::pending().await,
            }
        }
    }

    /// Aborts it; `None` if it was not sent.
    pub(super) fn abort(mut self) -> Option<AbortedCall> {
        if self.withdraw() {
            return None;
        }
        self.receiver.close();
        self.aborted()
    }
}

/// Converts what the responder of a call has sent.
pub(super) fn call_end(received: Result<CallReply, RecvError>) -> CallEnd {
    match received {
        Ok(Ok(result)) => CallEnd::Finished(result),
        Ok(Err(rejection)) => CallEnd::Rejected(rejection),
        // A call that was sent is answered by its own task, even if the actor or the task panics.
        Err(_) => {
            let message = "the provider's actor panicked before the call was sent";
            CallEnd::Lost(Failure::new(Class::NetworkError, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::UnreportedUsage;
    use crate::types::Charged;

    fn dispatched(expected_cost: u64) -> Dispatched {
        let usage = Arc::new(UnreportedUsage::with_expected_cost(NanoUsd(expected_cost)));
        Dispatched { at: Instant::now(), number: 1, key: "k".into(), usage }
    }

    #[tokio::test]
    async fn a_call_that_is_lost_before_it_is_sent_is_not_charged() {
        let (responder, receiver) = ReplyTo::channel();
        drop(responder);
        let CallEnd::Lost(failure) = call_end(receiver.await) else { panic!("the call is not lost") };
        assert_eq!((failure.class, failure.charged), (Class::NetworkError, Charged::No));
    }

    #[test]
    fn a_rejected_call_is_not_lost() {
        assert!(matches!(
            call_end(Ok(Err(Rejection::ActorRestarting))),
            CallEnd::Rejected(Rejection::ActorRestarting)
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn a_withdrawn_call_is_not_sent_and_a_sent_call_is_not_withdrawn() {
        let withdrawn = DispatchSignal::new();
        let sent = DispatchSignal::new();
        assert!(withdrawn.withdraw() && !withdrawn.try_dispatch(dispatched(7)));
        assert!(withdrawn.dispatched().is_none());
        assert!(sent.try_dispatch(dispatched(7)) && !sent.withdraw() && sent.dispatched().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_in_flight_at_its_deadline_keeps_its_expected_cost() {
        let (responder, receiver) = ReplyTo::channel();
        let _in_flight = responder;
        let signal = Arc::new(DispatchSignal::new());
        let meta = CallMeta { target: 0, hedge: false, submitted_at: Instant::now(), stream_number: None };
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut call = PendingCall::take_over(meta, deadline, Some(signal.clone()), receiver);
        assert!(signal.try_dispatch(dispatched(7)));
        let CallEnd::TimedOut(aborted) = call.wait_end().await else { panic!("the call did not time out") };
        assert_eq!((aborted.key.as_str(), aborted.uncertain_cost), ("k", NanoUsd(7)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_whose_response_waits_for_memory_is_awaited_beyond_its_deadline() {
        let (responder, receiver) = ReplyTo::channel();
        let signal = Arc::new(DispatchSignal::new());
        let meta = CallMeta { target: 0, hedge: false, submitted_at: Instant::now(), stream_number: None };
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut call = PendingCall::take_over(meta, deadline, Some(signal.clone()), receiver);
        assert!(signal.try_dispatch(dispatched(7)));
        let (end, ()) = tokio::join!(call.wait_end(), async {
            let pause = signal.pause();
            tokio::time::sleep(Duration::from_secs(60)).await;
            drop(pause);
            tokio::time::sleep(Duration::from_millis(500)).await;
            responder.send(Err(Rejection::ActorRestarting));
        });
        assert!(matches!(end, CallEnd::Rejected(Rejection::ActorRestarting)));
    }
}
