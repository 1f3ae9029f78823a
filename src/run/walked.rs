//! How an item ended, and what each of its steps took.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::{Map, Value};

use super::item::Job;
use super::steps::Steps;
use crate::pipeline::walk::{Settled, StepEnd};
use crate::store::{FileStamp, KnownStep, StepState};
use crate::types::{Attempt, Failure, Fingerprint, ItemStatus, NanoUsd, Trail};

/// How an item ended, and what it took.
#[derive(Debug)]
pub(super) struct Walked {
    pub(super) settled: Settled,
    /// What every step took, re-asks included.
    pub(super) spent: Vec<Spent>,
    pub(super) took: Duration,
    /// Questions that came back.
    pub(super) questions: u64,
}

/// What one step took.
#[derive(Debug, Clone, Default)]
pub(super) struct Spent {
    pub(super) trail: Trail,
    /// What earlier sessions attempted.
    pub(super) before: Trail,
    /// Whether a played provider answered.
    pub(super) practice: bool,
    /// What shaped the answer, where it is kept.
    pub(super) shaped: Option<Fingerprint>,
    /// Whether all this is durable already.
    pub(super) kept: bool,
    /// The earlier session whose answer was valid still, where nothing was asked.
    pub(super) recalled: Option<i64>,
    /// The attempt that gave an answer that was recalled.
    pub(super) answered_by: Option<Attempt>,
    /// The files that were attached to the question.
    pub(super) files: Vec<FileStamp>,
}

impl Spent {
    /// Returns the attempt that gave the answer, if there is one.
    pub(super) fn answering(&self) -> Option<&Attempt> {
        self.answered_by.as_ref().or_else(|| self.trail.answering())
    }

    /// Returns every attempt that was ever made.
    pub(super) fn whole_trail(&self) -> Cow<'_, Trail> {
        if self.before.0.is_empty() {
            return Cow::Borrowed(&self.trail);
        }
        Cow::Owned(Trail(self.before.0.iter().chain(&self.trail.0).cloned().collect()))
    }

    /// Takes over what is known of an answer instead of asking. Where a record of this session has it, that stands;
    /// any other is recorded again with the settlement.
    pub(super) fn recall(&mut self, known: &KnownStep, is_of_this_session: bool) {
        self.practice = known.record.practice;
        self.shaped = known.record.shaped;
        self.kept = is_of_this_session;
        self.recalled = (!is_of_this_session).then(|| known.record.recalled.unwrap_or(known.session));
        self.answered_by.clone_from(&known.answered_by);
    }
}

impl Walked {
    /// Returns what is known of its cost.
    pub(super) fn cost(&self) -> NanoUsd {
        let attempts = self.spent.iter().flat_map(|spent| &spent.trail.0);
        attempts.filter_map(|attempt| attempt.cost).fold(NanoUsd(0), |sum, cost| sum + cost)
    }

    /// Makes the end of an item whose actor died for good. A step that had ended in an earlier life keeps its end, as
    /// far as answers are kept.
    pub(super) fn died(job: &Job, failure: Failure, took: Duration) -> Self {
        let mut spent = Steps::new(job).spent;
        let mut steps = Vec::with_capacity(spent.len());
        let mut answers = Map::with_capacity(spent.len());
        for (step, spent) in job.pipeline.steps().iter().zip(&mut spent) {
            let mut answer = Value::Null;
            let mut end = StepEnd::Unfinished;
            if let Some((kept, known)) =
                job.kept.as_ref().and_then(|kept| Some((kept, kept.ended(&step.name)?)))
            {
                spent.recall(&known, kept.is_of_this_session(&known));
                spent.files = known.record.files;
                (end, answer) = match (known.record.state, known.record.failure) {
                    (StepState::Answered, _) => (StepEnd::Answered, known.record.answer),
                    (StepState::Failed, Some(failure)) => (StepEnd::Failed(failure), Value::Null),
                    (StepState::Skipped, _) => (StepEnd::Skipped, Value::Null),
                    (StepState::Failed | StepState::Open, _) => (StepEnd::Unfinished, Value::Null),
                };
            }
            answers.insert(step.name.to_string(), answer);
            steps.push(end);
        }
        let died_at = steps.iter().position(|end| *end == StepEnd::Unfinished).unwrap_or_default();
        let error = job.pipeline.steps().get(died_at).map(|step| (step.name.clone(), failure));
        let settled = Settled { status: ItemStatus::Failed, answers, error, steps };
        Self { settled, spent, took, questions: 0 }
    }
}
