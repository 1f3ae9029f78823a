//! Methods of the handle that start runs and check their caps.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexSet;
use tokio::sync::oneshot;

use crate::config::Config;
use crate::diagnostics::Diagnostics;
use crate::guard::SharedBudget;
use crate::pipeline::{FileUse, Pipeline, ProtectedFiles};
use crate::router::SharedRoutes;
use crate::run::{RunBudgets, RunOutput, RunRoute};
use crate::sink::{RowLayout, WrittenFile};
use crate::source::Source;
use crate::types::{NanoUsd, ProviderName, RouteName, ScopeName, Spend};

use super::budgets::{MaxCost, RunOptions};
use super::current::Current;
use super::error::Error;
use super::file_digest::InputFile;
use super::open_runs::OpenRun;
use super::outputs;
use super::pause_options::PauseOptions;
use super::pointsman::Pointsman;
use super::resume::PreparedRun;
use super::run::{self, RunHandle};

impl Pointsman {
    /// Starts a run that sends the items of `source` through `pipeline`. Nothing is stored, so it cannot be resumed;
    /// see [`run_stored`](Self::run_stored). `output` is a sink for results, or a
    /// [`RunOutput`], which can also have a sink for rejects.
    ///
    /// # Errors
    /// If the source cannot be read, or Pointsman has stopped.
    pub async fn run(
        &self,
        pipeline: Pipeline,
        source: Source,
        output: impl Into<RunOutput>,
    ) -> Result<RunHandle, Error> {
        self.run_with(pipeline, source, output, &RunOptions::default()).await
    }

    /// Starts a run of the items of `source` through `pipeline`, with options. A run that reaches its cap pauses.
    /// It is not stored, so it cannot be resumed.
    ///
    /// ```no_run
    /// # use pointsman::{Pipeline, RunOutput, Source};
    /// # async fn example(
    /// #     pointsman: pointsman::Pointsman, pipeline: Pipeline, source: Source, output: RunOutput,
    /// # ) -> Result<(), pointsman::Error> {
    /// use pointsman::{NanoUsd, RunOptions};
    ///
    /// let options = RunOptions::new().with_max_cost(NanoUsd(5_000_000_000)); // $5.00
    /// let mut run = pointsman.run_with(pipeline, source, output, &options).await?;
    /// println!("{:?}", run.report().await?.caps);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`run`](Self::run), and when a target under a cap has no price.
    pub async fn run_with(
        &self,
        pipeline: Pipeline,
        source: Source,
        output: impl Into<RunOutput>,
        options: &RunOptions,
    ) -> Result<RunHandle, Error> {
        let cap = MaxCost::or_configured(options.max_cost, self.current().config.budget.run);
        let terms = RunTerms { cap, pause: options.pause, scope: options.scope.clone() };
        self.begin_run(Arc::new(pipeline), source, output.into(), terms, None).await
    }

    /// Starts or resumes the run that [`prepare_run`](Self::prepare_run) returned, and stores every answer.
    /// Finished items and answered steps are not requested again. Every session writes a line for each item that
    /// it reads, also for those that had finished before.
    ///
    /// # Errors
    /// As [`run_with`](Self::run_with), when the store cannot be used, and when the run was prepared with another
    /// pipeline.
    pub async fn run_stored(
        &self,
        pipeline: impl Into<Arc<Pipeline>>,
        source: Source,
        output: impl Into<RunOutput>,
        prepared: PreparedRun,
    ) -> Result<RunHandle, Error> {
        let pipeline = pipeline.into();
        self.check_prepared(&prepared, &pipeline)?;
        let cap = MaxCost::or_configured(prepared.max_cost(), self.current().config.budget.run);
        let terms = RunTerms { cap, pause: prepared.pause(), scope: prepared.scope() };
        self.begin_run(pipeline, source, output.into(), terms, Some(prepared)).await
    }

    /// Checks that each target has a price if `max_cost` or the configuration sets a cap, so that a run without a scope is
    /// refused before its output is opened. The budget of a scope is checked when the run begins.
    ///
    /// # Errors
    /// The targets under a cap that have no price.
    pub fn check_cap(&self, pipeline: &Pipeline, max_cost: Option<MaxCost>) -> Result<(), Diagnostics> {
        let cap = MaxCost::or_configured(max_cost, self.current().config.budget.run);
        self.check_prices(pipeline, cap.is_some()).map(drop)
    }

    /// Checks that each target under a cap has a price, and returns notes for the user.
    fn check_prices(&self, pipeline: &Pipeline, capped: bool) -> Result<Vec<String>, Diagnostics> {
        let Current { usable, budgets, .. } = &*self.current();
        let targets = pipeline.steps().iter().flat_map(|step| usable.targets_of(step));
        budgets.check_prices(usable, targets.map(|target| target.name.clone()), capped)
    }

    /// Leaves out the files that the program uses from a source of files, for a look at the items before their run.
    #[doc(hidden)]
    pub fn leave_out_used_files(&self, pipeline: &Pipeline, source: &mut Source) {
        source.leave_out(&protected_files(&self.current().config, pipeline, None, &[], &[]));
    }

    /// Starts a run in a task of its own, so that a caller which is dropped while it waits leaves no half-started
    /// run. A run that has begun by then is cancelled and closed.
    async fn begin_run(
        &self,
        pipeline: Arc<Pipeline>,
        source: Source,
        output: RunOutput,
        terms: RunTerms,
        prepared: Option<PreparedRun>,
    ) -> Result<RunHandle, Error> {
        terms.scope.check()?;
        let is_capped = terms.cap.is_some() || self.current().budgets.of_scopes().contains_key(&terms.scope);
        let notes = self.check_prices(&pipeline, is_capped)?;
        let open = self.runs().register()?;
        let (handle_tx, handle_rx) = oneshot::channel();
        let pointsman = self.clone();
        drop(self.runtime().spawn(async move {
            let pending = PendingRun { pipeline, terms, notes, prepared, open };
            let run = pending.run(&pointsman, source, output).await;
            // Dropped before the run is returned: the caller may then drop the last other handle.
            drop(pointsman);
            // If the caller has gone, this drops the handle and thereby cancels the run.
            drop(handle_tx.send(run));
        }));
        handle_rx.await.map_err(|_| Error::Stopped)?
    }
}

/// What the caller sets for a run, combined with the configuration.
struct RunTerms {
    /// The maximum that the run may spend.
    cap: Option<NanoUsd>,
    pause: PauseOptions,
    scope: ScopeName,
}

/// A run that is about to begin.
struct PendingRun {
    pipeline: Arc<Pipeline>,
    terms: RunTerms,
    notes: Vec<String>,
    prepared: Option<PreparedRun>,
    open: OpenRun,
}

impl PendingRun {
    async fn run(
        self,
        pointsman: &Pointsman,
        source: Source,
        mut output: RunOutput,
    ) -> Result<RunHandle, Error> {
        let Self { pipeline, terms, mut notes, prepared, open } = self;
        let RunTerms { cap, pause, scope } = terms;
        let validator = pipeline.clone();
        let mut source = source.with_check(move |item| validator.validate_item(item));
        let input = InputFile::of(&source);
        let input_path = source.path().map(Path::to_owned);
        let of_store = prepared.as_ref().map(PreparedRun::store_files).unwrap_or_default();
        let written = outputs::output_files(&output);
        let config = &pointsman.current().config;
        let used = protected_files(config, &pipeline, input_path.as_deref(), &written, &of_store);
        source.leave_out(&used);
        notes.extend(skipped_note(source.skipped_files()));
        // Before anything is stored: a source that cannot be read leaves no trace in the store.
        let mut reader = source.read().map_err(Error::Source)?;
        let mut layout = RowLayout::new(outputs::step_columns(&pipeline));
        layout.is_simulated = pointsman.is_simulated(&pipeline);
        if output.lines.needs_fields() {
            layout.fields = Some(reader.fields().await);
        }
        let own_steps = layout.steps.clone();
        if let Some(earlier) = prepared.as_ref().and_then(PreparedRun::layout) {
            layout = layout.with_earlier(&earlier);
        }
        output.lines.set_layout(&layout);
        let files = outputs::output_files(&output);
        let written_lengths = outputs::written_lengths(&output);
        let session = match prepared {
            Some(prepared) => {
                let mut session = prepared.begin_session(pointsman, files.clone(), layout).await?;
                session.set_files(input, written_lengths);
                session.own_steps = own_steps;
                Some(session)
            }
            None => None,
        };
        let current = pointsman.current();
        let config = &current.config;
        let of_store = session.as_ref().map(|session| session.store.files(session.run())).unwrap_or_default();
        let protected =
            Arc::new(protected_files(config, &pipeline, input_path.as_deref(), &files, &of_store));
        // If two processes begin one run at once, the other one may have set a cap and a scope.
        let cap = match &session {
            Some(session) => MaxCost::or_configured(session.outcome.max_cost, config.budget.run),
            None => cap,
        };
        let scope = match &session {
            Some(session) => session.persistence.scope.clone(),
            None => scope,
        };
        let before: Spend = session.iter().flat_map(|session| session.spent_before.values().copied()).sum();
        let own = SharedBudget::for_run(cap, before, session.is_some());
        let settings = &config.supervisor;
        let (router, supervisor, arbiters) = pointsman.actor_parts();
        let routes = pipeline.routes().filter_map(|route| current.usable.route(route).ok());
        let targets = routes.flat_map(|route| &route.targets);
        let names: IndexSet<ProviderName> = targets.map(|target| target.name.provider.clone()).collect();
        let parts = run::RunParts {
            pipeline: pipeline.clone(),
            protected,
            router: router.clone(),
            budgets: RunBudgets { own, shared: current.budgets.shared_by_run(&scope, names.iter()) },
            scope_limits: pointsman.scopes().get(&scope),
            scope,
            notes,
            routes: run_routes(pointsman.routes(), &pipeline),
            limits: pause.or_configured(&config.run),
            metrics: pointsman.metrics().runs.clone(),
            request_metrics: pointsman.metrics().requests.clone(),
            window: config.run.max_in_flight_items.map(NonZeroUsize::get),
            session,
            supervisor: supervisor.clone(),
            policy: settings.policy(settings.run_restarts),
            arbiters: arbiters.clone(),
            open,
        };
        run::start_run(parts, reader, output).await
    }
}

/// Returns the routes of a pipeline's steps. If all steps of a route have `embed`, only its targets with embeddings count:
/// the others show nothing about a hold.
fn run_routes(routes: &SharedRoutes, pipeline: &Pipeline) -> Vec<RunRoute> {
    let names: IndexSet<&RouteName> = pipeline.routes().collect();
    let route = |name: &RouteName| {
        let steps = || pipeline.steps().iter().filter(|step| step.route == *name);
        Some(RunRoute {
            name: name.clone(),
            routes: routes.clone(),
            only_embeddings: steps().all(|step| step.embedding.is_some()),
            min_step_deadline: steps().map(|step| step.deadline).min()?,
        })
    };
    names.into_iter().filter_map(route).collect()
}

/// Returns the note on files of a folder that are no items because the program uses them.
fn skipped_note(number: usize) -> Option<String> {
    match number {
        0 => None,
        1 => Some("skipped 1 file that the program itself uses".to_owned()),
        number => Some(format!("skipped {number} files that the program itself uses")),
    }
}

/// Returns the files that items of a run may neither be nor attach.
fn protected_files(
    config: &Config,
    pipeline: &Pipeline,
    input: Option<&Path>,
    outputs: &[WrittenFile],
    of_store: &[PathBuf],
) -> ProtectedFiles {
    let mut files = pipeline.protected().clone();
    config.secret_files().for_each(|file| files.add(FileUse::Secret, file));
    config.store.url.files().iter().for_each(|file| files.add(FileUse::Store, file));
    of_store.iter().for_each(|file| files.add(FileUse::Store, file));
    config.file().into_iter().for_each(|file| files.add(FileUse::Configuration, file));
    input.into_iter().for_each(|file| files.add(FileUse::Input, file));
    outputs.iter().for_each(|file| files.add(FileUse::Output, file.path()));
    files
}
