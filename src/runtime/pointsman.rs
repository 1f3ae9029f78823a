//! The handle to a running Pointsman.
//!
//! It is cheap to clone. When the last clone is dropped, everything stops.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::clock;
use crate::config::{Config, ResolvedConfig};
use crate::diagnostics::Diagnostics;
use crate::guard::{HeldMemory, MemoryBudget};
use crate::pipeline::Pipeline;
use crate::provider::{self, Env, Snapshot, process_env};
use crate::router::{Request, Router, send_request};
use crate::supervisor::{
    ChildSpec, ChildStatus, Children, Drain, Drained, RestartChild, RestartsExhausted, Slot, Start,
    Supervisor, Watchdog,
};
use crate::types::{Class, Failure, Priority, Prompt, RequestContext, RequestError, Response, RouteName};

use super::budgets::DayBudgets;
use super::children::{Providers, account, provider_spec, router_spec};
use super::error::Error;
use super::open_runs::OpenRuns;
use super::simulated_provider::SimulatedProviders;
use super::threads::{self, Arbiters, Threads};

/// The deadline of a request whose caller sets none.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(600);

/// How long actors may take to stop when the last handle is dropped. A drain before that gives them more time.
const MAX_ACTOR_SHUTDOWN: Duration = Duration::from_millis(500);

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
    config: Config,
    usable: ResolvedConfig,
    providers: Providers,
    budgets: DayBudgets,
    supervisor: Addr<Supervisor>,
    router: Slot<Router>,
    draining: Arc<AtomicBool>,
    runs: Arc<OpenRuns>,
    arbiters: Arbiters,
    fatal_error: watch::Receiver<Option<String>>,
    _watchdog: Watchdog,
}

impl Pointsman {
    /// Starts with keys from the process's environment. A provider whose key is missing is left out, with a line
    /// in [`notes`](Self::notes). Targets are simulated only if the configuration names the simulator, or is
    /// simulated as a whole ([`Config::simulated`]).
    ///
    /// # Errors
    /// Every key that cannot be read, and the part that could not be started.
    pub fn start(config: &Config) -> Result<Self, Error> {
        Self::start_with(config, &process_env)
    }

    /// Starts with keys from the caller's environment.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(config: &Config, env: Env<'_>) -> Result<Self, Error> {
        Self::start_resolved(config, config.resolve(env)?)
    }

    /// Starts only for planning, with keys from the process's environment. No key command is run; each command is
    /// assumed to return a key. Providers reject requests with such a key.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_to_plan(config: &Config) -> Result<Self, Error> {
        Self::start_resolved(config, config.preview(&process_env)?)
    }

    fn start_resolved(config: &Config, usable: ResolvedConfig) -> Result<Self, Error> {
        clock::check()?;
        let config = config.clone();
        let (threads, inner) = threads::start(move |arbiters| begin(config, usable, arbiters))?;
        Ok(Self { inner: Arc::new(inner), _threads: Arc::new(threads) })
    }

    /// Returns a line for each provider that was left out or is simulated.
    pub fn notes(&self) -> &[String] {
        &self.inner.usable.notes
    }

    /// Sends `prompt` to `route` as an interactive request with a deadline of ten minutes.
    ///
    /// # Errors
    /// The failure that ended the request, with every attempt.
    pub async fn ask(&self, route: &str, prompt: Prompt) -> Result<Response, Box<RequestError>> {
        self.send(Request {
            prompt: Arc::new(prompt),
            route: route.into(),
            priority: Priority::Interactive,
            context: RequestContext::default(),
            deadline: Instant::now() + DEFAULT_DEADLINE,
            counts: None,
            budget: None,
            memory: HeldMemory::default(),
            stop: None,
        })
        .await
    }

    /// Sends a request with all its options. A request that is lost with the router, or in a panic on its way, is
    /// sent once more; the response counts these resends.
    ///
    /// # Errors
    /// The failure that ended the request, with every attempt.
    pub async fn send(&self, request: Request) -> Result<Response, Box<RequestError>> {
        let stopped = || Failure::new(Class::Cancelled, "pointsman has stopped");
        // During a drain, a request could be lost in the router's mailbox, and it would not be known that it was
        // never sent.
        if self.has_stopped() || self.inner.draining.load(Relaxed) {
            return Err(Box::new(stopped().into()));
        }
        // The request runs on our own runtime, because the caller's may have no timers or poll seldom. The task
        // ends when the caller drops this future.
        let mut task = JoinSet::new();
        task.spawn_on(send_request(&self.inner.router, request), self.runtime());
        let result = task.join_next().await.and_then(Result::ok);
        let mut result = result.unwrap_or_else(|| Err(Box::new(stopped().maybe_charged().into())));
        if let Err(RequestError { failure, resends, .. }) = result.as_mut().map_err(|error| &mut **error)
            && failure.class == Class::Internal
            && self.has_stopped()
        {
            // The request was lost in the shutdown.
            *failure = if *resends > 0 { stopped().maybe_charged() } else { stopped() };
        }
        result
    }

    /// Returns whether the router has stopped permanently.
    fn has_stopped(&self) -> bool {
        self.inner.router.is_retired() || !self.inner.supervisor.connected()
    }

    /// Returns the router's address, for actors that send requests themselves; `None` once it has stopped.
    pub fn router(&self) -> Option<Addr<Router>> {
        self.inner.router.get()
    }

    /// Reads a pipeline and checks it against this configuration's routes.
    ///
    /// # Errors
    /// All problems of the pipeline.
    pub fn pipeline(&self, path: &Path) -> Result<Pipeline, Diagnostics> {
        let config = &self.inner.config;
        let pipeline = Pipeline::load(path, &config.defaults, &self.routes())?;
        let files = &config.files;
        self.with_checked_routes(
            pipeline.with_allowed_folders(&files.allow).with_allowed_hosts(&files.allow_hosts),
        )
    }

    /// Reads a pipeline from a string and checks it likewise. Paths in it are relative to the working directory.
    ///
    /// # Errors
    /// All problems of the pipeline.
    pub fn parse_pipeline(&self, text: &str) -> Result<Pipeline, Diagnostics> {
        let config = &self.inner.config;
        let pipeline = Pipeline::parse("pipeline", text, Path::new(""), &config.defaults, &self.routes())?;
        let files = &config.files;
        self.with_checked_routes(
            pipeline.with_allowed_folders(&files.allow).with_allowed_hosts(&files.allow_hosts),
        )
    }

    fn routes(&self) -> Vec<RouteName> {
        self.inner.config.routes.keys().cloned().collect()
    }

    /// Returns `pipeline` if each of its routes has a usable target.
    fn with_checked_routes(&self, pipeline: Pipeline) -> Result<Pipeline, Diagnostics> {
        self.inner.usable.check(pipeline.routes())?;
        Ok(pipeline)
    }

    pub(super) fn usable(&self) -> &ResolvedConfig {
        &self.inner.usable
    }

    pub(super) fn budgets(&self) -> &DayBudgets {
        &self.inner.budgets
    }

    pub(super) fn runs(&self) -> &OpenRuns {
        &self.inner.runs
    }

    pub(super) fn config(&self) -> &Config {
        &self.inner.config
    }

    /// Returns the parts that every run uses.
    pub(super) fn actor_parts(&self) -> (&Providers, &Slot<Router>, &Addr<Supervisor>, &Arbiters) {
        let Inner { providers, router, supervisor, arbiters, .. } = &*self.inner;
        (providers, router, supervisor, arbiters)
    }

    /// Returns the state of the providers.
    pub fn providers(&self) -> Vec<Snapshot> {
        let now = Instant::now();
        self.inner.providers.values().map(|provider| provider.snapshot(now)).collect()
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

    /// Stops everything, and returns how many actors had to be aborted. Runs and requests may end by themselves
    /// until `by`; a request or run that begins from now on fails with [`Class::Cancelled`] or [`Error::Stopped`].
    ///
    /// Runs take no more items. When nine tenths of the time have passed, items in flight are cancelled; their
    /// calls are recorded as possibly charged. When this returns, every run is closed: its state and outcome are in
    /// its store and its lock is released. That takes milliseconds, and at most until ten seconds after `by`.
    pub async fn drain(&self, by: Instant) -> Drained {
        self.inner.draining.store(true, Relaxed);
        stop(&self.inner.runs, &self.inner.supervisor, by).await
    }

    /// Returns the runtime of the actors. Calls have threads of their own.
    pub fn runtime(&self) -> &tokio::runtime::Handle {
        &self.inner.arbiters.runtime
    }
}

async fn begin(
    config: Config,
    usable: ResolvedConfig,
    arbiters: Arbiters,
) -> Result<(Inner, impl Future<Output = ()> + use<>), Error> {
    MemoryBudget::of_process().set_total(config.run.max_memory.0);
    let simulated = SimulatedProviders::start(&config, &usable, &arbiters)?;
    let budgets = DayBudgets::new(&config.budget);
    let mut providers = Providers::new();
    for (name, ready) in &usable.providers {
        let account = account(name, ready, &simulated, &budgets)?;
        let state = provider::State::new(account, arbiters.calls.clone());
        let state = state.map_err(|source| Error::Provider { provider: name.clone(), source })?;
        providers.insert(name.clone(), state);
    }
    let (fatal_error_tx, fatal_error) = watch::channel(None);
    let supervisor = Supervisor::new(FatalErrorListener(fatal_error_tx).start().recipient()).start();
    let router = Slot::default();
    let draining = Arc::new(AtomicBool::new(false));
    // Actors drain in reverse order of their start: the router lets its requests end while the providers still
    // run.
    for state in providers.values() {
        start(&supervisor, provider_spec(&config.supervisor, state, &router, &arbiters)).await?;
    }
    let spec = router_spec(&config, &usable, &providers, (&router, &draining), &arbiters);
    start(&supervisor, spec).await?;
    let watched = [("core", arbiters.core.clone()), ("items", arbiters.items.clone())];
    let watchdog = Watchdog::start(watched, STALL_THRESHOLD, |_| {});
    let watchdog = watchdog.map_err(|source| Error::System { what: "the watchdog", source })?;
    let runs = Arc::new(OpenRuns::new());
    let end = end(supervisor.clone(), runs.clone(), draining.clone(), simulated);
    let inner = Inner {
        config,
        usable,
        providers,
        budgets,
        supervisor,
        router,
        draining,
        runs,
        arbiters,
        fatal_error,
        _watchdog: watchdog,
    };
    Ok((inner, end))
}

/// Stops the actors before their threads, so that the supervisor does not treat their exit as a failure. Open runs
/// are cancelled and closed; simulated providers answer until then.
async fn end(
    supervisor: Addr<Supervisor>,
    runs: Arc<OpenRuns>,
    draining: Arc<AtomicBool>,
    simulated: SimulatedProviders,
) {
    draining.store(true, Relaxed);
    runs.close(Instant::now()).await;
    // An error means that the supervisor has stopped already.
    let _ = supervisor.send(Drain { by: Instant::now() + MAX_ACTOR_SHUTDOWN }).await;
    drop(simulated);
}

/// Closes the runs, and then stops the actors.
async fn stop(runs: &OpenRuns, supervisor: &Addr<Supervisor>, by: Instant) -> Drained {
    let left = by.saturating_duration_since(Instant::now());
    runs.close(by.checked_sub(left / 10).unwrap_or(by)).await;
    supervisor.send(Drain { by }).await.unwrap_or_default()
}

async fn start(supervisor: &Addr<Supervisor>, spec: ChildSpec) -> Result<(), Error> {
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
