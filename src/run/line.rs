//! Makes the output line of an item that has settled, and the reject of one that cannot be processed.

use serde_json::{Map, Value};

use super::item::Job;
use super::walked::{Spent, Walked};
use crate::pipeline::walk::StepEnd;
use crate::sink::{Line, LineError, RejectLine, StepLine};
use crate::source;
use crate::store::{KnownItem, StepState};
use crate::types::{Attempt, Failure, StepName, Trail};

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
///
/// The records of the session that settled it say how its steps ended: a step without one was not reached, whatever
/// earlier sessions had. What all sessions until then attempted is counted.
pub(super) fn earlier<'a>(
    steps: impl ExactSizeIterator<Item = &'a StepName>,
    known: &KnownItem,
    number: u64,
) -> Option<Line> {
    let settled = known.settled.as_ref()?;
    let mut answers = Map::with_capacity(steps.len());
    let steps = steps.map(|step| {
        let until = |session: i64| settled.session.is_none_or(|settling| session <= settling);
        let all = || known.steps.iter().filter(|known| known.record.step == *step && until(known.session));
        let trail = Trail(all().flat_map(|known| known.record.trail.0.iter().cloned()).collect());
        // Where an earlier version did not say which session settled it, the last record of each step counts.
        let is_last = |session: i64| settled.session.is_none_or(|settling| session == settling);
        let end = all().next_back().filter(|known| is_last(known.session));
        let practice = end.is_some_and(|end| end.record.practice);
        let line = match end.map(|end| (end.record.state, &end.record.failure)) {
            Some((StepState::Answered, _)) => {
                completed(&trail, end.and_then(|end| end.answered_by.as_ref()), practice)
            }
            Some((StepState::Failed, Some(failure))) => StepLine::failed(&trail, failure, practice),
            Some((StepState::Skipped, _)) => StepLine::skipped(),
            Some((StepState::Failed | StepState::Open, _)) | None => StepLine::unfinished(&trail),
        };
        let answered = end.filter(|end| end.record.state == StepState::Answered);
        let answer = answered.map_or(Value::Null, |end| end.record.answer.clone());
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
        StepEnd::Answered => completed(&spent.whole_trail(), spent.answering(), spent.practice),
        StepEnd::Failed(failure) => StepLine::failed(&spent.whole_trail(), failure, spent.practice),
        StepEnd::Skipped => StepLine::skipped(),
        StepEnd::Unfinished => StepLine::unfinished(&spent.whole_trail()),
    }
}

/// Makes the line of a step that has an answer: it names who gave that, also where others were asked afterwards.
fn completed(trail: &Trail, answered_by: Option<&Attempt>, practice: bool) -> StepLine {
    let line = StepLine::completed(trail, practice);
    match answered_by {
        Some(attempt) => line.answered_by(attempt),
        None => line,
    }
}

/// Characters of a rejected item that are kept.
const REJECTED_CHARACTERS: usize = 2_000;

/// Makes the reject line of a piece of the input that was no valid item.
pub(super) fn reject_line(reject: source::Reject) -> RejectLine {
    let source::Reject { line, reason, text, key } = reject;
    RejectLine { line, reason, key, text }
}

/// Makes the reject of an item that cannot be processed.
pub(super) fn rejected(item: &source::Item, reason: String) -> RejectLine {
    let text: String = item.value.to_string().chars().take(REJECTED_CHARACTERS).collect();
    RejectLine { line: item.line, reason, key: Some(item.key.clone()), text }
}

/// Most bytes of what a model had said that a line holds: a line is for people and programs that look for the reason.
const MAX_SAID: usize = 8 << 10;

/// Keeps what the model had said, where a check or a limit made it a failure: it was paid for. The store has all of it.
fn with_text(failure: &Failure) -> String {
    let Some(text) = &failure.text else { return failure.message.to_string() };
    let said = &text[..text.floor_char_boundary(MAX_SAID)];
    match text.len() - said.len() {
        0 => format!("{}; it said: {said}", failure.message),
        left_out => format!("{}; it said: {said}… ({left_out} more bytes are left out)", failure.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Class;

    #[test]
    fn a_long_refused_answer_is_cut_in_a_line_and_the_rest_is_counted() {
        let said = |text: &str| with_text(&Failure::new(Class::ValidationError, "refused").with_text(text));
        assert_eq!(said("short"), "refused; it said: short");
        assert_eq!(said(&"a".repeat(8192)), format!("refused; it said: {}", "a".repeat(8192)));
        let cut = said(&format!("a{}", "é".repeat(10_000)));
        let kept = "é".repeat(4095);
        assert_eq!(cut, format!("refused; it said: a{kept}… (11810 more bytes are left out)"));
    }
}
