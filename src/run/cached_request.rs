//! Looks for the answer to a request before it is sent: in the answer cache, and among the identical requests that are in
//! flight in the process.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::answer_cache::CachedRequest;
use super::job::Job;
use super::shared_requests::{Entered, Leading};
use super::step_request::ReturnedRequest;
use crate::store::CachedAnswer;
use crate::types::Prompt;

/// What an item waits for.
pub(super) enum Arrived {
    /// A request has returned.
    Returned(Box<ReturnedRequest>),
    /// The search for the answer to a request has ended.
    LookedUp(LookupEnded),
}

impl Arrived {
    pub(super) fn returned(request: ReturnedRequest) -> Self {
        Self::Returned(Box::new(request))
    }
}

/// The end of the search for the answer to a request.
pub(super) struct LookupEnded {
    pub(super) step: usize,
    pub(super) prompt: Arc<Prompt>,
    pub(super) request: CachedRequest,
    pub(super) outcome: LookupOutcome,
}

/// What was found.
pub(super) enum LookupOutcome {
    /// The answer.
    Found(Arc<CachedAnswer>),
    /// No answer: the request is sent. Others may wait for it.
    NotFound(Option<Leading>),
    /// The run stopped meanwhile.
    Stopped,
}

/// Looks for the answer to a request of a step. It waits at most `max_wait` for an identical request of another item or run.
/// That wait does not count against the deadline of the step, because the item is not the reason for it.
pub(super) async fn look_up(
    job: Arc<Job>,
    step: usize,
    prompt: Arc<Prompt>,
    request: CachedRequest,
    max_wait: Duration,
) -> LookupEnded {
    let outcome = find(&job, &request, max_wait).await;
    LookupEnded { step, prompt, request, outcome }
}

async fn find(job: &Job, request: &CachedRequest, max_wait: Duration) -> LookupOutcome {
    let Some(persistence) = &job.persistence else { return LookupOutcome::NotFound(None) };
    let cache = &persistence.run.cache;
    // Before the search in the store: of two identical requests at the same time, only the first is sent.
    match cache.requests.enter(request.shared) {
        Entered::Answered(answer) => LookupOutcome::Found(answer),
        Entered::Lead(leading) => {
            let found = cache.lookup.find(request.answer_keys()).await;
            match request.preferred(&found) {
                Some(answer) => {
                    leading.publish(answer.clone());
                    LookupOutcome::Found(answer)
                }
                None => LookupOutcome::NotFound(Some(leading)),
            }
        }
        Entered::Wait(following) => {
            tokio::select! {
                biased;
                () = job.stop.clone().wait() => LookupOutcome::Stopped,
                answer = following.answer() => match answer {
                    Some(answer) => LookupOutcome::Found(answer),
                    None => LookupOutcome::NotFound(None),
                },
                () = sleep(max_wait) => LookupOutcome::NotFound(None),
            }
        }
    }
}
