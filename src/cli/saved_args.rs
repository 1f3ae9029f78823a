//! The saved arguments of a run.
//!
//! A run is identified by the paths of its pipeline and its items. The other arguments of its command are stored
//! with it, so that `resume` and `retry` need only its number.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, ensure};
use serde::{Deserialize, Serialize};

use crate::store::StoredRun;

use super::args::{Csv, CsvFormulas, ItemFormat, LineFormat, Run, Show, StoredRunArgs};
use super::cache_args::CacheArgs;
use super::input_args::InputArgs;
use super::limit::LimitArgs;
use super::metrics::target::MetricsArgs;
use super::output_args::OutputArgs;
use super::pause::PauseArgs;
use super::step_args::StepArgs;

/// The arguments of a command that concern the run's files.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SavedArgs {
    directory: PathBuf,
    /// Missing in runs without a pipeline file.
    #[serde(default)]
    pipeline: Option<PathBuf>,
    items: PathBuf,
    /// Missing in runs of earlier versions.
    #[serde(default)]
    input: InputArgs,
    /// `from` in runs of earlier builds.
    #[serde(alias = "from")]
    input_format: Option<ItemFormat>,
    out: PathBuf,
    /// `to` in runs of earlier builds.
    #[serde(alias = "to")]
    output_format: Option<LineFormat>,
    /// Missing in runs of earlier versions.
    #[serde(default)]
    csv_formulas: CsvFormulas,
    /// Missing in runs of earlier versions.
    #[serde(default)]
    output: OutputArgs,
    rejects: Option<PathBuf>,
    ordered: bool,
    report: Option<PathBuf>,
    config: Option<PathBuf>,
    #[serde(default)]
    simulate: bool,
    /// Missing in runs of earlier versions.
    #[serde(default)]
    step: StepArgs,
    /// Missing in runs of earlier versions.
    #[serde(default, flatten)]
    cache: CacheArgs,
}

impl SavedArgs {
    pub(super) fn of(args: &Run) -> anyhow::Result<Self> {
        let absolute = |path: &PathBuf| -> anyhow::Result<PathBuf> {
            Ok(if is_dash(path) { path.clone() } else { std::path::absolute(path)? })
        };
        let optional = |path: &Option<PathBuf>| path.as_ref().map(absolute).transpose();
        Ok(Self {
            directory: std::env::current_dir().context("the working directory")?,
            pipeline: optional(&args.pipeline)?,
            items: absolute(&args.items)?,
            input: args.input.clone(),
            input_format: args.input_format,
            out: absolute(&args.out)?,
            output_format: args.output_format,
            csv_formulas: args.csv.csv_formulas,
            output: args.output,
            rejects: optional(&args.rejects)?,
            ordered: args.ordered,
            report: optional(&args.report)?,
            config: optional(&args.config)?,
            simulate: args.simulate,
            step: args.step.clone().with_absolute_paths(),
            cache: args.cache,
        })
    }

    pub(super) fn from_run(run: &StoredRun) -> anyhow::Result<Self> {
        let command = run.metadata.command.clone();
        let is_of_daemon = command.get("daemon").is_some();
        // What is stored is of the other program, so why it does not fit says nothing.
        serde_json::from_value(command).map_err(|_| {
            let run = run.number;
            if is_of_daemon {
                return anyhow!(
                    "run {run} belongs to a daemon: start the daemon (`pointsman serve`), which continues the run, or name it \
                     with --server URL"
                );
            }
            anyhow!("run {run} was not started by this program: resume it with the program that started it")
        })
    }

    /// Returns the arguments with the new path of the items, if their file was moved.
    pub(super) fn with_moved_items(mut self, items: Option<&Path>) -> anyhow::Result<Self> {
        if let Some(items) = items {
            ensure!(!is_dash(items), "--items names the new path of the items: a file, not stdin");
            self.items = std::path::absolute(items)?;
        }
        Ok(self)
    }

    /// Returns the arguments of the same command.
    pub(super) fn args(self, stored: &StoredRunArgs, config: Option<&Path>, show: Show) -> Run {
        Run {
            pipeline: self.pipeline,
            items: self.items,
            out: self.out,
            input: self.input,
            input_format: self.input_format,
            output_format: self.output_format,
            csv: Csv { csv_formulas: self.csv_formulas },
            output: self.output,
            rejects: self.rejects,
            ordered: self.ordered,
            report: self.report,
            config: config.map(Path::to_path_buf).or(self.config),
            simulate: self.simulate,
            overwrite: false,
            stored: stored.clone(),
            pause: PauseArgs::default(),
            new: false,
            metrics: MetricsArgs::default(),
            show,
            step: self.step,
            cache: self.cache,
            limit: LimitArgs::default(),
        }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn items(&self) -> &Path {
        &self.items
    }

    /// Returns the identity of the run: the real paths of its pipeline and items, and its settings in place of those of
    /// the pipeline.
    pub(super) fn identity(&self) -> String {
        let real =
            |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone()).display().to_string();
        let items = if is_dash(&self.items) { "stdin".to_owned() } else { real(&self.items) };
        let items = match self.input.identity() {
            Some(settings) => format!("{items} with {settings}"),
            None => items,
        };
        let pipeline = self.pipeline.as_ref().map_or_else(|| "prompt".to_owned(), real);
        match self.step.identity() {
            Some(settings) => format!("{pipeline} with {settings} on {items}"),
            None => format!("{pipeline} on {items}"),
        }
    }

    /// Returns the files that the run reads.
    pub(super) fn input_files(self) -> Vec<PathBuf> {
        [self.pipeline, Some(self.items), self.config].into_iter().flatten().collect()
    }

    /// Returns the files that show whether the run is up to date; none if one of them is a stream or a report.
    pub(super) fn tracked_files(&self) -> Vec<PathBuf> {
        let files: Vec<_> = [&self.items, &self.out].into_iter().chain(&self.rejects).collect();
        let stay = files.iter().all(|file| !is_dash(file)) && self.report.is_none();
        if stay { files.into_iter().cloned().collect() } else { Vec::new() }
    }
}

pub(super) fn is_dash(path: &Path) -> bool {
    path == Path::new("-")
}
