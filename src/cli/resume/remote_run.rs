//! `resume` and `retry` with a daemon: it continues the run, and this program does not wait for it.

use anyhow::ensure;
use serde_json::json;

use crate::cli::args::{Resume, Retry, StoredRunArgs};
use crate::cli::exit::Exit;
use crate::cli::open_store::fail;
use crate::cli::pause::PauseArgs;
use crate::cli::progress::Mode;
use crate::cli::remote::requests::Remote;
use crate::cli::remote::views::RunView;
use crate::runtime::MaxCost;
use crate::store::RunNumber;

use super::NothingToResume;

/// Resumes a run: the given one, or else the latest that is not complete.
pub(super) fn resume(remote: &Remote, args: &Resume, mode: Mode) -> Exit {
    let mut options = local_options(&args.stored, args.overwrite, args.pause, args.metrics.is_given());
    options.extend(args.config.is_some().then_some("--config"));
    let resumed = check(&options).and_then(|()| continue_run(remote, args));
    match resumed {
        Ok(run) => started(remote, run, mode),
        Err(error) if error.is::<NothingToResume>() => {
            mode.note(&error.to_string());
            Exit::Success
        }
        Err(error) => fail(mode, error),
    }
}

/// Processes the failed items of a run again.
pub(super) fn retry(remote: &Remote, args: &Retry, mode: Mode) -> Exit {
    let mut options = local_options(&args.stored, args.overwrite, args.pause, args.metrics.is_given());
    options.extend(args.config.is_some().then_some("--config"));
    options.extend(args.stored.max_cost.is_some().then_some("--max-cost"));
    let run = args.run;
    let body = json!({ "classes": args.classes, "accept_changes": args.stored.accept_changes });
    let retried = check(&options).and_then(|()| {
        let _: RunView = remote.post(&format!("/runs/{run}/retry"), &body)?;
        Ok(())
    });
    match retried {
        Ok(()) => started(remote, run, mode),
        Err(error) => fail(mode, error),
    }
}

fn continue_run(remote: &Remote, args: &Resume) -> anyhow::Result<RunNumber> {
    let max_cost = match args.stored.max_cost {
        None => None,
        Some(MaxCost::Limit(cap)) => Some(cap.dollars()),
        Some(MaxCost::Unlimited) => {
            anyhow::bail!("a daemon does not remove the cap of a run: name a higher one with --max-cost USD")
        }
    };
    let run = match args.run {
        Some(run) => run,
        None => {
            let is_left = |run: &RunView| {
                run.sessions > 0 && !run.is_open() && !matches!(run.state.as_str(), "completed" | "cancelled")
            };
            let left = remote.runs(1, false, is_left)?;
            left.first().map(|run| run.run).ok_or(NothingToResume)?
        }
    };
    let body = json!({ "accept_changes": args.stored.accept_changes, "max_cost_usd": max_cost });
    let _: RunView = remote.post(&format!("/runs/{run}/resume"), &body)?;
    Ok(run)
}

fn started(remote: &Remote, run: RunNumber, mode: Mode) -> Exit {
    let option = remote.option();
    mode.note(&format!(
        "the daemon at {} continues run {run}; `pointsman report {run}{option}` shows its report, \
         `pointsman results {run}{option}` its results",
        remote.url()
    ));
    Exit::Success
}

/// Returns the options that concern files and settings of this program, which a daemon does not take.
fn local_options(
    stored: &StoredRunArgs,
    overwrite: bool,
    pause: PauseArgs,
    has_metrics: bool,
) -> Vec<&'static str> {
    let given = [
        (stored.store.is_some(), "--store"),
        (overwrite, "--overwrite"),
        (pause.wait, "--wait"),
        (pause.give_up, "--give-up"),
        (pause.max_failures.is_some(), "--max-failures"),
        (has_metrics, "--metrics"),
    ];
    given.into_iter().filter(|(is_given, _)| *is_given).map(|(_, option)| option).collect()
}

fn check(options: &[&str]) -> anyhow::Result<()> {
    ensure!(
        options.is_empty(),
        "with a daemon this command has no {}: the run has the settings of the daemon",
        options.join(", ")
    );
    Ok(())
}
