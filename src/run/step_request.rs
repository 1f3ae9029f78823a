//! The requests of an item: sent at once, and sent again where they came back for a reason that is not theirs.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::gate::{GivenUp, Open, SentAgain};
use super::item::Job;
use crate::guard::Backoff;
use crate::router;
use crate::types::{Answer, Asker, Class, Failure, LaneName, Prompt, Unanswered};

/// How long a request waits that has come back for a reason that is not its own, where nothing says how long.
const AGAIN: Backoff = Backoff { base: Duration::from_millis(500), max: Duration::from_secs(30) };

/// A request of a step.
pub(super) struct Request {
    pub(super) step: usize,
    pub(super) prompt: Arc<Prompt>,
    pub(super) deadline: Instant,
    /// How long replies of its item had waited for memory when that deadline was set.
    pub(super) waited: Duration,
    /// Whether its step was answered before, and that answer was refused.
    pub(super) is_reask: bool,
}

impl Request {
    /// Returns the same request with a new deadline: the time in which its run held does not count.
    pub(super) fn again(self, job: &Job) -> Self {
        let deadline = Instant::now() + job.pipeline.steps()[self.step].deadline;
        Self { deadline, waited: job.item.held.waited(), ..self }
    }
}

/// A request that has come back.
pub(super) struct Asked {
    pub(super) request: Request,
    pub(super) outcome: Result<Answer, Box<Unanswered>>,
    pub(super) open: Option<Open>,
    pub(super) sent_again: Option<SentAgain>,
    /// Whether it is not to be sent again, whatever its failure is.
    pub(super) given_up: bool,
}

/// How a request is sent that has come back before.
pub(super) struct Again {
    lives: u32,
    not_before: Instant,
    open: Option<Open>,
    /// How it failed.
    failure: Failure,
    target: Option<LaneName>,
}

impl Again {
    /// Sends it as its failure says, or else after a wait that grows with how often it came back.
    pub(super) fn after(
        lives: u32,
        (failure, target): (Failure, Option<LaneName>),
        open: Option<Open>,
    ) -> Self {
        let wait = AGAIN.wait(lives, fastrand::f64());
        let told = failure.retry_after.unwrap_or_default().min(AGAIN.max);
        Self { lives, not_before: Instant::now() + wait.max(told), open, failure, target }
    }
}

/// Returns how often a request has come back, where it came back for a reason that is not its own; `None` where it was
/// answered, has failed for its own reasons, or is left for later.
pub(super) fn lives_without_own_failure(
    job: &Job,
    (step, is_reask): (usize, bool),
    outcome: &Result<Answer, Box<Unanswered>>,
    open: Option<&Open>,
) -> Option<u32> {
    let unanswered = outcome.as_ref().err().filter(|unanswered| !is_for_later(&unanswered.failure))?;
    let open = open?;
    // A deadline that passes while an answer is asked for again is the item's own, but for an outage.
    let is_over = unanswered.failure.class == Class::Deadline && unanswered.trail.calls() > 0;
    if is_over && is_reask && !open.is_out(Instant::now()) {
        return None;
    }
    open.came_back(unanswered, job.pipeline.steps()[step].deadline, Instant::now())
}

/// Asks one request, at once or when it may be sent again.
pub(super) fn question(
    job: &Job,
    request: Request,
    again: Option<Again>,
) -> impl Future<Output = Asked> + use<> {
    let definition = &job.pipeline.steps()[request.step];
    let (step, rank) = (Some(definition.name.clone()), job.item.number);
    let asker = Asker { run: job.run, step, rank, has_failed: again.is_some() };
    let item = asker.item();
    let (route, priority) = (definition.route.clone(), job.priority);
    let counts = Some(job.counts.clone());
    let purse = Some(job.purse.clone());
    let stop = Some(job.stop.clone());
    let held = job.item.held.clone();
    let (prompt, deadline) = (request.prompt.clone(), request.deadline);
    let ask =
        router::Ask { prompt, route: route.clone(), priority, asker, deadline, counts, purse, held, stop };
    let (router, gate, stop, time) =
        (job.router.clone(), job.gate.clone(), job.stop.clone(), definition.deadline);
    // The first time it is sent before this returns.
    let first = match again {
        None => Ok((router::question(&router, ask), gate.open(&route, item))),
        Some(again) => Err((again, ask)),
    };
    async move {
        let (answered, open, mut sent_again) = match first {
            Ok((answered, open)) => (answered, open, None),
            Err((Again { lives, not_before, open, failure, target }, ask)) => {
                let turn = tokio::select! {
                    biased;
                    () = stop.given() => None,
                    turn = gate.turn(route, lives, not_before) => Some(turn),
                };
                let sent_again = match turn {
                    Some(Ok(sent_again)) => sent_again,
                    Some(Err(GivenUp)) => {
                        let outcome = Err(Box::new(Unanswered { lane: target, ..failure.into() }));
                        return Asked { request, outcome, open, sent_again: None, given_up: true };
                    }
                    None => {
                        let failure = Failure::new(Class::Cancelled, "the run stops, and the request waited");
                        let outcome = Err(Box::new(failure.into()));
                        return Asked { request, outcome, open, sent_again: None, given_up: false };
                    }
                };
                // The wait does not count.
                let ask = router::Ask { deadline: Instant::now() + time, ..ask };
                (router::question(&router, ask), open, sent_again)
            }
        };
        let outcome = answered.await;
        if let (Ok(_), Some(sent_again)) = (&outcome, &mut sent_again) {
            sent_again.answered();
        }
        Asked { request, outcome, open, sent_again, given_up: false }
    }
}

/// Returns whether the question may be answered when the run goes on: a cap on money was met, or everything is
/// being stopped.
pub(super) fn is_for_later(failure: &Failure) -> bool {
    matches!(failure.class, Class::Budget | Class::Cancelled)
}
