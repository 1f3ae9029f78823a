//! `pointsman results`, `failures` and `report`: the results of a run, read from its store.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
#[cfg(feature = "server")]
use anyhow::ensure;

use crate::pipeline::{FileUse, ProtectedFiles};
use crate::run::{FailedItem, History, Report, state_word};
use crate::runtime::{Error, Exported, export, owner_of, record_written, retried_classes};
use crate::sink::{self, Destination, LineOptions, Sink};
use crate::source::Source;
use crate::store::{RunNumber, RunState, StoreUrl, StoredItem};
use crate::terminal_text;
use crate::types::{Class, StepName};

use super::args::{OneRun, Results, Show, StoredRunArgs};
use super::config::used_files;
use super::exit::Exit;
use super::io;
use super::line_format::{check_name, format};
use super::next_command::NextCommand;
use super::open_store::{OpenedStore, fail};
use super::print::{Listing, print, print_json};
use super::progress::{Mode, eprint_line};
use super::progress_text::counted;
#[cfg(feature = "server")]
use super::remote::{download, requests::Remote};
use super::saved_args::{SavedArgs, is_dash};
use super::shell_word::store_option;
use super::table;

/// Writes the lines of all finished items.
pub(super) fn results(args: &Results) -> Exit {
    write_results(args).map_or_else(|error| fail(Mode::Lines, error), |()| Exit::Success)
}

fn write_results(args: &Results) -> anyhow::Result<()> {
    check_name(args.format, &args.out).context("--out")?;
    let format = format(args.format, args.csv, &args.out);
    args.output.check(format)?;
    #[cfg(feature = "server")]
    if let Some(remote) = args.store.remote()? {
        return download_results(&remote, args);
    }
    let OpenedStore { runtime, store, url } = OpenedStore::to_read(&args.store)?;
    runtime.block_on(async {
        let history = History::of(store.clone(), args.run).await?;
        let mut used_paths = url.files();
        used_paths.extend(used_files(args.store.config.as_deref()));
        // A run of another program has stored another kind of command.
        used_paths.extend(SavedArgs::from_run(history.run()).map(|saved_args| saved_args.input_files()).unwrap_or_default());
        let used_paths: Vec<&Path> = used_paths.iter().map(PathBuf::as_path).collect();
        let is_new_file = !is_dash(&args.out) && !args.out.exists();
        let destination = if is_dash(&args.out) {
            Destination::stdout(&used_paths).context("--out")?
        } else {
            let destination = Destination::file(&args.out, &used_paths).context("--out")?;
            owner_of(history.run()).overwriting(args.overwrite).check(&args.out).context("--out")?;
            destination
        };
        let items = items_of(&history, args, &url);
        let lines = (format, args.output.options());
        let written = write(&history, destination, &args.out, lines, items).await;
        if is_new_file && written.is_err() {
            // Another command may write to it. If it cannot be removed, it has fewer lines than the run.
            let _ = fs::remove_file(&args.out);
        }
        let Exported { outdated, .. } = written?;
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

/// Returns the items of a run; `None` if they cannot be read again.
fn items_of(history: &History, args: &Results, store: &StoreUrl) -> Option<Source> {
    let saved_args = SavedArgs::from_run(history.run()).ok()?;
    let run_args = saved_args.args(&StoredRunArgs::default(), args.store.config.as_deref(), Show::default());
    if is_dash(&run_args.items) {
        return None;
    }
    let mut source = io::source(&run_args).ok()?;
    // This process has its store open.
    let mut used = ProtectedFiles::default();
    store.files().iter().for_each(|file| used.add(FileUse::Store, file));
    source.leave_out(&used);
    Some(source)
}

/// Writes the lines that a daemon sends, as they are.
#[cfg(feature = "server")]
fn download_results(remote: &Remote, args: &Results) -> anyhow::Result<()> {
    let format = format(args.format, args.csv, &args.out);
    ensure!(
        format != sink::Format::Parquet,
        "a daemon sends no Parquet; write CSV, or read the store of the daemon (--store URL)"
    );
    let query = match format {
        sink::Format::Jsonl | sink::Format::Parquet => "format=jsonl",
        sink::Format::Csv(sink::FormulaCells::Escaped) => "format=csv&formulas=neutral",
        sink::Format::Csv(sink::FormulaCells::Verbatim) => "format=csv&formulas=keep",
    };
    let path = format!("/runs/{}/results?{query}{}", args.run, args.output.query());
    if !is_dash(&args.out) {
        return download::save(|| remote.lines(&path), &args.out, args.overwrite).context("--out");
    }
    let mut lines = remote.lines(&path)?;
    let mut out = Listing::new();
    while let Some(piece) = lines.next()? {
        out.write(&piece, format == sink::Format::Jsonl)?;
    }
    Ok(out.finish()?)
}

/// Writes the lines of all finished items of a run to `destination`, the file at `path`; an existing file is
/// replaced when everything is written. `items` is the input, if it can be read.
pub(super) async fn write(
    history: &History,
    destination: Destination,
    path: &Path,
    (format, options): (sink::Format, LineOptions),
    items: Option<Source>,
) -> anyhow::Result<Exported> {
    let destination = destination.replacing_after(path, u64::MAX);
    let sink = Sink::results_with(destination, format, options, history.steps())?;
    export(history, sink, items).await.map_err(|error| match error {
        // So that a closed pipe is recognized, as where a run writes its lines.
        Error::Output(error) => error.into(),
        error => error.into(),
    })
}

/// Lists the failed items.
pub(super) fn failures(args: &OneRun) -> Exit {
    list(args).map_or_else(|error| fail(Mode::Lines, error), |()| Exit::Success)
}

fn list(args: &OneRun) -> anyhow::Result<()> {
    #[cfg(feature = "server")]
    if let Some(remote) = args.store.remote()? {
        return list_from(&remote, args);
    }
    let OpenedStore { runtime, store, .. } = OpenedStore::to_read(&args.store)?;
    let mut list = FailureList::new(args);
    runtime.block_on(async {
        let history = History::of(store, args.run).await?;
        history
            .failed_items(async |item: &StoredItem| -> anyhow::Result<()> {
                history.failure(item).map_or(Ok(()), |item| list.show(&item))
            })
            .await
    })?;
    list.finish("")
}

#[cfg(feature = "server")]
fn list_from(remote: &Remote, args: &OneRun) -> anyhow::Result<()> {
    let mut list = FailureList::new(args);
    let mut lines = remote.lines(&format!("/runs/{}/failures", args.run))?;
    while let Some(piece) = lines.next()? {
        for line in piece.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let item = serde_json::from_slice(line).map_err(anyhow::Error::new).context("a failed item")?;
            list.show(&remote.parse(item)?)?;
        }
    }
    list.finish(remote.option())
}

/// The failed items that are shown, one a line.
struct FailureList<'a> {
    args: &'a OneRun,
    out: Listing,
    failed: u64,
}

impl<'a> FailureList<'a> {
    fn new(args: &'a OneRun) -> Self {
        Self { args, out: Listing::new(), failed: 0 }
    }

    fn show(&mut self, item: &FailedItem) -> anyhow::Result<()> {
        self.failed += 1;
        if self.args.json {
            return Ok(self.out.show_json(&serde_json::to_string(item)?)?);
        }
        let class = item.class.map_or("?", Class::as_str);
        let step = item.step.as_ref().map_or("?", StepName::as_str);
        let FailedItem { key, line, message, .. } = item;
        Ok(self.out.show(&format!("{key}  line {line}  {class}  step {step}: {message}"))?)
    }

    /// Writes the rest, and what to do next. `option` is what the suggested command needs.
    fn finish(self, option: &str) -> anyhow::Result<()> {
        let Self { args, out, failed } = self;
        out.finish()?;
        let run = args.run;
        if failed == 0 {
            eprint_line(&format!("no item of run {run} has failed"));
        } else if !args.json {
            let them = if failed == 1 { "it" } else { "them" };
            eprint_line(&format!(
                "{} failed; `pointsman retry {run}{option}` processes {them} again",
                counted(failed, "item")
            ));
        }
        Ok(())
    }
}

/// Shows the report over all sessions.
pub(super) fn report(args: &OneRun) -> Exit {
    show(args).map_or_else(|error| fail(Mode::Lines, error), |()| Exit::Success)
}

fn show(args: &OneRun) -> anyhow::Result<()> {
    #[cfg(feature = "server")]
    if let Some(remote) = args.store.remote()? {
        return show_from(&remote, args);
    }
    let OpenedStore { runtime, store, url } = OpenedStore::to_read(&args.store)?;
    let (history, report) = runtime.block_on(async {
        let history = History::of(store.clone(), args.run).await?;
        let report = history.report().await?;
        anyhow::Ok((history, report))
    })?;
    if args.json {
        return Ok(print_json(&serde_json::to_string_pretty(&report)?)?);
    }
    let run = history.run();
    let retry = retried_classes(run);
    let store_option = store_option(args.store.store.as_ref());
    let saved_args = SavedArgs::from_run(run);
    let next = NextCommand {
        run: run.number,
        place: &url.to_string(),
        store_option: &store_option,
        retry: retry.as_deref(),
        is_from_stdin: saved_args.as_ref().is_ok_and(|saved_args| is_dash(saved_args.items())),
        is_cancelled: run.state == RunState::Cancelled,
        has_give_up: true,
    };
    let next = next.of(&report).map(|next| match &saved_args {
        Ok(_) => next,
        // No command of this program can continue it.
        Err(other_program) => other_program.to_string(),
    });
    let next = next.filter(|_| !store.is_locked(run.number));
    let shown = ShownReport { word: state_word(&*store, run), sessions: run.sessions, report: &report, next };
    shown.print(run.number)
}

#[cfg(feature = "server")]
fn show_from(remote: &Remote, args: &OneRun) -> anyhow::Result<()> {
    let view = remote.run(args.run)?;
    let report: Report = remote.get(&format!("/runs/{}/report", args.run))?;
    if args.json {
        return Ok(print_json(&serde_json::to_string_pretty(&report)?)?);
    }
    let next = NextCommand {
        run: args.run,
        place: &format!("the daemon at {}", remote.url()),
        store_option: remote.option(),
        retry: None,
        is_from_stdin: false,
        // A daemon resumes a cancelled run like any other.
        is_cancelled: false,
        has_give_up: false,
    };
    let next = next.of(&report).filter(|_| !view.is_open());
    ShownReport { word: &view.state, sessions: view.sessions, report: &report, next }.print(args.run)
}

/// A report with what is shown around it.
struct ShownReport<'a> {
    word: &'a str,
    sessions: i64,
    report: &'a Report,
    /// What the user may do next.
    next: Option<String>,
}

impl ShownReport<'_> {
    fn print(&self, run: RunNumber) -> anyhow::Result<()> {
        let sessions = counted(u64::try_from(self.sessions).unwrap_or(0), "session");
        let word = terminal_text::line(self.word);
        let mut text = format!("run {run}, {word}, {sessions}\n{}", table::report(self.report));
        if let Some(next) = &self.next {
            text.push_str(&format!("\n{}", terminal_text::line(next)));
        }
        Ok(print(&text)?)
    }
}
