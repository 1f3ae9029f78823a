//! Processes one item: sends the requests of its steps to the router, validates the answers, and ends with the
//! item's result.
//!
//! Stores nothing itself, except through its run's persistence.
//!
//! ```text
//!                          +--> look_up --> handle_lookup --> (router), or the end of the step
//!                          |
//! ready_requests --> restore_or_send --> (router) --> handle_returned --+--> resend --> (router)
//!       ^                                                               +--> defer
//!       |                                                               +--> handle_response --+
//!       |                                                               +--> handle_failure ---+
//!       +--------------------------------------------- end_request <---------------------------+
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use tokio::time::Instant;

use crate::chaos;
use crate::store::{CachedAnswer, FileStamp};
use crate::telemetry::step_span;
use crate::types::{
    self, AttemptLog, Class, Completion, Failure, Prompt, RequestError, Response, TargetName,
};

use super::answer_cache::CachedRequest;
use super::answer_check::{CheckError, CheckLimits, check_answer, embedding_text};
use super::cached_request::{Arrived, LookupEnded, LookupOutcome, look_up};
use super::gate::OpenRequest;
use super::in_flight::InFlight;
use super::item_result::ItemResult;
use super::job::Job;
use super::load_attachment::load_all;
use super::messages::{FollowUp, ItemRecipients, LedgerFailed, RequestEnded};
use super::prompt_memory::{memory_of_embedding, memory_of_prompt, memory_of_validation_retry};
use super::rendering::{self, Rendered};
use super::shared_requests::Leading;
use super::step_log::{StepLog, store_result};
use super::step_request::{
    Resend, ReturnedRequest, SentRequest, is_deferred, resend, returns_if_resendable, send,
};
use crate::files::protected::ProtectedFiles;
use crate::pipeline::item_state::ItemState;
use crate::pipeline::step_request::{AnswerCheck, StepRequest};

/// How processing ended.
pub(super) enum End {
    Finished(Box<ItemResult>),
    /// Further requests would cost too much, or the run stops.
    Deferred(Box<Failure>),
}

/// An item that is being processed.
pub(super) struct ItemProcess {
    job: Arc<Job>,
    run: Arc<ItemRecipients>,
    started: Instant,
    state: ItemState<StepLog>,
    in_flight: InFlight<LocalBoxFuture<'static, Arrived>>,
    /// The steps for whose requests others of the process wait.
    leading: HashMap<usize, Leading>,
    /// Requests that have ended.
    requests: u64,
    /// Why nothing more may be requested for the item.
    deferral: Option<Box<Failure>>,
}

impl ItemProcess {
    pub(super) fn new(job: Arc<Job>, run: Arc<ItemRecipients>) -> Self {
        Self {
            started: Instant::now(),
            state: ItemState::from_shared(job.pipeline.clone(), job.clone(), |step| {
                StepLog::new(job.persistence.as_ref(), &step.name)
            }),
            in_flight: InFlight::new(),
            leading: HashMap::new(),
            requests: 0,
            deferral: None,
            job,
            run,
        }
    }

    /// Processes the item to its end, or until nothing more may be requested and nothing is in flight. If answers
    /// cannot be stored any more, it notifies its run and never returns.
    pub(super) async fn run(mut self) -> End {
        loop {
            let requests = self.ready_requests().await;
            if self.restore_or_send(requests).await {
                // Steps that need the restored answers may be ready now.
                continue;
            }
            if self.in_flight.is_waiting() {
                // Its next response may need memory or a concurrency slot that other items hold.
                self.job.item.held.park();
            }
            if let Some(arrived) = self.in_flight.next().await {
                match arrived {
                    Arrived::Returned(returned) => self.handle_returned(*returned).await,
                    Arrived::LookedUp(ended) => self.handle_lookup(ended),
                }
            } else if self.state.is_finished() {
                return End::Finished(Box::new(self.finish()));
            } else if let Some(why) = self.deferral.take() {
                return End::Deferred(why);
            }
            // A step that failed before its request was sent may have made other steps ready.
        }
    }

    /// Returns the requests of the steps that are ready.
    async fn ready_requests(&mut self) -> Vec<StepRequest> {
        loop {
            chaos::point("item.sends_request");
            if self.deferral.is_some() {
                return Vec::new();
            }
            if let Some(requests) = self.state.ready_steps_if_quick() {
                return requests;
            }
            match self.render_ready_steps().await {
                Rendered::Requests(requests) => return requests,
                // The steps that could not wait have failed: other steps may be ready now.
                Rendered::DeadlinePassed => {}
                Rendered::Stopped => {
                    self.deferral = Some(stopped("a template was rendered"));
                    return Vec::new();
                }
            }
        }
    }

    /// Renders the templates of the ready steps on another thread.
    async fn render_ready_steps(&mut self) -> Rendered {
        // The state moves to the other thread and back. Meanwhile an unused one is in its place.
        let unused =
            ItemState::from_shared(self.job.pipeline.clone(), self.job.clone(), |_| StepLog::default());
        let state = std::mem::replace(&mut self.state, unused);
        let rendering = rendering::render_ready_steps(state, self.job.stop.clone());
        let (state, rendered) = self.in_flight.poll_while(rendering).await;
        self.state = state;
        rendered
    }

    /// Restores the stored answers to these requests, and sends the others. Returns whether an answer was
    /// restored.
    async fn restore_or_send(&mut self, requests: Vec<StepRequest>) -> bool {
        let mut restored = false;
        for request in requests {
            let step = request.step;
            let attached = attach(&mut self.state, &request, &self.job.protected);
            let (prompt, files) = match self.in_flight.poll_while(attached).await {
                Ok(attached) => attached,
                Err(failure) => {
                    self.state.record_failure(step, failure);
                    continue;
                }
            };
            let definition = &self.job.pipeline.steps()[step];
            let persistence = self.job.persistence.as_ref();
            match self.state.data_mut(step).restore_answer(persistence, definition, &prompt, files) {
                Some(answer) => {
                    self.state.restore(step, answer);
                    restored = true;
                }
                None => {
                    self.job.item.held.add(memory_of_prompt(&prompt));
                    let log = self.state.data_mut(step);
                    match persistence.and_then(|persistence| log.cached_request(persistence, definition)) {
                        Some(request) => self.look_up(step, prompt, request),
                        None => self.send_first(step, prompt),
                    }
                }
            }
        }
        restored
    }

    /// Looks for the answer to a request in the answer cache, and among the requests that others have sent.
    fn look_up(&mut self, step: usize, prompt: Arc<Prompt>, request: CachedRequest) {
        let max_wait = self.job.pipeline.steps()[step].deadline;
        let looking_up = look_up(self.job.clone(), step, prompt, request, max_wait);
        self.in_flight.push(looking_up.map(Arrived::LookedUp).boxed_local());
    }

    /// Reuses the answer of the cache, or sends the request if there is none.
    fn handle_lookup(&mut self, ended: LookupEnded) {
        let LookupEnded { step, prompt, request, outcome } = ended;
        match outcome {
            LookupOutcome::Found(answer) => self.reuse(step, prompt, &request, &answer),
            LookupOutcome::NotFound(leading) => {
                if self.deferral.is_none() {
                    self.leading.extend(leading.map(|leading| (step, leading)));
                    self.send_first(step, prompt);
                }
            }
            LookupOutcome::Stopped => {
                self.deferral.get_or_insert_with(|| stopped("it waited for the answer to the same request"));
            }
        }
    }

    /// Takes an answer of the answer cache as that of a step. It costs nothing.
    fn reuse(&mut self, step: usize, prompt: Arc<Prompt>, request: &CachedRequest, cached: &CachedAnswer) {
        let job = self.job.clone();
        let Some((persistence, target)) = job.persistence.as_ref().zip(request.target_of(cached)) else {
            return self.send_first(step, prompt);
        };
        persistence.run.cache.counts.count_hit(cached.answered_by.cost);
        // As much as the response would need.
        job.item.held.add(usize::try_from(cached.bytes).unwrap_or(usize::MAX));
        self.state.data_mut(step).reuse(persistence, target, cached);
        self.state.restore(step, cached.answer.clone());
        if !self.state.is_finished() {
            let name = &job.pipeline.steps()[step].name;
            let log = self.state.data_mut(step);
            log.is_stored = true;
            // The cache has the answer, so nothing waits until this is durable.
            drop(persistence.save_step(log.answered(name, cached.answer.clone())));
        }
    }

    /// Sends the first request of a step.
    fn send_first(&mut self, step: usize, prompt: Arc<Prompt>) {
        let now = Instant::now();
        self.state.data_mut(step).started.get_or_insert(now);
        if let Some(persistence) = &self.job.persistence {
            persistence.run.cache.counts.count_sent();
        }
        let deadline = now + self.job.pipeline.steps()[step].deadline;
        self.send(step, prompt, deadline, false);
    }

    /// Gives the accepted answer of a step to the others that wait for it. `bytes` is the size of its text.
    fn publish(&mut self, step: usize, bytes: usize) {
        let Some(leading) = self.leading.remove(&step) else { return };
        let Some(answer) = self.state.answer(step).cloned() else { return };
        let log = self.state.data_mut(step);
        if let Some((key, answered_by)) = log.cache_key.zip(log.answering().cloned()) {
            let simulated = log.simulated;
            let bytes = bytes as u64;
            leading.publish(Arc::new(CachedAnswer { key, answer, answered_by, simulated, bytes }));
        }
    }

    fn send(&mut self, step: usize, prompt: Arc<Prompt>, deadline: Instant, is_validation_retry: bool) {
        let waited = self.job.item.held.waited();
        let definition = &self.job.pipeline.steps()[step];
        let start_span = || step_span(&self.job.span, definition.name.as_str(), definition.route.as_str());
        let span = self.state.data_mut(step).span.get_or_insert_with(start_span).for_children().clone();
        let request = SentRequest { step, prompt, deadline, waited, is_validation_retry, span };
        self.in_flight.push(send(&self.job, request).map(Arrived::returned).boxed_local());
    }

    /// Handles a request that has returned: it is sent again, or it has ended.
    async fn handle_returned(&mut self, returned: ReturnedRequest) {
        chaos::point("item.answered");
        let ReturnedRequest { request, outcome, open, resent, is_final } = returned;
        let step = request.step;
        // Time in which a response waits for memory does not count for the step.
        let deadline = request.deadline + self.job.item.held.waited().saturating_sub(request.waited);
        match outcome {
            Ok(response) => {
                drop((open, resent));
                self.handle_response(step, response, deadline).await;
            }
            Err(error) if is_deferred(&error.failure) => {
                drop((open, resent));
                let RequestError { failure, attempts, resends, .. } = *error;
                self.defer(RequestEnded::failed(step, attempts, resends), Box::new(failure));
            }
            Err(error) => {
                let resendable = open.as_ref().filter(|_| !is_final);
                let returns =
                    resendable.and_then(|open| returns_if_resendable(&self.job, &request, &error, open));
                match returns {
                    Some(returns) => self.resend(request, *error, returns, open),
                    None => {
                        drop((open, resent));
                        self.handle_failure(step, *error).await;
                    }
                }
            }
        }
    }

    /// Sends a request again, because its failure has an external cause. Stores and reports its attempts.
    fn resend(&mut self, request: SentRequest, error: RequestError, returns: u32, open: Option<OpenRequest>) {
        let RequestError { failure, target, attempts, resends, .. } = error;
        let ended = RequestEnded {
            follow_up: FollowUp::Resend,
            ..RequestEnded::failed(request.step, attempts, resends)
        };
        let step = &self.job.pipeline.steps()[request.step].name;
        let log = self.state.data_mut(request.step);
        log.store_for_resend(self.job.persistence.as_ref(), step, &ended.attempts);
        self.run.request_ended.do_send(ended);
        if self.deferral.is_none() {
            let again = Resend::after(returns, (failure, target), open);
            let request = request.with_new_deadline(&self.job);
            self.in_flight.push(resend(&self.job, request, again).map(Arrived::returned).boxed_local());
        }
    }

    /// Stops requesting for this item. The failed request is sent again when the run is resumed.
    fn defer(&mut self, ended: RequestEnded, why: Box<Failure>) {
        self.leading.remove(&ended.step);
        let step = &self.job.pipeline.steps()[ended.step].name;
        let log = self.state.data_mut(ended.step);
        log.end_span(Some(why.class));
        log.store_deferred(self.job.persistence.as_ref(), step, &ended.attempts, ended.simulated);
        self.run.request_ended.do_send(ended);
        self.requests += 1;
        self.deferral.get_or_insert(why);
    }

    /// Validates a response, and repeats the request if the response is invalid and retries are left.
    async fn handle_response(&mut self, step: usize, response: Response, deadline: Instant) {
        let Response { mut completion, target, simulated, attempts, resends, .. } = response;
        let mut ended = RequestEnded { simulated, ..RequestEnded::failed(step, attempts, resends) };
        if self.job.pipeline.steps()[step].embedding.is_some() {
            // The joined response from which its vector comes held its memory only until it ended.
            self.job.item.held.add(memory_of_embedding(&completion));
            completion.text = embedding_text(&completion);
        }
        // The memory of the text has been reserved since it was read.
        let Some(check) = self.check_response(step, &completion.text, deadline).await else {
            return self.defer(ended, stopped("an answer waited for validation"));
        };
        if check == AnswerCheck::Accepted && self.job.pipeline.steps()[step].settings.keep_reasoning {
            self.keep_reasoning(&completion, &mut ended.attempts);
        }
        let bytes = completion.text.len();
        drop(completion);
        let follow_up = match &check {
            AnswerCheck::Accepted | AnswerCheck::Failed(_) => FollowUp::Nothing,
            AnswerCheck::Retry(prompt) => {
                if self.deferral.is_none() {
                    self.job.item.held.add(memory_of_validation_retry(prompt));
                    // The deadline of the step includes its validation retries.
                    self.send(step, prompt.clone(), deadline, true);
                }
                FollowUp::ValidationRetry
            }
        };
        self.end_request(RequestEnded { follow_up, ..ended }, &check, Some(&target)).await;
        match &check {
            AnswerCheck::Accepted => self.publish(step, bytes),
            AnswerCheck::Failed(_) => drop(self.leading.remove(&step)),
            AnswerCheck::Retry(_) => {}
        }
    }

    /// Keeps the reasoning of an answer with the attempt that returned it, and accounts for its memory.
    fn keep_reasoning(&self, completion: &Completion, attempts: &mut AttemptLog) {
        let reasoning = completion.reasoning();
        if !reasoning.is_empty() {
            self.job.item.held.add(reasoning.len());
            attempts.set_reasoning(reasoning.into());
        }
    }

    /// Validates and records a response; `None` if the run stopped before it was validated.
    async fn check_response(&mut self, step: usize, text: &str, deadline: Instant) -> Option<AnswerCheck> {
        let limits = CheckLimits { deadline, stop: self.job.stop.clone() };
        let checking = check_answer(&self.job.pipeline, step, text, limits);
        match self.in_flight.poll_while(checking).await {
            Ok(checked) => Some(self.state.record_checked_response(step, text, checked)),
            Err(CheckError::Failed(failure)) => {
                self.state.record_failure(step, failure.clone());
                Some(AnswerCheck::Failed(failure))
            }
            Err(CheckError::Stopped) => None,
        }
    }

    /// Records a failure whose cause is the item or its request.
    async fn handle_failure(&mut self, step: usize, error: RequestError) {
        let RequestError { failure, target, attempts, resends, .. } = error;
        let failure = with_target(with_rejections(failure, &attempts), target.as_ref());
        self.state.record_failure(step, failure.clone());
        self.leading.remove(&step);
        let ended = RequestEnded::failed(step, attempts, resends);
        self.end_request(ended, &AnswerCheck::Failed(failure), None).await;
    }

    /// Counts a request and stores its result. Requests that follow need only durable answers, so this waits until
    /// it is durable. The last answer is stored with the final record.
    async fn end_request(
        &mut self,
        mut ended: RequestEnded,
        check: &AnswerCheck,
        target: Option<&TargetName>,
    ) {
        let step = ended.step;
        let log = self.state.data_mut(step);
        log.add_attempts(&ended.attempts, ended.simulated);
        if ended.follow_up == FollowUp::Nothing {
            ended.step_duration = log.started.map(|started| started.elapsed());
            log.end_span(match check {
                AnswerCheck::Failed(failure) => Some(failure.class),
                AnswerCheck::Accepted | AnswerCheck::Retry(_) => None,
            });
        }
        self.run.request_ended.do_send(ended);
        self.requests += 1;
        let storing = store_result(&mut self.state, &self.job, step, check, target);
        if let Err(error) = self.in_flight.poll_while(storing).await {
            self.run.ledger_failed.do_send(LedgerFailed(error));
            // The run aborts its items.
            std::future::pending::<()>().await;
        }
    }

    fn finish(self) -> ItemResult {
        ItemResult::new(self.state.finish(), self.started.elapsed(), self.requests)
    }
}

/// Returns why an item that was waiting when its run stopped is unfinished.
fn stopped(meanwhile: &str) -> Box<Failure> {
    Box::new(Failure::new(Class::Cancelled, format!("the run stopped while {meanwhile}")))
}

/// Adds why no target accepted the request, if its deadline passed before any did.
fn with_rejections(failure: Failure, attempts: &AttemptLog) -> Failure {
    if failure.class != Class::Deadline {
        return failure;
    }
    let mut rejections = Vec::new();
    for attempt in &attempts.0 {
        if let types::Outcome::Refused(why) = &attempt.outcome {
            let rejection = format!("{}: {why}", attempt.target);
            if !rejections.contains(&rejection) {
                rejections.push(rejection);
            }
        }
    }
    if rejections.is_empty() {
        return failure;
    }
    Failure { message: format!("{}; {}", failure.message, rejections.join(", ")).into(), ..failure }
}

/// Adds the target to the failure, if it is the failure of a single target. If the route has several targets,
/// or no attempt was sent, the line does not name it elsewhere.
fn with_target(failure: Failure, target: Option<&TargetName>) -> Failure {
    match target {
        Some(target) => Failure { message: format!("{target}: {}", failure.message).into(), ..failure },
        None => failure,
    }
}

/// Returns the prompt of `request` with all its attachments, and the files that were read for it.
async fn attach(
    state: &mut ItemState<StepLog>,
    request: &StepRequest,
    protected: &Arc<ProtectedFiles>,
) -> Result<(Arc<Prompt>, Vec<FileStamp>), Failure> {
    if request.attachments.is_empty() {
        return Ok((request.prompt.clone(), Vec::new()));
    }
    let (parts, files) = load_all(&request.attachments, protected).await?;
    Ok((state.attach(request.step, parts).unwrap_or_else(|| request.prompt.clone()), files))
}
