//! What the screen shows. Pure: it asks nothing and draws nothing.

use std::collections::VecDeque;

use crate::cli::remote::views::StatusView;
use crate::store::RunNumber;

use super::answers::{EventView, RunView};

/// How many events are kept.
const MAX_EVENTS: usize = 50;

/// The state of the screen.
#[derive(Debug, Default)]
pub(super) struct View {
    /// The address of the daemon.
    pub(super) url: String,
    /// Whether colors are used.
    pub(super) has_color: bool,
    /// The daemon; `None` before its first answer.
    pub(super) status: Option<StatusView>,
    /// Runs in progress, then the others, each group with the newest first.
    pub(super) runs: Vec<RunView>,
    /// The latest events, the newest last.
    pub(super) events: VecDeque<EventView>,
    /// Why the daemon did not answer the last time.
    pub(super) problem: Option<String>,
    /// The run to which keys apply. It stays selected when the list changes.
    pub(super) selected: Option<RunNumber>,
    /// The run that is cancelled if the user confirms it.
    pub(super) cancel_asked: Option<RunNumber>,
    /// What the last key did.
    pub(super) notice: Option<String>,
}

/// News for the screen.
#[derive(Debug)]
pub(super) enum Update {
    /// The daemon answered.
    State(Box<StatusView>, Vec<RunView>),
    /// The daemon did not answer.
    Problem(String),
    /// Something happened.
    Event(EventView),
    /// A key had an effect, or could not have it.
    Notice(String),
    /// A signal ends the program.
    Stop,
}

impl View {
    /// Creates the screen before the first answer.
    pub(super) fn new(url: String, has_color: bool) -> Self {
        Self { url, has_color, ..Self::default() }
    }

    /// Takes the runs of an answer. If the selected run is gone, another one is selected.
    pub(super) fn set_runs(&mut self, mut runs: Vec<RunView>) {
        let before = self.selected_index();
        runs.sort_by_key(|run| run.progress.is_none());
        self.runs = runs;
        if self.selected_index().is_none() {
            self.select(before.unwrap_or(0));
        }
        if self.cancel_asked.is_some_and(|asked| self.runs.iter().all(|run| run.run != asked)) {
            self.cancel_asked = None;
        }
    }

    /// Adds an event, and drops the oldest.
    pub(super) fn add_event(&mut self, event: EventView) {
        self.events.push_back(event);
        while self.events.len() > MAX_EVENTS {
            self.events.pop_front();
        }
    }

    /// Returns the selected run.
    pub(super) fn selected_run(&self) -> Option<&RunView> {
        self.runs.get(self.selected_index()?)
    }

    /// Returns the position of the selected run.
    pub(super) fn selected_index(&self) -> Option<usize> {
        self.runs.iter().position(|run| Some(run.run) == self.selected)
    }

    /// Selects the run at this position, or the last one.
    pub(super) fn select(&mut self, index: usize) {
        let index = index.min(self.runs.len().saturating_sub(1));
        self.selected = self.runs.get(index).map(|run| run.run);
    }

    /// Moves the selection down, or up for a negative number.
    pub(super) fn move_selection(&mut self, by: isize) {
        let index = self.selected_index().unwrap_or(0).saturating_add_signed(by);
        self.select(index);
    }

    /// Returns how many calls wait.
    pub(super) fn queued(&self) -> usize {
        self.status.iter().flat_map(|status| &status.providers).map(|provider| provider.queued).sum()
    }
}
