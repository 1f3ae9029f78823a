//! Makes the output line of an item that has settled.

use crate::types::Failure;

use super::item::{Job, Spent, Walked};
use crate::pipeline::sink::{Line, LineError, StepLine};
use crate::pipeline::walk::StepEnd;

pub(super) fn line(job: &Job, walked: &Walked) -> Line {
    let ends = walked.settled.steps.iter().zip(&walked.spent);
    let steps = job
        .pipeline
        .steps()
        .iter()
        .zip(ends)
        .map(|(step, (end, spent))| (step.name.clone(), of_step(end, spent)));
    let mut line =
        Line::new(job.item.key.clone(), job.item.line, walked.settled.status, walked.took, steps.collect());
    line.answers = walked.settled.answers.clone();
    line.error = walked.settled.error.as_ref().map(|(step, failure)| LineError {
        class: failure.class,
        step: Some(step.clone()),
        message: with_text(failure),
    });
    line
}

fn of_step(end: &StepEnd, spent: &Spent) -> StepLine {
    match end {
        StepEnd::Answered => StepLine::completed(&spent.trail, spent.practice),
        StepEnd::Failed(failure) => StepLine::failed(&spent.trail, failure, spent.practice),
        StepEnd::Skipped => StepLine::skipped(),
        StepEnd::Unfinished => StepLine::unfinished(&spent.trail),
    }
}

/// Keeps what the model had said, where a check or a limit made it a failure: it was paid for.
fn with_text(failure: &Failure) -> String {
    match &failure.text {
        Some(text) => format!("{}; it said: {text}", failure.message),
        None => failure.message.to_string(),
    }
}
