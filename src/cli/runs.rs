//! `pointsman runs`, `cancel` and `forget`: what is kept, and what is to be kept no more.

use std::io::Write;

use anyhow::{Context, bail};
use comfy_table::{CellAlignment, Table, presets};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::store::{KnownRun, RunNumber, RunState, Sums};

use super::args::{Cancel, Forget, Runs};
use super::exit::Exit;
use super::kept::{Opened, fail, state};
use super::live::{Mode, say};
use super::status::{cost, count};

/// Lists every run.
pub(super) fn runs(args: &Runs) -> Exit {
    let listed = list(args);
    listed.map_or_else(|error| fail(Mode::Lines, error), |()| Exit::Done)
}

fn list(args: &Runs) -> anyhow::Result<()> {
    let Opened { runtime, store, .. } = Opened::of(&args.store)?;
    let mut rows = Vec::new();
    for run in runtime.block_on(store.runs())? {
        let sums = runtime.block_on(store.sums(run.number))?;
        let state = state(&*store, &run);
        rows.push((run, state, sums));
    }
    let text = if args.json {
        rows.iter().map(|(run, state, sums)| format!("{}\n", as_json(run, state, sums))).collect()
    } else if rows.is_empty() {
        say("no run is kept");
        return Ok(());
    } else {
        format!("{}\n", table(&rows))
    };
    std::io::stdout().write_all(text.as_bytes()).context("stdout")
}

fn as_json(run: &KnownRun, state: &str, sums: &Sums) -> Value {
    let time = |at: i64| Timestamp::from_millisecond(at).map_or(Value::Null, |at| json!(at.to_string()));
    json!({
        "run": run.number.0, "pipeline": run.outline.name, "state": state,
        "completed": sums.completed, "failed": sums.failed, "skipped": sums.skipped, "open": sums.open,
        "calls": sums.spent.calls, "cost_usd": dollars(sums), "calls_of_unknown_cost": sums.spent.unknown,
        "sessions": run.sessions, "begun": time(run.begun), "touched": time(run.touched),
        "places": run.outline.places,
    })
}

/// Returns what is known of the cost; `None` when nothing is.
fn dollars(sums: &Sums) -> Option<f64> {
    let known = sums.spent.unknown == 0 || sums.spent.cost.0 > 0;
    known.then(|| sums.spent.cost.0 as f64 / 1e9)
}

fn table(rows: &[(KnownRun, &str, Sums)]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "run",
        "pipeline",
        "state",
        "completed",
        "failed",
        "open",
        "calls",
        "cost",
        "last at work (UTC)",
        "items",
    ]);
    for (run, state, sums) in rows {
        let items = run.outline.places.get("items").and_then(Value::as_str).unwrap_or("");
        let at = Timestamp::from_millisecond(run.touched).map(|at| at.strftime("%Y-%m-%d %H:%M").to_string());
        table.add_row([
            run.number.to_string(),
            run.outline.name.clone(),
            (*state).to_owned(),
            count(sums.completed + sums.skipped),
            count(sums.failed),
            count(sums.open),
            count(sums.spent.calls),
            cost(dollars(sums), sums.spent.unknown),
            at.unwrap_or_default(),
            std::path::Path::new(items)
                .file_name()
                .map_or_else(String::new, |name| name.to_string_lossy().into()),
        ]);
    }
    for column in [0, 3, 4, 5, 6, 7] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// Gives a run up.
pub(super) fn cancel(args: &Cancel) -> Exit {
    let cancelled = give_up(args);
    cancelled.map_or_else(|error| fail(Mode::Lines, error), |()| Exit::Done)
}

fn give_up(args: &Cancel) -> anyhow::Result<()> {
    let Opened { runtime, store, .. } = Opened::of(&args.store)?;
    let run = args.run;
    let known = runtime.block_on(store.run(run))?;
    if known.state == RunState::Complete {
        bail!("run {run} is complete: there is nothing to give up; `pointsman forget {run}` removes it");
    }
    let next = format!(
        "what it has settled stays. The same command begins a new run, `pointsman resume {run}` goes on with this one"
    );
    let at_work = store.is_at_work(run);
    runtime.block_on(store.set(run, RunState::Cancelled))?;
    let how = if at_work { "told to stop now" } else { "given up" };
    say(&format!("run {run} is {how}; {next}"));
    Ok(())
}

/// Removes runs.
pub(super) fn forget(args: &Forget) -> Exit {
    remove(args).map_or_else(|error| fail(Mode::Lines, error), |()| Exit::Done)
}

fn remove(args: &Forget) -> anyhow::Result<()> {
    let Opened { runtime, store, .. } = Opened::of(&args.store)?;
    let known = runtime.block_on(store.runs())?;
    let due: Vec<RunNumber> = match args.older_than {
        Some(age) => {
            let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
            let before = Timestamp::now().as_millisecond().saturating_sub(age);
            let old = known.iter().filter(|run| run.touched < before && !store.is_at_work(run.number));
            old.map(|run| run.number).collect()
        }
        None => args.runs.clone(),
    };
    // Whoever works on one of them would find its rows gone.
    let mut locks = Vec::new();
    for run in &due {
        locks.push(store.lock(*run)?);
    }
    runtime.block_on(store.forget(&due))?;
    let left = known.len().saturating_sub(due.len());
    say(&format!("{} forgotten, {left} left", super::status::numbered(due.len() as u64, "run")));
    Ok(())
}
