//! Dispatch loop: sends admitted calls, each worker in its own task.
//!
//! When a call ends, its worker sends the next admitted call. Decides nothing: the state says which call is
//! ready. A task that panics loses only its call; the actor is notified and checks the other calls.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use crate::chaos;
use crate::types::{Class, Failure, FailureScope, NanoUsd, Savings};

use super::attempt_trace::AttemptTrace;
use super::client_pool::{ClientPool, PooledClient};
use super::exchange::{ExchangeResult, exchange};
use crate::provider::admission::decision::{NextCall, ReadyCall};
use crate::provider::admission::grant::{Abort, CallOutcome, SendTime};
use crate::provider::admission::queued_call::CallResponder;
use crate::provider::call::{CallResult, Dispatched, Rejection};
use crate::provider::keys::key::KeyId;
use crate::provider::keys::key_set::KeyFault;
use crate::provider::state::State;
use crate::provider::unreported_usage::UnreportedUsage;

/// Sends a call in a new worker task.
pub(in crate::provider) fn dispatch(state: &Arc<State>, ready: Box<ReadyCall>) {
    let clients = state.clients();
    let client_index = clients.acquire();
    let runtime = clients.get(client_index).runtime.clone();
    let worker = DispatchWorker { state: state.clone(), clients, client_index };
    // Boxed here: the creation of a task moves its future as a whole several times, and this one has kilobytes.
    drop(runtime.spawn(Box::pin(run_worker(worker, ready))));
}

/// Sends a call, then the next one that its end makes ready, and so on: continuing in the same task wakes no
/// other thread.
async fn run_worker(mut worker: DispatchWorker, ready: Box<ReadyCall>) {
    let mut next = Some(ready);
    while let Some(ready) = next {
        worker.follow_clients();
        let state = &worker.state;
        let slot = Slot(Some(state));
        send_call(state, worker.clients.get(worker.client_index), ready).await;
        next = slot.next_call();
    }
}

/// A worker that sends calls one after the other with one HTTP client.
struct DispatchWorker {
    state: Arc<State>,
    clients: Arc<ClientPool>,
    client_index: usize,
}

impl DispatchWorker {
    /// Continues with the clients that have taken the place of its own, on the same thread.
    fn follow_clients(&mut self) {
        let current = self.state.clients();
        if !Arc::ptr_eq(&current, &self.clients) {
            current.acquire_at(self.client_index);
            let former = std::mem::replace(&mut self.clients, current);
            former.release(self.client_index);
        }
    }
}

impl Drop for DispatchWorker {
    fn drop(&mut self) {
        self.clients.release(self.client_index);
    }
}

/// The slot of a call in flight. If it is dropped unused (by a panic), the actor is notified.
struct Slot<'a>(Option<&'a Arc<State>>);

impl Slot<'_> {
    /// Returns the next ready call. Dispatches all other ready calls, and notifies the actor if only the actor
    /// can continue.
    fn next_call(mut self) -> Option<Box<ReadyCall>> {
        // Without an actor no call is sent: its next incarnation checks first.
        let state = self.0.filter(|state| state.slot().shared().is_some())?;
        let mut first = None;
        loop {
            match state.next(Instant::now()) {
                NextCall::Ready(ready) => {
                    if ready.permit.is_probe() {
                        state.notify_actor(true);
                    }
                    match first {
                        None => first = Some(ready),
                        Some(_) => dispatch(state, ready),
                    }
                }
                NextCall::WaitUntil(_) => break,
                NextCall::Idle => {
                    self.0 = None;
                    break;
                }
            }
        }
        first
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if let Some(state) = self.0 {
            state.notify_actor(false);
        }
    }
}

/// Sends a ready call and reports the result to its caller and to the state.
async fn send_call(state: &Arc<State>, client: &PooledClient, ready: Box<ReadyCall>) {
    chaos::point("call.dispatch");
    let ReadyCall { queued, key, mut permit } = *ready;
    let call = queued.call;
    let sent_at = Instant::now();
    // A reload that comes meanwhile applies to the next call.
    let settings = state.settings();
    let Some(model) = settings.models.get(&call.model) else { return };
    if queued.responder.is_closed() {
        return;
    }
    if let Some(signal) = &call.dispatch_signal
        && !signal.try_dispatch(Dispatched {
            at: sent_at,
            number: permit.number(),
            key: key.id.label.clone(),
            usage: permit.usage(),
        })
    {
        return debug!(provider = %state.name(), "the call was withdrawn as it was about to be sent");
    }
    let waited = sent_at - queued.requested_at;
    permit.mark_sent(SendTime { at: sent_at, queue_time: waited });
    let mut guard = ReplyGuard {
        responder: Some(queued.responder),
        number: permit.number(),
        key: key.id.clone(),
        is_probe: permit.is_probe(),
        is_forced: permit.is_forced(),
        usage: permit.usage(),
        uncertain_cost: None,
        sent_at,
        waited,
    };
    let trace = AttemptTrace::start(state, &call, model, &key, waited);
    let outgoing = settings.traceparent.then(|| trace.outgoing(&call));
    let exchanged = {
        let exchange =
            pin!(exchange(state, client, &call, (&settings, model), &key, &permit, outgoing.as_ref()));
        tokio::select! {
            biased;
            exchanged = exchange => Some(exchanged),
            () = guard.abandoned() => None,
        }
    };
    let ExchangeResult { mut result, first_token, omitted_parameters: left_out } = match exchanged {
        Some(Ok(exchange_result)) => exchange_result,
        None => {
            state.record_cancelled(&call.model, sent_at.elapsed());
            let is_superseded = call.dispatch_signal.as_ref().is_some_and(|signal| signal.is_superseded());
            permit.abort(if is_superseded { Abort::Superseded } else { Abort::Cancelled });
            trace.end_aborted(is_superseded);
            return debug!(provider = %state.name(), "the caller dropped the call");
        }
        Some(Err(failure)) => {
            debug!(provider = %state.name(), model = %call.model, %failure, "the target cannot express the call");
            permit.withdraw();
            trace.end_unsent(&failure);
            return guard.reject(Rejection::Unsupported(failure));
        }
    };
    let took = sent_at.elapsed();
    let paused = call.dispatch_signal.as_ref().map(|signal| signal.paused_for()).unwrap_or_default();
    // Time in which the response was not read says nothing about the provider's speed.
    let took = took.saturating_sub(paused);
    let (booked, key_fault) = permit.finish(&CallOutcome { result: &result, took, first_token });
    guard.uncertain_cost = Some(booked.uncertain_cost);
    if let Err(failure) = &mut result {
        resolve_scope(failure, key_fault);
        if let FailureScope::Parameter(parameter) = failure.scope
            && !state.record_unsupported_parameter(&call.model, parameter, left_out)
        {
            failure.scope = FailureScope::Class;
        }
        debug!(provider = %state.name(), model = %call.model, key = %key.id.label, %failure, ?took, "call failed");
    }
    let usage = match &result {
        Ok(completion) => completion.usage,
        Err(failure) => failure.usage.as_deref().copied(),
    };
    let priced_usage = model.price.zip(usage);
    let charge = Charge {
        cost: priced_usage.and_then(|(price, usage)| price.cost(&usage)),
        cache_savings: priced_usage.and_then(|(price, usage)| price.cache_savings(&usage)),
    };
    trace.end(&result, charge.cost);
    chaos::point("call.respond");
    guard.complete(first_token, charge, result);
}

/// Sets the class and the scope of a refusal after it is known whether the key is at fault.
fn resolve_scope(failure: &mut Failure, key_fault: KeyFault) {
    failure.class = key_fault.class_of(failure);
    match (key_fault, failure.scope) {
        (KeyFault::Undecided, FailureScope::Unclear) => {}
        (KeyFault::Undecided, _) => failure.scope = FailureScope::KeyUnderRecheck,
        (KeyFault::AtFault, FailureScope::Unclear) => failure.scope = FailureScope::Class,
        (KeyFault::AtFault | KeyFault::NotAtFault, _) => {}
    }
}

/// What a call cost, as far as that is known.
#[derive(Debug, Clone, Copy, Default)]
struct Charge {
    cost: Option<NanoUsd>,
    cache_savings: Option<Savings>,
}

/// The pending result of a sent call. If it is dropped (by a panic), it sends a failure: the provider may have
/// executed the call.
struct ReplyGuard {
    responder: Option<CallResponder>,
    number: u64,
    key: KeyId,
    is_probe: bool,
    is_forced: bool,
    usage: Arc<UnreportedUsage>,
    /// The uncertain cost as booked; `None` before.
    uncertain_cost: Option<NanoUsd>,
    sent_at: Instant,
    waited: Duration,
}

impl ReplyGuard {
    async fn abandoned(&mut self) {
        match &mut self.responder {
            Some(responder) => responder.closed().await,
            None => std::future::pending().await,
        }
    }

    /// Reports that the call was not sent.
    fn reject(&mut self, rejection: Rejection) {
        if let Some(responder) = self.responder.take() {
            responder.send(Err(rejection));
        }
    }

    fn complete(
        &mut self,
        first_token: Option<Duration>,
        charge: Charge,
        result: Result<crate::types::Completion, Failure>,
    ) {
        let Some(responder) = self.responder.take() else { return };
        let key = self.key.clone();
        let waited = self.waited;
        let took = self.sent_at.elapsed();
        let is_probe = self.is_probe;
        let is_forced = self.is_forced;
        let uncertain_cost = self.uncertain_cost.unwrap_or_else(|| self.usage.fix_cost());
        let number = self.number;
        responder.send(Ok(Box::new(CallResult {
            number,
            key,
            waited,
            is_probe,
            is_forced,
            took,
            first_token,
            cost: charge.cost,
            cache_savings: charge.cache_savings,
            uncertain_cost,
            result,
        })));
    }
}

impl Drop for ReplyGuard {
    fn drop(&mut self) {
        let message = "the call was lost with the task that sent it";
        self.complete(
            None,
            Charge::default(),
            Err(Failure::new(Class::NetworkError, message).maybe_charged()),
        );
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Handle;

    use super::*;
    use crate::provider::Account;
    use crate::provider::admission::queued_call::{CallReply, IncomingCall};
    use crate::provider::call::{Call, DispatchSignal};
    use crate::provider::keys::key::ReadyKey;
    use crate::provider::state::tests::call;
    use crate::supervisor::Responder as ReplyTo;

    /// Every call moves these through its tasks and channels.
    #[test]
    fn what_every_call_moves_stays_small() {
        for (name, bytes, max) in [
            // The result is boxed.
            ("CallReply", size_of::<CallReply>(), 96),
            // Every call has a copy of its key.
            ("ReadyKey", size_of::<ReadyKey>(), 104),
        ] {
            assert!(bytes <= max, "{name}: {bytes}");
        }
    }

    #[actix_web::test]
    async fn a_call_in_flight_whose_caller_is_gone_counts_as_superseded_or_cancelled() {
        // It accepts connections and never responds.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let settings = format!("base_url = '{base_url}'\nmodels.m = {{}}");
        let settings = toml::from_str(&settings).unwrap();
        let name = "a".into();
        let keys = Vec::new();
        let headers = http::HeaderMap::new();
        let budgets = Vec::new();
        let account = Account { name, settings, base_url, keys, headers, budgets };
        let state = State::new(account, Handle::current()).unwrap();
        let mut expected = vec![("answered", 0), ("superseded", 0)];
        for is_superseded in [true, false] {
            let (responder, receiver) = ReplyTo::channel();
            let signal = Arc::new(DispatchSignal::new());
            let call = Call { dispatch_signal: Some(signal.clone()), ..call(Duration::from_secs(600)) };
            let now = Instant::now();
            state.enqueue(IncomingCall { call, responder, requested_at: now }, now);
            let NextCall::Ready(ready) = state.next(now) else { panic!("the call is not ready") };
            dispatch(&state, ready);
            signal.wait_dispatched().await;
            if is_superseded {
                signal.mark_superseded();
                expected[1].1 += 1;
            } else {
                expected.push(("cancelled", 1));
            }
            drop(receiver);
            let end = async {
                while state.snapshot(Instant::now()).in_flight > 0 {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(60), end).await.unwrap();
            let outcomes: Vec<_> = state.lock().targets["m"].metrics.snapshot().sums.outcomes().collect();
            assert_eq!(outcomes, expected);
        }
    }

    #[actix_web::test]
    async fn a_call_whose_task_panics_may_have_been_executed() {
        let (responder, receiver) = ReplyTo::channel();
        let sent_at = Instant::now();
        let waited = Duration::ZERO;
        let responder = Some(responder);
        let usage = Arc::new(UnreportedUsage::with_expected_cost(NanoUsd(7)));
        let guard = ReplyGuard {
            responder,
            number: 1,
            key: KeyId::first("k".into()),
            is_probe: false,
            is_forced: false,
            usage,
            uncertain_cost: None,
            sent_at,
            waited,
        };
        let task = actix_rt::spawn(async move {
            let _guard = guard;
            panic!("as planned");
        });
        assert!(task.await.unwrap_err().is_panic());
        let call_result = receiver.await.unwrap().unwrap();
        let failure = call_result.result.unwrap_err();
        assert_eq!((failure.class, failure.charged), (Class::NetworkError, crate::types::Charged::Maybe));
        assert_eq!((call_result.key.label().as_str(), call_result.uncertain_cost), ("k", NanoUsd(7)));
    }
}
