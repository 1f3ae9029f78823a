//! `pointsman results`, `failures` and `report`: the results of a run, read from its store.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};

use crate::run::{History, state_word};
use crate::runtime::{Error, owner_of, record_written, retried_classes};
use crate::sink::{self, Destination, Sink};
use crate::store::{RunState, StoredItem};
use crate::terminal_text;
use crate::types::ItemStatus;

use super::args::{Csv, CsvFormulas, LineFormat, OneRun, Results};
use super::exit::Exit;
use super::next_command::NextCommand;
use super::open_store::{OpenedStore, fail};
use super::print::{Listing, print, print_json};
use super::progress::{Mode, eprint_line};
use super::saved_args::{SavedArgs, is_dash};
use super::shell_word::store_option;
use super::status::counted;
use super::table;

/// Writes the lines of all finished items.
pub(super) fn results(args: &Results) -> Exit {
    write(args).map_or_else(|error| fail(Mode::Lines, error), |()| Exit::Success)
}

fn write(args: &Results) -> anyhow::Result<()> {
    let OpenedStore { runtime, store, url } = OpenedStore::to_read(&args.store)?;
    runtime.block_on(async {
        let history = History::of(store.clone(), args.run).await?;
        let mut used_paths = url.files();
        used_paths.extend(args.store.config.clone().or_else(|| Some("config.toml".into())));
        // A run of another program has stored another kind of command.
        used_paths.extend(SavedArgs::from_run(history.run()).map(|saved_args| saved_args.input_files()).unwrap_or_default());
        let used_paths: Vec<&Path> = used_paths.iter().map(PathBuf::as_path).collect();
        let format = format(args.format, args.csv, &args.out);
        let destination = if is_dash(&args.out) {
            Destination::stdout(&used_paths).context("--out")?
        } else {
            let destination = Destination::file(&args.out, &used_paths).context("--out")?;
            owner_of(history.run()).overwriting(args.overwrite).check(&args.out).context("--out")?;
            destination
        };
        let outdated = export(&history, destination, &args.out, format).await?;
        if !is_dash(&args.out) {
            match record_written(&*store, args.run, &args.out).await {
                // An active run records its own files, and a read-only store stays as it is.
                Ok(()) | Err(Error::Store(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if outdated > 0 {
            let run = args.run;
            let lines = counted(outdated, "line");
            Mode::Lines.note(&format!(
                "{lines} of items that finished before the pipeline of run {run} changed; `pointsman resume {run}` processes \
                 the affected items again"
            ));
        }
        Ok(())
    })
}

pub(super) fn format(argument: Option<LineFormat>, csv: Csv, out: &Path) -> sink::Format {
    let formulas = match csv.csv_formulas {
        CsvFormulas::Neutral => sink::FormulaCells::Escaped,
        CsvFormulas::Keep => sink::FormulaCells::Verbatim,
    };
    match argument.map_or_else(
        || sink::Format::of(out),
        |format| match format {
            LineFormat::Jsonl => sink::Format::Jsonl,
            LineFormat::Csv => sink::Format::Csv(formulas),
        },
    ) {
        sink::Format::Jsonl => sink::Format::Jsonl,
        sink::Format::Csv(_) => sink::Format::Csv(formulas),
    }
}

/// Writes the lines of all finished items of a run to `destination`, the file at `path`; an existing file is
/// replaced when everything is written. Items that are not in the input any more have no line. Returns how many
/// lines are older than the last change of the pipeline.
pub(super) async fn export(
    history: &History,
    destination: Destination,
    path: &Path,
    format: sink::Format,
) -> anyhow::Result<u64> {
    let mut outdated = 0;
    let sink = Sink::results(destination.replacing_after(path, u64::MAX), format, history.steps())?;
    let written = history
        .items(async |item: &StoredItem| -> anyhow::Result<()> {
            let is_in_input = history.is_in_input(item.head.number);
            let Some(line) = history.line(item).filter(|_| is_in_input) else { return Ok(()) };
            outdated += u64::from(history.is_outdated(item));
            Ok(sink.write(line).await?)
        })
        .await;
    if written.is_err() {
        sink.mark_lines_missing();
    }
    // The error of the writer is more specific than the error of the closed channel.
    let finished = sink.finish().await;
    finished?;
    written.map(|()| outdated)
}

/// Lists the failed items.
pub(super) fn failures(args: &OneRun) -> Exit {
    list(args).map_or_else(|error| fail(Mode::Lines, error), |()| Exit::Success)
}

fn list(args: &OneRun) -> anyhow::Result<()> {
    let OpenedStore { runtime, store, .. } = OpenedStore::to_read(&args.store)?;
    let mut out = Listing::new();
    let mut failed = 0;
    runtime.block_on(async {
        let history = History::of(store, args.run).await?;
        history
            .failed_items(async |item: &StoredItem| -> anyhow::Result<()> {
                let Some(outcome) = item.outcome.as_ref().filter(|it| it.status == ItemStatus::Failed) else {
                    return Ok(());
                };
                failed += 1;
                let (step, failure) = outcome
                    .error
                    .as_ref()
                    .map_or((None, None), |(step, failure)| (Some(step.as_str()), Some(failure)));
                let class = failure.map(|failure| failure.class.as_str());
                let message = failure.map_or("", |failure| &failure.message);
                if args.json {
                    let input = item.head.input.as_deref().and_then(|input| serde_json::from_str(input).ok());
                    let line = json!({
                        "key": item.head.key, "line": item.head.line, "class": class, "step": step,
                        "message": message, "item": input.unwrap_or(Value::Null),
                    });
                    out.show_json(&line.to_string())?;
                } else {
                    let class = class.unwrap_or("?");
                    let step = step.unwrap_or("?");
                    let key = &item.head.key;
                    let line = item.head.line;
                    out.show(&format!("{key}  line {line}  {class}  step {step}: {message}"))?;
                }
                Ok(())
            })
            .await
    })?;
    out.finish()?;
    if failed == 0 {
        eprint_line(&format!("no item of run {} has failed", args.run));
    } else if !args.json {
        let run = args.run;
        let them = if failed == 1 { "it" } else { "them" };
        eprint_line(&format!(
            "{} failed; `pointsman retry {run}` processes {them} again",
            counted(failed, "item")
        ));
    }
    Ok(())
}

/// Shows the report over all sessions.
pub(super) fn report(args: &OneRun) -> Exit {
    show(args).map_or_else(|error| fail(Mode::Lines, error), |()| Exit::Success)
}

fn show(args: &OneRun) -> anyhow::Result<()> {
    let OpenedStore { runtime, store, url } = OpenedStore::to_read(&args.store)?;
    let (history, report) = runtime.block_on(async {
        let history = History::of(store.clone(), args.run).await?;
        let report = history.report().await?;
        anyhow::Ok((history, report))
    })?;
    if args.json {
        print_json(&serde_json::to_string_pretty(&report)?)?;
    } else {
        let run = history.run();
        let sessions = counted(u64::try_from(run.sessions).unwrap_or(0), "session");
        let word = state_word(&*store, run);
        let retry = retried_classes(run);
        let store_option = store_option(args.store.store.as_ref());
        let saved_args = SavedArgs::from_run(run);
        let next = NextCommand {
            run: run.number,
            url: &url,
            store_option: &store_option,
            retry: retry.as_deref(),
            is_from_stdin: saved_args.as_ref().is_ok_and(|saved_args| is_dash(saved_args.items())),
            is_cancelled: run.state == RunState::Cancelled,
        };
        let next = next.of(&report).map(|next| match &saved_args {
            Ok(_) => next,
            // No command of this program can continue it.
            Err(other_program) => other_program.to_string(),
        });
        let mut text = format!("run {}, {word}, {sessions}\n{}", run.number, table::report(&report));
        if let Some(next) = next.filter(|_| !store.is_locked(run.number)) {
            text.push_str(&format!("\n{}", terminal_text::line(&next)));
        }
        print(&text)?;
    }
    Ok(())
}
