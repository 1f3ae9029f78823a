//! Makes the output line of an item that has settled.

use serde_json::{Map, Value};

use super::item::{Job, Spent, Walked};
use crate::pipeline::sink::{Line, LineError, StepLine};
use crate::pipeline::walk::StepEnd;
use crate::store::{KnownItem, StepState};
use crate::types::{Failure, StepName, Trail};

pub(super) fn line(job: &Job, walked: &Walked) -> Line {
    let ends = walked.settled.steps.iter().zip(&walked.spent);
    let steps = job.pipeline.steps().iter().zip(ends);
    let steps = steps.map(|(step, (end, spent))| (step.name.clone(), of_step(end, spent)));
    let status = walked.settled.status;
    let mut line = Line::new(job.item.key.clone(), job.item.line, status, walked.took, steps.collect());
    line.answers = walked.settled.answers.clone();
    line.error = walked.settled.error.as_ref().map(|(step, failure)| error(step, failure));
    line
}

/// Makes the line of an item that settled in an earlier session, as it was then, with the pipeline's `steps`; it
/// begins on `number` of the input now. `None` when it has not settled.
pub(super) fn earlier<'a>(
    steps: impl ExactSizeIterator<Item = &'a StepName>,
    known: &KnownItem,
    number: u64,
) -> Option<Line> {
    let settled = known.settled.as_ref()?;
    let mut answers = Map::with_capacity(steps.len());
    let steps = steps.map(|step| {
        let records = || known.steps.iter().filter(|record| record.step == *step);
        let trail = Trail(records().flat_map(|record| record.trail.0.iter().cloned()).collect());
        let practice = records().any(|record| record.practice);
        // An answer that was recalled stands where an earlier session put it.
        let answered = records().rev().find(|record| record.state == StepState::Answered);
        let end = answered.or_else(|| records().next_back());
        let line = match end.map(|record| (record.state, &record.failure)) {
            Some((StepState::Answered, _)) => StepLine::completed(&trail, practice),
            Some((StepState::Failed, Some(failure))) => StepLine::failed(&trail, failure, practice),
            Some((StepState::Skipped, _)) => StepLine::skipped(),
            Some((StepState::Failed | StepState::Open, _)) | None => StepLine::unfinished(&trail),
        };
        let answer = answered.map_or(Value::Null, |record| record.answer.clone());
        answers.insert(step.to_string(), answer);
        (step.clone(), line)
    });
    let steps = steps.collect();
    let mut line = Line::new(known.head.key.clone(), number, settled.status, settled.took, steps);
    line.answers = answers;
    line.error = settled.error.as_ref().map(|(step, failure)| error(step, failure));
    Some(line)
}

fn error(step: &StepName, failure: &Failure) -> LineError {
    LineError { class: failure.class, step: Some(step.clone()), message: with_text(failure) }
}

fn of_step(end: &StepEnd, spent: &Spent) -> StepLine {
    match end {
        StepEnd::Answered => StepLine::completed(&spent.whole_trail(), spent.practice),
        StepEnd::Failed(failure) => StepLine::failed(&spent.whole_trail(), failure, spent.practice),
        StepEnd::Skipped => StepLine::skipped(),
        StepEnd::Unfinished => StepLine::unfinished(&spent.whole_trail()),
    }
}

/// Keeps what the model had said, where a check or a limit made it a failure: it was paid for.
fn with_text(failure: &Failure) -> String {
    match &failure.text {
        Some(text) => format!("{}; it said: {text}", failure.message),
        None => failure.message.to_string(),
    }
}
