//! State machine of one item in its pipeline: returns the requests to send next, and records their responses.
//!
//! The request of each step is returned at most once, after all steps that it needs; validation retries follow it.
//! Pure: sends nothing and waits for nothing. No input makes it panic.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::types::{Class, Failure, ItemStatus, Part, Prompt, StepName};

use super::definition::{Pipeline, Step};
use super::meter::Allowance;
use super::step_request::{AnswerCheck, DecisionError, StepDecision, StepRequest, prepend_parts};
use super::template::{ItemHolder, Scope};
use super::validation_retry::{NoRetryReason, retry_prompt, validation_failure};

/// The state of one item in its pipeline. The caller may keep data of its own, `D`, for each step.
///
/// Call [`ready_steps`](Self::ready_steps) first, and after each [`record_response`](Self::record_response) or
/// [`record_failure`](Self::record_failure), until [`is_finished`](Self::is_finished) returns `true`.
#[derive(Debug)]
pub struct ItemState<D = ()> {
    pipeline: Arc<Pipeline>,
    scope: Arc<Scope>,
    /// In the order of the file.
    steps: Vec<StepProgress<D>>,
    /// The required step whose failure made the item fail.
    failed_step: Option<usize>,
}

/// One step of the item.
#[derive(Debug)]
struct StepProgress<D> {
    state: StepState,
    data: D,
}

#[derive(Debug)]
enum StepState {
    /// Its request was not returned yet.
    Waiting,
    /// Its request was returned. With the first prompt, attachments included.
    InFlight {
        prompt: Arc<Prompt>,
        rejected_responses: u32,
    },
    Answered(Value),
    Skipped,
    Failed(Failure),
}

/// The outcome of an item.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemOutcome<D = ()> {
    /// Whether the item completed, was skipped or failed.
    pub status: ItemStatus,
    /// The failure of the item, and its step.
    pub error: Option<(StepName, Failure)>,
    /// The end of each step, in the order of the file.
    pub steps: Vec<StepEnd<D>>,
}

/// How a step ended for one item.
#[derive(Debug, Clone, PartialEq)]
pub struct StepEnd<D = ()> {
    /// The step.
    pub name: StepName,
    /// Its outcome.
    pub outcome: StepOutcome,
    /// Its answer; null if it has none.
    pub answer: Value,
    /// The caller's data.
    pub data: D,
}

/// The outcome of a step for one item.
#[derive(Debug, Clone, PartialEq)]
pub enum StepOutcome {
    /// It has an answer.
    Answered,
    /// Its condition was false.
    Skipped,
    /// It failed.
    Failed(Failure),
    /// Its request was not sent, or its response was not awaited, because the item had failed.
    Unfinished,
}

impl ItemState {
    /// Creates the state of `item`.
    pub fn new(pipeline: Arc<Pipeline>, item: &Value) -> Self {
        Self::from_shared(pipeline, Arc::new(item.clone()), |_| ())
    }
}

impl<D> ItemState<D> {
    /// Creates the state of a shared item, with `data` for each step.
    pub(crate) fn from_shared(
        pipeline: Arc<Pipeline>,
        item: Arc<dyn ItemHolder>,
        data: impl Fn(&Step) -> D,
    ) -> Self {
        let scope = Arc::new(Scope::new(pipeline.names.clone(), item));
        let waiting = |step: &Step| StepProgress { state: StepState::Waiting, data: data(step) };
        let steps = pipeline.steps.iter().map(waiting).collect();
        Self { pipeline, scope, steps, failed_step: None }
    }

    /// Returns the caller's data of a step.
    pub(crate) fn data_mut(&mut self, step: usize) -> &mut D {
        &mut self.steps[step].data
    }

    /// Returns the requests of all steps that are ready and were not returned before. Rendering the templates may
    /// take seconds.
    pub fn ready_steps(&mut self) -> Vec<StepRequest> {
        self.ready_steps_within(Allowance::MAX).unwrap_or_default()
    }

    /// Like [`ready_steps`](Self::ready_steps), if that is fast enough for an actor's thread. Otherwise returns
    /// `None` and changes nothing; then call [`ready_steps`](Self::ready_steps) on another thread.
    pub(crate) fn ready_steps_if_quick(&mut self) -> Option<Vec<StepRequest>> {
        self.ready_steps_within(Allowance::QUICK)
    }

    /// Like [`ready_steps`](Self::ready_steps), on a thread whose work can be cancelled. Returns `None` and
    /// changes nothing if it was cancelled.
    pub(crate) fn ready_steps_unless_cancelled(&mut self) -> Option<Vec<StepRequest>> {
        self.ready_steps_within(Allowance::MAX)
    }

    /// Returns the shortest deadline of the steps that are ready.
    pub(crate) fn shortest_ready_deadline(&self) -> Duration {
        let ready = (0..self.steps.len()).filter(|step| self.is_ready(*step));
        let deadlines = ready.filter_map(|step| Some(self.pipeline.steps.get(step)?.deadline));
        deadlines.min().unwrap_or(Duration::MAX)
    }

    /// Fails the ready steps whose deadline is at most `waited`: they waited that long before their requests were
    /// rendered.
    pub(crate) fn fail_overdue_steps(&mut self, waited: Duration) {
        for step in 0..self.steps.len() {
            if self.is_ready(step)
                && self.pipeline.steps.get(step).is_some_and(|step| step.deadline <= waited)
            {
                let message = "the deadline passed before the step's templates were rendered: other large \
                               templates took too long";
                self.finish_step(step, StepState::Failed(Failure::new(Class::Deadline, message)));
            }
        }
    }

    fn ready_steps_within(&mut self, allowance: Allowance) -> Option<Vec<StepRequest>> {
        let mut requests = Vec::new();
        if self.failed_step.is_some() {
            return Some(requests);
        }
        let pipeline = self.pipeline.clone();
        // The order is topological, so one pass also finds the steps that become ready because another is skipped.
        for index in pipeline.graph.order().iter().copied() {
            if !self.is_ready(index) {
                continue;
            }
            let Some(step) = pipeline.steps.get(index) else { continue };
            let scope = self.scope.view(pipeline.graph.needs(index));
            match pipeline.decide(index, step, &scope, allowance) {
                Ok(StepDecision::Skip) => self.finish_step(index, StepState::Skipped),
                Ok(StepDecision::Request(request)) => {
                    self.steps[index].state =
                        StepState::InFlight { prompt: request.prompt.clone(), rejected_responses: 0 };
                    requests.push(request);
                }
                Err(DecisionError::Failed(failure) | DecisionError::Undefined { failure, .. }) => {
                    self.finish_step(index, StepState::Failed(failure));
                }
                Err(DecisionError::AllowanceExceeded) => {
                    self.withdraw(&requests);
                    return None;
                }
            }
            if self.failed_step.is_some() {
                // The item has failed. Requests that are not sent cost nothing.
                self.withdraw(&requests);
                return Some(Vec::new());
            }
        }
        Some(requests)
    }

    /// Records that these requests are not returned.
    fn withdraw(&mut self, requests: &[StepRequest]) {
        requests.iter().for_each(|request| self.steps[request.step].state = StepState::Waiting);
    }

    fn state(&self, step: usize) -> Option<&StepState> {
        self.steps.get(step).map(|step| &step.state)
    }

    fn state_mut(&mut self, step: usize) -> Option<&mut StepState> {
        self.steps.get_mut(step).map(|step| &mut step.state)
    }

    /// Adds loaded attachments to the prompt of a step in flight, and returns the complete prompt. `None` if the
    /// step is not in flight.
    pub fn attach(&mut self, step: usize, parts: Vec<Part>) -> Option<Arc<Prompt>> {
        let Some(StepState::InFlight { prompt, .. }) = self.state_mut(step) else { return None };
        prepend_parts(prompt, parts);
        Some(prompt.clone())
    }

    /// Validates and records the response to a step in flight.
    pub fn record_response(&mut self, step: usize, text: &str) -> AnswerCheck {
        let validated = self.pipeline.validate_response(step, text);
        self.record_checked_response(step, text, validated)
    }

    /// Records the response to a step in flight, with the result of its validation.
    pub(crate) fn record_checked_response(
        &mut self,
        step: usize,
        text: &str,
        validated: Result<Value, String>,
    ) -> AnswerCheck {
        let pipeline = self.pipeline.clone();
        let in_flight = (self.state_mut(step), pipeline.steps.get(step));
        let (Some(StepState::InFlight { prompt, rejected_responses }), Some(definition)) = in_flight else {
            return AnswerCheck::Failed(Failure::new(
                Class::Internal,
                "a response was recorded for a step that is not in flight",
            ));
        };
        let reason = match validated {
            Ok(answer) => {
                self.finish_step(step, StepState::Answered(answer));
                return AnswerCheck::Accepted;
            }
            Err(reason) => reason,
        };
        let no_retry = if *rejected_responses < definition.max_validation_retries {
            if let Some(retry) = retry_prompt(prompt, definition, text, &reason) {
                *rejected_responses += 1;
                return AnswerCheck::Retry(retry);
            }
            NoRetryReason::PromptTooLong
        } else {
            NoRetryReason::RetriesExhausted
        };
        let failure =
            validation_failure(definition, text, &reason, rejected_responses.saturating_add(1), no_retry);
        self.finish_step(step, StepState::Failed(failure.clone()));
        AnswerCheck::Failed(failure)
    }

    /// Records a stored answer to the same request. It was validated before it was stored.
    pub fn restore(&mut self, step: usize, answer: Value) {
        if let Some(StepState::InFlight { .. }) = self.state(step) {
            self.finish_step(step, StepState::Answered(answer));
        }
    }

    /// Records the failure of a step. A step that has already ended does not change.
    pub fn record_failure(&mut self, step: usize, failure: Failure) {
        if let Some(StepState::Waiting | StepState::InFlight { .. }) = self.state(step) {
            self.finish_step(step, StepState::Failed(failure));
        }
    }

    /// Returns the answer of a step, if it has one.
    pub fn answer(&self, step: usize) -> Option<&Value> {
        match self.state(step) {
            Some(StepState::Answered(answer)) => Some(answer),
            _ => None,
        }
    }

    /// Returns whether no step is in flight and no further request will be returned.
    pub fn is_finished(&self) -> bool {
        self.steps.iter().all(|step| match &step.state {
            StepState::InFlight { .. } => false,
            StepState::Waiting => self.failed_step.is_some(),
            StepState::Answered(_) | StepState::Skipped | StepState::Failed(_) => true,
        })
    }

    /// Returns the indices of the steps that are in flight.
    pub fn in_flight_steps(&self) -> impl Iterator<Item = usize> + '_ {
        let in_flight = |(index, step): (usize, &StepProgress<D>)| {
            matches!(step.state, StepState::InFlight { .. }).then_some(index)
        };
        self.steps.iter().enumerate().filter_map(in_flight)
    }

    /// Returns the outcome of the item. If it is not finished, it failed as cancelled.
    pub fn finish(self) -> ItemOutcome<D> {
        let is_finished = self.is_finished();
        let names = self.pipeline.names.iter().cloned();
        let steps: Vec<_> = names.zip(self.steps).map(|(name, step)| step.end(name)).collect();
        let error = match self.failed_step {
            Some(step) => step_error(&steps, step),
            None if !is_finished => cancellation_error(&steps),
            None => None,
        };
        let status = match &error {
            Some(_) => ItemStatus::Failed,
            None if steps.iter().all(|step| step.outcome == StepOutcome::Skipped) => ItemStatus::Skipped,
            None => ItemStatus::Completed,
        };
        ItemOutcome { status, error, steps }
    }

    fn is_ready(&self, step: usize) -> bool {
        let has_ended = |need: &usize| {
            matches!(
                self.state(*need),
                Some(StepState::Answered(_) | StepState::Skipped | StepState::Failed(_))
            )
        };
        matches!(self.state(step), Some(StepState::Waiting))
            && self.pipeline.graph.needs(step).iter().all(has_ended)
    }

    /// Sets the final state of a step, and makes its answer available to the steps that need it.
    fn finish_step(&mut self, step: usize, outcome: StepState) {
        let is_optional = self.pipeline.steps.get(step).is_some_and(|step| step.optional);
        if matches!(outcome, StepState::Failed(_)) && !is_optional && self.failed_step.is_none() {
            self.failed_step = Some(step);
        }
        if self.pipeline.graph.is_needed(step) {
            let answer = if let StepState::Answered(answer) = &outcome { answer } else { &Value::Null };
            self.scope.set_answer(step, answer);
        }
        if let Some(state) = self.state_mut(step) {
            *state = outcome;
        }
    }
}

impl<D> StepProgress<D> {
    /// Returns the end of the step, which has this name.
    fn end(self, name: StepName) -> StepEnd<D> {
        let (outcome, answer) = match self.state {
            StepState::Answered(answer) => (StepOutcome::Answered, answer),
            StepState::Skipped => (StepOutcome::Skipped, Value::Null),
            StepState::Failed(failure) => (StepOutcome::Failed(failure), Value::Null),
            StepState::Waiting | StepState::InFlight { .. } => (StepOutcome::Unfinished, Value::Null),
        };
        StepEnd { name, outcome, answer, data: self.data }
    }
}

fn step_error<D>(steps: &[StepEnd<D>], step: usize) -> Option<(StepName, Failure)> {
    match steps.get(step) {
        Some(StepEnd { name, outcome: StepOutcome::Failed(failure), .. }) => {
            Some((name.clone(), failure.clone()))
        }
        _ => None,
    }
}

fn cancellation_error<D>(steps: &[StepEnd<D>]) -> Option<(StepName, Failure)> {
    let unfinished = steps.iter().find(|step| step.outcome == StepOutcome::Unfinished)?;
    let failure = Failure::new(Class::Cancelled, "the item was cancelled before its last step");
    Some((unfinished.name.clone(), failure))
}
