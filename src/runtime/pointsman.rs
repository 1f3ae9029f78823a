//! The handle to a running Pointsman.
//!
//! It is cheap to clone. When the last clone is dropped, everything stops.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use actix::prelude::*;
use arc_swap::ArcSwap;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::clock;
use crate::config::{Config, ResolvedConfig};
use crate::diagnostics::Diagnostics;
use crate::guard::MemoryBudget;
use crate::pipeline::{Overrides, Pipeline};
use crate::provider::{self, Env, Snapshot, process_env};
use crate::router::{
    EmbeddingBatcher, EmbeddingRequest, Embeddings, Request, ResponseStream, Router, RouterHandle, Scopes,
    SharedRoutes,
};
use crate::run::SharedRequests;
use crate::store::Store;
use crate::supervisor::{
    ChildSpec, ChildStatus, Children, Drain, Drained, RestartChild, RestartsExhausted, Slot, Start,
    Supervisor, Watchdog,
};
use crate::types::{RequestError, Response};

use super::budgets::DayBudgets;
use super::changes::{Changes, KeyLookup};
use super::children::{Providers, account, provider_child, provider_spec, route_table, router_spec};
#[cfg(feature = "server")]
use super::current::ConfigurationVersion;
use super::current::Current;
use super::error::Error;
use super::metrics::Metrics;
use super::open_runs::OpenRuns;
use super::open_sessions::OpenSessions;
use super::simulated_provider::SimulatedProviders;
use super::threads::{self, Arbiters, Threads};

/// How long actors may take to stop when the last handle is dropped. A drain before that gives them more time.
const MAX_ACTOR_SHUTDOWN: Duration = Duration::from_millis(500);

/// The time of a drain that is too long for the clock.
const MAX_DRAIN: Duration = Duration::from_secs(365 * 24 * 3600);

/// How long an arbiter may make no progress before it is reported.
const STALL_THRESHOLD: Duration = Duration::from_secs(2);

/// The handle to a running Pointsman.
#[derive(Debug, Clone)]
pub struct Pointsman {
    inner: Arc<Inner>,
    /// Declared last: the threads stop after everything that runs on them was dropped.
    _threads: Arc<Threads>,
}

/// Everything that the handle refers to, except the threads.
#[derive(Debug)]
struct Inner {
    /// What a reload replaces.
    current: Arc<ArcSwap<Current>>,
    /// The routes in use, for the router and the runs.
    routes: SharedRoutes,
    /// What serializes the changes of `current`.
    changes: Changes,
    simulated: Arc<SimulatedProviders>,
    scopes: Arc<Scopes>,
    supervisor: Addr<Supervisor>,
    router: Slot<Router>,
    requests: RouterHandle,
    draining: Arc<AtomicBool>,
    runs: Arc<OpenRuns>,
    sessions: OpenSessions,
    /// The requests of stored runs that other items and runs may share.
    shared_requests: SharedRequests,
    metrics: Metrics,
    arbiters: Arbiters,
    fatal_error: watch::Receiver<Option<String>>,
    watchdog: Watchdog,
}

impl Drop for Inner {
    /// Router handles that outlive the last handle refuse requests at once.
    fn drop(&mut self) {
        self.draining.store(true, Relaxed);
    }
}

impl Pointsman {
    /// Starts with keys from the process's environment. A provider whose key is missing is left out, with a line
    /// in [`notes`](Self::notes). Targets are simulated only if the configuration names the simulator, or is
    /// simulated as a whole ([`Config::simulated`]).
    ///
    /// The work is done on threads of Pointsman, so this future runs on any executor and never blocks it.
    ///
    /// ```no_run
    /// use pointsman::{Config, Pointsman, Request};
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let pointsman = Pointsman::start(&Config::load()?).await?;
    /// let response = pointsman.send(Request::new("default", "Say hello.")).await?;
    /// println!("{}: {}", response.target, response.text());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Every key that cannot be read, and the part that could not be started.
    pub async fn start(config: &Config) -> Result<Self, Error> {
        Self::start_with(config, process_env).await
    }

    /// Starts as [`start`](Self::start) does, with keys from `env`, which returns the value of an environment
    /// variable.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with(
        config: &Config,
        env: impl Fn(&str) -> Option<String> + Send + 'static,
    ) -> Result<Self, Error> {
        let (started_tx, started_rx) = oneshot::channel();
        // If this future has been dropped, a Pointsman that has started is dropped too, and stops.
        launch(config, Box::new(env), move |started| drop(started_tx.send(started)))?;
        started_rx.await.unwrap_or(Err(Error::Stopped))
    }

    /// Starts as [`start`](Self::start) does and blocks the thread meanwhile: for `main` and for tests. Key commands
    /// take as long as they need, everything else a few milliseconds.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_blocking(config: &Config) -> Result<Self, Error> {
        Self::start_blocking_with(config, process_env)
    }

    /// Starts as [`start_blocking`](Self::start_blocking) does, with keys from `env`.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_blocking_with(
        config: &Config,
        env: impl Fn(&str) -> Option<String> + Send + 'static,
    ) -> Result<Self, Error> {
        let (started_tx, started_rx) = mpsc::channel();
        launch(config, Box::new(env), move |started| drop(started_tx.send(started)))?;
        started_rx.recv().unwrap_or(Err(Error::Stopped))
    }

    /// Starts only for planning, with keys from the process's environment. No key command is run; each command is
    /// assumed to return a key. Providers reject requests with such a key. Blocks the thread meanwhile.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    #[doc(hidden)]
    pub fn start_to_plan(config: &Config) -> Result<Self, Error> {
        let usable = config.preview(&process_env)?;
        let (started_tx, started_rx) = mpsc::channel();
        let env: KeyLookup = Box::new(process_env);
        start_threads(
            config.clone(),
            env,
            move |_, _| Ok(usable),
            move |started| {
                drop(started_tx.send(started));
            },
        )?;
        started_rx.recv().unwrap_or(Err(Error::Stopped))
    }

    /// Returns a line for each provider that was left out or is simulated.
    pub fn notes(&self) -> Vec<String> {
        self.current().usable.notes.clone()
    }

    /// Sends a request and returns its response, as [`RouterHandle::send`] does.
    ///
    /// # Errors
    /// The failure that ended the request, with every attempt.
    pub async fn send(&self, request: Request) -> Result<Response, Box<RequestError>> {
        self.inner.requests.send(request).await
    }

    /// Sends a request as [`send`](Self::send) does, but fails at once while too many requests are pending or its scope
    /// does not admit it, as [`RouterHandle::try_send`] does.
    ///
    /// # Errors
    /// The failure that ended the request, with every attempt.
    pub async fn try_send(&self, request: Request) -> Result<Response, Box<RequestError>> {
        self.inner.requests.try_send(request).await
    }

    /// Sends a request for embeddings and returns one vector per input, as [`RouterHandle::embed`] does.
    ///
    /// ```
    /// # #[cfg(feature = "simulator")]
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use pointsman::{Config, EmbeddingRequest, Pointsman};
    ///
    /// let config = Config::from_toml("[provider.demo]\nbase_url = 'simulator'")?;
    /// let pointsman = Pointsman::start_blocking(&config)?;
    /// let request = EmbeddingRequest::new("default", ["low tide", "high tide"]).with_dimensions(256);
    /// let embeddings = pointsman.runtime().block_on(pointsman.embed(request))?;
    /// assert_eq!((embeddings.vectors.len(), embeddings.vectors[0].len()), (2, 256));
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "simulator"))]
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    /// The failure that ended the request, with every attempt.
    pub async fn embed(&self, request: EmbeddingRequest) -> Result<Embeddings, Box<RequestError>> {
        self.inner.requests.embed(request).await
    }

    /// Sends a request and returns its answer as a stream, as [`RouterHandle::stream`] does.
    pub fn stream(&self, request: Request) -> ResponseStream {
        self.inner.requests.stream(request)
    }

    /// Returns a handle that sends requests, for tasks and actors. It does not keep Pointsman running.
    pub fn router(&self) -> RouterHandle {
        self.inner.requests.clone()
    }

    /// Reads a pipeline and checks it against this configuration's routes.
    ///
    /// # Errors
    /// All problems of the pipeline.
    pub fn pipeline(&self, path: &Path) -> Result<Pipeline, Diagnostics> {
        self.current().load_pipeline(|defaults, routes| Pipeline::load(path, defaults, routes))
    }

    /// Reads a pipeline with `overrides` in place of its settings, or, without a file, the pipeline that they make, and
    /// checks it likewise.
    ///
    /// # Errors
    /// All problems of the pipeline, or that the overrides do not fit it.
    #[doc(hidden)]
    pub fn pipeline_with(&self, path: Option<&Path>, overrides: &Overrides) -> Result<Pipeline, Diagnostics> {
        self.current()
            .load_pipeline(|defaults, routes| Pipeline::load_with(path, overrides, defaults, routes))
    }

    /// Reads a pipeline from a text whose author may not choose files, and checks it likewise. `file` is its name in
    /// diagnostics.
    ///
    /// # Errors
    /// All problems of the pipeline.
    #[doc(hidden)]
    pub fn parse_isolated_pipeline(
        &self,
        file: &str,
        text: &str,
        directory: &Path,
    ) -> Result<Pipeline, Diagnostics> {
        self.current().load_pipeline(|defaults, routes| {
            Pipeline::parse_isolated(file, text, directory, defaults, routes)
        })
    }

    /// Reads a pipeline from the text that a file in `directory` had, and checks it likewise. `file` is its name in
    /// diagnostics.
    ///
    /// # Errors
    /// All problems of the pipeline.
    #[doc(hidden)]
    pub fn parse_pipeline_of(
        &self,
        file: &str,
        text: &str,
        directory: &Path,
    ) -> Result<Pipeline, Diagnostics> {
        self.current()
            .load_pipeline(|defaults, routes| Pipeline::parse(file, text, directory, defaults, routes))
    }

    /// Reads a pipeline from a string and checks it likewise. Paths in it are relative to the working directory.
    ///
    /// # Errors
    /// All problems of the pipeline.
    pub fn parse_pipeline(&self, text: &str) -> Result<Pipeline, Diagnostics> {
        self.parse_pipeline_of("pipeline", text, Path::new(""))
    }

    /// Returns whether a thread of actors has been blocked for two seconds or longer. It may recover by itself.
    pub fn is_stalled(&self) -> bool {
        self.inner.watchdog.is_stalled()
    }

    /// Returns the configuration in use.
    pub fn config(&self) -> Arc<Config> {
        self.current().config.clone()
    }

    /// Returns what identifies the configuration in use. It is another one after each change that affects pipelines.
    #[cfg(feature = "server")]
    pub(crate) fn configuration_version(&self) -> ConfigurationVersion {
        ConfigurationVersion::of(&self.current())
    }

    /// Returns the configuration in use, with the parts that are built from it.
    pub(super) fn current(&self) -> Arc<Current> {
        self.inner.current.load_full()
    }

    /// Returns the handle to the configuration in use, for tasks. It does not keep Pointsman running.
    pub(super) fn shared_current(&self) -> Arc<ArcSwap<Current>> {
        self.inner.current.clone()
    }

    pub(super) fn routes(&self) -> &SharedRoutes {
        &self.inner.routes
    }

    pub(super) fn changes(&self) -> &Changes {
        &self.inner.changes
    }

    pub(super) fn simulated(&self) -> &SimulatedProviders {
        &self.inner.simulated
    }

    pub(super) fn scopes(&self) -> &Scopes {
        &self.inner.scopes
    }

    pub(super) fn runs(&self) -> &OpenRuns {
        &self.inner.runs
    }

    pub(super) fn sessions(&self) -> &OpenSessions {
        &self.inner.sessions
    }

    pub(super) fn shared_requests(&self) -> &SharedRequests {
        &self.inner.shared_requests
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// Returns the parts that every run uses.
    pub(super) fn actor_parts(&self) -> (&Slot<Router>, &Addr<Supervisor>, &Arbiters) {
        let Inner { router, supervisor, arbiters, .. } = &*self.inner;
        (router, supervisor, arbiters)
    }

    /// Returns the state of the providers. Those that a reload has removed are at the end until their last calls have ended.
    pub fn providers(&self) -> Vec<Snapshot> {
        let now = Instant::now();
        let current = self.current();
        let removed = self.inner.changes.removed(&current.providers);
        current.providers.values().chain(&removed).map(|provider| provider.snapshot(now)).collect()
    }

    /// Counts in the daily budgets what a store has recorded as spent today. A stored run does this when it begins; a
    /// program that also sends requests of its own does it once after the start.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn sync_budgets(&self, store: &dyn Store) -> Result<(), Error> {
        let budgets = &self.current().budgets;
        Ok(budgets.sync_from_store(store, budgets.of_scopes().keys()).await?)
    }

    /// Returns the state of the supervised actors; none once Pointsman has stopped.
    pub async fn children(&self) -> Vec<ChildStatus> {
        self.inner.supervisor.send(Children).await.unwrap_or_default()
    }

    /// Restarts a supervised actor, by its name in [`children`](Self::children). An actor that is down starts
    /// again, and an actor that hangs is aborted. Queued calls and calls in flight continue.
    ///
    /// # Errors
    /// If there is no such actor, it belongs to a run, or the shutdown has started.
    pub async fn restart(&self, child: &str) -> Result<(), Error> {
        let restart = RestartChild { name: child.into() };
        self.inner.supervisor.send(restart).await.map_err(|_| Error::Stopped)?.map_err(Error::Restart)
    }

    /// Waits until an essential actor has failed permanently, and returns the cause.
    pub async fn fatal_error(&self) -> String {
        let mut fatal_error = self.inner.fatal_error.clone();
        let why = fatal_error.wait_for(Option::is_some).await.map(|why| why.clone().unwrap_or_default());
        why.unwrap_or_else(|_| "pointsman has stopped".to_owned())
    }

    /// Stops everything, and returns how many actors had to be aborted. Runs and requests have this time to end by
    /// themselves; a request or run that begins from now on fails with
    /// [`Class::Cancelled`](crate::types::Class::Cancelled) or [`Error::Stopped`].
    ///
    /// Runs take no more items. When nine tenths of the time have passed, items in flight are cancelled; their
    /// calls are recorded as possibly charged. When this returns, every run is closed: its state and outcome are in
    /// its store and its lock is released. That takes milliseconds, and at most ten seconds longer than `within`.
    pub async fn drain(&self, within: Duration) -> Drained {
        let now = Instant::now();
        let by = now.checked_add(within).unwrap_or(now + MAX_DRAIN);
        self.inner.draining.store(true, Relaxed);
        let runs = self.inner.runs.clone();
        let supervisor = self.inner.supervisor.clone();
        self.work(async move { stop(&runs, &supervisor, by).await }).await.unwrap_or_default()
    }

    /// Works on the runtime of the actors, because the caller's may have no timers and no I/O. The work is aborted
    /// when this future is dropped.
    #[doc(hidden)]
    pub async fn work<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Error> {
        let mut task = JoinSet::new();
        task.spawn_on(work, self.runtime());
        task.join_next().await.and_then(Result::ok).ok_or(Error::Stopped)
    }

    /// Returns the runtime of the actors. Calls have threads of their own.
    pub fn runtime(&self) -> &tokio::runtime::Handle {
        &self.inner.arbiters.runtime
    }
}

/// Reads the keys and starts everything, on new threads. `started` receives the result on one of them.
fn launch(
    config: &Config,
    env: KeyLookup,
    started: impl FnOnce(Result<Pointsman, Error>) + Send + 'static,
) -> Result<(), Error> {
    // A key command may take seconds, so the keys are read on the new thread.
    start_threads(config.clone(), env, |config, env| Ok(config.resolve(env)?), started)
}

fn start_threads(
    config: Config,
    env: KeyLookup,
    resolve: impl FnOnce(&Config, Env<'_>) -> Result<ResolvedConfig, Error> + Send + 'static,
    started: impl FnOnce(Result<Pointsman, Error>) + Send + 'static,
) -> Result<(), Error> {
    clock::check()?;
    let begin = move |arbiters| async move {
        let usable = resolve(&config, &*env)?;
        begin(config, usable, env, arbiters).await
    };
    threads::start(begin, |result| {
        started(
            result.map(|(threads, inner)| Pointsman { inner: Arc::new(inner), _threads: Arc::new(threads) }),
        );
    })
}

async fn begin(
    config: Config,
    usable: ResolvedConfig,
    env: KeyLookup,
    arbiters: Arbiters,
) -> Result<(Inner, impl Future<Output = ()> + use<>), Error> {
    let metrics = Metrics::new();
    MemoryBudget::of_process().set_total(config.run.max_memory.0);
    let simulated = Arc::new(SimulatedProviders::default());
    simulated.start(&config, &usable, &arbiters)?;
    let budgets = DayBudgets::new(&config.budget);
    let scopes = Arc::new(Scopes::new(&config.scopes, budgets.of_scopes()));
    let mut providers = Providers::new();
    for (name, ready) in &usable.providers {
        let account = account(name, ready, &simulated, &budgets)?;
        let state = provider::State::new(account, arbiters.calls.clone());
        let state = state.map_err(|source| Error::Provider { provider: name.clone(), source })?;
        providers.insert(name.clone(), state);
    }
    let (fatal_error_tx, fatal_error) = watch::channel(None);
    let supervisor = Supervisor::new(FatalErrorListener(fatal_error_tx).start().recipient());
    let supervisor = supervisor.with_restart_counts(metrics.restarts.clone()).start();
    let router = Slot::default();
    let draining = Arc::new(AtomicBool::new(false));
    // Actors drain in reverse order of their start: the router lets its requests end while the providers still
    // run.
    for (name, state) in &providers {
        let child = provider_child(name, None);
        start(&supervisor, provider_spec(&child, &config.supervisor, state, &router, &arbiters)).await?;
    }
    let routes = SharedRoutes::new(route_table(&config, &usable, &providers));
    let spec = router_spec(&config, &routes, (&router, &draining), &arbiters);
    start(&supervisor, spec).await?;
    let watched = [("core", arbiters.core.clone()), ("items", arbiters.items.clone())];
    let watchdog = Watchdog::start(watched, STALL_THRESHOLD, |_| {});
    let watchdog = watchdog.map_err(|source| Error::System { what: "the watchdog", source })?;
    let runs = Arc::new(OpenRuns::new());
    let end = end(supervisor.clone(), runs.clone(), draining.clone(), simulated.clone());
    let requests = RouterHandle::new(
        router.clone(),
        supervisor.clone(),
        draining.clone(),
        arbiters.runtime.clone(),
        arbiters.core.clone(),
    );
    let requests = requests
        .with_embedding_batcher(EmbeddingBatcher::new(routes.clone()))
        .with_scopes(scopes.clone())
        .with_metrics(metrics.requests.clone());
    let current = Current { config: Arc::new(config), usable, providers, budgets };
    let inner = Inner {
        current: Arc::new(ArcSwap::from_pointee(current)),
        routes,
        changes: Changes::new(env),
        simulated,
        scopes,
        supervisor,
        router,
        requests,
        draining,
        runs,
        sessions: OpenSessions::default(),
        shared_requests: SharedRequests::default(),
        metrics,
        arbiters,
        fatal_error,
        watchdog,
    };
    Ok((inner, end))
}

/// Stops the actors before their threads, so that the supervisor does not treat their exit as a failure. Open runs
/// are cancelled and closed; simulated providers answer until then.
async fn end(
    supervisor: Addr<Supervisor>,
    runs: Arc<OpenRuns>,
    draining: Arc<AtomicBool>,
    simulated: Arc<SimulatedProviders>,
) {
    draining.store(true, Relaxed);
    runs.close(Instant::now()).await;
    // An error means that the supervisor has stopped already.
    let _ = supervisor.send(Drain { by: Instant::now() + MAX_ACTOR_SHUTDOWN }).await;
    simulated.stop();
}

/// Closes the runs, and then stops the actors.
async fn stop(runs: &OpenRuns, supervisor: &Addr<Supervisor>, by: Instant) -> Drained {
    let left = by.saturating_duration_since(Instant::now());
    runs.close(by.checked_sub(left / 10).unwrap_or(by)).await;
    supervisor.send(Drain { by }).await.unwrap_or_default()
}

/// Starts an actor.
///
/// # Errors
/// If it cannot be started, or the shutdown has started.
pub(super) async fn start(supervisor: &Addr<Supervisor>, spec: ChildSpec) -> Result<(), Error> {
    supervisor.send(Start(spec)).await.map_err(|_| Error::Stopped)?.map_err(Error::Actor)
}

/// Receives the names of actors that failed permanently.
struct FatalErrorListener(watch::Sender<Option<String>>);

impl Actor for FatalErrorListener {
    type Context = Context<Self>;
}

impl Handler<RestartsExhausted> for FatalErrorListener {
    type Result = ();

    fn handle(&mut self, gave_up: RestartsExhausted, _: &mut Self::Context) {
        tracing::error!(child = %gave_up.child, why = %gave_up.reason, "an actor failed permanently");
        self.0.send_replace(Some(format!("{}: {}", gave_up.child, gave_up.reason)));
    }
}
