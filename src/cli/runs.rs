//! `pointsman runs`, `cancel` and `forget`: what is kept, and what is to be kept no more.

use anyhow::{bail, ensure};
use comfy_table::{CellAlignment, Table, presets};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::clock;
use crate::run::{pause_of, sums_of_input};
use crate::screen;
use crate::store::{self, KnownRun, RunLock, RunNumber, RunState, Sums};

use super::args::{Cancel, Forget, Runs};
use super::exit::Exit;
use super::kept::{Opened, fail, state};
use super::live::{Mode, say};
use super::print::{print, print_json};
use super::status::{cost, count};

/// Lists every run.
pub(super) fn runs(args: &Runs) -> Exit {
    let listed = list(args);
    listed.map_or_else(|error| fail(Mode::Lines, error), |()| Exit::Done)
}

fn list(args: &Runs) -> anyhow::Result<()> {
    let Opened { runtime, store, .. } = Opened::to_read(&args.store)?;
    let mut rows = Vec::new();
    for run in runtime.block_on(store.runs())? {
        let sums = runtime.block_on(sums_of_input(&*store, &run))?;
        let state = state(&*store, &run);
        rows.push((run, state, sums));
    }
    let text = if args.json {
        let lines: Vec<_> =
            rows.iter().map(|(run, state, sums)| as_json(run, state, sums).to_string()).collect();
        return if lines.is_empty() { Ok(()) } else { Ok(print_json(&lines.join("\n"))?) };
    } else if rows.is_empty() {
        say("no run is kept");
        return Ok(());
    } else {
        table(&rows)
    };
    Ok(print(&text)?)
}

fn as_json(run: &KnownRun, state: &str, sums: &Sums) -> Value {
    let time = |at: i64| Timestamp::from_millisecond(at).map_or(Value::Null, |at| json!(at.to_string()));
    let (paused, paused_class) = pause_of(run);
    json!({
        "run": run.number.0, "pipeline": run.outline.name, "state": state,
        "completed": sums.completed, "failed": sums.failed, "skipped": sums.skipped, "open": sums.open,
        "calls": sums.spent.calls, "cost_usd": dollars(sums), "calls_of_unknown_cost": sums.spent.unknown,
        "sessions": run.sessions, "begun": time(run.begun), "touched": time(run.touched),
        "places": run.outline.places, "paused": paused, "paused_class": paused_class,
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
            screen::line(&run.outline.name).into_owned(),
            match pause_of(run).1 {
                Some(class) => format!("{state}: {class}"),
                None => (*state).to_owned(),
            },
            count(sums.completed + sums.skipped),
            count(sums.failed),
            count(sums.open),
            count(sums.spent.calls),
            cost(dollars(sums), sums.spent.unknown),
            at.unwrap_or_default(),
            std::path::Path::new(items)
                .file_name()
                .map_or_else(String::new, |name| screen::line(&name.to_string_lossy()).into_owned()),
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
            let before = clock::milliseconds().saturating_sub(age);
            let old = known.iter().filter(|run| run.touched < before && !store.is_at_work(run.number));
            old.map(|run| run.number).collect()
        }
        None => args.runs.clone(),
    };
    for run in &due {
        ensure!(known.iter().any(|known| known.number == *run), store::Error::NoRun(*run));
    }
    let mut forgotten = 0;
    let removed = due.chunks(AT_ONCE).try_for_each(|runs| {
        // A process at work on one of them would find its rows gone.
        let locks: Vec<RunLock> = runs.iter().map(|run| store.lock(*run)).collect::<Result<_, _>>()?;
        runtime.block_on(store.forget(runs))?;
        drop(locks);
        forgotten += runs.len();
        Ok::<_, store::Error>(())
    });
    if forgotten > 0 {
        runtime.block_on(store.shrink())?;
    }
    let left = known.len().saturating_sub(forgotten);
    say(&format!("{} forgotten, {left} left", super::status::numbered(forgotten as u64, "run")));
    Ok(removed?)
}

/// Runs that are removed at once. Each takes an open file for its lock meanwhile, and a process may have few.
const AT_ONCE: usize = 32;
