//! `pointsman results`, `failed` and `report`: what a run has come to, from its store alone.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};

use crate::run::History;
use crate::runtime::{Error, note_written, owner_of, retried_by};
use crate::sink::{self, Sink, Target};
use crate::store::KnownItem;
use crate::types::ItemStatus;

use super::args::{Csv, CsvFormulas, LineFormat, OneRun, Results};
use super::exit::Exit;
use super::kept::{Opened, Said, fail, is_dash, state};
use super::live::{Mode, say};
use super::next_command::NextCommand;
use super::print::{Listing, print, print_json};
use super::status::numbered;
use super::table;

/// Writes the lines of all settled items.
pub(super) fn results(args: &Results) -> Exit {
    write(args).map_or_else(|error| fail(Mode::Lines, error), |()| Exit::Done)
}

fn write(args: &Results) -> anyhow::Result<()> {
    let Opened { runtime, store, url } = Opened::to_read(&args.store)?;
    runtime.block_on(async {
        let history = History::of(store.clone(), args.run).await?;
        let mut taken = url.files();
        taken.extend(args.store.config.clone().or_else(|| Some("config.toml".into())));
        // A run of another program has places of another kind.
        taken.extend(Said::from_run(history.run()).map(|said| said.reads()).unwrap_or_default());
        let taken: Vec<&Path> = taken.iter().map(PathBuf::as_path).collect();
        let format = format(args.format, args.csv, &args.out);
        let target = if is_dash(&args.out) {
            Target::stdout(&taken).context("--out")?
        } else {
            let target = Target::file(&args.out, &taken).context("--out")?;
            owner_of(history.run()).overwriting(args.overwrite).check(&args.out).context("--out")?;
            target
        };
        let outdated = export(&history, target, &args.out, format).await?;
        if !is_dash(&args.out) {
            match note_written(&*store, args.run, &args.out).await {
                // A run that is at work notes its own files, and a store that is not written stays as it is.
                Ok(()) | Err(Error::Store(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if outdated > 0 {
            let (run, lines) = (args.run, numbered(outdated, "line"));
            Mode::Lines.note(&format!(
                "{lines} of items that settled before the pipeline of run {run} changed; `pointsman resume {run}` asks \
                 again what the change reaches"
            ));
        }
        Ok(())
    })
}

pub(super) fn format(said: Option<LineFormat>, csv: Csv, out: &Path) -> sink::Format {
    let formulas = match csv.csv_formulas {
        CsvFormulas::Neutral => sink::Formulas::Neutral,
        CsvFormulas::Keep => sink::Formulas::Kept,
    };
    match said.map_or_else(
        || sink::Format::of(out),
        |said| match said {
            LineFormat::Jsonl => sink::Format::Jsonl,
            LineFormat::Csv => sink::Format::Csv(formulas),
        },
    ) {
        sink::Format::Jsonl => sink::Format::Jsonl,
        sink::Format::Csv(_) => sink::Format::Csv(formulas),
    }
}

/// Writes the lines of all settled items of a run to `target`, the file at `path`; a file that was there is
/// replaced once all is written. There is no line of an item that has left the input. Returns how many lines are older
/// than the last change of the pipeline.
pub(super) async fn export(
    history: &History,
    target: Target,
    path: &Path,
    format: sink::Format,
) -> anyhow::Result<u64> {
    let mut outdated = 0;
    let sink = Sink::results(target.after(path, u64::MAX), format, history.steps())?;
    let written = history
        .items(async |item: &KnownItem| -> anyhow::Result<()> {
            let is_in_input = history.is_in_input(item.head.number);
            let Some(line) = history.line(item).filter(|_| is_in_input) else { return Ok(()) };
            outdated += u64::from(history.is_outdated(item));
            Ok(sink.write(line).await?)
        })
        .await;
    if written.is_err() {
        sink.cut_short();
    }
    // Why the writing ended is worth more than that the next line could not be handed on.
    let finished = sink.finish().await;
    finished?;
    written.map(|()| outdated)
}

/// Lists what has failed.
pub(super) fn failed(args: &OneRun) -> Exit {
    list(args).map_or_else(|error| fail(Mode::Lines, error), |()| Exit::Done)
}

fn list(args: &OneRun) -> anyhow::Result<()> {
    let Opened { runtime, store, .. } = Opened::to_read(&args.store)?;
    let mut out = Listing::new();
    let mut failed = 0;
    runtime.block_on(async {
        let history = History::of(store, args.run).await?;
        history
            .failed(async |item: &KnownItem| -> anyhow::Result<()> {
                let Some(settled) = item.settled.as_ref().filter(|it| it.status == ItemStatus::Failed) else {
                    return Ok(());
                };
                failed += 1;
                let (step, failure) = settled
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
                    let (class, step) = (class.unwrap_or("?"), step.unwrap_or("?"));
                    let (key, line) = (&item.head.key, item.head.line);
                    out.show(&format!("{key}  line {line}  {class}  step {step}: {message}"))?;
                }
                Ok(())
            })
            .await
    })?;
    out.finish()?;
    if failed == 0 {
        say(&format!("no item of run {} has failed", args.run));
    } else if !args.json {
        let run = args.run;
        let them = if failed == 1 { "it" } else { "them" };
        say(&format!("{} failed; `pointsman retry {run}` asks {them} again", numbered(failed, "item")));
    }
    Ok(())
}

/// Shows the report over all sessions.
pub(super) fn report(args: &OneRun) -> Exit {
    show(args).map_or_else(|error| fail(Mode::Lines, error), |()| Exit::Done)
}

fn show(args: &OneRun) -> anyhow::Result<()> {
    let Opened { runtime, store, url } = Opened::to_read(&args.store)?;
    let (history, report) = runtime.block_on(async {
        let history = History::of(store.clone(), args.run).await?;
        let report = history.report().await?;
        anyhow::Ok((history, report))
    })?;
    if args.json {
        print_json(&serde_json::to_string_pretty(&report)?)?;
    } else {
        let run = history.run();
        let sessions = numbered(u64::try_from(run.sessions).unwrap_or(0), "session");
        let word = state(&*store, run);
        let retry = retried_by(run);
        let here = args.store.store.as_ref().map(|url| format!(" --store {url}")).unwrap_or_default();
        let next = NextCommand {
            run: run.number,
            url: &url,
            here: &here,
            retry: retry.as_deref(),
            is_from_stdin: Said::from_run(run).is_ok_and(|said| is_dash(said.items())),
        };
        let mut text = format!("run {}, {word}, {sessions}\n{}", run.number, table::report(&report));
        if let Some(next) = next.of(&report).filter(|_| !store.is_at_work(run.number)) {
            text.push_str(&format!("\n{next}"));
        }
        print(&text)?;
    }
    Ok(())
}
