//! The saved arguments of a run.
//!
//! A run is identified by the paths of its pipeline and its items. The other arguments of its command are stored
//! with it, so that `resume` and `retry` need only its number.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use serde::{Deserialize, Serialize};

use crate::store::StoredRun;

use super::args::{Csv, CsvFormulas, ItemFormat, LineFormat, Run, Show, StoredRunArgs};
use super::metrics::target::MetricsArgs;
use super::pause::PauseArgs;

/// The arguments of a command that concern the run's files.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SavedArgs {
    directory: PathBuf,
    pipeline: PathBuf,
    items: PathBuf,
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
    rejects: Option<PathBuf>,
    ordered: bool,
    report: Option<PathBuf>,
    config: Option<PathBuf>,
    #[serde(default)]
    simulate: bool,
}

impl SavedArgs {
    pub(super) fn of(args: &Run) -> anyhow::Result<Self> {
        let absolute = |path: &PathBuf| -> anyhow::Result<PathBuf> {
            Ok(if is_dash(path) { path.clone() } else { std::path::absolute(path)? })
        };
        let optional = |path: &Option<PathBuf>| path.as_ref().map(absolute).transpose();
        Ok(Self {
            directory: std::env::current_dir().context("the working directory")?,
            pipeline: absolute(&args.pipeline)?,
            items: absolute(&args.items)?,
            input_format: args.input_format,
            out: absolute(&args.out)?,
            output_format: args.output_format,
            csv_formulas: args.csv.csv_formulas,
            rejects: optional(&args.rejects)?,
            ordered: args.ordered,
            report: optional(&args.report)?,
            config: optional(&args.config)?,
            simulate: args.simulate,
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

    /// Returns the arguments of the same command.
    pub(super) fn args(self, stored: &StoredRunArgs, config: Option<&Path>, show: Show) -> Run {
        Run {
            pipeline: self.pipeline,
            items: self.items,
            out: self.out,
            input_format: self.input_format,
            output_format: self.output_format,
            csv: Csv { csv_formulas: self.csv_formulas },
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
        }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn items(&self) -> &Path {
        &self.items
    }

    /// Returns the identity of the run: the real paths of its pipeline and items.
    pub(super) fn identity(&self) -> String {
        let real =
            |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone()).display().to_string();
        let items = if is_dash(&self.items) { "stdin".to_owned() } else { real(&self.items) };
        format!("{} on {items}", real(&self.pipeline))
    }

    /// Returns the files that the run reads.
    pub(super) fn input_files(self) -> Vec<PathBuf> {
        [Some(self.pipeline), Some(self.items), self.config].into_iter().flatten().collect()
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
