//! A stored run as lists of runs show it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::history::{input_totals, pause_reason, state_word};
use super::last_report::{LastReport, has_lost_session};
use super::report::{Unprocessed, UnsavedItems};
use crate::store::{Error, RunNumber, Store, StoredRun};
use crate::types::{Class, NanoUsd, utc_time};

/// The field in the command of a run with which a daemon finds its files.
const DAEMON_COMMAND: &str = "daemon";

/// A stored run in a list. The names of its fields are a compatibility promise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunSummary {
    /// Its number.
    pub run: RunNumber,
    /// The name of its pipeline.
    pub pipeline: String,
    /// Its state as a word.
    pub state: String,
    /// Items with all their answers.
    pub completed: u64,
    /// Items that failed.
    pub failed: u64,
    /// Items whose conditions were all false.
    pub skipped: u64,
    /// Items that were started and are unfinished.
    pub unfinished: u64,
    /// Records of the input that were not items.
    pub rejected: u64,
    /// Items whose line could not be written.
    pub unwritten: u64,
    /// Items that were new or changed and were not processed.
    pub not_processed: u64,
    /// The part of the input that was not started.
    pub unprocessed: Option<Unprocessed>,
    /// Items that were answered and not stored.
    pub unsaved: Option<UnsavedItems>,
    /// Attempts that were sent.
    pub calls: u64,
    /// The known part of the cost, in US dollars; null if nothing is known.
    pub cost_usd: Option<f64>,
    /// Attempts of unknown cost.
    pub calls_of_unknown_cost: u64,
    /// Whether a session did not store its end.
    pub lost_session: bool,
    /// How many sessions it has had.
    pub sessions: i64,
    /// When it was created.
    #[serde(serialize_with = "utc_time::serialize_timestamp")]
    pub created_at: Option<Timestamp>,
    /// When a session last began or ended.
    #[serde(serialize_with = "utc_time::serialize_timestamp")]
    pub updated_at: Option<Timestamp>,
    /// How it was started.
    pub command: Value,
    /// Why it paused or holds.
    pub paused: Option<String>,
    /// The class of that reason; null if a user paused it.
    pub paused_class: Option<Class>,
    /// The error of the input.
    pub input_error: Option<String>,
    /// The error of the output.
    pub output_error: Option<String>,
    /// The error of the store.
    pub store_error: Option<String>,
}

impl RunSummary {
    /// Reads what a list shows of a run.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn of(store: &dyn Store, run: &StoredRun) -> Result<Self, Error> {
        let totals = input_totals(store, run).await?;
        let last = LastReport::of(run);
        let (paused, paused_class) = pause_reason(run);
        let time = |at: i64| Timestamp::from_millisecond(at).ok();
        Ok(Self {
            run: run.number,
            pipeline: run.metadata.name.clone(),
            state: state_word(store, run).to_owned(),
            completed: totals.completed,
            failed: totals.failed,
            skipped: totals.skipped,
            unfinished: last.unfinished(totals.open),
            rejected: last.rejected,
            unwritten: last.unwritten,
            not_processed: last.not_processed,
            unprocessed: last.unprocessed,
            unsaved: last.unsaved,
            calls: last.sent_calls(&totals),
            cost_usd: totals.known_cost().map(NanoUsd::dollars),
            calls_of_unknown_cost: totals.usage.calls_of_unknown_cost,
            lost_session: has_lost_session(run, store.is_locked(run.number)),
            sessions: run.sessions,
            created_at: time(run.created_at),
            updated_at: time(run.updated_at),
            command: shown_command(&run.metadata.command),
            paused,
            // What a user did is no failure.
            paused_class: paused_class.filter(|class| *class != Class::Cancelled),
            input_error: last.input_error,
            output_error: last.output_error,
            store_error: last.store_error,
        })
    }

    /// Shows that it waits by itself, and why.
    #[must_use]
    pub fn holding(mut self, reason: Option<String>, class: Option<Class>) -> Self {
        self.state = "holding".to_owned();
        self.paused = reason;
        self.paused_class = class;
        self
    }

    /// Returns the errors of the input, the output and the store.
    pub fn io_errors(&self) -> impl Iterator<Item = &str> {
        [&self.input_error, &self.output_error, &self.store_error].into_iter().flatten().map(String::as_str)
    }
}

/// Returns how a run was started, without what only its daemon can use.
fn shown_command(command: &Value) -> Value {
    let mut shown = command.clone();
    if let Some(fields) = shown.as_object_mut() {
        fields.remove(DAEMON_COMMAND);
    }
    shown
}
