//! Client side of the router: sends a request, and sends it again if it is lost in a panic.
//!
//! The first call of a request is delegated to its caller: the router actor plans it and submits it to the
//! provider, and the caller awaits its result. The rest of the request runs in the task of the caller. That costs
//! the router no task and no wake-up.
//!
//! ```text
//! caller                      router actor              provider state            execution
//!   | StartRequest               |                         |                         |
//!   | -------------------------> | Execution::start        |                         |
//!   |                            | (plans the first call)  |                         |
//!   | <--- the execution ------- |                         |                         |
//!   |                            | submit_with(first call) |                         |
//!   |                            | ----------------------> |                         |
//!   | <--- result or rejection of the first call --------- |                         |
//!   | Execution::complete(FirstCallEnd::Ended)             |                         |
//!   | -----------------------------------------------------------------------------> |
//!   |                                                      | <--- further calls ---- |
//!   | <--- Response or RequestError ------------------------------------------------ |
//! ```
//!
//! If the first call has not ended after [`MAX_WAIT_BEFORE_HANDOVER`], at the deadline or when the caller stops,
//! the caller hands its receiver to the execution with [`FirstCallEnd::Pending`]. The execution can hedge or
//! withdraw it. If there is no first call, or the execution awaits it itself, its responder is dropped at once.
//!
//! A request that is lost is sent again, at most [`MAX_SENDS`] times in total. The calls made before a loss are
//! unknown, so the response contains the number of resends. This module does not select targets.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::provider::{AnswerStream, CallReceiver};
use crate::supervisor::{Responder as ReplyTo, Slot};
use crate::types::{
    Attempt, AttemptLog, Cause, Class, FailedAttempt, Failure, RequestError, Response, ScopeNameError,
};

use super::actor::{Router, StartRequest};
use super::execution::{Execution, FirstCallEnd, RequestResult};
use super::pending_call;
use super::provider_time::TimedResult;
use super::request::{Request, STOPPED_MESSAGE, STOPPING_MESSAGE};
use super::scope::{AdmissionRequest, ScopePermit, WhenLimited};
use super::scope_queue::QueuePlace;
use super::stop_signal::wait_for_stop;

/// Maximum number of times that a request is sent if it is lost in the router or in transit. A request that is
/// lost twice probably causes the panic.
const MAX_SENDS: u32 = 2;

/// Maximum number of times that a request gets a new plan because a reload has removed the targets of the last one.
const MAX_NEW_PLANS: u32 = 2;

/// Maximum time that a request waits for a router that is not running. A restart takes less.
const MAX_WAIT_FOR_ROUTER: Duration = Duration::from_secs(2);

/// Time after which the caller hands the first call to the execution, which detects unresponsive providers. Most
/// calls end sooner.
const MAX_WAIT_BEFORE_HANDOVER: Duration = Duration::from_secs(1);

/// Interval between two checks whether the router runs again.
const ROUTER_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A request that was sent to the router.
struct PendingRequest {
    first_call: CallReceiver,
    execution: oneshot::Receiver<Result<Box<Execution>, Failure>>,
}

/// The request was lost with the router, or its execution panicked.
struct RequestLost;

/// Sends a request and returns its response. If a router is running and the scope of the request has no limits, the
/// request is sent before this function returns. A request that is lost is sent again.
///
/// Every request comes this way. A prompt that no provider could accept fails here, without attempts; checking it in
/// the router would delay the requests of others. A request of a limited scope that [`admit_request`] has not admitted
/// waits here until its scope admits it.
pub fn send_request(
    router: &Slot<Router>,
    request: Request,
) -> impl Future<Output = Result<Response, Box<RequestError>>> + use<> {
    let timed = send_timed(router, request);
    async move { timed.await.result }
}

/// Sends a request as [`send_request`] does. Returns the time in which it waited for providers, too.
pub(super) fn send_timed(
    router: &Slot<Router>,
    request: Request,
) -> impl Future<Output = TimedResult> + use<> {
    let refused = check(&request).err();
    let is_limited = request.limited_scope().is_some();
    let pending = if refused.is_none() && !is_limited { try_send(router, &request) } else { None };
    let router = router.clone();
    async move {
        if let Some(failure) = refused {
            return TimedResult::from_failure(failure);
        }
        if is_limited {
            // Boxed, so that requests of other scopes do not carry its size.
            return Box::pin(send_when_admitted(&router, request)).await;
        }
        complete_request(&router, &request, pending).await
    }
}

/// Checks what no provider could accept, and the name of the scope.
fn check(request: &Request) -> Result<(), Failure> {
    let wrong_name = |error: ScopeNameError| Failure::new(Class::ApiError, error.to_string());
    request.context.scope.check().map_err(wrong_name)?;
    request.prompt.check()
}

/// Sends a request of a limited scope when the scope admits it.
async fn send_when_admitted(router: &Slot<Router>, mut request: Request) -> TimedResult {
    let waits_since = Instant::now();
    let admitted = admit_request(router, &mut request, WaitBound::Deadline).await;
    let waited = waits_since.elapsed();
    let permit = match admitted {
        Ok(permit) => permit,
        Err(error) => return TimedResult { result: Err(error), provider_time: Some(waited) },
    };
    let pending = try_send(router, &request);
    let timed = complete_request(router, &request, pending).await;
    settle(permit, &timed.result);
    timed.after_wait(waited)
}

/// How long a request may wait for its scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitBound {
    /// Not at all: it fails.
    NoWait,
    /// Until its deadline, in a queue with a bound.
    Deadline,
    /// Any time. For requests of runs, whose wait does not count and whose number is bounded.
    Unbounded,
    /// Any time, before the other requests of its run. For the probe of a hold, on which the others depend.
    Probe,
}

/// Waits until the scope of a request admits it. Returns `None` at once if the scope has no limits. The permit is held
/// until the request has ended.
///
/// # Errors
/// If the scope does not admit it in time, a cap is reached, or the caller or the router stops.
pub async fn admit_request(
    router: &Slot<Router>,
    request: &mut Request,
    wait_bound: WaitBound,
) -> Result<Option<ScopePermit>, Box<RequestError>> {
    let Some(scope) = request.limited_scope() else { return Ok(None) };
    let admission = AdmissionRequest {
        priority: request.priority,
        run: request.context.run,
        tokens: scope.tokens_of(&request.prompt),
        when_limited: match wait_bound {
            WaitBound::NoWait => WhenLimited::Fail,
            WaitBound::Deadline | WaitBound::Unbounded | WaitBound::Probe => WhenLimited::Wait,
        },
        place: match wait_bound {
            WaitBound::Probe => QueuePlace::Front,
            WaitBound::NoWait | WaitBound::Deadline | WaitBound::Unbounded => QueuePlace::Back,
        },
        deadline: match wait_bound {
            WaitBound::NoWait | WaitBound::Deadline => Some(request.deadline),
            WaitBound::Unbounded | WaitBound::Probe => None,
        },
        stop: request.stop.clone(),
        budget: request.budget.clone(),
    };
    let admitted = tokio::select! {
        biased;
        admitted = scope.admit(admission) => admitted,
        () = router.retired() => Err(Failure::new(Class::Cancelled, STOPPING_MESSAGE)),
    };
    let mut permit = admitted.map_err(|failure| Box::new(RequestError::from(failure)))?;
    request.is_admitted = true;
    // Embeddings have no output that could exceed the reserved tokens.
    if permit.has_tokens() && request.prompt.embedding.is_none() {
        permit.observe(request.live_log.get_or_insert_default().clone());
    }
    Ok(Some(permit))
}

/// Replaces the reserved tokens of a request that has ended by the used ones.
pub fn settle(permit: Option<ScopePermit>, result: &Result<Response, Box<RequestError>>) {
    if let Some(permit) = permit {
        permit.settle(result);
    }
}

/// Completes a request, and sends it again if it is lost. `pending` is `None` if no router was running.
async fn complete_request(
    router: &Slot<Router>,
    request: &Request,
    mut pending: Option<PendingRequest>,
) -> TimedResult {
    let mut losses = 0;
    let mut plans = 0;
    let mut earlier = EarlierPlans::default();
    while losses < MAX_SENDS {
        if pending.is_none() {
            pending = send_when_available(router, request).await;
        }
        let Some(sent) = pending.take() else { break };
        // Caught here, so that the panic of one request does not end the task of its caller.
        let result = AssertUnwindSafe(sent.complete(router, request)).catch_unwind().await;
        match result.unwrap_or(Err(RequestLost)) {
            // A reload has removed the targets of its plan. The routes in use may have others.
            Ok(TimedResult { result: Err(error), .. })
                if plans < MAX_NEW_PLANS && is_plan_outdated(request, &error) =>
            {
                plans += 1;
                earlier.add(*error);
            }
            Ok(TimedResult { result, provider_time }) => {
                let result = match earlier.join(result) {
                    Ok(response) => Ok(Response { resends: losses, ..response }),
                    Err(error) => Err(Box::new(RequestError { resends: losses, ..*error })),
                };
                // The waits before a loss and of earlier plans are unknown.
                let is_known = losses == 0 && plans == 0;
                return TimedResult { result, provider_time: provider_time.filter(|_| is_known) };
            }
            // What the reader of a stream has begun to get must not be joined to another answer.
            Err(RequestLost) if request.stream.as_ref().is_some_and(AnswerStream::is_committed) => {
                let failure = Failure::new(Class::Internal, "the request was lost while it was answered");
                let error = RequestError::from(failure.maybe_charged());
                return TimedResult::unknown(Err(Box::new(RequestError { resends: losses, ..error })));
            }
            Err(RequestLost) => losses += 1,
        }
    }
    // The router's slot is marked as retired shortly after its mailbox has closed.
    if losses > 0 && router.shared().is_none() {
        // Whether it timed out does not matter: `is_retired` decides below.
        let _ = timeout(MAX_WAIT_FOR_ROUTER, router.retired()).await;
    }
    let failure = match losses {
        _ if router.is_retired() => Failure::new(Class::Cancelled, STOPPING_MESSAGE),
        0 => Failure::new(Class::Internal, "the router is not running"),
        _ => Failure::new(Class::Internal, "the request was lost in the router or in transit"),
    };
    if losses == 0 {
        return TimedResult::from_failure(failure);
    }
    let error = RequestError::from(failure.maybe_charged());
    TimedResult::unknown(Err(Box::new(RequestError { resends: losses, ..error })))
}

/// Returns whether a request has failed because the targets of its plan are out of service.
fn is_plan_outdated(request: &Request, error: &RequestError) -> bool {
    let is_committed = request.stream.as_ref().is_some_and(AnswerStream::is_committed);
    // Otherwise the routes in use have no target for it.
    let was_planned = !error.attempts.0.is_empty() || error.target.is_some();
    error.failure.cause == Some(Cause::OutOfService) && was_planned && !is_committed
}

/// The attempts of the plans of a request before the last one.
#[derive(Default)]
struct EarlierPlans {
    attempts: Vec<Attempt>,
    failed: Vec<FailedAttempt>,
}

impl EarlierPlans {
    fn add(&mut self, error: RequestError) {
        self.attempts.extend(error.attempts.0);
        self.failed.extend(error.failed_attempts);
    }

    /// Returns the result of the last plan with the attempts of all plans.
    fn join(&mut self, result: RequestResult) -> RequestResult {
        if self.attempts.is_empty() {
            return result;
        }
        let mut attempts = AttemptLog(std::mem::take(&mut self.attempts));
        match result {
            Ok(mut response) => {
                attempts.0.append(&mut response.attempts.0);
                Ok(Response { attempts, ..response })
            }
            Err(mut error) => {
                attempts.0.append(&mut error.attempts.0);
                let mut failed_attempts = std::mem::take(&mut self.failed);
                failed_attempts.append(&mut error.failed_attempts);
                Err(Box::new(RequestError { attempts, failed_attempts, ..*error }))
            }
        }
    }
}

impl PendingRequest {
    /// Awaits the first call, then completes the execution.
    async fn complete(
        mut self,
        router: &Slot<Router>,
        request: &Request,
    ) -> Result<TimedResult, RequestLost> {
        let deadline = request.deadline;
        let stop = request.stop.clone();
        let retired = router.retired();
        let router_deadline = sleep_until(deadline + MAX_WAIT_FOR_ROUTER);
        tokio::pin!(retired);
        let ended = tokio::select! {
            biased;
            result = &mut self.first_call => Some(FirstCallEnd::Ended(pending_call::call_end(result))),
            () = &mut retired => return Ok(router_stopped()),
            // The execution decides what to do with a call that may have been sent.
            () = wait_for_stop(stop) => None,
            () = sleep_until(deadline.min(Instant::now() + MAX_WAIT_BEFORE_HANDOVER)) => None,
        };
        let first_call = ended.unwrap_or(FirstCallEnd::Pending(self.first_call));
        // The router sends the execution before the first call, so this waits only if there is no first call.
        let execution = tokio::select! {
            biased;
            execution = self.execution => execution,
            () = retired => return Ok(router_stopped()),
            () = router_deadline => {
                let failure = Failure::new(Class::Deadline, "the router did not respond before the deadline");
                return Ok(possibly_charged(failure));
            }
        };
        match execution {
            Ok(Ok(execution)) => Ok(execution.complete(first_call).await),
            Ok(Err(failure)) => Ok(TimedResult::from_failure(failure)),
            Err(_) => Err(RequestLost),
        }
    }
}

fn router_stopped() -> TimedResult {
    possibly_charged(Failure::new(Class::Cancelled, STOPPED_MESSAGE))
}

/// Returns the error of a request whose calls are unknown.
fn possibly_charged(failure: Failure) -> TimedResult {
    TimedResult::unknown(Err(Box::new(failure.maybe_charged().into())))
}

/// Sends the request; `None` if no router is running.
fn try_send(router: &Slot<Router>, request: &Request) -> Option<PendingRequest> {
    let router = router.shared()?;
    let (responder, first_call) = ReplyTo::channel();
    let (execution_tx, execution) = oneshot::channel();
    // The mailbox needs no bound: the callers bound the number of requests.
    router.do_send(StartRequest { request: request.clone(), first_call: responder, execution: execution_tx });
    Some(PendingRequest { first_call, execution })
}

/// Sends the request as soon as a router is running; `None` if none starts in time.
async fn send_when_available(router: &Slot<Router>, request: &Request) -> Option<PendingRequest> {
    let end = request.deadline.min(Instant::now() + MAX_WAIT_FOR_ROUTER);
    loop {
        match try_send(router, request) {
            Some(pending) => return Some(pending),
            None if Instant::now() >= end || router.is_retired() => return None,
            None => sleep(ROUTER_POLL_INTERVAL).await,
        }
    }
}
