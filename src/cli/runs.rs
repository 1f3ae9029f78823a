//! `pointsman runs`, `cancel` and `delete`: list, cancel and delete stored runs.

use anyhow::{bail, ensure};
use comfy_table::{CellAlignment, Table, presets};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::clock;
use crate::run::{input_totals, pause_reason};
use crate::store::{self, RunLock, RunNumber, RunState, RunTotals, StoredRun};
use crate::terminal_text;

use super::args::{Cancel, Delete, Runs};
use super::exit::Exit;
use super::open_store::{OpenedStore, fail, state_word};
use super::print::{print, print_json};
use super::progress::{Mode, eprint_line};
use super::status::{cost, count};

/// Lists every run.
pub(super) fn runs(args: &Runs) -> Exit {
    let listed = list(args);
    listed.map_or_else(|error| fail(Mode::Lines, error), |()| Exit::Success)
}

fn list(args: &Runs) -> anyhow::Result<()> {
    let OpenedStore { runtime, store, .. } = OpenedStore::to_read(&args.store)?;
    let mut rows = Vec::new();
    for run in runtime.block_on(store.runs())? {
        let totals = runtime.block_on(input_totals(&*store, &run))?;
        let state = state_word(&*store, &run);
        rows.push((run, state, totals));
    }
    let text = if args.json {
        let lines: Vec<_> =
            rows.iter().map(|(run, state, totals)| as_json(run, state, totals).to_string()).collect();
        return if lines.is_empty() { Ok(()) } else { Ok(print_json(&lines.join("\n"))?) };
    } else if rows.is_empty() {
        eprint_line("no runs are stored");
        return Ok(());
    } else {
        table(&rows)
    };
    Ok(print(&text)?)
}

fn as_json(run: &StoredRun, state: &str, totals: &RunTotals) -> Value {
    let time = |at: i64| Timestamp::from_millisecond(at).map_or(Value::Null, |at| json!(at.to_string()));
    let (paused, paused_class) = pause_reason(run);
    json!({
        "run": run.number.0, "pipeline": run.metadata.name, "state": state,
        "completed": totals.completed, "failed": totals.failed, "skipped": totals.skipped, "unfinished": totals.open,
        "calls": totals.usage.calls, "cost_usd": dollars(totals), "calls_of_unknown_cost": totals.usage.calls_of_unknown_cost,
        "sessions": run.sessions, "created_at": time(run.created_at), "updated_at": time(run.updated_at),
        "command": run.metadata.command, "paused": paused, "paused_class": paused_class,
    })
}

/// Returns the known part of the cost; `None` if nothing is known.
fn dollars(totals: &RunTotals) -> Option<f64> {
    let known = totals.usage.calls_of_unknown_cost == 0 || totals.usage.cost.0 > 0;
    known.then(|| totals.usage.cost.0 as f64 / 1e9)
}

fn table(rows: &[(StoredRun, &str, RunTotals)]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "run",
        "pipeline",
        "state",
        "completed",
        "failed",
        "unfinished",
        "calls",
        "cost",
        "last active (UTC)",
        "items",
    ]);
    for (run, state, totals) in rows {
        let items = run.metadata.command.get("items").and_then(Value::as_str).unwrap_or("");
        let at =
            Timestamp::from_millisecond(run.updated_at).map(|at| at.strftime("%Y-%m-%d %H:%M").to_string());
        table.add_row([
            run.number.to_string(),
            terminal_text::line(&run.metadata.name).into_owned(),
            match pause_reason(run).1 {
                Some(class) => format!("{state}: {class}"),
                None => (*state).to_owned(),
            },
            count(totals.completed + totals.skipped),
            count(totals.failed),
            count(totals.open),
            count(totals.usage.calls),
            cost(dollars(totals), totals.usage.calls_of_unknown_cost),
            at.unwrap_or_default(),
            std::path::Path::new(items)
                .file_name()
                .map_or_else(String::new, |name| terminal_text::line(&name.to_string_lossy()).into_owned()),
        ]);
    }
    for column in [0, 3, 4, 5, 6, 7] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// Cancels a run.
pub(super) fn cancel(args: &Cancel) -> Exit {
    let cancelled = cancel_run(args);
    cancelled.map_or_else(|error| fail(Mode::Lines, error), |()| Exit::Success)
}

fn cancel_run(args: &Cancel) -> anyhow::Result<()> {
    let OpenedStore { runtime, store, .. } = OpenedStore::of(&args.store)?;
    let run = args.run;
    let known = runtime.block_on(store.run(run))?;
    if known.state == RunState::Completed {
        bail!("run {run} is complete: there is nothing to cancel; `pointsman delete {run}` deletes it");
    }
    let next = format!(
        "its finished items stay stored. The same command begins a new run, `pointsman resume {run}` resumes this one"
    );
    let is_running = store.is_locked(run);
    runtime.block_on(store.set_state(run, RunState::Cancelled))?;
    let how = if is_running { "being cancelled" } else { "cancelled" };
    eprint_line(&format!("run {run} is {how}; {next}"));
    Ok(())
}

/// Deletes runs.
pub(super) fn delete(args: &Delete) -> Exit {
    remove(args).map_or_else(|error| fail(Mode::Lines, error), |()| Exit::Success)
}

fn remove(args: &Delete) -> anyhow::Result<()> {
    let OpenedStore { runtime, store, .. } = OpenedStore::of(&args.store)?;
    let known = runtime.block_on(store.runs())?;
    let due: Vec<RunNumber> = match args.older_than {
        Some(age) => {
            let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
            let before = clock::milliseconds().saturating_sub(age);
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
    eprint_line(&format!("{} deleted, {left} left", super::status::counted(deleted as u64, "run")));
    Ok(removed?)
}

/// How many runs are deleted at once. Each takes an open file for its lock, and a process may have few.
const RUNS_PER_DELETE: usize = 32;
