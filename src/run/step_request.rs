//! Sends the requests of an item, and resends those whose failure has an external cause.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::gate::{OpenRequest, ResendRefused, ResentRequest};
use super::job::Job;
use crate::guard::Backoff;
use crate::pipeline::definition::Step;
use crate::router;
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
}

impl SentRequest {
    /// Returns the same request with a new deadline: time during which the run held does not count.
    pub(super) fn with_new_deadline(self, job: &Job) -> Self {
        let deadline = Instant::now() + job.pipeline.steps()[self.step].deadline;
        Self { deadline, waited: job.item.held.waited(), ..self }
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

/// Sends a request, before this function returns.
pub(super) fn send(job: &Job, request: SentRequest) -> impl Future<Output = ReturnedRequest> + use<> {
    let definition = &job.pipeline.steps()[request.step];
    let context = request_context(job, definition, false);
    let item = context.item();
    let answered = router::send_request(&job.router, router_request(job, definition, &request, context));
    let open = job.gate.open_request(&definition.route, item);
    async move {
        let outcome = answered.await;
        ReturnedRequest { request, outcome, open, resent: None, is_final: false }
    }
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
    let router = job.router.clone();
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
            None => {
                let failure = Failure::new(Class::Cancelled, "the run stops, and the request waited");
                let outcome = Err(Box::new(failure.into()));
                return ReturnedRequest { request, outcome, open, resent: None, is_final: false };
            }
        };
        // The wait does not count.
        let router_request = router_request.with_deadline_at(Instant::now() + time);
        let outcome = router::send_request(&router, router_request).await;
        if let (Ok(_), Some(resent)) = (&outcome, &mut resent) {
            resent.mark_answered();
        }
        ReturnedRequest { request, outcome, open, resent, is_final: false }
    }
}

fn request_context(job: &Job, step: &Step, has_failed: bool) -> RequestContext {
    RequestContext { run: job.run, step: Some(step.name.clone()), rank: job.item.number, has_failed }
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
}

/// Returns whether the request may be answered when the run is resumed: a cap on money was reached, or
/// everything is being stopped.
pub(super) fn is_deferred(failure: &Failure) -> bool {
    matches!(failure.class, Class::Budget | Class::Cancelled)
}
