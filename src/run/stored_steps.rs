//! Verifies that a stored item that has finished has the results from which its line is made.

use crate::store::{Error, RunNumber, StepRecord, StepState, Store, StoredItem, StoredStep};
use crate::types::{ItemStatus, StepName};

/// Returns the record that says how a step of a finished item ended; `None` if the step was not reached.
///
/// It is a record of the session in which the item finished, whatever earlier sessions had. Records of an earlier
/// version do not have that session; the last record of the step counts.
pub(super) fn final_record<'a>(item: &'a StoredItem, step: &StepName) -> Option<&'a StoredStep> {
    let session = item.outcome.as_ref()?.session;
    let is_of_session = |stored: &StoredStep| session.is_none_or(|session| stored.session == session);
    item.steps.iter().rev().find(|stored| stored.record.step == *step && is_of_session(stored))
}

/// Fails if an item that has completed or was skipped has no result of one of `steps`, which are those of the
/// pipeline in `revision`. The steps of an item that finished in an earlier revision are not known.
pub(super) fn verify<'a>(
    store: &dyn Store,
    run: RunNumber,
    revision: i64,
    mut steps: impl Iterator<Item = &'a StepName>,
    item: &StoredItem,
) -> Result<(), Error> {
    let Some(outcome) = item.outcome.as_ref().filter(|outcome| outcome.revision == revision) else {
        return Ok(());
    };
    match outcome.status {
        ItemStatus::Completed | ItemStatus::Skipped => {}
        // Steps after the failed one were not reached.
        ItemStatus::Failed => return Ok(()),
    }
    let is_missing =
        |step: &&StepName| final_record(item, step).is_none_or(|stored| !has_ended(&stored.record));
    let Some(step) = steps.find(is_missing) else { return Ok(()) };
    let number = item.head.number;
    let status = outcome.status.as_str();
    let what = format!("item {number} of run {run} is {status}, but the result of step {step} is missing");
    Err(store.damage(what))
}

fn has_ended(record: &StepRecord) -> bool {
    match record.state {
        StepState::Answered | StepState::Skipped => true,
        StepState::Failed => record.failure.is_some(),
        StepState::Open => false,
    }
}
