//! `pointsman runs`, `cancel` and `delete`: list, cancel and delete stored runs.

use std::time::Duration;

use anyhow::{bail, ensure};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

use crate::clock;
use crate::run::{RunSummary, Unprocessed};
use crate::store::{self, RunLock, RunNumber, RunState};
use crate::terminal_text;
use crate::types::Class;

use super::args::{Cancel, Delete, Runs, StoreArgs};
use super::exit::Exit;
use super::open_store::{OpenedStore, fail};
use super::print::{print, print_json};
use super::progress::{Mode, eprint_line};
use super::progress_text::{cost, count, counted};
#[cfg(feature = "server")]
use super::remote::requests::Remote;
#[cfg(feature = "server")]
use super::remote::views::RunView;
use super::table::percent;

/// Lists every run.
pub(super) fn runs(args: &Runs) -> Exit {
    let listed = list(args);
    listed.map_or_else(|error| fail(Mode::Lines, error), |()| Exit::Success)
}

fn list(args: &Runs) -> anyhow::Result<()> {
    let rows = summaries(&args.store)?;
    if args.json {
        let lines: Vec<String> = rows.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        return if lines.is_empty() { Ok(()) } else { Ok(print_json(&lines.join("\n"))?) };
    }
    if rows.is_empty() {
        eprint_line("no runs are stored");
        return Ok(());
    }
    Ok(print(&table(&rows))?)
}

/// Reads all runs, the newest first, from the daemon or the store.
fn summaries(args: &StoreArgs) -> anyhow::Result<Vec<RunSummary>> {
    #[cfg(feature = "server")]
    if let Some(remote) = args.remote()? {
        return Ok(remote.summaries()?);
    }
    stored_summaries(args)
}

/// Reads all runs of a store, the newest first.
pub(super) fn stored_summaries(args: &StoreArgs) -> anyhow::Result<Vec<RunSummary>> {
    let OpenedStore { runtime, store, .. } = OpenedStore::to_read(args)?;
    runtime.block_on(async {
        let mut rows = Vec::new();
        for run in store.runs().await? {
            rows.push(RunSummary::of(&*store, &run).await?);
        }
        Ok(rows)
    })
}

/// Formats the number of unfinished items. Until a session has ended, only those with an answer are known.
fn unfinished(state: &str, items: u64) -> String {
    match (state, items) {
        ("running" | "holding" | "crashed", 0) => "?".to_owned(),
        ("running" | "holding" | "crashed", _) => format!("at least {}", count(items)),
        (_, _) => count(items),
    }
}

/// Formats the part of the input that was not started, or else the number of new and changed items that a retry left.
fn not_processed(run: &RunSummary) -> String {
    match &run.unprocessed {
        None if run.not_processed > 0 => count(run.not_processed),
        None => "0".to_owned(),
        Some(Unprocessed { fraction: Some(fraction), .. }) if *fraction <= 0.0 => "0".to_owned(),
        Some(Unprocessed { estimated_items: Some(items), .. }) => format!("about {}", count((*items).max(1))),
        Some(Unprocessed { fraction: Some(fraction), .. }) => percent(*fraction),
        Some(Unprocessed { fraction: None, .. }) => "?".to_owned(),
    }
}

/// Returns the list of runs as text.
pub(super) fn table(rows: &[RunSummary]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "run",
        "pipeline",
        "state",
        "completed",
        "failed",
        "unfinished",
        "not processed",
        "calls",
        "cost",
        "last active (UTC)",
        "items",
    ]);
    for run in rows {
        let items = run.command.get("items").and_then(Value::as_str).unwrap_or("");
        let at = run.updated_at.map(|at| at.strftime("%Y-%m-%d %H:%M").to_string());
        let calls_of_unknown_cost = run.calls_of_unknown_cost + u64::from(run.lost_session);
        let state = terminal_text::line(&run.state);
        table.add_row([
            run.run.to_string(),
            terminal_text::line(&run.pipeline).into_owned(),
            match run.paused_class {
                // Its user holds it.
                Some(Class::Cancelled) | None => state.into_owned(),
                Some(class) => format!("{state}: {class}"),
            },
            count(run.completed + run.skipped),
            count(run.failed),
            unfinished(&run.state, run.unfinished),
            not_processed(run),
            count(run.calls),
            cost(run.cost_usd, calls_of_unknown_cost),
            at.unwrap_or_default(),
            std::path::Path::new(items)
                .file_name()
                .map_or_else(String::new, |name| terminal_text::line(&name.to_string_lossy()).into_owned()),
        ]);
    }
    for column in 3..=8 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    if let Some(column) = table.column_mut(0) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    // Below the table: a message is longer than a column.
    let errors = rows.iter().flat_map(|row| {
        let number = row.run;
        row.io_errors().map(move |error| format!("\nrun {number}: error: {}", terminal_text::line(error)))
    });
    table.trim_fmt() + &errors.collect::<String>()
}

/// Cancels a run.
pub(super) fn cancel(args: &Cancel) -> Exit {
    let cancelled = cancel_run(args);
    cancelled.map_or_else(|error| fail(Mode::Lines, error), |()| Exit::Success)
}

fn cancel_run(args: &Cancel) -> anyhow::Result<()> {
    #[cfg(feature = "server")]
    if let Some(remote) = args.store.remote()? {
        return cancel_at(&remote, args.run);
    }
    let OpenedStore { runtime, store, .. } = OpenedStore::of(&args.store)?;
    let run = args.run;
    let known = runtime.block_on(store.run(run))?;
    if known.state == RunState::Completed {
        bail!("run {run} is complete: there is nothing to cancel; `pointsman delete {run}` deletes it");
    }
    let next = format!(
        "its finished items stay stored. The same command with --overwrite begins a new run, `pointsman resume {run}` resumes this one"
    );
    let is_running = store.is_locked(run);
    runtime.block_on(store.set_state(run, RunState::Cancelled))?;
    let how = if is_running { "being cancelled" } else { "cancelled" };
    eprint_line(&format!("run {run} is {how}; {next}"));
    Ok(())
}

#[cfg(feature = "server")]
fn cancel_at(remote: &Remote, run: RunNumber) -> anyhow::Result<()> {
    let before = remote.run(run)?;
    let _: RunView = remote.post(&format!("/runs/{run}/cancel"), &serde_json::json!({}))?;
    let how = if before.is_open() { "being cancelled" } else { "cancelled" };
    eprint_line(&format!(
        "run {run} is {how}; its finished items stay stored. `pointsman resume {run}{}` resumes it",
        remote.option()
    ));
    Ok(())
}

/// Deletes runs.
pub(super) fn delete(args: &Delete) -> Exit {
    remove(args).map_or_else(|error| fail(Mode::Lines, error), |()| Exit::Success)
}

fn remove(args: &Delete) -> anyhow::Result<()> {
    #[cfg(feature = "server")]
    if let Some(remote) = args.store.remote()? {
        return remove_at(&remote, args);
    }
    let OpenedStore { runtime, store, .. } = OpenedStore::of(&args.store)?;
    let known = runtime.block_on(store.runs())?;
    let due: Vec<RunNumber> = match args.older_than {
        Some(age) => {
            let before = time_before(age);
            let old = known.iter().filter(|run| run.updated_at < before && !store.is_locked(run.number));
            old.map(|run| run.number).collect()
        }
        None => args.runs.clone(),
    };
    for run in &due {
        ensure!(known.iter().any(|known| known.number == *run), store::Error::NoRun(*run));
    }
    let mut deleted = 0;
    let removed = due.chunks(RUNS_PER_DELETE).try_for_each(|runs| {
        // A process that works on one of them must not lose its rows.
        let locks: Vec<RunLock> = runs.iter().map(|run| store.lock(*run)).collect::<Result<_, _>>()?;
        runtime.block_on(store.delete_runs(runs))?;
        drop(locks);
        deleted += runs.len();
        Ok::<_, store::Error>(())
    });
    if deleted > 0 {
        runtime.block_on(store.vacuum())?;
    }
    let left = known.len().saturating_sub(deleted);
    eprint_line(&deletion(deleted, left));
    Ok(removed?)
}

/// Returns the time that was this long ago, in milliseconds since 1970.
fn time_before(age: Duration) -> i64 {
    let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    clock::milliseconds().saturating_sub(age)
}

fn deletion(deleted: usize, left: usize) -> String {
    format!("{} deleted, {left} left", counted(deleted as u64, "run"))
}

#[cfg(feature = "server")]
fn remove_at(remote: &Remote, args: &Delete) -> anyhow::Result<()> {
    let known = remote.runs(usize::MAX, false, |_| true)?;
    let due: Vec<RunNumber> = match args.older_than {
        Some(age) => {
            let before = time_before(age);
            let old = known.iter().filter(|run| run.updated_at < before && !run.is_open());
            old.map(|run| run.run).collect()
        }
        None => args.runs.clone(),
    };
    for run in &due {
        ensure!(known.iter().any(|known| known.run == *run), store::Error::NoRun(*run));
    }
    let mut deleted = 0;
    let removed = due.iter().try_for_each(|run| {
        remote.delete(&format!("/runs/{run}"))?;
        deleted += 1;
        anyhow::Ok(())
    });
    eprint_line(&deletion(deleted, known.len().saturating_sub(deleted)));
    removed
}

/// How many runs are deleted at once. Each takes an open file for its lock, and a process may have few.
const RUNS_PER_DELETE: usize = 32;
