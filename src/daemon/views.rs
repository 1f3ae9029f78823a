//! What the daemon shows of its runs.

use serde::Serialize;

use crate::run::{LastReport, Progress, RunSummary, pause_reason, state_word};
use crate::store::{RunNumber, RunState, Store, StoredRun};
use crate::types::{Class, utc_time};

use super::item_counts::{ItemCounts, RunCounted};
use super::run_command::RunCommand;

/// A run, as a list or a page shows it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[non_exhaustive]
pub struct RunView {
    /// Its number.
    #[schema(value_type = i64)]
    pub run: RunNumber,
    /// The name of its pipeline.
    pub pipeline: String,
    /// The version of a stored pipeline; null for one from a file.
    pub pipeline_version: Option<i64>,
    /// `running`, `holding`, `paused`, `completed`, `stopped`, `cancelled`, `io_error`, `crashed` or `empty`.
    pub state: &'static str,
    /// Why it holds, is paused, ended as an I/O error, or could not be resumed.
    pub reason: Option<String>,
    /// The class of that reason: `internal` for an I/O error. Null if a user holds the run, and if it could not be resumed.
    #[schema(value_type = Option<String>)]
    pub class: Option<Class>,
    /// Who created it: the name of a token, or empty.
    pub created_by: String,
    /// When it was created, in milliseconds since 1970; a text in JSON.
    #[serde(with = "utc_time")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: i64,
    /// When a session last began or ended, in milliseconds since 1970; a text in JSON.
    #[serde(with = "utc_time")]
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: i64,
    /// How many sessions it has had.
    pub sessions: i64,
    /// Whether its items came one at a time.
    pub one_at_a_time: bool,
    /// Counts of its items: those of the session in progress, or else of all sessions.
    pub items: ItemCounts,
    /// The known part of its cost, in US dollars, likewise; null if nothing is known.
    pub cost_usd: Option<f64>,
    /// Its progress; null while it is not open.
    #[schema(value_type = Option<Object>)]
    pub progress: Option<Progress>,
    /// Its counts and its cost over all sessions, if the query asks for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub summary: Option<RunSummary>,
}

/// A page of a list of runs.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[non_exhaustive]
pub struct RunPage {
    /// The runs, the newest first.
    pub runs: Vec<RunView>,
    /// Where the next page begins; null for the last page.
    pub next_cursor: Option<String>,
}

impl RunView {
    /// Creates the view of a stored run, of which `progress` is known if it is open, and `problem` if it could not be
    /// resumed.
    pub(super) fn of(
        store: &dyn Store,
        run: &StoredRun,
        counted: RunCounted,
        progress: Option<Progress>,
        problem: Option<String>,
    ) -> Self {
        let command = RunCommand::of(run);
        let (mut reason, mut class) = pause_reason(run);
        let mut state = state_word(store, run);
        let holding = progress.as_ref().and_then(|progress| progress.holding.as_ref());
        // A run that its user has paused does not wait any more; its last attempts end.
        if let Some(holding) = holding.filter(|_| run.state == RunState::Running) {
            state = "holding";
            reason = Some(holding.message.to_string());
            class = Some(holding.class);
        }
        if run.state == RunState::IoFailed {
            reason = LastReport::of(run).io_errors().next().map(str::to_owned);
            class = Some(Class::Internal);
        }
        // What a user did is no failure.
        let class = class.filter(|class| problem.is_none() && *class != Class::Cancelled);
        Self {
            run: run.number,
            pipeline: run.metadata.name.clone(),
            pipeline_version: command.as_ref().and_then(|command| command.version),
            state,
            reason: problem.or(reason),
            class,
            created_by: command.as_ref().map(|command| command.created_by.clone()).unwrap_or_default(),
            created_at: run.created_at,
            updated_at: run.updated_at,
            sessions: run.sessions,
            one_at_a_time: command.is_some_and(|command| command.one_at_a_time),
            items: counted.items,
            cost_usd: counted.cost_usd,
            progress,
            summary: None,
        }
    }

    /// Adds the counts and the cost. A run that waits by itself is shown as such, which the store does not know.
    #[must_use]
    pub(super) fn with_summary(mut self, summary: RunSummary) -> Self {
        self.summary = Some(match self.state {
            "holding" => summary.holding(self.reason.clone(), self.class),
            _ => summary,
        });
        self
    }
}
