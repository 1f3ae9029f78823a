//! `pointsman run`: runs items through a pipeline and shows the progress.

mod missing;

use std::io::ErrorKind;
use std::num::NonZeroU64;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::config::KeepInputs;
use crate::diagnostics::Diagnostics;
use crate::pipeline::{CacheMode, Overrides, Pipeline};
use crate::run::{History, Report, RunOutcome};
use crate::runtime::{
    Error, FailedItems, MaxCost, PauseOptions, Pointsman, PreparedRun, ResumeOptions, RunOptions,
    record_written, unknown_columns,
};
use crate::sink::{self, Destination};
use crate::source::{self, Entry};
use crate::store::{CacheLimits, RunNumber, StoreUrl};
use crate::types::{Class, error_chain};

use super::advice::new_run_option;
use super::answer_table::{self, TableTarget};
use super::args::Run;
use super::config::{load_for, scope_note, with_found_file};
use super::exit::Exit;
use super::io::{self, EarlierLines, RunIo, protect};
use super::metrics::MetricsExport;
use super::open_store::store_url;
use super::print::{eprint_lines, stderr_columns};
use super::progress::{Mode, ProgressDisplay, eprint_json};
use super::progress_text::counted;
use super::saved_args::{SavedArgs, is_dash};
use super::shell_word::store_option;
use super::step_args::{check_step, missing_pipeline};
use super::watch::{WatchEnd, watch};
use super::{line_format, log, results, table};

/// How long actors may take to stop after the run has ended.
const MAX_ACTOR_SHUTDOWN: Duration = Duration::from_secs(1);

/// Which run is resumed, and with which items.
#[derive(Debug, Default)]
pub(super) struct ResumeTarget {
    /// The run with this number, regardless of its files.
    pub(super) run: Option<RunNumber>,
    /// Only the failed items of these classes, or of all if the list is empty.
    pub(super) retry: Option<Vec<Class>>,
    /// Whether its items file was moved, so that the run gets the identity of the new path.
    pub(super) has_moved_items: bool,
}

/// Runs items through a pipeline.
pub(super) fn run(args: &Run) -> Exit {
    run_or_resume(args, &ResumeTarget::default())
}

/// Begins or resumes a run.
pub(super) fn run_or_resume(args: &Run, target: &ResumeTarget) -> Exit {
    let mode = Mode::choose(args.show.quiet, args.show.json);
    if let Err(error) = RunIo::check(args, target.retry.is_some()) {
        return mode.fail(&error, Exit::Usage);
    }
    let pipeline = args.pipeline.as_deref();
    if let Err(error) = check_step(&args.step, pipeline, &args.items) {
        return mode.fail(&error, Exit::Usage);
    }
    let config = match load_for(&args.step, pipeline, args.config.as_deref(), args.simulate) {
        Ok(config) => config,
        Err(diagnostics) => {
            return mode.report_diagnostics(&missing_pipeline(pipeline).unwrap_or(diagnostics));
        }
    };
    let args = &with_found_file(args, &config);
    let url = store_url(args.stored.store.as_ref(), &config);
    let metrics = match MetricsExport::open(args, &url) {
        Ok(metrics) => metrics,
        Err(error) => return mode.fail(&error, Exit::IoError),
    };
    let display = ProgressDisplay::new(mode, args.show.progress, &args.title());
    log::start(args.show.log, mode);
    let pointsman = match Pointsman::start_blocking(&config) {
        Ok(pointsman) => pointsman,
        Err(Error::Diagnostics(diagnostics)) => {
            return mode.report_diagnostics(&missing_pipeline(pipeline).unwrap_or(diagnostics));
        }
        Err(error) => return mode.fail(&anyhow::Error::new(error), Exit::Configuration),
    };
    let session = Session {
        pointsman: &pointsman,
        args,
        target,
        mode,
        url,
        inputs: config.store.keep_inputs,
        pause: args.pause.options(&config.run),
        cache: args.cache.mode(&config.run),
        cache_limits: config.store.cache_limits(),
        scope_note: scope_note(&config),
        overrides: args.step.overrides(&config),
    };
    let metrics = metrics.map(|metrics| metrics.start(&pointsman, mode));
    let exit = session.run(display);
    // Without a drain, dropped actors would look like failed ones.
    pointsman.runtime().block_on(pointsman.drain(MAX_ACTOR_SHUTDOWN));
    if let Some(metrics) = metrics {
        metrics.finish(&pointsman);
    }
    exit
}

/// One session of a run.
struct Session<'a> {
    pointsman: &'a Pointsman,
    args: &'a Run,
    target: &'a ResumeTarget,
    mode: Mode,
    url: StoreUrl,
    inputs: KeepInputs,
    pause: PauseOptions,
    cache: CacheMode,
    cache_limits: CacheLimits,
    scope_note: Option<&'static str>,
    overrides: Overrides,
}

impl Session<'_> {
    fn run(&self, mut display: ProgressDisplay) -> Exit {
        let mode = self.mode;
        let mut pipeline = match self.pointsman.pipeline_with(self.args.pipeline.as_deref(), &self.overrides)
        {
            Ok(pipeline) => pipeline,
            Err(diagnostics) => return mode.report_diagnostics(&diagnostics),
        };
        // After the pipeline: where no key is configured, one message is enough.
        let notes = self.pointsman.notes();
        let notes = notes.iter().map(String::as_str);
        notes.chain(self.scope_note).for_each(|note| mode.note(note));
        if self.target.run.is_none() {
            self.args.step.constant_prompt_note(&pipeline).iter().for_each(|note| mode.note(note));
        }
        display.set_title(pipeline.name());
        if let Err(error) = self.refuse_unknown_columns(&pipeline) {
            return mode.fail(&error, Exit::Configuration);
        }
        // The cap of earlier sessions is not known yet. Without a store there is none, and no store is created
        // here.
        let max_cost = self.args.stored.max_cost;
        let has_store = self.url.files().iter().any(|file| file.exists());
        if (max_cost.is_some() || !has_store)
            && let Err(diagnostics) = self.pointsman.check_cap(&pipeline, max_cost)
        {
            return mode.report_diagnostics(&diagnostics);
        }
        let mut prepared = match self.pointsman.runtime().block_on(async { self.prepare(&pipeline).await }) {
            Ok(prepared) => prepared,
            Err(error) => {
                let exit = match error.downcast_ref() {
                    Some(Error::Changed { .. }) => Exit::Configuration,
                    _ => Exit::IoError,
                };
                return mode.fail(&error, exit);
            }
        };
        let max_cost = prepared.as_ref().map_or(max_cost, PreparedRun::max_cost);
        if let Err(diagnostics) = self.pointsman.check_cap(&pipeline, max_cost) {
            return mode.report_diagnostics(&diagnostics);
        }
        prepared.iter().flat_map(PreparedRun::notes).for_each(|note| mode.note(note));
        if let Some(exit) = prepared.as_ref().and_then(|prepared| self.up_to_date(prepared)) {
            return exit;
        }
        let failed_items = match self.failed_items(prepared.as_ref()) {
            Ok(Some(failed_items)) if failed_items.count() == 0 => {
                let is_every_class = self.target.retry.as_ref().is_none_or(Vec::is_empty);
                let kind = if is_every_class { "" } else { " of this kind" };
                let text = format!("no failed items{kind}: there is nothing to retry");
                return match prepared.as_ref().and_then(|prepared| self.missing(prepared)) {
                    Some(missing) => mode.end(&format!("{text}; {missing}"), Exit::ItemsFailed),
                    None => mode.end(&text, Exit::Success),
                };
            }
            Ok(failed_items) => failed_items,
            Err(error) => return mode.fail(&error, Exit::IoError),
        };
        let is_from_store = failed_items.is_some() && !self.reads_items();
        if let Some(prepared) = prepared.as_ref().filter(|_| !is_from_store)
            && let Err(error) = self.refuse_empty_input(&pipeline, prepared)
        {
            return mode.fail(&error, Exit::IoError);
        }
        if let Some(prepared) = prepared.as_ref().filter(|_| self.target.has_moved_items)
            && let Err(error) = self.refuse_other_items(prepared)
        {
            return mode.fail(&error, Exit::IoError);
        }
        let before = prepared.as_ref().map(|prepared| EarlierLines {
            finished: prepared.earlier_totals().finished(),
            rejected: prepared.rejected_before(),
        });
        // Retried items were not rejected. Lines that were rejected are in that file already.
        let unrejected = Run { rejects: None, ..self.args.clone() };
        let args = if failed_items.is_some() { &unrejected } else { self.args };
        let owner = prepared.as_ref().map_or_else(|| self.pointsman.owner(&pipeline), PreparedRun::owner);
        let owner = owner.overwriting(self.args.overwrite);
        let io = RunIo::open(args, &pipeline, &self.url, is_from_store, before.unwrap_or_default(), &owner);
        let RunIo { source, output, report, replaceable } = match io {
            Ok(io) => io,
            Err(error) => match error.downcast::<Diagnostics>() {
                Ok(diagnostics) => {
                    mode.note("the items are CSV, in which every field is a string");
                    return mode.report_diagnostics(&diagnostics);
                }
                Err(error) => return mode.fail(&self.explain_file_error(error), Exit::IoError),
            },
        };
        protect(&mut pipeline, self.args);
        if let Some(prepared) = &mut prepared {
            report
                .as_ref()
                .and_then(Destination::written_file)
                .into_iter()
                .for_each(|file| prepared.add_written_file(file));
            replaceable.into_iter().for_each(|file| prepared.add_replaceable_file(file));
        }
        let source = match failed_items {
            Some(failed_items) if is_from_store => {
                let name = counted(failed_items.count() as u64, "failed item");
                self.args.input.apply(failed_items.source(name, self.pointsman.runtime().clone()))
            }
            _ => source,
        };
        let source = self.args.limit.limited(source);
        let max_items = self.args.limit.max_items.map_or(0, NonZeroU64::get);
        let table = TableTarget::of(self.args).map(|target| (target, answer_table::preview(max_items)));
        let output = match &table {
            Some((_, preview)) => output.with_preview(preview.clone()),
            None => output,
        };
        let name = source.name().to_owned();
        if let Some(number) = prepared.as_ref().and_then(PreparedRun::id) {
            let complete =
                prepared.as_ref().is_some_and(PreparedRun::was_complete) && self.target.retry.is_none();
            let added = match (complete, self.target.run) {
                (true, None) => "; it was complete, and new items are added to it (--new begins a new run)",
                (true, Some(_)) => "; it was complete, and new items are added to it",
                (false, _) => "",
            };
            let cap = match max_cost {
                Some(MaxCost::Limit(cap)) if self.args.stored.max_cost.is_none() => {
                    format!("; its cap of {cap} applies (--max-cost sets another, or none)")
                }
                Some(_) | None => String::new(),
            };
            mode.note(&format!(
                "resuming run {number}: {} finished before{added}{cap}",
                counted(before.unwrap_or_default().finished, "item")
            ));
        }
        let source = if display.needs_count() { source.with_count() } else { source };
        let ran = self.pointsman.runtime().block_on(async {
            let mut run = match prepared {
                Some(prepared) => self.pointsman.run_stored(pipeline, source, output, prepared).await?,
                None => {
                    let max_cost = self.args.stored.max_cost;
                    let options = RunOptions { max_cost, pause: self.pause, ..RunOptions::new() };
                    self.pointsman.run_with(pipeline, source, output, &options).await?
                }
            };
            run.notes().iter().for_each(|note| display.note(note));
            Ok((watch(self.pointsman, &mut run, &mut display).await, run.id()))
        });
        display.clear();
        match ran {
            Ok((WatchEnd::Reported(ended, has_fatal_error), number)) => {
                if ended.is_empty() {
                    mode.note(&format!("no items in {name}"));
                }
                if let Some((target, preview)) = table
                    && let Err(error) = answer_table::show(&preview, target)
                {
                    return mode.fail(&error, Exit::IoError);
                }
                let exit = conclude(mode, &ended, has_fatal_error);
                if let Some(place) = results_place(self.args, &ended)
                    && mode == Mode::Lines
                {
                    mode.note(&place);
                }
                let exit = self.rewrite_output(number).err().unwrap_or(exit);
                let exit = match number.filter(|_| is_from_store && exit == Exit::Success) {
                    Some(number) => match self.still_missing(number) {
                        Ok(Some(missing)) => mode.end(&missing, Exit::ItemsFailed),
                        Ok(None) => exit,
                        Err(error) => mode.fail(&error, Exit::IoError),
                    },
                    None => exit,
                };
                if let Some(number) = number
                    && !ended.output_closed
                {
                    self.show_next_command(number, &ended);
                }
                if number.is_none() && ended.outcome == RunOutcome::Limited {
                    mode.note(
                        "nothing is stored, so the same command without --limit processes every item again",
                    );
                }
                self.write_report(report, &ended, number, exit)
            }
            Ok((WatchEnd::Abandoned, _)) => {
                let left = "stopped before all lines could be written; every written line is complete";
                mode.fail(&anyhow::anyhow!(left), Exit::Interrupted)
            }
            Err(Error::Diagnostics(diagnostics)) => mode.report_diagnostics(&diagnostics),
            Err(error @ (Error::Store(_) | Error::StartedElsewhere { .. })) => {
                mode.fail(&anyhow::Error::new(error), Exit::IoError)
            }
            Ok((WatchEnd::Failed(error), _)) | Err(error) => {
                mode.fail(&anyhow::Error::new(error), Exit::Internal)
            }
        }
    }

    /// Returns the option by which another command finds the same store, if one is needed.
    fn store_option(&self) -> String {
        store_option(self.args.stored.store.as_ref())
    }

    /// Prepares the run that is meant, if runs are stored.
    async fn prepare(&self, pipeline: &Pipeline) -> anyhow::Result<Option<PreparedRun>> {
        let Some(store) = self.url.open().await? else { return Ok(None) };
        let saved = SavedArgs::of(self.args)?;
        let is_partial = self.target.retry.is_some() && !self.reads_items();
        let options = ResumeOptions {
            run: self.target.run,
            move_identity: self.target.has_moved_items,
            command: serde_json::to_value(&saved)?,
            files: if is_partial { Vec::new() } else { saved.tracked_files() },
            accept_changes: self.args.stored.accept_changes,
            max_cost: self.args.stored.max_cost,
            pause: self.pause,
            force_new: self.args.new,
            partial: is_partial,
            retry: self.target.retry.clone(),
            keep_inputs: self.inputs == KeepInputs::All,
            cache: self.cache,
            cache_limits: self.cache_limits,
            ..ResumeOptions::new(store, saved.identity())
        };
        Ok(Some(self.pointsman.prepare_run(pipeline, options).await?))
    }

    /// Refuses an items file without items if the run has finished some, before anything is changed: a failed
    /// export must not empty the output. A file that cannot be read is reported later, and a pipe is not checked.
    fn refuse_empty_input(&self, pipeline: &Pipeline, prepared: &PreparedRun) -> anyhow::Result<()> {
        let Some(number) = prepared.id().filter(|_| prepared.has_finished_items() && self.reads_items())
        else {
            return Ok(());
        };
        let Ok(mut source) = io::source(self.args) else { return Ok(()) };
        self.pointsman.leave_out_used_files(pipeline, &mut source);
        let Ok(mut reader) = source.read() else { return Ok(()) };
        let has_item = self.pointsman.runtime().block_on(async {
            loop {
                match reader.next().await {
                    Some(Ok(Entry::Item(item))) if pipeline.validate_item(&item.value).is_ok() => {
                        return true;
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) => return true,
                    None => return false,
                }
            }
        });
        let items = self.args.items.display();
        let out = self.args.out.display();
        ensure!(
            has_item,
            "no items in {items}, but run {number} has finished items: {out} is unchanged. Correct {items}, or \
             begin a new run ({})",
            new_run_option()
        );
        Ok(())
    }

    /// Refuses a table without a column that templates use: every row would fail. A table that cannot be read is reported
    /// later, and a pipe is not checked.
    fn refuse_unknown_columns(&self, pipeline: &Pipeline) -> anyhow::Result<()> {
        if self.target.run.is_some() || !self.reads_items() {
            return Ok(());
        }
        let Ok(table) = io::source(self.args) else { return Ok(()) };
        if !table.is_table() {
            return Ok(());
        }
        let found = self.pointsman.runtime().block_on(unknown_columns(pipeline, table));
        let Ok(faults) = found else { return Ok(()) };
        let messages: Vec<&str> = faults.iter().map(|fault| fault.message.as_str()).collect();
        ensure!(
            faults.is_empty(),
            "--items: {} does not have every column that the pipeline uses: {}",
            self.args.items.display(),
            messages.join("; ")
        );
        Ok(())
    }

    /// Refuses an items file in place of the moved one that lacks items of the run, before anything is changed.
    fn refuse_other_items(&self, prepared: &PreparedRun) -> anyhow::Result<()> {
        let source = io::source(self.args).context("--items")?;
        let Some(number) = prepared.id().filter(|_| !self.args.stored.accept_changes) else { return Ok(()) };
        let missing = self.pointsman.runtime().block_on(prepared.count_missing(source))?;
        ensure!(
            missing == 0,
            "--items: {} lacks {} of run {number}, so it is not its moved file; --accept-changes resumes the run with \
             it nevertheless, without their lines",
            self.args.items.display(),
            counted(missing, "item")
        );
        Ok(())
    }

    /// Returns whether the items can be read again. Where they cannot, failed items are retried with their stored
    /// fields.
    fn reads_items(&self) -> bool {
        !is_dash(&self.args.items) && (self.args.items.is_file() || io::is_selection(self.args))
    }

    /// Adapts an error of a file to a command for a stored run. It has no `--items`, so that the error names only
    /// the file, and no `--out`, so that the error says what else can be done.
    fn explain_file_error(&self, error: anyhow::Error) -> anyhow::Error {
        let error = match error.downcast::<source::Error>() {
            Ok(source::Error::Open { name, source })
                if self.target.run.is_some() && !self.target.has_moved_items =>
            {
                let moved = match source.kind() {
                    ErrorKind::NotFound => "; if the file was moved, name its new path (--items FILE)",
                    _ => "",
                };
                let error = error_chain(&source::Error::Open { name, source });
                return anyhow::anyhow!("{error}{moved}");
            }
            Ok(error) if self.target.run.is_some() && !self.target.has_moved_items => return error.into(),
            Ok(error) => return anyhow::Error::new(error).context("--items"),
            Err(error) => error,
        };
        let Some(run) = self.target.run else { return error };
        let (name, what) = match error.downcast_ref() {
            Some(sink::Error::NotOwned { name }) => {
                (name, format!("{name} exists and was not written by this run"))
            }
            Some(sink::Error::Extended { name }) => {
                (name, format!("another program has added to {name} since this run wrote it"))
            }
            Some(_) | None => return error,
        };
        let store_option = self.store_option();
        let is_out = *name == self.args.out.display().to_string();
        let results = if is_out {
            format!(
                "; `pointsman results {run}{store_option} --out OTHER` writes the results to another file"
            )
        } else {
            String::new()
        };
        anyhow::anyhow!("{error}: {what}; move that file away, or overwrite it (--overwrite){results}")
    }

    /// Finds the failed items, if only those are processed.
    fn failed_items(&self, prepared: Option<&PreparedRun>) -> anyhow::Result<Option<FailedItems>> {
        let Some((classes, prepared)) = self.target.retry.as_ref().zip(prepared) else { return Ok(None) };
        Ok(Some(self.pointsman.runtime().block_on(prepared.failed_items(classes))?))
    }

    /// Writes the complete output from the store after a retry, because the lines of retried items are spread over
    /// the file.
    fn rewrite_output(&self, run: Option<RunNumber>) -> Result<(), Exit> {
        let is_from_store = self.target.retry.is_some() && !self.reads_items();
        let (Some(run), true) = (run, is_from_store && !is_dash(&self.args.out)) else {
            return Ok(());
        };
        let out = &self.args.out;
        let written = self.pointsman.runtime().block_on(async {
            let store = self.url.open().await?.context("the store does not exist any more")?;
            let history = History::of(store.clone(), run).await?;
            let destination = Destination::file(out, &[]).context("--out")?;
            let format = line_format::format(self.args.output_format, self.args.csv, out);
            let options = self.args.output.options();
            results::write(&history, destination, out, (format, options), None).await?;
            Ok(record_written(&*store, run, out).await?)
        });
        written.map_err(|error| self.mode.fail(&error, Exit::IoError))
    }

    /// Writes the report to the file of `--report`, and returns the exit code.
    fn write_report(
        &self,
        to: Option<Destination>,
        report: &Report,
        run: Option<RunNumber>,
        exit: Exit,
    ) -> Exit {
        let Some(to) = to else { return exit };
        let text = serde_json::to_string_pretty(report).map_err(anyhow::Error::new);
        let written = text.and_then(|text| Ok(to.overwrite(&format!("{text}\n"))?)).context("--report");
        let Err(error) = written else { return exit };
        match self.mode.fail(&error, Exit::IoError) {
            // A closed reader of the report does not replace a more serious exit code.
            Exit::BrokenPipe if !matches!(exit, Exit::Success | Exit::ItemsFailed) => exit,
            Exit::BrokenPipe => Exit::BrokenPipe,
            unwritten => match run {
                Some(run) => {
                    let store_option = self.store_option();
                    let text = format!("`pointsman report {run}{store_option} --json` shows the report");
                    self.mode.end(&text, unwritten)
                }
                None => unwritten,
            },
        }
    }
}

/// Returns where the results of a run are; `None` if they were written to stdout, or could not be written.
fn results_place(args: &Run, report: &Report) -> Option<String> {
    let is_written = report.output_error.is_none() && report.unreplaced_output.is_none();
    let out = Some(&args.out).filter(|out| is_written && !report.is_empty() && !is_dash(out))?;
    let rejects = args.rejects.as_ref().filter(|rejects| !is_dash(rejects) && rejects.exists());
    let rejects =
        rejects.map_or_else(String::new, |rejects| format!(", rejected records in {}", rejects.display()));
    Some(format!("results in {}{rejects}", out.display()))
}

fn conclude(mode: Mode, report: &Report, has_fatal_error: bool) -> Exit {
    let exit = Exit::of(report, has_fatal_error);
    match mode {
        Mode::Json => {
            eprint_json("report", report);
            if !report.output_closed {
                table::io_errors(report).for_each(|error| eprint_json("error", error));
            }
        }
        _ if report.output_closed => {}
        Mode::Quiet if exit == Exit::Success => {}
        Mode::Quiet => {
            eprint_lines(&table::summary(report));
            table::problems(report).iter().for_each(|problem| eprint_lines(problem));
        }
        Mode::Lines => eprint_lines(&table::report_in(report, stderr_columns())),
    }
    exit
}
