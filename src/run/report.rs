//! What a run came to: made from its [`Tally`](super::tally::Tally), for people and for machines.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::Serialize;

use super::money::Cap;
use crate::types::{Class, ItemStatus, StepName, Usage};

/// The report of a run, as `--report` writes it. Times are in seconds, money in US dollars.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The pipeline's name.
    pub pipeline: String,
    /// How the run ended.
    pub ended: Ended,
    /// Whether any answer is made up: a played provider gave it.
    pub practice: bool,
    /// The items.
    pub items: Items,
    /// From the start of the run to its end.
    pub seconds: f64,
    /// Items that ended, a second.
    pub items_per_second: f64,
    /// From an item's start to its end.
    pub item_seconds: Times,
    /// The calls.
    pub calls: Calls,
    /// Tokens of all calls, failed ones included where the provider told.
    pub tokens: Usage,
    /// What the calls cost, and at least that when `calls_of_unknown_cost` is not zero. `None` (`null`)
    /// when it is not known for any call that may have cost something: never zero for that.
    pub cost_usd: Option<f64>,
    /// Calls whose cost is not known: no price, or the provider did not tell what was used.
    pub calls_of_unknown_cost: u64,
    /// What the calls that were `beaten` may have cost, which is not in `cost_usd`: as much as the answered
    /// calls of their lanes did on average. `None` when that is not known.
    pub beaten_cost_usd: Option<f64>,
    /// What calls may have cost that failed, or were broken off, without a word on what they used: what was reserved
    /// for them. It is not in `cost_usd`.
    pub perhaps_cost_usd: f64,
    /// The caps that hold the run, its own first, and what is spent of each.
    pub caps: Vec<Cap>,
    /// Why the run paused, where it did: which cap was met, or what let no request through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    /// The class of that: `budget` for a cap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused_class: Option<Class>,
    /// Whether answers are kept, so that the run can go on.
    pub kept: bool,
    /// By step, in the pipeline's order.
    pub steps: IndexMap<StepName, Part>,
    /// By lane, `provider/model`.
    pub lanes: BTreeMap<String, Part>,
    /// What items failed of.
    pub errors: BTreeMap<Class, ErrorCount>,
    /// What calls failed of, those included that were made good by another call.
    pub failed_calls: BTreeMap<Class, ErrorCount>,
    /// What was wrong with the first line that was no item.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_reject: Option<String>,
    /// What was wrong with the output, if anything was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_error: Option<String>,
    /// The output, or else the file of rejects, if it was left as it was before: the run ended before it had written
    /// again what was there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_left_before: Option<String>,
    /// Whether the output ended because its reader had gone, as `head` does.
    #[serde(skip)]
    pub reader_gone: bool,
    /// What of the input was not begun, where the run ended before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_begun: Option<NotBegun>,
    /// Why answers could not be kept any more, if they could not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_error: Option<String>,
    /// Items that had settled then and were not kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unkept: Option<UnkeptItems>,
    /// What was wrong with the input, if reading it ended early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_error: Option<String>,
}

impl Report {
    /// Returns whether the input held nothing at all.
    pub fn is_empty(&self) -> bool {
        self.ended == Ended::Whole && self.items == Items::default()
    }
}

/// Items that have settled and that the store could not keep: they are asked and paid for again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct UnkeptItems {
    /// How many.
    pub items: u64,
    /// What their calls cost, as far as that is known.
    pub cost_usd: f64,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// All of the input was dealt with.
    Whole,
    /// It was told to stop before.
    Interrupted,
    /// A cap on money was met before, no request could be answered for longer than it may hold, or too many items failed.
    Paused,
    /// The input or the output broke.
    Broken,
}

/// What of the input a run did not begin.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct NotBegun {
    /// Its share, from 0 to 1: of the bytes of a file, of the number of values. `None` where nobody knows how
    /// long the input is.
    pub share: Option<f64>,
    /// Pieces of the input that it is, about, by how long those before were. `None` as above.
    pub about: Option<u64>,
}

impl NotBegun {
    /// Makes it from the share of the input that `begun` pieces were.
    pub(super) fn after(begun: u64, read: Option<f64>) -> Self {
        let share = read.map(|read| (1.0 - read).clamp(0.0, 1.0));
        let known = read.filter(|read| *read > 0.0 && begun > 0);
        let about = known.map(|read| (begun as f64 * (1.0 - read).max(0.0) / read).round() as u64);
        Self { share, about }
    }
}

/// Where the items went. Every item of the input is in exactly one of the first three, or rejected, unfinished or
/// paused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Items {
    /// Every step that was due has an answer.
    pub completed: u64,
    /// A step that is not optional failed.
    pub failed: u64,
    /// No step was due.
    pub skipped: u64,
    /// Of those three, items that an earlier session had settled; nothing was asked for them.
    pub settled_before: u64,
    /// Items that the run had before and that its input has no more; they have no line.
    pub gone: u64,
    /// Lines that are no item.
    pub rejected: u64,
    /// Items that were started and given up when the run was stopped; they have no line.
    pub unfinished: u64,
    /// Items that were begun before the run paused, and that have no line. What was answered of them is kept, if
    /// anything is.
    pub paused: u64,
    /// Items that are new or others than before and were not asked, because only failed ones were; those that had
    /// settled keep the line of then, and are among the first three. The next run asks them.
    pub left: u64,
    /// Items whose line could not be written.
    pub unwritten: u64,
}

impl Items {
    /// Counts an item that an earlier session settled.
    pub(super) fn count_settled_before(&mut self, status: ItemStatus) {
        self.settled_before += 1;
        self.count_settled(status);
    }

    /// Counts an item that has settled.
    pub(super) fn count_settled(&mut self, status: ItemStatus) {
        match status {
            ItemStatus::Completed => self.completed += 1,
            ItemStatus::Failed => self.failed += 1,
            ItemStatus::Skipped => self.skipped += 1,
        }
    }

    /// Adds items that an earlier session settled.
    pub(super) fn add_settled_before(&mut self, rest: Self) {
        self.completed += rest.completed;
        self.failed += rest.failed;
        self.skipped += rest.skipped;
        self.settled_before += rest.settled_before;
    }

    /// Returns how many items ended.
    pub fn settled(&self) -> u64 {
        self.completed + self.failed + self.skipped
    }

    /// Returns the share of completed items among those that were to be worked on and the rejected pieces; `None`
    /// without any.
    pub fn success_rate(&self) -> Option<f64> {
        let due = self.completed + self.failed + self.rejected;
        (due > 0).then(|| self.completed as f64 / due as f64)
    }
}

/// What became of the calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Calls {
    /// Calls that left.
    pub made: u64,
    /// Calls that brought a whole reply.
    pub answered: u64,
    /// Calls that failed.
    pub failed: u64,
    /// Calls broken off because another lane, asked at the same time, had answered: with `answered` and `failed`
    /// that is all of `made`. They may have been paid for.
    pub beaten: u64,
    /// Failed calls that were answered with a rate limit.
    pub throttled: u64,
    /// Times that a question moved to another lane.
    pub failovers: u64,
    /// Questions asked again because the answer failed its check.
    pub reasked: u64,
    /// Failed calls that the provider may have charged for, and questions and items that died half-way; not those
    /// `beaten`.
    pub maybe_charged: u64,
    /// Calls sent beside another to the same question that took long.
    pub hedged: u64,
    /// Calls that left although their lane's breaker was open, because no other lane was left.
    pub forced: u64,
    /// Calls that a panic of their provider's actor cost before they left; they are not among `made`.
    pub lost: u64,
}

/// The part of a run that one step or one lane had.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Part {
    /// Calls that left.
    pub calls: u64,
    /// Calls that failed.
    pub failed: u64,
    /// Calls broken off because another lane had answered.
    pub beaten: u64,
    /// How long calls took, from leaving to their end.
    pub seconds: Times,
    /// How long calls waited for their turn.
    pub waited: Times,
    /// Tokens used.
    pub tokens: Usage,
    /// What they cost; at least, or `None`, as in [`Report::cost_usd`].
    pub cost_usd: Option<f64>,
    /// Calls whose cost is not known.
    pub calls_of_unknown_cost: u64,
    /// Those of them whose tokens are known: the model has no price.
    pub calls_without_price: u64,
    /// Those of them that ended without a word on the tokens they used.
    pub calls_without_usage: u64,
    /// Whether a played provider answered.
    pub practice: bool,
}

/// The distribution of times, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Times {
    /// The average.
    pub average: f64,
    /// Half were no longer.
    pub p50: f64,
    /// Nineteen in twenty were no longer.
    pub p95: f64,
    /// Ninety-nine in a hundred were no longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

/// How often something went wrong, and the first time it did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ErrorCount {
    /// How often.
    pub count: u64,
    /// What was said the first time.
    pub example: String,
}
