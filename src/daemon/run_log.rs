//! What the log says of runs: when each begins, ends, and is changed by a caller.

use std::fmt::Display;

use crate::run::{Report, RunOutcome};
use crate::store::{RunNumber, RunState};

/// How a session of a run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    New,
    Resumed,
    /// Its failed items are processed again.
    Retried,
}

/// Logs that a run was created.
pub(super) fn created(run: RunNumber, pipeline: &str, by: &str) {
    tracing::info!(run = run.0, pipeline, by, "run created");
}

/// Logs that a session has begun.
pub(super) fn started(run: RunNumber, pipeline: &str, begin: Begin) {
    let message = match begin {
        Begin::New => "run started",
        Begin::Resumed => "run resumed",
        Begin::Retried => "run started again for its failed items",
    };
    tracing::info!(run = run.0, pipeline, "{message}");
}

/// Logs that a caller has changed a run: what it became.
pub(super) fn changed(run: RunNumber, pipeline: &str, became: &'static str, by: &str) {
    tracing::info!(run = run.0, pipeline, by, "run {became}");
}

/// Logs that a session has ended. `state` is that of the run in the store, if it could be read.
pub(super) fn ended(
    run: RunNumber,
    pipeline: &str,
    state: Option<RunState>,
    ended: Result<&Report, &impl Display>,
) {
    let run = run.0;
    let report = match ended {
        Ok(report) => report,
        Err(reason) => {
            let state = state.map(RunState::as_str);
            tracing::error!(run, pipeline, state, %reason, "run ended without a report");
            return;
        }
    };
    // The end could not be stored if the run is still in progress.
    let stored = state.filter(|state| *state != RunState::Running);
    let state = stored.map_or(report.outcome.as_str(), RunState::as_str);
    let items = &report.items;
    let unsaved = report.unsaved.unwrap_or_default();
    // A level has to be constant.
    macro_rules! log_end {
        ($level:expr) => {
            tracing::event!(
                $level,
                run,
                pipeline,
                state,
                reason = report.reason(),
                completed = items.completed,
                failed = items.failed,
                skipped = items.skipped,
                rejected = items.rejected,
                unfinished = items.unfinished + items.paused,
                cost_usd = report.cost_usd,
                uncertain_cost_usd = report.uncertain_cost_usd,
                unsaved_items = unsaved.items,
                unsaved_cost_usd = unsaved.cost_usd,
                duration_seconds = report.duration_seconds,
                "run ended"
            )
        };
    }
    match report.outcome {
        RunOutcome::IoFailed => log_end!(tracing::Level::WARN),
        RunOutcome::Running
        | RunOutcome::Completed
        | RunOutcome::Limited
        | RunOutcome::Interrupted
        | RunOutcome::Paused => {
            log_end!(tracing::Level::INFO);
        }
    }
}
