//! Sends the requests of an item, and resends those whose failure has an external cause.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::Either;
use tokio::time::Instant;
use tracing::Span;

use super::cache_warmup::WarmupEnd;
use super::gate::{OpenRequest, ProbeWait, ResendRefused, ResentRequest};
use super::job::Job;
use super::warmup_gate::PassedRequest;
use crate::guard::Backoff;
use crate::pipeline::definition::Step;
use crate::router::{self, EmbeddingBatcher, Router, WaitBound};
use crate::supervisor::Slot;
use crate::types::{Class, Failure, Prompt, RequestContext, RequestError, Response, TargetName};

/// How long a request whose failure has an external cause waits, if the provider names no time.
const RESEND_BACKOFF: Backoff = Backoff { base: Duration::from_millis(500), max: Duration::from_secs(30) };

/// A request of a step that is being sent.
pub(super) struct SentRequest {
    pub(super) step: usize,
    pub(super) prompt: Arc<Prompt>,
    pub(super) deadline: Instant,
    /// How long responses for its item had waited for memory when the deadline was set.
    pub(super) waited: Duration,
    /// Whether its step was answered before, and that answer was rejected.
    pub(super) is_validation_retry: bool,
    /// The parent of its span.
    pub(super) span: Span,
}

impl SentRequest {
    /// Returns the same request with a new deadline: time during which the run held does not count.
    pub(super) fn with_new_deadline(self, job: &Job) -> Self {
        let deadline = Instant::now() + job.pipeline.steps()[self.step].deadline;
        Self { deadline, waited: job.item.held.waited(), ..self }
    }

    /// Returns the same request with the shared beginning as it is to be cached now.
    fn with_prefix_to_send(mut self, job: &Job, passed: Option<&PassedRequest>) -> Self {
        if let Some(prefix) = self.prompt.shared_prefix {
            let to_send = job.warmups.prefix_to_send(prefix, passed);
            if to_send != Some(prefix) {
                Arc::make_mut(&mut self.prompt).shared_prefix = to_send;
            }
        }
        self
    }
}

/// A request that has returned.
pub(super) struct ReturnedRequest {
    pub(super) request: SentRequest,
    pub(super) outcome: Result<Response, Box<RequestError>>,
    pub(super) open: Option<OpenRequest>,
    pub(super) resent: Option<ResentRequest>,
    /// Whether it is final even if its failure has an external cause.
    pub(super) is_final: bool,
}

/// How a request is sent again.
pub(super) struct Resend {
    not_before: Instant,
    open: Option<OpenRequest>,
    /// How it failed.
    failure: Failure,
    target: Option<TargetName>,
}

impl Resend {
    /// Schedules it after the wait that its failure names, or else after a wait that grows with the number of
    /// failures.
    pub(super) fn after(
        returns: u32,
        (failure, target): (Failure, Option<TargetName>),
        open: Option<OpenRequest>,
    ) -> Self {
        let wait = RESEND_BACKOFF.wait(returns, fastrand::f64());
        let provider_wait = failure.retry_after.unwrap_or_default().min(RESEND_BACKOFF.max);
        Self { not_before: Instant::now() + wait.max(provider_wait), open, failure, target }
    }
}

/// Returns how often a request has failed if it is to be sent again; `None` if it is itself the cause of its
/// failure.
pub(super) fn returns_if_resendable(
    job: &Job,
    request: &SentRequest,
    error: &RequestError,
    open: &OpenRequest,
) -> Option<u32> {
    // A deadline that passes during a validation retry is the item's own failure, except in an outage.
    let deadline_passed = error.failure.class == Class::Deadline && error.attempts.calls() > 0;
    if deadline_passed && request.is_validation_retry && !open.has_outage(Instant::now()) {
        return None;
    }
    open.record_failure(error, job.pipeline.steps()[request.step].deadline, Instant::now())
}

/// Sends a request, before this function returns, unless another request of the step is warming the provider's cache.
/// Then it is sent later.
pub(super) fn send(job: &Arc<Job>, request: SentRequest) -> impl Future<Output = ReturnedRequest> + use<> {
    let definition = &job.pipeline.steps()[request.step];
    // A request that waits counts as open: when others fail, it shows that not all of them have been tried.
    let open = job.gate.open_request(&definition.route, request_context(job, definition, false).item());
    let Some(gate) = job.warmups.gate(request.step).filter(|_| request.prompt.shared_prefix.is_some()) else {
        return Either::Left(send_passed(job, request, open, None));
    };
    if let Some(passed) = gate.try_pass() {
        return Either::Left(send_passed(job, request, open, Some(passed)));
    }
    let job = job.clone();
    let gate = gate.clone();
    Either::Right(async move {
        let waits_since = Instant::now();
        let passed = tokio::select! {
            biased;
            () = job.stop.clone().wait() => return stopped_while_waiting(request, open),
            passed = gate.pass() => passed,
        };
        // The wait does not count.
        let deadline = request.deadline + waits_since.elapsed();
        send_passed(&job, SentRequest { deadline, ..request }, open, Some(passed)).await
    })
}

/// Sends a request that does not have to wait, before this function returns.
fn send_passed(
    job: &Job,
    request: SentRequest,
    open: Option<OpenRequest>,
    passed: Option<PassedRequest>,
) -> impl Future<Output = ReturnedRequest> + use<> {
    let definition = &job.pipeline.steps()[request.step];
    let request = request.with_prefix_to_send(job, passed.as_ref());
    let context = request_context(job, definition, false);
    let router_request = router_request(job, definition, &request, context);
    let answered = send_when_admitted(&job.router, &job.embeddings, router_request, None);
    async move {
        let (outcome, waited) = answered.await;
        finish_warmup(passed, &outcome);
        // The wait for the scope does not count.
        let request = SentRequest { deadline: request.deadline + waited, ..request };
        ReturnedRequest { request, outcome, open, resent: None, is_final: false }
    }
}

/// Sends a request before this function returns, unless its scope has limits. Then it is sent when the scope admits it.
/// Returns the outcome, and how long the request waited for its scope. `probe_wait` ends with that wait; `None` if the
/// request is not the probe of a hold.
fn send_when_admitted(
    router: &Slot<Router>,
    embeddings: &Arc<EmbeddingBatcher>,
    request: router::Request,
    probe_wait: Option<ProbeWait>,
) -> impl Future<Output = (Result<Response, Box<RequestError>>, Duration)> + use<> {
    if request.limited_scope().is_none() {
        let answered = embeddings.send(router, request);
        return Either::Left(async move { (answered.await, Duration::ZERO) });
    }
    let router = router.clone();
    let embeddings = embeddings.clone();
    // Boxed, so that other requests do not carry its size.
    Either::Right(Box::pin(async move {
        let waits_since = Instant::now();
        let mut request = request;
        let wait_bound = if probe_wait.is_some() { WaitBound::Probe } else { WaitBound::Unbounded };
        let admitted = router::admit_request(&router, &mut request, wait_bound).await;
        drop(probe_wait);
        let waited = waits_since.elapsed();
        let permit = match admitted {
            Ok(permit) => permit,
            Err(error) => return (Err(error), waited),
        };
        request.deadline += waited;
        let outcome = embeddings.send(&router, request).await;
        router::settle(permit, &outcome);
        (outcome, waited)
    }))
}

/// Records whether a request has filled or used the provider's cache.
fn finish_warmup(passed: Option<PassedRequest>, outcome: &Result<Response, Box<RequestError>>) {
    let Some(passed) = passed else { return };
    let was_processed = match outcome {
        Ok(_) => true,
        // The provider reported tokens of a response that was not accepted.
        Err(error) => error.attempts.0.iter().any(|attempt| attempt.usage.is_some()),
    };
    passed.finish(if was_processed { WarmupEnd::Processed } else { WarmupEnd::Failed });
}

/// Returns a request that was not sent, because the run stops.
fn stopped_while_waiting(request: SentRequest, open: Option<OpenRequest>) -> ReturnedRequest {
    let failure = Failure::new(Class::Cancelled, "the run stops, and the request waited");
    ReturnedRequest { request, outcome: Err(Box::new(failure.into())), open, resent: None, is_final: false }
}

/// Sends a request again, when it may be sent again.
pub(super) fn resend(
    job: &Job,
    request: SentRequest,
    resend: Resend,
) -> impl Future<Output = ReturnedRequest> + use<> {
    let definition = &job.pipeline.steps()[request.step];
    let context = request_context(job, definition, true);
    let router_request = router_request(job, definition, &request, context);
    let gate = job.warmups.gate(request.step).filter(|_| request.prompt.shared_prefix.is_some()).cloned();
    let router = job.router.clone();
    let embeddings = job.embeddings.clone();
    let stop = job.stop.clone();
    let time = definition.deadline;
    let Resend { not_before, open, failure, target } = resend;
    async move {
        let turn = async {
            match &open {
                Some(open) => open.wait_to_resend(not_before).await.map(Some),
                None => Ok(None),
            }
        };
        let turn = tokio::select! {
            biased;
            () = stop.wait() => None,
            turn = turn => Some(turn),
        };
        let mut resent = match turn {
            Some(Ok(resent)) => resent,
            Some(Err(ResendRefused)) => {
                let outcome = Err(Box::new(RequestError { target, ..failure.into() }));
                return ReturnedRequest { request, outcome, open, resent: None, is_final: true };
            }
            None => return stopped_while_waiting(request, open),
        };
        // The hold of a route depends on the requests that are sent again, so they do not wait for the cache.
        let passed = gate.map(|gate| gate.pass_now());
        // The wait does not count.
        let router_request = router_request.with_deadline_at(Instant::now() + time);
        let probe_wait = resent.as_ref().and_then(ResentRequest::wait_for_scope);
        let (outcome, waited) = send_when_admitted(&router, &embeddings, router_request, probe_wait).await;
        let request = SentRequest { deadline: request.deadline + waited, ..request };
        if let (Ok(_), Some(resent)) = (&outcome, &mut resent) {
            resent.mark_answered();
        }
        finish_warmup(passed, &outcome);
        ReturnedRequest { request, outcome, open, resent, is_final: false }
    }
}

fn request_context(job: &Job, step: &Step, has_failed: bool) -> RequestContext {
    RequestContext {
        scope: job.scope.clone(),
        run: job.run,
        step: Some(step.name.clone()),
        rank: job.item.number,
        has_failed,
    }
}

fn router_request(job: &Job, step: &Step, request: &SentRequest, context: RequestContext) -> router::Request {
    router::Request::from_shared(step.route.clone(), request.prompt.clone())
        .with_priority(job.priority)
        .with_deadline_at(request.deadline)
        .with_context(context)
        .with_counts(job.counts.clone())
        .with_budget(job.budget.clone())
        .with_memory(job.item.held.clone())
        .with_stop(job.stop.clone())
        .with_scope_limits(job.scope_limits.clone())
        .with_parent_span(request.span.clone())
}

/// Returns whether the request may be answered when the run is resumed: a cap on money was reached, or
/// everything is being stopped.
pub(super) fn is_deferred(failure: &Failure) -> bool {
    matches!(failure.class, Class::Budget | Class::Cancelled)
}
