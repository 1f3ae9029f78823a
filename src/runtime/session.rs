//! One time that a kept run is at work, from its beginning until what became of it is noted.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use serde_json::Value;

use crate::guard::Purse;
use crate::run::{Ended, Keeping, Report};
use crate::sink::WrittenFile;
use crate::store::{self, RunLock, RunNumber, RunState, Store};
use crate::types::{Booked, ProviderName, whole_story};

use super::capped::book_rest;
use super::marks::{self, Input};
use super::outcome::Outcome;

/// How a session ended.
pub(super) enum Ending {
    /// With its report.
    Reported(Box<Report>),
    /// So, and without a report: the run's actor never began, or died first.
    Lost(Ended),
}

impl Ending {
    fn ended(&self) -> Ended {
        match self {
            Self::Reported(report) => report.ended,
            Self::Lost(ended) => *ended,
        }
    }

    /// Returns how many items were new or changed and not asked.
    fn items_left(&self) -> u64 {
        match self {
            Self::Reported(report) => report.items.left,
            Self::Lost(_) => 0,
        }
    }
}

/// A run that is open in its store, for as long as this lives.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) keeping: Arc<Keeping>,
    pub(super) store: Arc<dyn Store>,
    pub(super) files: Vec<PathBuf>,
    /// The file that it reads.
    pub(super) input: Option<Input>,
    /// What it is when all that it was given has been dealt with.
    pub(super) whole: RunState,
    /// What was noted of its earlier sessions, and at the beginning of this one.
    pub(super) outcome: Outcome,
    /// The files that this session writes.
    pub(super) outputs: Vec<WrittenFile>,
    /// Whether its source has only a part of its items.
    pub(super) partly: bool,
    /// What the run had spent before.
    pub(super) before: BTreeMap<ProviderName, Booked>,
    pub(super) _lock: RunLock,
}

impl Open {
    /// Learns what is read.
    pub(super) fn reads(&mut self, input: Option<Input>) {
        self.input = input;
    }

    /// Notes how the run ended and what it has spent; before its lock goes.
    ///
    /// # Errors
    /// Why not, in words.
    pub(super) async fn close(
        self,
        ending: Ending,
        was_cancelled: bool,
        purse: &Purse,
    ) -> Result<(), String> {
        // How it ended is noted also where its spending cannot be.
        let booked = self.book(purse).await;
        let store = self.store.clone();
        let noted = self.note(&ending, was_cancelled).await.map_err(|error| whole_story(&error)).and(booked);
        // What is read without its journal is whole. Where that cannot be, the journal has the rest.
        drop(store.fold().await);
        noted
    }

    /// Books what the run has spent beside its records, also where the ledger is broken: what it could not write is in
    /// no record, and nothing of it is under way any more.
    async fn book(&self, purse: &Purse) -> Result<(), String> {
        // What is still on its way into the store would be booked twice.
        let settled = self.keeping.ledger.settle().await;
        let booked = book_rest(&*self.store, self.keeping.run, purse, &self.before).await;
        settled.map_err(|unkept| unkept.to_string())?;
        booked.map_err(|error| whole_story(&error))
    }

    async fn note(self, ending: &Ending, was_cancelled: bool) -> Result<(), store::Error> {
        let state = match ending.ended() {
            Ended::Whole if ending.items_left() > 0 => RunState::Stopped,
            Ended::Whole => self.whole,
            Ended::Interrupted if was_cancelled => RunState::Cancelled,
            Ended::Interrupted => RunState::Stopped,
            Ended::Paused => RunState::Paused,
            Ended::Broken => RunState::Broken,
        };
        let absent = self.absent_now(ending.ended());
        let rejected = self.rejected_now(ending);
        let files = if state == RunState::Complete {
            let (files, input) = (self.files, self.input);
            // Without them the run is looked through when it is begun again, and nothing else is different.
            tokio::task::spawn_blocking(move || marks::of(&files, input.as_ref()))
                .await
                .ok()
                .flatten()
                .unwrap_or_default()
        } else {
            Vec::new()
        };
        let (report, seconds, is_written) = match ending {
            Ending::Reported(report) => {
                let text = serde_json::to_value(report).unwrap_or_default();
                let is_written = report.output_error.is_none() && report.output_left_before.is_none();
                (text, report.seconds, is_written)
            }
            Ending::Lost(_) => (Value::Null, 0.0, false),
        };
        let seconds = self.outcome.seconds + seconds;
        let mut outcome = self.outcome;
        outcome.close(&self.outputs, is_written);
        let Outcome { outputs, replaceable, max_cost, .. } = outcome;
        let retry = self.keeping.retry.clone();
        let outcome =
            Outcome { report, seconds, files, absent, rejected, outputs, replaceable, max_cost, retry };
        let outcome = serde_json::to_value(outcome).unwrap_or_default();
        self.store.touch(self.keeping.run, state, &outcome).await
    }

    /// Returns the items that the input does not have, as far as that is known now.
    fn absent_now(&self, ended: Ended) -> Vec<(i64, i64)> {
        let met = self.keeping.met.lock().unwrap_or_else(PoisonError::into_inner);
        if ended == Ended::Whole && !self.partly {
            met.missing(self.keeping.session.last_item)
        } else {
            met.still_missing(&self.outcome.absent)
        }
    }

    /// Returns how many pieces of the input are no items, as far as that is known now.
    fn rejected_now(&self, ending: &Ending) -> u64 {
        match ending {
            Ending::Reported(report) if report.ended == Ended::Whole && !self.partly => report.items.rejected,
            Ending::Reported(_) | Ending::Lost(_) => self.outcome.rejected,
        }
    }

    pub(super) fn run(&self) -> RunNumber {
        self.keeping.run
    }
}
