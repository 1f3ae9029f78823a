//! The report of a run, created from its [`RunStats`](super::stats::RunStats).

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::{Deserialize, Deserializer, Serialize};

use super::caps::Cap;
use crate::store::RunNumber;
use crate::types::{Advice, Class, ItemStatus, StepName, Usage};

/// The state of a run as a word. An alias, because a reference would be borrowed from the text that is parsed.
type StateWord = &'static str;

/// The states that a report may have.
const STATES: [StateWord; 9] =
    ["running", "holding", "paused", "completed", "stopped", "cancelled", "io_error", "crashed", "empty"];

/// Reads a state; `None` for one of another version.
fn known_state<'de, D: Deserializer<'de>>(from: D) -> Result<Option<StateWord>, D::Error> {
    let word = Option::<String>::deserialize(from)?;
    Ok(word.and_then(|word| STATES.into_iter().find(|known| *known == word)))
}

/// The report of a run. It is serialized as the program writes it to a file. Times are in seconds, money in US dollars.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// The run's number in its store; `None` (`null`) if it is not stored.
    pub run: Option<RunNumber>,
    /// The pipeline's name.
    pub pipeline: String,
    /// How the run ended.
    pub outcome: RunOutcome,
    /// The state of a stored run, in a report that was created from its store.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "known_state")]
    pub state: Option<StateWord>,
    /// Whether a session did not store its end: its process was killed, or its store was full. The last calls of
    /// that session are not recorded, so the cost is a lower bound.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost_session: bool,
    /// Whether any answer is simulated.
    pub simulated: bool,
    /// Counts of items.
    pub items: Items,
    /// Duration of the run. `None` (`null`) if it is unknown, because the run is in progress or a session did not
    /// store its end.
    pub duration_seconds: Option<f64>,
    /// Finished items per second. `None` (`null`) as above.
    pub items_per_second: Option<f64>,
    /// Durations of items.
    pub item_duration_seconds: LatencySummary,
    /// Counts of attempts.
    pub calls: Calls,
    /// Tokens of all attempts, including failed ones if the provider reported them.
    pub tokens: Usage,
    /// Cost of the attempts; a lower bound if `calls_of_unknown_cost` is not zero. `None` (`null`) if no cost
    /// is known although something may have been charged: never zero in that case.
    pub cost_usd: Option<f64>,
    /// What the providers' caches saved, with the additional cost of writing to them: negative if that is higher.
    /// `None` if no cache was used or no price is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_saved_usd: Option<f64>,
    /// What the answer cache answered; `None` if it answered nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheReport>,
    /// Attempts whose cost is unknown: the model has no price, or the provider did not report the usage.
    pub calls_of_unknown_cost: u64,
    /// Estimated cost of the superseded attempts, which is not in `cost_usd`: the average cost of the answered
    /// attempts of their targets. `None` if that is unknown.
    pub superseded_cost_usd: Option<f64>,
    /// Uncertain cost: what was expected, or received if that is more, of attempts that failed or were broken off without a
    /// usage report.
    /// Not in `cost_usd`.
    pub uncertain_cost_usd: f64,
    /// The caps of the run, its own first, and what is spent of each.
    pub caps: Vec<Cap>,
    /// Why the run paused: the cap that was reached, or the failure that prevented every request from
    /// succeeding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    /// The class of that reason: `budget` for a cap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused_class: Option<Class>,
    /// Whether the run paused because too many items have failed ([`MaxFailures`](super::MaxFailures)).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub max_failures_reached: bool,
    /// Whether answers are stored, so that the run can be resumed.
    pub stored: bool,
    /// By step, in the pipeline's order.
    pub steps: IndexMap<StepName, GroupReport>,
    /// By target, `provider/model`.
    pub targets: BTreeMap<String, GroupReport>,
    /// Why items failed.
    pub errors: BTreeMap<Class, ErrorCount>,
    /// Why attempts failed, including those whose request was answered by another attempt.
    pub failed_calls: BTreeMap<Class, ErrorCount>,
    /// The first reject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_reject: Option<String>,
    /// The error of the output, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_error: Option<String>,
    /// The output, or else the rejects file, if the original file was kept: the run ended before it had written
    /// all lines that were there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreplaced_output: Option<String>,
    /// Whether the output ended because its reader closed it, as `head` does.
    #[serde(skip)]
    pub output_closed: bool,
    /// The part of the input that was not started, if the run ended before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unprocessed: Option<Unprocessed>,
    /// Why answers could not be stored any more, if that happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_error: Option<String>,
    /// Items that had finished then and were not stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsaved: Option<UnsavedItems>,
    /// The error of the input, if reading it ended early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_error: Option<String>,
    /// The end of `input_error`, if it has remedies.
    #[serde(skip)]
    pub input_advice: Option<Advice>,
}

impl Report {
    /// Returns why the run paused, or else the first error of the input, the output and the store.
    pub fn reason(&self) -> Option<&str> {
        let all = [&self.paused, &self.input_error, &self.output_error, &self.store_error];
        all.into_iter().flatten().next().map(String::as_str)
    }

    /// Returns whether the input was empty.
    pub fn is_empty(&self) -> bool {
        self.outcome == RunOutcome::Completed && self.items == Items::default()
    }
}

/// Requests that the answer cache answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CacheReport {
    /// Answers that another item or run had paid for.
    pub answers: u64,
    /// All requests: those answers, and the requests that were sent.
    pub requests: u64,
    /// What those answers had cost, in US dollars, as far as it is known.
    pub saved_usd: f64,
}

/// Finished items that the store could not save. A resumed run processes and pays for them again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct UnsavedItems {
    /// Their number.
    pub items: u64,
    /// Known cost of their attempts.
    pub cost_usd: f64,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RunOutcome {
    /// It has not ended: another process works on the stored run.
    Running,
    /// All of the input was processed.
    Completed,
    /// The first items were processed, as many as were asked for. The input may have more.
    Limited,
    /// The run was stopped before that.
    Interrupted,
    /// Before that, a cap was reached, no request was answered for longer than the run may hold, or too many
    /// items failed.
    Paused,
    /// The input or the output failed.
    #[serde(rename = "io_error")]
    IoFailed,
}

impl RunOutcome {
    /// Returns the name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Limited => "limited",
            Self::Interrupted => "interrupted",
            Self::Paused => "paused",
            Self::IoFailed => "io_error",
        }
    }

    /// Returns whether everything that was asked for was processed: all of the input, or its first items.
    pub(super) fn is_regular(self) -> bool {
        match self {
            Self::Completed | Self::Limited => true,
            Self::Running | Self::Interrupted | Self::Paused | Self::IoFailed => false,
        }
    }
}

/// The part of the input that a run did not start.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Unprocessed {
    /// Its fraction, from 0 to 1, of the bytes of a file or of the number of values. `None` if the size of the
    /// input is unknown.
    pub fraction: Option<f64>,
    /// Number of its entries: exact if those of the input were counted, else estimated from the average length of those
    /// before. `None` as above.
    pub estimated_items: Option<u64>,
}

impl Unprocessed {
    /// An unknown part of an input.
    pub const UNKNOWN: Self = Self { fraction: None, estimated_items: None };

    /// Computes the unprocessed part from the number of started entries, the fraction of the input that was read, and the
    /// number of all entries, if that is known.
    pub(super) fn after(started: u64, read: Option<f64>, total: Option<u64>) -> Self {
        // What was read to its end has no rest, whatever a file that has changed had before.
        let is_read = read.is_some_and(|read| read >= 1.0);
        if let Some(total) = total.filter(|total| *total > 0 && !is_read) {
            let rest = total.saturating_sub(started);
            return Self { fraction: Some(rest as f64 / total as f64), estimated_items: Some(rest) };
        }
        let fraction = read.map(|read| (1.0 - read).clamp(0.0, 1.0));
        let known = read.filter(|read| *read > 0.0 && started > 0);
        let estimated_items =
            known.map(|read| (started as f64 * (1.0 - read).max(0.0) / read).round() as u64);
        Self { fraction, estimated_items }
    }
}

/// Counts of items. Every item that was started is counted once in `completed`, `failed`, `skipped`,
/// `unfinished` or `paused`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Items {
    /// Every step whose condition was true has an answer.
    pub completed: u64,
    /// A step that is not optional failed.
    pub failed: u64,
    /// The conditions of all steps were false.
    pub skipped: u64,
    /// Of those three, items that an earlier session finished; no request was sent for them.
    pub finished_before: u64,
    /// Items that the run had before and that are missing from its input now; they have no line.
    pub missing_from_input: u64,
    /// Pieces of the input that are not items.
    pub rejected: u64,
    /// Items that were started and aborted when the run was stopped; they have no line.
    pub unfinished: u64,
    /// Items that were started before the run paused and have no line. Their answers are stored, if anything
    /// is.
    pub paused: u64,
    /// Items that are new or changed and were not processed, because only failed items were. Those that had
    /// finished keep their line and are among the first three. The next run processes them.
    pub not_processed: u64,
    /// Items whose line could not be written.
    pub unwritten: u64,
}

impl Items {
    /// Counts an item that an earlier session finished.
    pub(super) fn count_finished_before(&mut self, status: ItemStatus) {
        self.finished_before += 1;
        self.count_finished(status);
    }

    /// Counts a finished item.
    pub(super) fn count_finished(&mut self, status: ItemStatus) {
        match status {
            ItemStatus::Completed => self.completed += 1,
            ItemStatus::Failed => self.failed += 1,
            ItemStatus::Skipped => self.skipped += 1,
        }
    }

    /// Adds items that an earlier session finished.
    pub(super) fn add_finished_before(&mut self, rest: Self) {
        self.completed += rest.completed;
        self.failed += rest.failed;
        self.skipped += rest.skipped;
        self.finished_before += rest.finished_before;
    }

    /// Returns the number of finished items.
    pub fn finished(&self) -> u64 {
        self.completed + self.failed + self.skipped
    }

    /// Returns the fraction of completed items among completed, failed and rejected ones; `None` if there are
    /// none.
    pub fn success_rate(&self) -> Option<f64> {
        let counted = self.completed + self.failed + self.rejected;
        (counted > 0).then(|| self.completed as f64 / counted as f64)
    }
}

/// Counts of attempts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Calls {
    /// Attempts that were sent.
    pub sent: u64,
    /// Attempts with a complete response.
    pub answered: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Attempts broken off because a hedged attempt at another target had answered. `answered`, `failed` and
    /// these add up to `sent`. They may have been charged.
    pub superseded: u64,
    /// Failed attempts that were rejected with a rate limit.
    pub throttled: u64,
    /// Number of times a request moved to another target.
    pub failovers: u64,
    /// Requests sent again because the answer failed validation.
    pub validation_retries: u64,
    /// Failed attempts that the provider may have charged for, and requests and items that were lost; without
    /// those in `superseded`.
    pub possibly_charged: u64,
    /// Attempts sent in parallel to a slow attempt for the same request.
    pub hedged: u64,
    /// Attempts sent although the breaker of their target was open, because there was no other target.
    pub forced: u64,
    /// Attempts lost by a panic of their provider's actor before they were sent; not among `sent`.
    pub lost: u64,
}

/// Statistics of one step or one target.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GroupReport {
    /// Attempts that were sent.
    pub calls: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Attempts that were superseded.
    pub superseded: u64,
    /// Durations of attempts, from sending to their end.
    pub duration_seconds: LatencySummary,
    /// Times that attempts spent in the queue.
    pub queued_seconds: LatencySummary,
    /// Tokens used.
    pub tokens: Usage,
    /// Their cost; a lower bound, or `None`, as in [`Report::cost_usd`].
    pub cost_usd: Option<f64>,
    /// What the providers' caches saved, as in [`Report::cache_saved_usd`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_saved_usd: Option<f64>,
    /// Attempts whose cost is unknown.
    pub calls_of_unknown_cost: u64,
    /// Of those, attempts with known usage: the model has no price.
    pub calls_without_price: u64,
    /// Of those, attempts that ended without a usage report.
    pub calls_without_usage: u64,
    /// Whether a simulated provider answered.
    pub simulated: bool,
}

/// Distribution of times, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LatencySummary {
    /// The average.
    pub average: f64,
    /// Median.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Maximum.
    pub max: f64,
}

/// How often an error occurred, and the message of its first occurrence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ErrorCount {
    /// Number of occurrences.
    pub count: u64,
    /// Message of the first occurrence.
    pub example: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_that_was_not_started_is_that_of_the_known_total() {
        let after = |started, read, total| {
            let Unprocessed { fraction, estimated_items } = Unprocessed::after(started, read, total);
            (fraction, estimated_items)
        };
        // The first items are shorter than the others.
        assert_eq!(after(64, Some(0.11), Some(500)), (Some(436.0 / 500.0), Some(436)));
        assert_eq!(after(64, None, Some(500)), (Some(436.0 / 500.0), Some(436)));
        assert_eq!(after(3, Some(1.0), Some(500)), (Some(0.0), Some(0)), "it was read to its end");
        assert_eq!(after(0, Some(0.0), Some(500)), (Some(1.0), Some(500)));
        assert_eq!(after(10, Some(0.25), None), (Some(0.75), Some(30)));
        assert_eq!(after(10, None, None), (None, None));
    }
}
