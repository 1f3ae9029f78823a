//! Takes one item through its pipeline: says what to ask next, and is told what came back.
//!
//! Every step is asked at most once (its re-asks aside), after all it needs. Sends nothing, waits for
//! nothing, and whatever it is told, it does not panic.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::types::{Class, Failure, ItemStatus, Part, Prompt, StepName};

use super::ask::{Ask, Due, Next, Undecided, with_parts};
use super::definition::Pipeline;
use super::meter::Allowance;
use super::reask::{NoReask, ask_again, refused};
use super::template::{Input, Scope};

/// One item on its way.
///
/// Call [`due`](Self::due) first and after every [`answered`](Self::answered) or
/// [`failed`](Self::failed), until it [is settled](Self::is_settled).
#[derive(Debug)]
pub struct Walk {
    pipeline: Arc<Pipeline>,
    scope: Arc<Scope>,
    states: Vec<State>,
    /// The step whose failure is the item's.
    broken: Option<usize>,
}

#[derive(Debug)]
enum State {
    Waiting,
    /// With its first prompt, attachments included.
    Asked {
        prompt: Arc<Prompt>,
        refusals: u32,
    },
    Answered(Value),
    Skipped,
    Failed(Failure),
}

/// How an item ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Settled {
    /// In one word.
    pub status: ItemStatus,
    /// Every step's answer in the order of the file; null where there is none.
    pub answers: Map<String, Value>,
    /// What failed the item.
    pub error: Option<(StepName, Failure)>,
    /// How every step ended, in the order of the file.
    pub steps: Vec<StepEnd>,
}

/// How a step ended for one item.
#[derive(Debug, Clone, PartialEq)]
pub enum StepEnd {
    /// With an answer.
    Answered,
    /// Its condition was false.
    Skipped,
    /// It failed.
    Failed(Failure),
    /// It was not asked, or its answer was not waited for, because the item had failed.
    Unfinished,
}

impl Walk {
    /// Starts an item on its way.
    pub fn new(pipeline: Arc<Pipeline>, item: &Value) -> Self {
        Self::with(pipeline, Arc::new(item.clone()))
    }

    /// Starts an item that is shared.
    pub(crate) fn with(pipeline: Arc<Pipeline>, item: Arc<dyn Input>) -> Self {
        let scope = Arc::new(Scope::new(pipeline.names.clone(), item));
        let states = pipeline.steps.iter().map(|_| State::Waiting).collect();
        Self { pipeline, scope, states, broken: None }
    }

    /// Returns what to ask now: every step that is due and was not asked yet. A template may take seconds.
    pub fn due(&mut self) -> Vec<Ask> {
        self.due_within(Allowance::WHOLE).unwrap_or_default()
    }

    /// Returns what to ask now, if that takes so little time that an actor's thread can wait for it. Otherwise
    /// nothing has changed, and [`due`](Self::due) belongs on a thread of its own.
    pub(crate) fn due_briefly(&mut self) -> Option<Vec<Ask>> {
        self.due_within(Allowance::BRIEF)
    }

    /// Returns what to ask now, on a thread of its own; `None` where that was cancelled, and nothing has changed.
    pub(crate) fn due_unless_cancelled(&mut self) -> Option<Vec<Ask>> {
        self.due_within(Allowance::WHOLE)
    }

    /// Returns how long the steps that are due can wait: the shortest of their deadlines.
    pub(crate) fn time_of_due(&self) -> Duration {
        let due = (0..self.states.len()).filter(|step| self.is_due(*step));
        let times = due.filter_map(|step| Some(self.pipeline.steps.get(step)?.deadline));
        times.min().unwrap_or(Duration::MAX)
    }

    /// Takes the news that the steps that are due waited for that long, and were not asked.
    pub(crate) fn overdue(&mut self, waited: Duration) {
        for step in 0..self.states.len() {
            if self.is_due(step) && self.pipeline.steps.get(step).is_some_and(|step| step.deadline <= waited)
            {
                let why = "the deadline passed while the step waited for its templates to be filled: other large \
                           templates took too long";
                self.end(step, State::Failed(Failure::new(Class::Deadline, why)));
            }
        }
    }

    fn due_within(&mut self, allowance: Allowance) -> Option<Vec<Ask>> {
        let mut asks = Vec::new();
        if self.broken.is_some() {
            return Some(asks);
        }
        let pipeline = self.pipeline.clone();
        // Each step comes after its needs, so one pass sees every step that a skipped one frees.
        for index in pipeline.graph.order().iter().copied() {
            if !self.is_due(index) {
                continue;
            }
            let Some(step) = pipeline.steps.get(index) else { continue };
            let scope = self.scope.view(pipeline.graph.needs(index));
            match pipeline.decide(index, step, &scope, allowance) {
                Ok(Due::Skipped) => self.end(index, State::Skipped),
                Ok(Due::Asked(ask)) => {
                    self.states[index] = State::Asked { prompt: ask.prompt.clone(), refusals: 0 };
                    asks.push(ask);
                }
                Err(Undecided::Failed(failure)) => self.end(index, State::Failed(failure)),
                Err(Undecided::TooLong) => {
                    asks.iter().for_each(|ask| self.states[ask.step] = State::Waiting);
                    return None;
                }
            }
            if self.broken.is_some() {
                // What is not sent yet need not be paid for.
                asks.iter().for_each(|ask| self.states[ask.step] = State::Waiting);
                return Some(Vec::new());
            }
        }
        Some(asks)
    }

    /// Adds loaded attachments to a step that is being asked, and returns the whole question. `None`
    /// when the step is not being asked.
    pub fn attach(&mut self, step: usize, parts: Vec<Part>) -> Option<Arc<Prompt>> {
        let Some(State::Asked { prompt, .. }) = self.states.get_mut(step) else { return None };
        with_parts(prompt, parts);
        Some(prompt.clone())
    }

    /// Checks the model's reply to a step that is being asked, and takes it.
    pub fn answered(&mut self, step: usize, text: &str) -> Next {
        let checked = self.pipeline.check_answer(step, text);
        self.checked(step, text, checked)
    }

    /// Takes the model's reply to a step that is being asked, with what its check has come to.
    pub(crate) fn checked(&mut self, step: usize, text: &str, checked: Result<Value, String>) -> Next {
        let pipeline = self.pipeline.clone();
        let asked = (self.states.get_mut(step), pipeline.steps.get(step));
        let (Some(State::Asked { prompt, refusals }), Some(definition)) = asked else {
            return Next::Failed(Failure::new(
                Class::Internal,
                "an answer came for a step that was not asked",
            ));
        };
        let reason = match checked {
            Ok(answer) => {
                self.end(step, State::Answered(answer));
                return Next::Accepted;
            }
            Err(reason) => reason,
        };
        let why = if *refusals < definition.reasks {
            if let Some(again) = ask_again(prompt, definition, text, &reason) {
                *refusals += 1;
                return Next::Reask(again);
            }
            NoReask::TooLong
        } else {
            NoReask::Used
        };
        let failure = refused(definition, text, &reason, refusals.saturating_add(1), why);
        self.end(step, State::Failed(failure.clone()));
        Next::Failed(failure)
    }

    /// Takes an answer that the step had before, to the same question; it was checked then.
    pub fn recalled(&mut self, step: usize, answer: Value) {
        if let Some(State::Asked { .. }) = self.states.get(step) {
            self.end(step, State::Answered(answer));
        }
    }

    /// Takes the news that a step failed. A step that has ended already stays as it is.
    pub fn failed(&mut self, step: usize, failure: Failure) {
        if let Some(State::Waiting | State::Asked { .. }) = self.states.get(step) {
            self.end(step, State::Failed(failure));
        }
    }

    /// Returns the answer of a step that has one.
    pub fn answer(&self, step: usize) -> Option<&Value> {
        match self.states.get(step) {
            Some(State::Answered(answer)) => Some(answer),
            _ => None,
        }
    }

    /// Returns whether nothing is being asked and nothing will be.
    pub fn is_settled(&self) -> bool {
        self.states.iter().all(|state| match state {
            State::Asked { .. } => false,
            State::Waiting => self.broken.is_some(),
            State::Answered(_) | State::Skipped | State::Failed(_) => true,
        })
    }

    /// Returns the places of the steps that are being asked.
    pub fn asked(&self) -> impl Iterator<Item = usize> + '_ {
        let asked = |(index, state): (usize, &State)| matches!(state, State::Asked { .. }).then_some(index);
        self.states.iter().enumerate().filter_map(asked)
    }

    /// Ends the way. A walk that is not settled has failed, as cancelled.
    pub fn settle(self) -> Settled {
        let is_settled = self.is_settled();
        let names = self.pipeline.names.clone();
        let mut answers = Map::with_capacity(names.len());
        let mut steps = Vec::with_capacity(names.len());
        for (name, state) in names.iter().zip(self.states) {
            let (answer, end) = match state {
                State::Answered(answer) => (answer, StepEnd::Answered),
                State::Skipped => (Value::Null, StepEnd::Skipped),
                State::Failed(failure) => (Value::Null, StepEnd::Failed(failure)),
                State::Waiting | State::Asked { .. } => (Value::Null, StepEnd::Unfinished),
            };
            answers.insert(name.as_str().to_owned(), answer);
            steps.push(end);
        }
        let error = match self.broken {
            Some(broken) => error_of(&names, &steps, broken),
            None if !is_settled => cancelled(&names, &steps),
            None => None,
        };
        let status = match &error {
            Some(_) => ItemStatus::Failed,
            None if steps.iter().all(|end| *end == StepEnd::Skipped) => ItemStatus::Skipped,
            None => ItemStatus::Completed,
        };
        Settled { status, answers, error, steps }
    }

    fn is_due(&self, step: usize) -> bool {
        let is_met = |need: &usize| {
            matches!(self.states.get(*need), Some(State::Answered(_) | State::Skipped | State::Failed(_)))
        };
        matches!(self.states.get(step), Some(State::Waiting))
            && self.pipeline.graph.needs(step).iter().all(is_met)
    }

    fn end(&mut self, step: usize, end: State) {
        let optional = self.pipeline.steps.get(step).is_some_and(|step| step.optional);
        if matches!(end, State::Failed(_)) && !optional && self.broken.is_none() {
            self.broken = Some(step);
        }
        if self.pipeline.graph.is_needed(step) {
            let answer = if let State::Answered(answer) = &end { answer } else { &Value::Null };
            self.scope.answer(step, answer);
        }
        if let Some(state) = self.states.get_mut(step) {
            *state = end;
        }
    }
}

fn error_of(names: &[StepName], steps: &[StepEnd], broken: usize) -> Option<(StepName, Failure)> {
    match (names.get(broken), steps.get(broken)) {
        (Some(name), Some(StepEnd::Failed(failure))) => Some((name.clone(), failure.clone())),
        _ => None,
    }
}

fn cancelled(names: &[StepName], steps: &[StepEnd]) -> Option<(StepName, Failure)> {
    let unfinished = steps.iter().position(|end| *end == StepEnd::Unfinished)?;
    let failure = Failure::new(Class::Cancelled, "the item was stopped before its last step");
    Some((names.get(unfinished)?.clone(), failure))
}
