//! Opens the files in the arguments of `run`: the items, the output, the rejects and the report.
//!
//! No existing file is truncated before all of them are open.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::pipeline::{FileUse, Pipeline, ProtectedFiles};
use crate::run::RunOutput;
use crate::sink::{self, Destination, OutputOwner, ReplaceableFile, Sink};
use crate::source::{self, FileSelection, Source};
use crate::store::StoreUrl;
use crate::types::StepName;

use super::answer_table::TableTarget;
use super::args::{ItemFormat, Run};
use super::config::used_files;
use super::line_format;
use super::print::{TerminalStdout, stdout_is_terminal};
use super::saved_args::is_dash;

/// The opened input and outputs of a run.
pub(super) struct RunIo {
    pub(super) source: Source,
    pub(super) output: RunOutput,
    pub(super) report: Option<Destination>,
    /// Files that the run did not write and may replace.
    pub(super) replaceable: Vec<ReplaceableFile>,
}

/// The number of lines that earlier sessions of the run have written to its files.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct EarlierLines {
    /// Finished items, which are the lines of the output.
    pub(super) finished: u64,
    /// Rejected input lines, which are the lines of the rejects file.
    pub(super) rejected: u64,
}

impl RunIo {
    /// Refuses contradictory arguments before anything is opened. A retry does not read items from stdin.
    pub(super) fn check(args: &Run, is_retry: bool) -> anyhow::Result<()> {
        let named = [
            ("--out", Some(&args.out)),
            ("--rejects", args.rejects.as_ref()),
            ("--report", args.report.as_ref()),
        ];
        let to_stdout: Vec<&str> = named
            .iter()
            .filter(|(_, path)| path.is_some_and(|path| is_dash(path)))
            .map(|(name, _)| *name)
            .collect();
        ensure!(
            to_stdout.len() < 2,
            "{} would both write to stdout; name a file for one of them",
            to_stdout.join(" and ")
        );
        ensure!(
            is_retry || !is_dash(&args.items) || !io::stdin().is_terminal(),
            "--items - reads stdin, and nothing is piped into it"
        );
        line_format::check_name(args.output_format, &args.out).context("--out")?;
        args.output.check(line_format::format(args.output_format, args.csv, &args.out))
    }

    /// Opens all files. No output may be a file that the run reads, or another output.
    ///
    /// A retry of stored items does not read the input, and its output is written from the store afterwards.
    /// Otherwise an output with the lines of `before` is replaced when as many lines were written. An existing
    /// file must belong to `owner`.
    pub(super) fn open(
        args: &Run,
        pipeline: &Pipeline,
        store: &StoreUrl,
        is_retry: bool,
        before: EarlierLines,
        owner: &OutputOwner,
    ) -> anyhow::Result<Self> {
        let source =
            if is_retry { Source::values("failed items", []) } else { source(args).context("--items")? };
        let for_csv = pipeline.csv_diagnostics();
        if source.is_csv() && !for_csv.0.is_empty() {
            return Err(for_csv.clone().into());
        }
        let configs = used_files(args.config.as_deref());
        let mut used_paths: Vec<&Path> = configs.iter().map(PathBuf::as_path).collect();
        used_paths.extend(args.pipeline.as_deref());
        used_paths.extend(source.path());
        let database = store.files();
        used_paths.extend(database.iter().map(PathBuf::as_path));
        let mut replaceable = Vec::new();
        // Checks the owner of an existing file, and returns how many lines have to be written before it is
        // replaced.
        let mut check_existing = |path: &Path| -> Result<u64, sink::Error> {
            if is_dash(path) {
                return Ok(0);
            }
            let replaced = owner.check(path)?;
            replaceable.extend(replaced.file);
            Ok(replaced.lines)
        };
        let lines = if is_retry && !is_dash(&args.out) {
            check_existing(&args.out).context("--out")?;
            Destination::none()
        } else {
            let lines = match TableTarget::of(args) {
                // The table is there instead of the lines.
                Some(TableTarget::Stdout) if is_dash(&args.out) => Destination::none(),
                Some(TableTarget::Stdout | TableTarget::Stderr) | None => {
                    open_destination(&args.out, &used_paths).context("--out")?
                }
            };
            let existing_lines = check_existing(&args.out).context("--out")?;
            lines
                .replacing_after(&args.out, before.finished.max(existing_lines))
                .with_min_lines(existing_lines)
        };
        used_paths.push(if is_dash(&args.out) { Path::new("/dev/stdout") } else { &args.out });
        // Retried items were not rejected. Lines that were rejected are in that file already.
        let rejects = args.rejects.as_deref().filter(|_| !is_retry);
        let rejected = rejects.map(|path| {
            let opened = open_destination(path, &used_paths)?;
            let existing_lines = check_existing(path)?;
            Ok::<_, sink::Error>(
                opened
                    .replacing_after(path, before.rejected.max(existing_lines))
                    .with_min_lines(existing_lines),
            )
        });
        let rejected = rejected.transpose().context("--rejects")?;
        used_paths.extend(rejects);
        let report = args.report.as_deref().map(|path| {
            let opened = open_destination(path, &used_paths)?;
            check_existing(path).map(|_| opened)
        });
        let report = report.transpose().context("--report")?;

        let format = line_format::format(args.output_format, args.csv, &args.out);
        let steps: Vec<StepName> = pipeline.steps().iter().map(|step| step.name.clone()).collect();
        let output = RunOutput {
            lines: Sink::results_with(lines, format, args.output.options(), &steps).context("--out")?,
            rejects: rejected.map(Sink::rejects).transpose().context("--rejects")?,
            ordered: args.ordered,
            preview: None,
        };
        Ok(Self { source, output, report, replaceable })
    }
}

/// Protects the files of the command from being attached, including files to which a stream is redirected.
pub(super) fn protect(pipeline: &mut Pipeline, args: &Run) {
    let read = if is_dash(&args.items) { Path::new("/dev/stdin") } else { &args.items };
    pipeline.protect(FileUse::Input, read);
    let written = [Some(args.out.as_path()), args.rejects.as_deref(), args.report.as_deref()];
    let written = written.into_iter().flatten().filter(|path| !is_dash(path));
    let streams = ["/dev/stdout", "/dev/stderr"].map(Path::new);
    let written = written.chain(streams).chain(args.metrics.file());
    written.for_each(|path| pipeline.protect(FileUse::Output, path));
    // An error of the pattern is reported when the items are opened.
    if let Ok(Some(selection)) = selection(args) {
        pipeline.attach_from(selection);
    }
}

/// Opens the items.
pub(super) fn source(args: &Run) -> Result<Source, source::Error> {
    let format = args.input_format.map(|format| match format {
        ItemFormat::Jsonl => source::Format::Jsonl,
        ItemFormat::Csv => source::Format::Csv,
        ItemFormat::Tsv => source::Format::Tsv,
        ItemFormat::Json => source::Format::Json,
        ItemFormat::Xlsx => source::Format::Xlsx,
        ItemFormat::Parquet => source::Format::Parquet,
    });
    let source = if is_dash(&args.items) {
        Source::stdin(format)
    } else if let Some(selection) = selection(args)? {
        Source::files(selection)?
    } else {
        Source::file(&args.items, format)?
    };
    Ok(args.input.apply(source))
}

/// Returns whether the items are the files of a folder or of a pattern.
pub(super) fn is_selection(args: &Run) -> bool {
    !is_dash(&args.items) && matches!(selection(args), Ok(Some(_)))
}

/// Returns the folder or the pattern of files that are the items, if they are no file. The files of the command itself are
/// no items. A run adds those that its configuration names.
fn selection(args: &Run) -> Result<Option<FileSelection>, source::Error> {
    let Some(mut selection) = FileSelection::of(&args.items)? else { return Ok(None) };
    let mut used = ProtectedFiles::default();
    let store = args.stored.store.clone().unwrap_or_default();
    store.files().iter().for_each(|file| used.add(FileUse::Store, file));
    args.config.iter().for_each(|file| used.add(FileUse::Configuration, file));
    args.pipeline.iter().for_each(|file| used.add(FileUse::Pipeline, file));
    let written = [Some(args.out.as_path()), args.rejects.as_deref(), args.report.as_deref()];
    let written = written.into_iter().flatten().filter(|path| !is_dash(path));
    written.chain(args.metrics.file()).for_each(|file| used.add(FileUse::Output, file));
    selection.leave_out(&used);
    Ok(Some(selection))
}

fn open_destination(path: &Path, used_paths: &[&Path]) -> Result<Destination, sink::Error> {
    if !is_dash(path) {
        return Destination::file(path, used_paths);
    }
    let stdout = Destination::stdout(used_paths)?;
    Ok(if stdout_is_terminal() { stdout.through(TerminalStdout) } else { stdout })
}
