//! Which run a command means, and where it is kept.
//!
//! A run is found again by its pipeline and its items. Everything else that its command said is kept with it, so
//! that `resume` and `retry` need no more than a number.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Runtime};

use crate::clock;
use crate::config::Config;
use crate::runtime::Error;
use crate::store::{self, KnownRun, RunState, Store, StoreUrl};

use super::args::{Csv, CsvFormulas, ItemFormat, KeepArgs, LineFormat, Run, Show, StoreArgs};
use super::exit::Exit;
use super::live::Mode;
use super::pause::PauseArgs;
use super::run::load;

/// What a command said about a run's files.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Said {
    directory: PathBuf,
    pipeline: PathBuf,
    items: PathBuf,
    from: Option<ItemFormat>,
    out: PathBuf,
    to: Option<LineFormat>,
    /// Not said by runs of earlier versions.
    #[serde(default)]
    csv_formulas: CsvFormulas,
    rejects: Option<PathBuf>,
    ordered: bool,
    report: Option<PathBuf>,
    config: Option<PathBuf>,
    #[serde(default)]
    simulate: bool,
}

impl Said {
    pub(super) fn of(args: &Run) -> anyhow::Result<Self> {
        let absolute = |path: &PathBuf| -> anyhow::Result<PathBuf> {
            Ok(if is_dash(path) { path.clone() } else { std::path::absolute(path)? })
        };
        let optional = |path: &Option<PathBuf>| path.as_ref().map(absolute).transpose();
        Ok(Self {
            directory: std::env::current_dir().context("the working directory")?,
            pipeline: absolute(&args.pipeline)?,
            items: absolute(&args.items)?,
            from: args.from,
            out: absolute(&args.out)?,
            to: args.to,
            csv_formulas: args.csv.csv_formulas,
            rejects: optional(&args.rejects)?,
            ordered: args.ordered,
            report: optional(&args.report)?,
            config: optional(&args.config)?,
            simulate: args.simulate,
        })
    }

    pub(super) fn from_run(run: &KnownRun) -> anyhow::Result<Self> {
        let places = run.outline.places.clone();
        serde_json::from_value(places).with_context(|| {
            format!("run {} was not begun by this program: begin it again there", run.number)
        })
    }

    /// Makes the arguments of a command that says the same.
    pub(super) fn args(self, keep: &KeepArgs, config: Option<&Path>, show: Show) -> Run {
        Run {
            pipeline: self.pipeline,
            items: self.items,
            out: self.out,
            from: self.from,
            to: self.to,
            csv: Csv { csv_formulas: self.csv_formulas },
            rejects: self.rejects,
            ordered: self.ordered,
            report: self.report,
            config: config.map(Path::to_path_buf).or(self.config),
            simulate: self.simulate,
            overwrite: false,
            keep: keep.clone(),
            pause: PauseArgs::default(),
            new: false,
            show,
        }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn items(&self) -> &Path {
        &self.items
    }

    /// Returns what is the same each time: the pipeline and the items, by whatever path they are named.
    pub(super) fn identity(&self) -> String {
        let real =
            |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone()).display().to_string();
        let items = if is_dash(&self.items) { "stdin".to_owned() } else { real(&self.items) };
        format!("{} on {items}", real(&self.pipeline))
    }

    /// Returns the files that it reads.
    pub(super) fn reads(self) -> Vec<PathBuf> {
        [Some(self.pipeline), Some(self.items), self.config].into_iter().flatten().collect()
    }

    /// Returns the files by which it shows that nothing is left; none where not all of them stay.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let files: Vec<_> = [&self.items, &self.out].into_iter().chain(&self.rejects).collect();
        let stay = files.iter().all(|file| !is_dash(file)) && self.report.is_none();
        if stay { files.into_iter().cloned().collect() } else { Vec::new() }
    }
}

pub(super) fn is_dash(path: &Path) -> bool {
    path == Path::new("-")
}

/// Returns where runs are kept: as the command says, else as the configuration does.
pub(super) fn url(said: Option<&StoreUrl>, config: &Config) -> StoreUrl {
    said.unwrap_or(&config.store.url).clone()
}

/// A store that is there, for commands that only look into it.
pub(super) struct Opened {
    pub(super) runtime: Runtime,
    pub(super) store: Arc<dyn Store>,
    pub(super) url: StoreUrl,
}

impl Opened {
    /// Opens the store to read it, also where it cannot be written.
    pub(super) fn to_read(args: &StoreArgs) -> anyhow::Result<Self> {
        Self::with(args, async |url| url.open_to_read().await)
    }

    /// Opens the store to change it.
    pub(super) fn of(args: &StoreArgs) -> anyhow::Result<Self> {
        Self::with(args, async |url| url.open().await)
    }

    fn with(
        args: &StoreArgs,
        open: impl AsyncFnOnce(&StoreUrl) -> Result<Option<Arc<dyn Store>>, store::Error>,
    ) -> anyhow::Result<Self> {
        clock::check()?;
        let url = match &args.store {
            Some(url) => url.clone(),
            None => match load(args.config.as_deref(), false) {
                Ok(config) => config.store.url,
                // Whoever only wants to look at runs needs no configuration that works.
                Err(_) if args.config.is_none() => StoreUrl::default(),
                Err(faults) => return Err(Error::Faults(faults).into()),
            },
        };
        let Some(path) = url.path() else {
            bail!("runs are not kept: [store] url is \"none\"; name a store with --store sqlite:FILE");
        };
        ensure!(
            path.exists(),
            "no run is kept here: there is no {}. Go where you ran it, or name its store with --store sqlite:FILE",
            path.display()
        );
        let runtime = Builder::new_current_thread().enable_all().build().context("cannot start")?;
        let store = runtime.block_on(open(&url))?.context("runs are not kept")?;
        Ok(Self { runtime, store, url })
    }
}

/// Says why a command failed; a configuration that is wrong as it is said everywhere.
pub(super) fn fail(mode: Mode, error: anyhow::Error) -> Exit {
    match error.downcast::<Error>() {
        Ok(Error::Faults(faults)) => mode.refuse(&faults),
        Ok(error) => mode.fail(&error.into(), Exit::Broken),
        Err(error) => mode.fail(&error, Exit::Broken),
    }
}

/// Says how far a run has come, in a word; one that died at work has `died`.
pub(super) fn state(store: &dyn Store, run: &KnownRun) -> &'static str {
    match run.state {
        RunState::Open if store.is_at_work(run.number) => "running",
        RunState::Open if run.sessions == 0 => "empty",
        RunState::Open => "died",
        other => other.as_str(),
    }
}
