//! What the handle does about runs: checks what they may spend, and begins them.
//!
//! What a run is made of is put together elsewhere.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use indexmap::IndexSet;
use tokio::sync::oneshot;

use crate::document::Faults;
use crate::guard::Purse;
use crate::pipeline::{FileUse, Pipeline, ProtectedFiles};
use crate::run::{Output, RunPurses, RunRoute, RunTarget};
use crate::sink::WrittenFile;
use crate::source::Source;
use crate::types::{Booked, NanoUsd, ProviderName, RouteName};

use super::capped::{MaxCost, RunOptions};
use super::error::Error;
use super::keep::Kept;
use super::marks::Input;
use super::open_runs::OpenRun;
use super::outputs;
use super::pause_options::PauseOptions;
use super::pointsman::Pointsman;
use super::run::{self, RunHandle, Unclaimed};
use super::session::Open;

impl Pointsman {
    /// Starts to run the items of `source` through `pipeline`.
    ///
    /// # Errors
    /// When the source cannot be read, or everything has stopped.
    pub async fn run(&self, pipeline: Pipeline, source: Source, output: Output) -> Result<RunHandle, Error> {
        self.run_with(pipeline, source, output, &RunOptions::default()).await
    }

    /// Starts to run the items of `source` through `pipeline`, as `options` say. A run that meets its cap pauses;
    /// nothing of it is kept, so it cannot go on.
    ///
    /// ```no_run
    /// # use pointsman::pipeline::{Pipeline, run::Output, source::Source};
    /// # async fn example(
    /// #     pointsman: pointsman::Pointsman, pipeline: Pipeline, source: Source, output: Output,
    /// # ) -> Result<(), pointsman::Error> {
    /// use pointsman::runtime::RunOptions;
    /// use pointsman::types::NanoUsd;
    ///
    /// let options = RunOptions { max_cost: Some(NanoUsd(5_000_000_000).into()), ..RunOptions::default() }; // $5.00
    /// let mut run = pointsman.run_with(pipeline, source, output, &options).await?;
    /// println!("{:?}", run.report().await?.caps);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`run`](Self::run), and when something has no price that a cap is to hold.
    pub async fn run_with(
        &self,
        pipeline: Pipeline,
        source: Source,
        output: Output,
        options: &RunOptions,
    ) -> Result<RunHandle, Error> {
        let cap = MaxCost::or_configured(options.max_cost, self.config().budget.run);
        self.begin_run(pipeline, source, output, (cap, options.pause), None).await
    }

    /// Runs the items of `source` through `pipeline`, and keeps every answer; or goes on with the run that
    /// [`keep`](Self::keep) has found. Items that have settled are not asked again, nor are answered steps of the
    /// others; their lines come as their items are read.
    ///
    /// # Errors
    /// As [`run_with`](Self::run_with), and when the store cannot be used.
    pub async fn run_kept(
        &self,
        pipeline: Pipeline,
        source: Source,
        output: Output,
        kept: Kept,
    ) -> Result<RunHandle, Error> {
        let cap = MaxCost::or_configured(kept.max_cost(), self.config().budget.run);
        let pause = kept.pause();
        self.begin_run(pipeline, source, output, (cap, pause), Some(kept)).await
    }

    /// Checks whether spending can be capped, by `max_cost` or else as the configuration says, so that a run which
    /// would be refused is, before its output is opened.
    ///
    /// # Errors
    /// What has no price that a cap is to hold.
    pub fn check_cap(&self, pipeline: &Pipeline, max_cost: Option<MaxCost>) -> Result<(), Faults> {
        let cap = MaxCost::or_configured(max_cost, self.config().budget.run);
        self.check_prices(pipeline, cap.is_some()).map(drop)
    }

    /// Checks that everything has a price that a cap is to hold, and returns what is good to know.
    fn check_prices(&self, pipeline: &Pipeline, capped: bool) -> Result<Vec<String>, Faults> {
        let routes = pipeline.routes().filter_map(|route| self.usable().route(route).ok());
        let lanes = routes.flat_map(|route| route.lanes.iter().map(|lane| lane.name.clone()));
        self.purses().check(self.usable(), lanes, capped)
    }

    /// Begins a run in a task of its own: a caller that is dropped while it waits leaves no run half-begun. What has
    /// begun by then is given up and closed.
    async fn begin_run(
        &self,
        pipeline: Pipeline,
        source: Source,
        output: Output,
        (cap, pause): (Option<NanoUsd>, PauseOptions),
        kept: Option<Kept>,
    ) -> Result<RunHandle, Error> {
        let notes = self.check_prices(&pipeline, cap.is_some())?;
        let open = self.runs().enter()?;
        let (to, begun) = oneshot::channel();
        let pointsman = self.clone();
        drop(self.runtime().spawn(async move {
            let begin = Beginning { pipeline, cap, pause, notes, kept, open };
            let run = begin.run(&pointsman, source, output).await;
            // Let go of first: whoever hears of the run may drop the last handle but this one.
            drop(pointsman);
            // A caller that has gone gives the run up by that.
            drop(to.send(run.map(Unclaimed::new)));
        }));
        begun.await.map_err(|_| Error::Stopped)??.claim().ok_or(Error::Stopped)
    }
}

/// A run that is about to begin.
struct Beginning {
    pipeline: Pipeline,
    cap: Option<NanoUsd>,
    pause: PauseOptions,
    notes: Vec<String>,
    kept: Option<Kept>,
    open: OpenRun,
}

impl Beginning {
    async fn run(self, pointsman: &Pointsman, source: Source, output: Output) -> Result<RunHandle, Error> {
        let Self { pipeline, cap, pause, notes, kept, open } = self;
        let pipeline = Arc::new(pipeline);
        let judge = pipeline.clone();
        let source = source.fit(move |item| judge.validate_item(item));
        let input = Input::of(&source);
        let files = outputs::opened(&output);
        let input_path = source.path().map(Path::to_owned);
        // Before anything is stored: what cannot be read leaves nothing.
        let reader = source.read().map_err(Error::Source)?;
        let kept = match kept {
            Some(kept) => {
                let mut open = kept.begin(pointsman, files.clone()).await?;
                open.reads(input);
                Some(open)
            }
            None => None,
        };
        let protected =
            Arc::new(protected(pointsman, &pipeline, input_path.as_deref(), &files, kept.as_ref()));
        let cap = match &kept {
            // Of two processes that begin one run at once, the other may have named a cap.
            Some(open) => MaxCost::or_configured(open.outcome.max_cost, pointsman.config().budget.run),
            None => cap,
        };
        let before: Booked = kept.iter().flat_map(|open| open.before.values().copied()).sum();
        let own = Purse::of_run(cap, before, kept.is_some());
        let (config, settings) = (pointsman.config(), &pointsman.config().supervisor);
        let (providers, router, supervisor, arbiters) = pointsman.parts();
        let routes = pipeline.routes().filter_map(|route| pointsman.usable().route(route).ok());
        let lanes = routes.flat_map(|route| &route.lanes);
        let names: IndexSet<ProviderName> = lanes.map(|lane| lane.name.provider.clone()).collect();
        let begin = run::Begin {
            pipeline: pipeline.clone(),
            protected,
            router: router.clone(),
            providers: names.iter().filter_map(|name| providers.get(name)).cloned().collect(),
            purses: RunPurses { own, shared: pointsman.purses().of_run(names.iter()) },
            notes,
            routes: run_routes(pointsman, &pipeline),
            limits: pause.or_configured(&config.run),
            window: config.run.window.map(NonZeroUsize::get),
            kept,
            supervisor: supervisor.clone(),
            policy: settings.policy(settings.run_restarts),
            arbiters: arbiters.clone(),
            open,
        };
        run::begin(begin, reader, output).await
    }
}

/// Returns the routes of a pipeline's steps, with their targets.
fn run_routes(pointsman: &Pointsman, pipeline: &Pipeline) -> Vec<RunRoute> {
    let (providers, ..) = pointsman.parts();
    let names: IndexSet<&RouteName> = pipeline.routes().collect();
    let route = |name: &RouteName| {
        let steps = pipeline.steps().iter().filter(|step| step.route == *name);
        let patience = steps.map(|step| step.deadline).min()?;
        let lanes = &pointsman.usable().route(name).ok()?.lanes;
        let targets = lanes.iter().filter_map(|lane| {
            let provider = providers.get(&lane.name.provider)?.clone();
            Some(RunTarget { name: lane.name.clone(), provider })
        });
        Some(RunRoute { name: name.clone(), targets: targets.collect(), patience })
    };
    names.into_iter().filter_map(route).collect()
}

/// Returns the files that items of a run may not attach.
fn protected(
    pointsman: &Pointsman,
    pipeline: &Pipeline,
    input: Option<&Path>,
    outputs: &[WrittenFile],
    kept: Option<&Open>,
) -> ProtectedFiles {
    let config = pointsman.config();
    let mut files = pipeline.protected().clone();
    config.secret_files().for_each(|file| files.add(FileUse::Secret, file));
    config.store.url.files().iter().for_each(|file| files.add(FileUse::Store, file));
    let of_store = kept.map(|open| open.store.files(open.run())).unwrap_or_default();
    of_store.iter().for_each(|file| files.add(FileUse::Store, file));
    config.file().into_iter().for_each(|file| files.add(FileUse::Configuration, file));
    input.into_iter().for_each(|file| files.add(FileUse::Input, file));
    outputs.iter().for_each(|file| files.add(FileUse::Output, file.path()));
    files
}
