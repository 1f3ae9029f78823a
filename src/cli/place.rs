//! Opens what the arguments of `run` name: the items, the output, the rejects, the report.
//!
//! Nothing that was there is emptied before all of them could be opened.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::pipeline::{FileUse, Pipeline};
use crate::run::Output;
use crate::sink::{self, Owner, ReplaceableFile, Sink, Target};
use crate::source::{self, Source};
use crate::store::StoreUrl;
use crate::types::StepName;

use super::args::{ItemFormat, Run};
use super::kept::is_dash;
use super::results;

/// Where a run reads and writes.
pub(super) struct Places {
    pub(super) source: Source,
    pub(super) output: Output,
    pub(super) report: Option<Target>,
    /// Files that the run did not write and may replace.
    pub(super) replaceable: Vec<ReplaceableFile>,
}

/// What earlier sessions of the run have written to its files.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Before {
    /// Items that have settled: lines of the output.
    pub(super) settled: u64,
    /// Pieces of the input that were no items: lines of the rejects.
    pub(super) rejected: u64,
}

impl Places {
    /// Refuses arguments that cannot be meant, before anything is opened.
    pub(super) fn check(args: &Run) -> anyhow::Result<()> {
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
            "{} would both go to stdout; name a file for one of them",
            to_stdout.join(" and ")
        );
        ensure!(
            !is_dash(&args.items) || !io::stdin().is_terminal(),
            "--items - reads stdin, and nothing is piped into it"
        );
        Ok(())
    }

    /// Opens everything. No output may be a file that the run reads, or another output.
    /// Where items are tried again that are kept with the run, its input is not read, and a file is written from
    /// the store afterwards; else one that holds lines of `before` is replaced when as many are written. What is in a
    /// file must be `owner`'s.
    pub(super) fn open(
        args: &Run,
        pipeline: &Pipeline,
        store: &StoreUrl,
        is_retry: bool,
        before: Before,
        owner: &Owner,
    ) -> anyhow::Result<Self> {
        let source =
            if is_retry { Source::values("failed items", []) } else { source(args).context("--items")? };
        let for_csv = pipeline.csv_faults();
        if source.is_csv() && !for_csv.0.is_empty() {
            return Err(for_csv.clone().into());
        }
        let config = args.config.clone().unwrap_or_else(|| PathBuf::from("config.toml"));
        let mut taken = vec![args.pipeline.as_path(), config.as_path()];
        taken.extend(source.path());
        let database = store.files();
        taken.extend(database.iter().map(PathBuf::as_path));
        let mut replaceable = Vec::new();
        // Returns how many lines have to be written before the content of a file is replaced.
        let mut held = |path: &Path| -> Result<u64, sink::Error> {
            if is_dash(path) {
                return Ok(0);
            }
            let replaced = owner.check(path)?;
            replaceable.extend(replaced.file);
            Ok(replaced.lines)
        };
        let lines = if is_retry && !is_dash(&args.out) {
            held(&args.out).context("--out")?;
            Target::none()
        } else {
            let lines = target(&args.out, &taken).context("--out")?;
            let held = held(&args.out).context("--out")?;
            lines.after(&args.out, before.settled.max(held)).at_least(held)
        };
        taken.push(if is_dash(&args.out) { Path::new("/dev/stdout") } else { &args.out });
        // Items that are tried again were none of them rejected: what was is in that file already.
        let rejects = args.rejects.as_deref().filter(|_| !is_retry);
        let rejected = rejects.map(|path| {
            let opened = target(path, &taken)?;
            let held = held(path)?;
            Ok::<_, sink::Error>(opened.after(path, before.rejected.max(held)).at_least(held))
        });
        let rejected = rejected.transpose().context("--rejects")?;
        taken.extend(rejects);
        let report = args.report.as_deref().map(|path| {
            let opened = target(path, &taken)?;
            held(path).map(|_| opened)
        });
        let report = report.transpose().context("--report")?;

        let format = results::format(args.to, args.csv, &args.out);
        let steps: Vec<StepName> = pipeline.steps().iter().map(|step| step.name.clone()).collect();
        let output = Output {
            lines: Sink::results(lines, format, &steps).context("--out")?,
            rejects: rejected.map(Sink::rejects).transpose().context("--rejects")?,
            ordered: args.ordered,
        };
        Ok(Self { source, output, report, replaceable })
    }
}

/// Protects the files that the command names, also where a stream is redirected to one.
pub(super) fn protect(pipeline: &mut Pipeline, args: &Run) {
    let read = if is_dash(&args.items) { Path::new("/dev/stdin") } else { &args.items };
    pipeline.protect(FileUse::Input, read);
    let written = [Some(args.out.as_path()), args.rejects.as_deref(), args.report.as_deref()];
    let written = written.into_iter().flatten().filter(|path| !is_dash(path));
    let streams = ["/dev/stdout", "/dev/stderr"].map(Path::new);
    written.chain(streams).for_each(|path| pipeline.protect(FileUse::Output, path));
}

/// Opens the items.
pub(super) fn source(args: &Run) -> Result<Source, source::Error> {
    let format = args.from.map(|format| match format {
        ItemFormat::Jsonl => source::Format::Jsonl,
        ItemFormat::Csv => source::Format::Csv,
        ItemFormat::Tsv => source::Format::Tsv,
        ItemFormat::Json => source::Format::Json,
    });
    if is_dash(&args.items) { Ok(Source::stdin(format)) } else { Source::file(&args.items, format) }
}

fn target(path: &Path, taken: &[&Path]) -> Result<Target, sink::Error> {
    if is_dash(path) { Target::stdout(taken) } else { Target::file(path, taken) }
}
