//! The report of a stored run's last session: it knows more about the items than their rows.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::report::{Calls, Items, Unprocessed, UnsavedItems};
use crate::store::{RunState, RunTotals, StoredRun};
use crate::types::Class;

/// What the last session of a stored run reported, as far as the rows of its items do not show it. Nearly empty
/// while the session is in progress, and if it ended without a report.
#[derive(Debug, Clone, Default)]
pub struct LastReport {
    /// Its counts of items, if it counted all items of the run. A session that retries counts only some.
    items: Option<Items>,
    /// Its counts of attempts, if it is the only session.
    pub calls: Option<Calls>,
    /// Failed attempts that may have been charged, including those whose items were cancelled.
    possibly_charged: u64,
    /// Items that were new or changed and were not processed.
    pub not_processed: u64,
    /// Records of the input that were not items.
    pub rejected: u64,
    /// Items whose line could not be written.
    pub unwritten: u64,
    /// The part of the input that was not started.
    pub unprocessed: Option<Unprocessed>,
    /// Items that were answered and not stored.
    pub unsaved: Option<UnsavedItems>,
    /// The first reject.
    pub first_reject: Option<String>,
    /// The output that was not replaced.
    pub unreplaced_output: Option<String>,
    /// The error of the input.
    pub input_error: Option<String>,
    /// The error of the output.
    pub output_error: Option<String>,
    /// The error of the store.
    pub store_error: Option<String>,
}

impl LastReport {
    /// Reads the report of a run's last session.
    pub fn of(run: &StoredRun) -> Self {
        if run.sessions == 0 || !has_ended(run) {
            return Self { unprocessed: Some(Unprocessed::UNKNOWN), ..Self::default() };
        }
        let counts: Option<Items> = field(run, "items");
        let is_retry = run.outcome.get("retry").is_some_and(|classes| !classes.is_null());
        let unprocessed = match run.outcome.get("unprocessed") {
            Some(part) => serde_json::from_value(part.clone()).ok(),
            // An earlier version did not store it apart from the report.
            None => field(run, "unprocessed"),
        };
        let calls: Option<Calls> = field(run, "calls");
        let rejected = counts.map_or(0, |items| items.rejected);
        // Of a session that retries, the rejects of the last session that read the input to its end still count.
        let rejected_before = run.outcome.get("rejected").and_then(Value::as_u64).filter(|_| is_retry);
        Self {
            items: counts.filter(|_| !is_retry),
            calls: calls.filter(|_| run.sessions == 1),
            possibly_charged: calls.map_or(0, |calls| calls.possibly_charged),
            not_processed: counts.map_or(0, |items| items.not_processed),
            rejected: rejected.max(rejected_before.unwrap_or_default()),
            unwritten: counts.map_or(0, |items| items.unwritten),
            unprocessed,
            unsaved: field(run, "unsaved"),
            first_reject: field(run, "first_reject"),
            unreplaced_output: field(run, "unreplaced_output"),
            input_error: field(run, "input_error"),
            output_error: field(run, "output_error"),
            store_error: field(run, "store_error"),
        }
    }

    /// Returns the counts of items and the known cost, in US dollars, of a run with one session that has stored its end: the
    /// rows of the items need not be read.
    pub fn of_only_session(run: &StoredRun) -> Option<(Items, Option<f64>)> {
        if run.sessions != 1 || !has_ended(run) {
            return None;
        }
        Some((field(run, "items")?, field(run, "cost_usd")))
    }

    /// Returns how many items were started and are unfinished. `stored` is the number of those that have an answer.
    pub fn unfinished(&self, stored: u64) -> u64 {
        let unsaved = self.unsaved.map_or(0, |unsaved| unsaved.items);
        self.items.map_or(stored, |items| items.unfinished + items.paused + unsaved)
    }

    /// Returns how many calls were sent; `stored` is what the rows of the items contain.
    pub fn sent_calls(&self, stored: &RunTotals) -> u64 {
        self.calls.map_or(stored.usage.calls, |calls| calls.sent)
    }

    /// Replaces counts from rows of items by those that it knows better.
    pub(super) fn complete(&self, items: &mut Items, calls: &mut Calls) {
        if let Some(counted) = self.items {
            items.unfinished = counted.unfinished;
            items.paused = counted.paused;
        }
        items.rejected = self.rejected;
        items.unwritten = self.unwritten;
        items.not_processed = items.not_processed.max(self.not_processed);
        match self.calls {
            Some(counted) => *calls = counted,
            None => calls.possibly_charged = calls.possibly_charged.max(self.possibly_charged),
        }
    }

    /// Returns why the session ended as an I/O error: the errors of the input, the output and the store.
    pub fn io_errors(&self) -> impl Iterator<Item = &str> {
        [&self.input_error, &self.output_error, &self.store_error].into_iter().flatten().map(String::as_str)
    }
}

/// Returns how many items of each class failed in the last session of a run; `None` while it is in progress, and if it
/// ended without a report.
pub fn failed_items_by_class(run: &StoredRun) -> Option<BTreeMap<Class, u64>> {
    if run.sessions == 0 || !has_ended(run) {
        return None;
    }
    let errors: BTreeMap<Class, Value> = field(run, "errors")?;
    let count = |error: &Value| error.get("count").and_then(Value::as_u64).unwrap_or_default();
    Some(errors.iter().map(|(class, error)| (*class, count(error))).collect())
}

/// Returns whether the last session of a run has stored its end.
fn has_ended(run: &StoredRun) -> bool {
    match stored_session(run) {
        Some(session) => session == run.sessions,
        // A cancelled run may have crashed before.
        None => match run.state {
            RunState::Running | RunState::Cancelled => false,
            RunState::Completed | RunState::Stopped | RunState::Paused | RunState::IoFailed => true,
        },
    }
}

/// Returns whether the last session of a run, which is not in progress, did not store its end: its process was killed,
/// or its store was full.
pub fn is_last_session_lost(run: &StoredRun) -> bool {
    run.sessions > 0 && !has_ended(run)
}

/// Returns whether a session of a run did not store its end. A session in progress, which `is_active` says, can.
pub fn has_lost_session(run: &StoredRun, is_active: bool) -> bool {
    let earlier = run.outcome.get("lost_session").and_then(Value::as_bool).unwrap_or(false);
    earlier || !is_active && is_last_session_lost(run)
}

/// Returns the session that stored the outcome of a run: 0 before the first, `None` if an earlier version stored it.
fn stored_session(run: &StoredRun) -> Option<i64> {
    match &run.outcome {
        Value::Null => Some(0),
        outcome => outcome.get("session").and_then(Value::as_i64),
    }
}

/// Returns a field of the report of a run's last session.
fn field<T: DeserializeOwned>(run: &StoredRun, name: &str) -> Option<T> {
    let value = run.outcome.get("report")?.get(name)?.clone();
    serde_json::from_value(value).ok()
}
