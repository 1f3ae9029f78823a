//! The handle to everything that runs.
//!
//! Cheap to clone; when the last clone is dropped, everything stops. Decides nothing itself.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use actix::prelude::*;
use indexmap::IndexMap;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::clock;
use crate::config::{Config, Usable};
use crate::document::Faults;
use crate::guard::{HeldMemory, MemoryBudget};
use crate::pipeline::Pipeline;
use crate::provider::{self, Env, Snapshot, process_env};
use crate::router::{Ask, Router, question};
use crate::supervisor::{
    ChildSpec, ChildStatus, Children, Drain, Drained, GaveUp, RestartChild, Slot, Start, Supervisor, Watchdog,
};
use crate::types::{Answer, Asker, Class, Failure, Priority, Prompt, ProviderName, RouteName, Unanswered};

use super::children::{account, provider_spec, router_spec};
use super::error::Error;
use super::open_runs::OpenRuns;
use super::played::Played;
use super::purses::Purses;
use super::threads::{self, Arbiters, Threads};

/// How long an answer is waited for when nothing else is said.
const DEADLINE: Duration = Duration::from_secs(600);

/// How long actors may take to stop when the last handle is dropped; a drain before gives them more.
const LAST_MESSAGES: Duration = Duration::from_millis(500);

/// How long an arbiter may stand still before it is reported.
const STALLED: Duration = Duration::from_secs(2);

pub(super) type Providers = IndexMap<ProviderName, Arc<provider::State>>;

/// The handle to everything that runs.
#[derive(Debug, Clone)]
pub struct Pointsman {
    running: Arc<Running>,
}

#[derive(Debug)]
struct Running {
    config: Config,
    usable: Usable,
    providers: Providers,
    purses: Purses,
    supervisor: Addr<Supervisor>,
    router: Slot<Router>,
    draining: Arc<AtomicBool>,
    runs: Arc<OpenRuns>,
    arbiters: Arbiters,
    gave_up: watch::Receiver<Option<String>>,
    _watchdog: Watchdog,
    // Last, so that what lives on the threads is dropped before them.
    _threads: Threads,
}

impl Pointsman {
    /// Starts with keys from the process's environment.
    ///
    /// # Errors
    /// Every key that cannot be read, and what could not be started. A provider whose key is just
    /// missing is left out, and [`notes`](Self::notes) says so. Nothing is simulated unless the configuration
    /// says so: by a target of the simulator, or whole ([`Config::simulated`]).
    pub fn start(config: &Config) -> Result<Self, Error> {
        Self::start_with(config, &process_env)
    }

    /// Starts with keys from an environment of the caller's.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(config: &Config, env: Env<'_>) -> Result<Self, Error> {
        Self::start_usable(config, config.usable(env)?)
    }

    /// Starts for planning alone, with keys from the process's environment: no key command is run, and each is
    /// taken to have a key. A request with such a key is refused by its provider.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_to_plan(config: &Config) -> Result<Self, Error> {
        Self::start_usable(config, config.preview(&process_env)?)
    }

    fn start_usable(config: &Config, usable: Usable) -> Result<Self, Error> {
        clock::check()?;
        let config = config.clone();
        let (threads, running) = threads::start(move |arbiters| begin(config, usable, arbiters))?;
        Ok(Self { running: Arc::new(running.with(threads)) })
    }

    /// Returns a line for everything that was left out, and where answers will be simulated.
    pub fn notes(&self) -> &[String] {
        &self.running.usable.notes
    }

    /// Asks `prompt` along `route` for somebody who is waiting, for ten minutes at most.
    ///
    /// # Errors
    /// The failure that ended it, with every attempt.
    pub async fn ask(&self, route: &str, prompt: Prompt) -> Result<Answer, Box<Unanswered>> {
        let (prompt, route, deadline) = (Arc::new(prompt), route.into(), Instant::now() + DEADLINE);
        let (priority, asker) = (Priority::Interactive, Asker::default());
        let held = HeldMemory::default();
        self.send(Ask {
            prompt,
            route,
            priority,
            asker,
            deadline,
            counts: None,
            purse: None,
            held,
            stop: None,
        })
        .await
    }

    /// Sends a whole [`Ask`]. One that is lost with the router, or on its way by a panic, is asked once
    /// more, and [`Answer::lost`] says so.
    ///
    /// # Errors
    /// The failure that ended it, with every attempt.
    pub async fn send(&self, ask: Ask) -> Result<Answer, Box<Unanswered>> {
        let stopped = || Failure::new(Class::Cancelled, "pointsman has stopped");
        // Once it drains, a question could lie in the router's mailbox and be lost with it: then nobody would know
        // that it never left.
        if self.has_stopped() || self.running.draining.load(Relaxed) {
            return Err(Box::new(stopped().into()));
        }
        // On our own runtime: whoever waits may have no timers, and may look seldom. It ends with its waiting.
        let mut asked = JoinSet::new();
        asked.spawn_on(question(&self.running.router, ask), self.runtime());
        let answered = asked.join_next().await.and_then(Result::ok);
        let mut answered = answered.unwrap_or_else(|| Err(Box::new(stopped().maybe_charged().into())));
        if let Err(Unanswered { failure, lost, .. }) =
            answered.as_mut().map_err(|unanswered| &mut **unanswered)
            && failure.class == Class::Internal
            && self.has_stopped()
        {
            // It was lost with everything else.
            *failure = if *lost > 0 { stopped().maybe_charged() } else { stopped() };
        }
        answered
    }

    /// Returns whether no router will ever come back.
    fn has_stopped(&self) -> bool {
        self.running.router.is_retired() || !self.running.supervisor.connected()
    }

    /// Returns the router's address, for actors that ask by themselves; `None` once it has stopped.
    pub fn router(&self) -> Option<Addr<Router>> {
        self.running.router.get()
    }

    /// Reads a pipeline, checked against this configuration's routes.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn pipeline(&self, path: &Path) -> Result<Pipeline, Faults> {
        let config = &self.running.config;
        let pipeline = Pipeline::load(path, &config.defaults, &self.routes())?;
        let files = &config.files;
        self.with_lanes(pipeline.with_allowed_folders(&files.allow).with_allowed_hosts(&files.allow_hosts))
    }

    /// Reads a pipeline that is no file, likewise; files that it names are found from the working directory.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse_pipeline(&self, text: &str) -> Result<Pipeline, Faults> {
        let config = &self.running.config;
        let pipeline = Pipeline::parse("pipeline", text, Path::new(""), &config.defaults, &self.routes())?;
        let files = &config.files;
        self.with_lanes(pipeline.with_allowed_folders(&files.allow).with_allowed_hosts(&files.allow_hosts))
    }

    fn routes(&self) -> Vec<RouteName> {
        self.running.config.routes.keys().cloned().collect()
    }

    /// Returns `pipeline` if each of its routes has a lane that can be used.
    fn with_lanes(&self, pipeline: Pipeline) -> Result<Pipeline, Faults> {
        self.running.usable.check(pipeline.routes())?;
        Ok(pipeline)
    }

    pub(super) fn usable(&self) -> &Usable {
        &self.running.usable
    }

    pub(super) fn purses(&self) -> &Purses {
        &self.running.purses
    }

    pub(super) fn runs(&self) -> &OpenRuns {
        &self.running.runs
    }

    pub(super) fn config(&self) -> &Config {
        &self.running.config
    }

    /// Returns what a run of `pipeline` begins with, beside what is its own.
    pub(super) fn parts(&self) -> (&Providers, &Slot<Router>, &Addr<Supervisor>, &Arbiters) {
        let Running { providers, router, supervisor, arbiters, .. } = &*self.running;
        (providers, router, supervisor, arbiters)
    }

    /// Returns how the providers are doing.
    pub fn providers(&self) -> Vec<Snapshot> {
        let now = Instant::now();
        self.running.providers.values().map(|provider| provider.snapshot(now)).collect()
    }

    /// Returns how the supervised actors are doing; none once it has stopped.
    pub async fn children(&self) -> Vec<ChildStatus> {
        self.running.supervisor.send(Children).await.unwrap_or_default()
    }

    /// Replaces the life of a supervised actor, by its name in [`children`](Self::children): one that is down
    /// lives again, one that hangs is aborted. Calls that wait or are out go on.
    ///
    /// # Errors
    /// When there is no such actor, it is one of a run, or everything is being stopped.
    pub async fn restart(&self, child: &str) -> Result<(), Error> {
        let restart = RestartChild { name: child.into() };
        self.running.supervisor.send(restart).await.map_err(|_| Error::Stopped)?.map_err(Error::Restart)
    }

    /// Waits until an actor that nothing can do without has failed for good, and returns what happened.
    pub async fn gave_up(&self) -> String {
        let mut gave_up = self.running.gave_up.clone();
        let why = gave_up.wait_for(Option::is_some).await.map(|why| why.clone().unwrap_or_default());
        why.unwrap_or_else(|_| "pointsman has stopped".to_owned())
    }

    /// Stops everything, and returns how many actors had to be killed. Runs and asks under way may end by `by`; a
    /// question or a run that begins from now on fails with [`Error::Stopped`] or [`Class::Cancelled`].
    ///
    /// Runs take no more items. What is in flight when nine tenths of the time have passed is given up: its calls are
    /// broken off, and booked as possibly charged. When this returns, every run is closed: its state and outcome are
    /// in its store and its lock is free. That takes milliseconds, and ten seconds after `by` at most.
    pub async fn drain(&self, by: Instant) -> Drained {
        self.running.draining.store(true, Relaxed);
        stop(&self.running.runs, &self.running.supervisor, by).await
    }

    /// Returns the runtime under the actors. Calls have threads of their own.
    pub fn runtime(&self) -> &tokio::runtime::Handle {
        &self.running.arbiters.runtime
    }
}

/// Everything but the threads, which exist only once this is made.
struct Begun {
    config: Config,
    usable: Usable,
    providers: Providers,
    purses: Purses,
    supervisor: Addr<Supervisor>,
    router: Slot<Router>,
    draining: Arc<AtomicBool>,
    runs: Arc<OpenRuns>,
    arbiters: Arbiters,
    gave_up: watch::Receiver<Option<String>>,
    watchdog: Watchdog,
}

impl Begun {
    fn with(self, threads: Threads) -> Running {
        Running {
            config: self.config,
            usable: self.usable,
            providers: self.providers,
            purses: self.purses,
            supervisor: self.supervisor,
            router: self.router,
            draining: self.draining,
            runs: self.runs,
            arbiters: self.arbiters,
            gave_up: self.gave_up,
            _watchdog: self.watchdog,
            _threads: threads,
        }
    }
}

async fn begin(
    config: Config,
    usable: Usable,
    arbiters: Arbiters,
) -> Result<(Begun, impl Future<Output = ()> + use<>), Error> {
    MemoryBudget::of_process().set_total(config.run.max_memory.0);
    let played = Played::start(&config, &usable, &arbiters)?;
    let (purses, mut providers) = (Purses::new(&config.budget), Providers::new());
    for (name, ready) in &usable.providers {
        let account = account(name, ready, &played, &purses)?;
        let state = provider::State::new(account, arbiters.calls.clone());
        let state = state.map_err(|source| Error::Provider { provider: name.clone(), source })?;
        providers.insert(name.clone(), state);
    }
    let (told, gave_up) = watch::channel(None);
    let supervisor = Supervisor::new(Owner(told).start().recipient()).start();
    let (router, draining) = (Slot::default(), Arc::new(AtomicBool::new(false)));
    // What is started last is drained first: the router lets its asks end while there are providers.
    for state in providers.values() {
        start(&supervisor, provider_spec(&config.supervisor, state, &router, &arbiters)).await?;
    }
    let spec = router_spec(&config, &usable, &providers, (&router, &draining), &arbiters);
    start(&supervisor, spec).await?;
    let watched = [("core", arbiters.core.clone()), ("items", arbiters.items.clone())];
    let watchdog = Watchdog::start(watched, STALLED, |_| {});
    let watchdog = watchdog.map_err(|source| Error::System { what: "the watchdog", source })?;
    let runs = Arc::new(OpenRuns::new());
    let end = end(supervisor.clone(), runs.clone(), draining.clone(), played);
    let begun = Begun {
        config,
        usable,
        providers,
        purses,
        supervisor,
        router,
        draining,
        runs,
        arbiters,
        gave_up,
        watchdog,
    };
    Ok((begun, end))
}

/// Stops the actors before their threads, so that none is taken for a casualty. Runs that are open still are given
/// up and closed; played providers answer until then.
async fn end(supervisor: Addr<Supervisor>, runs: Arc<OpenRuns>, draining: Arc<AtomicBool>, played: Played) {
    draining.store(true, Relaxed);
    runs.close(Instant::now()).await;
    // Gone already is as good.
    let _ = supervisor.send(Drain { by: Instant::now() + LAST_MESSAGES }).await;
    drop(played);
}

/// Closes the runs, and then stops the actors under them.
async fn stop(runs: &OpenRuns, supervisor: &Addr<Supervisor>, by: Instant) -> Drained {
    let left = by.saturating_duration_since(Instant::now());
    runs.close(by.checked_sub(left / 10).unwrap_or(by)).await;
    supervisor.send(Drain { by }).await.unwrap_or_default()
}

async fn start(supervisor: &Addr<Supervisor>, spec: ChildSpec) -> Result<(), Error> {
    supervisor.send(Start(spec)).await.map_err(|_| Error::Stopped)?.map_err(Error::Actor)
}

/// Hears of actors that failed for good.
struct Owner(watch::Sender<Option<String>>);

impl Actor for Owner {
    type Context = Context<Self>;
}

impl Handler<GaveUp> for Owner {
    type Result = ();

    fn handle(&mut self, gave_up: GaveUp, _: &mut Self::Context) {
        tracing::error!(child = %gave_up.child, why = %gave_up.why, "an actor failed for good");
        self.0.send_replace(Some(format!("{}: {}", gave_up.child, gave_up.why)));
    }
}
