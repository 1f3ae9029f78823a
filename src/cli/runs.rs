//! `pointsman runs`, `cancel` and `delete`: list, cancel and delete stored runs.

use anyhow::{bail, ensure};
use comfy_table::{CellAlignment, Table, presets};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::clock;
use crate::run::{LastReport, Unprocessed, has_lost_session, input_totals, pause_reason, state_word};
use crate::store::{self, RunLock, RunNumber, RunState, RunTotals, StoredRun};
use crate::terminal_text;

use super::args::{Cancel, Delete, Runs};
use super::exit::Exit;
use super::open_store::{OpenedStore, fail};
use super::print::{print, print_json};
use super::progress::{Mode, eprint_line};
use super::status::{cost, count};
use super::table::percent;

/// Lists every run.
pub(super) fn runs(args: &Runs) -> Exit {
    let listed = list(args);
    listed.map_or_else(|error| fail(Mode::Lines, error), |()| Exit::Success)
}

/// A run in the list.
struct Row {
    run: StoredRun,
    state: &'static str,
    totals: RunTotals,
    last: LastReport,
    has_lost_session: bool,
}

fn list(args: &Runs) -> anyhow::Result<()> {
    let OpenedStore { runtime, store, .. } = OpenedStore::to_read(&args.store)?;
    let mut rows = Vec::new();
    for run in runtime.block_on(store.runs())? {
        let totals = runtime.block_on(input_totals(&*store, &run))?;
        let state = state_word(&*store, &run);
        let last = LastReport::of(&run);
        let has_lost_session = has_lost_session(&run, store.is_locked(run.number));
        rows.push(Row { run, state, totals, last, has_lost_session });
    }
    let text = if args.json {
        let lines: Vec<_> = rows.iter().map(|row| row.as_json().to_string()).collect();
        return if lines.is_empty() { Ok(()) } else { Ok(print_json(&lines.join("\n"))?) };
    } else if rows.is_empty() {
        eprint_line("no runs are stored");
        return Ok(());
    } else {
        table(&rows)
    };
    Ok(print(&text)?)
}

impl Row {
    fn as_json(&self) -> Value {
        let Self { run, state, totals, last, has_lost_session } = self;
        let time = |at: i64| Timestamp::from_millisecond(at).map_or(Value::Null, |at| json!(at.to_string()));
        let (paused, paused_class) = pause_reason(run);
        json!({
            "run": run.number.0, "pipeline": run.metadata.name, "state": state,
            "completed": totals.completed, "failed": totals.failed, "skipped": totals.skipped,
            "unfinished": last.unfinished(totals.open), "rejected": last.rejected, "unwritten": last.unwritten,
            "not_processed": last.not_processed, "unprocessed": last.unprocessed, "unsaved": last.unsaved,
            "calls": last.sent_calls(totals), "cost_usd": dollars(totals),
            "calls_of_unknown_cost": totals.usage.calls_of_unknown_cost, "lost_session": has_lost_session,
            "sessions": run.sessions, "created_at": time(run.created_at), "updated_at": time(run.updated_at),
            "command": run.metadata.command, "paused": paused, "paused_class": paused_class,
            "input_error": last.input_error, "output_error": last.output_error, "store_error": last.store_error,
        })
    }
}

/// Formats the number of unfinished items. Until a session has ended, only those with an answer are known.
fn unfinished(state: &str, items: u64) -> String {
    match (state, items) {
        ("running" | "crashed", 0) => "?".to_owned(),
        ("running" | "crashed", _) => format!("at least {}", count(items)),
        (_, _) => count(items),
    }
}

/// Formats the part of the input that was not started, or else the number of new and changed items that a retry left.
fn not_processed(last: &LastReport) -> String {
    match &last.unprocessed {
        None if last.not_processed > 0 => count(last.not_processed),
        None => "0".to_owned(),
        Some(Unprocessed { fraction: Some(fraction), .. }) if *fraction <= 0.0 => "0".to_owned(),
        Some(Unprocessed { estimated_items: Some(items), .. }) => format!("about {}", count((*items).max(1))),
        Some(Unprocessed { fraction: Some(fraction), .. }) => percent(*fraction),
        Some(Unprocessed { fraction: None, .. }) => "?".to_owned(),
    }
}

/// Returns the known part of the cost; `None` if nothing is known.
fn dollars(totals: &RunTotals) -> Option<f64> {
    let known = totals.usage.calls_of_unknown_cost == 0 || totals.usage.cost.0 > 0;
    known.then(|| totals.usage.cost.0 as f64 / 1e9)
}

fn table(rows: &[Row]) -> String {
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
    for Row { run, state, totals, last, has_lost_session } in rows {
        let items = run.metadata.command.get("items").and_then(Value::as_str).unwrap_or("");
        let at =
            Timestamp::from_millisecond(run.updated_at).map(|at| at.strftime("%Y-%m-%d %H:%M").to_string());
        let calls_of_unknown_cost = totals.usage.calls_of_unknown_cost + u64::from(*has_lost_session);
        table.add_row([
            run.number.to_string(),
            terminal_text::line(&run.metadata.name).into_owned(),
            match pause_reason(run).1 {
                Some(class) => format!("{state}: {class}"),
                None => (*state).to_owned(),
            },
            count(totals.completed + totals.skipped),
            count(totals.failed),
            unfinished(state, last.unfinished(totals.open)),
            not_processed(last),
            count(last.sent_calls(totals)),
            cost(dollars(totals), calls_of_unknown_cost),
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
        let number = row.run.number;
        row.last
            .io_errors()
            .map(move |error| format!("\nrun {number}: error: {}", terminal_text::line(error)))
    });
    table.trim_fmt() + &errors.collect::<String>()
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
