//! Creates the output line of a finished item, and the reject line of an item that cannot be processed.

use serde_json::{Map, Value};

use super::item_result::{ItemResult, StepResult};
use super::job::Job;
use super::stored_steps;
use crate::pipeline::item_state::StepOutcome;
use crate::sink::{Line, LineError, RejectLine, StepLine};
use crate::source;
use crate::store::{StepState, StoredItem};
use crate::types::{Attempt, AttemptLog, Failure, StepName};

/// Creates the line of an item that finished in this session, with its fields if the output needs them.
pub(super) fn line(job: &Job, result: &ItemResult, needs_item: bool) -> Line {
    let lines = result.steps.iter().map(|step| (step.name.clone(), step_line(step))).collect();
    let mut line = Line::new(job.item.key.clone(), job.item.line, result.status, result.took, lines);
    line.answers = result.steps.iter().map(|step| (step.name.to_string(), step.answer.clone())).collect();
    line.error = result.error.as_ref().map(|(step, failure)| line_error(step, failure));
    line.item = needs_item.then(|| job.item.value.clone());
    line
}

/// Creates the line of an item that finished in an earlier session, as it was then, with the pipeline's
/// `steps`. `number` is the line on which it begins in the current input. Returns `None` if it has not
/// finished.
///
/// The records of the session in which it finished determine how its steps ended: a step without such a record
/// was not reached, whatever earlier sessions had. The attempts of all sessions until then are counted.
pub(super) fn from_stored<'a>(
    steps: impl ExactSizeIterator<Item = &'a StepName>,
    stored: &StoredItem,
    number: u64,
) -> Option<Line> {
    let outcome = stored.outcome.as_ref()?;
    let mut answers = Map::with_capacity(steps.len());
    let steps = steps.map(|step| {
        let until = |session: i64| outcome.session.is_none_or(|finishing| session <= finishing);
        let all = stored.steps.iter().filter(|stored| stored.record.step == *step && until(stored.session));
        let attempts = AttemptLog(all.flat_map(|stored| stored.record.attempts.0.iter().cloned()).collect());
        let end = stored_steps::final_record(stored, step);
        let simulated = end.is_some_and(|end| end.record.simulated);
        let line = match end.map(|end| (end.record.state, &end.record.failure)) {
            Some((StepState::Answered, _)) => {
                completed(&attempts, end.and_then(|end| end.answered_by.as_ref()), simulated)
            }
            Some((StepState::Failed, Some(failure))) => StepLine::failed(&attempts, failure, simulated),
            Some((StepState::Skipped, _)) => StepLine::skipped(),
            Some((StepState::Failed | StepState::Open, _)) | None => StepLine::unfinished(&attempts),
        };
        let answered = end.filter(|end| end.record.state == StepState::Answered);
        let answer = answered.map_or(Value::Null, |end| end.record.answer.clone());
        answers.insert(step.to_string(), answer);
        (step.clone(), line)
    });
    let steps = steps.collect();
    let mut line = Line::new(stored.head.key.clone(), number, outcome.status, outcome.duration, steps);
    line.answers = answers;
    line.error = outcome.error.as_ref().map(|(step, failure)| line_error(step, failure));
    Some(line)
}

/// Returns the stored fields of an item; `None` if they are not stored.
pub(super) fn stored_fields(item: &StoredItem) -> Option<Value> {
    item.head.input.as_deref().and_then(|input| serde_json::from_str(input).ok())
}

fn line_error(step: &StepName, failure: &Failure) -> LineError {
    LineError { class: failure.class, step: Some(step.clone()), message: message_with_answer(failure) }
}

fn step_line(StepResult { outcome, data: log, .. }: &StepResult) -> StepLine {
    match outcome {
        StepOutcome::Answered => completed(&log.all_attempts(), log.answering(), log.simulated),
        StepOutcome::Failed(failure) => StepLine::failed(&log.all_attempts(), failure, log.simulated),
        StepOutcome::Skipped => StepLine::skipped(),
        StepOutcome::Unfinished => StepLine::unfinished(&log.all_attempts()),
    }
}

/// Creates the line of an answered step. It names the target that gave the answer, even if others got attempts
/// afterwards.
fn completed(attempts: &AttemptLog, answered_by: Option<&Attempt>, simulated: bool) -> StepLine {
    let line = StepLine::completed(attempts, simulated);
    match answered_by {
        Some(attempt) => line.answered_by(attempt),
        None => line,
    }
}

/// Characters of a rejected item that are kept.
const MAX_REJECTED_CHARACTERS: usize = 2_000;

/// Creates the reject line of a piece of the input that was not a valid item.
pub(super) fn reject_line(reject: source::Reject) -> RejectLine {
    let source::Reject { line, reason, text, key } = reject;
    RejectLine { line, reason, key, text }
}

/// Creates the reject line of an item that cannot be processed.
pub(super) fn rejected(item: &source::Item, reason: String) -> RejectLine {
    let text: String = item.value.to_string().chars().take(MAX_REJECTED_CHARACTERS).collect();
    RejectLine { line: item.line, reason, key: Some(item.key.clone()), text }
}

/// Maximum number of bytes of a rejected answer that a line quotes.
const MAX_ANSWER_BYTES_IN_MESSAGE: usize = 8 << 10;

/// Appends the text of the model if validation or a limit made the answer a failure: it was paid for. The store
/// has the complete text.
fn message_with_answer(failure: &Failure) -> String {
    let Some(text) = &failure.text else { return failure.message.to_string() };
    let answer = &text[..text.floor_char_boundary(MAX_ANSWER_BYTES_IN_MESSAGE)];
    match text.len() - answer.len() {
        0 => format!("{}; answer: {answer}", failure.message),
        left_out => format!("{}; answer: {answer}… ({left_out} more bytes are left out)", failure.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Class;

    #[test]
    fn a_long_rejected_answer_is_truncated_in_a_line_and_the_rest_is_counted() {
        let answer = |text: &str| {
            message_with_answer(&Failure::new(Class::ValidationError, "refused").with_text(text))
        };
        assert_eq!(answer("short"), "refused; answer: short");
        assert_eq!(answer(&"a".repeat(8192)), format!("refused; answer: {}", "a".repeat(8192)));
        let cut = answer(&format!("a{}", "é".repeat(10_000)));
        let kept = "é".repeat(4095);
        assert_eq!(cut, format!("refused; answer: a{kept}… (11810 more bytes are left out)"));
    }
}
