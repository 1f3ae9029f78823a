//! The requests of an item: sent at once, and sent again where they came back for a reason that is not theirs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::evidence::Evidence;
use super::gate::{Open, Probe};
use super::item::Job;
use crate::guard::Backoff;
use crate::router;
use crate::types::{Answer, Asker, Class, Failure, Prompt, Unanswered};

/// How long a request waits that has come back for a reason that is not its own, where nothing says how long.
const AGAIN: Backoff = Backoff { base: Duration::from_millis(500), max: Duration::from_secs(30) };

/// A request of a step.
pub(super) struct Request {
    pub(super) step: usize,
    pub(super) prompt: Arc<Prompt>,
    pub(super) deadline: Instant,
    /// Whether its step was answered before, and that answer was refused.
    pub(super) is_reask: bool,
}

impl Request {
    /// Returns the same request with a new deadline: the time in which its run held does not count.
    pub(super) fn again(self, job: &Job) -> Self {
        let deadline = Instant::now() + job.pipeline.steps()[self.step].deadline;
        Self { deadline, ..self }
    }
}

/// A request that has come back.
pub(super) struct Asked {
    pub(super) request: Request,
    pub(super) outcome: Result<Answer, Box<Unanswered>>,
    pub(super) open: Option<Open>,
    pub(super) probe: Option<Probe>,
}

/// How a request is sent that has come back before.
pub(super) struct Again {
    not_before: Instant,
    open: Option<Open>,
}

impl Again {
    /// Sends it as its failure says, or else after a wait that grows with how often it came back.
    pub(super) fn after(lives: u32, failure: &Failure, open: Option<Open>) -> Self {
        let wait = AGAIN.wait(lives, fastrand::f64());
        let told = failure.retry_after.unwrap_or_default().min(AGAIN.max);
        Self { not_before: Instant::now() + wait.max(told), open }
    }
}

/// Returns how often a request has come back, where it came back for a reason that is not its own; `None` where it was
/// answered, has failed for its own reasons, or is left for later.
pub(super) fn lives_without_own_failure(
    job: &Job,
    evidence: &mut BTreeMap<usize, Evidence>,
    (step, is_reask): (usize, bool),
    outcome: &Result<Answer, Box<Unanswered>>,
) -> Option<u32> {
    let unanswered = outcome.as_ref().err().filter(|unanswered| !is_for_later(&unanswered.failure))?;
    let known = evidence.entry(step).or_default();
    // A deadline that passes while an answer is asked for again is the item's own.
    let is_over = unanswered.failure.class == Class::Deadline && unanswered.trail.calls() > 0;
    if is_over && is_reask {
        return None;
    }
    let time = job.pipeline.steps()[step].deadline;
    if known.add(unanswered, time, |target| job.gate.counts(target)) {
        return None;
    }
    // While others are answered nothing holds.
    if known.others_answered() {
        return Some(known.lives());
    }
    job.gate.came_back(&job.pipeline.steps()[step].route, unanswered, Instant::now());
    Some(known.lives())
}

/// Asks one request, at once or when it may be sent again.
pub(super) fn question(
    job: &Job,
    request: Request,
    again: Option<Again>,
) -> impl Future<Output = Asked> + use<> {
    let definition = &job.pipeline.steps()[request.step];
    let asker = Asker { run: job.run, step: Some(definition.name.clone()), rank: job.item.number };
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
        None => Ok((router::question(&router, ask), gate.open(&route))),
        Some(again) => Err((again, ask)),
    };
    async move {
        let (answered, open, probe) = match first {
            Ok((answered, open)) => (answered, open, None),
            Err((Again { not_before, open }, ask)) => {
                let probe = tokio::select! {
                    biased;
                    probe = gate.turn(route, not_before) => probe,
                    () = stop.given() => {
                        let failure = Failure::new(Class::Cancelled, "the run stops, and the request waited");
                        let outcome = Err(Box::new(failure.into()));
                        return Asked { request, outcome, open, probe: None };
                    }
                };
                // The wait does not count.
                let ask = router::Ask { deadline: Instant::now() + time, ..ask };
                (router::question(&router, ask), open, probe)
            }
        };
        Asked { request, outcome: answered.await, open, probe }
    }
}

/// Returns whether the question may be answered when the run goes on: a cap on money was met, or everything is
/// being stopped.
pub(super) fn is_for_later(failure: &Failure) -> bool {
    matches!(failure.class, Class::Budget | Class::Cancelled)
}
