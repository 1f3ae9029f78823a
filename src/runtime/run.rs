//! Starts a run, and hands out what can be seen and done of it.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;

use crate::pipeline::{Pipeline, ProtectedFiles};
use crate::provider;
use crate::router::Router;
use crate::run::{
    Cancel, Ended, Output, Progress, Report, Run, RunLimits, RunPurses, RunRoute, RunSetup, StopIntake,
    Watched,
};
use crate::source::Reader;
use crate::store::{RunNumber, RunState, Store};
use crate::supervisor::{self, ChildSpec, Policy, Restart, Slot, Start, Supervisor};
use crate::types::{Class, Priority};

use super::capped::settled;
use super::error::Error;
use super::open_runs::{OpenRun, Phase};
use super::session::{Ending, Open};
use super::threads::Arbiters;

/// How often it is looked whether a run has been given up.
const LOOK: Duration = Duration::from_millis(500);

/// A run under way. Dropping it changes nothing: the run goes on.
#[derive(Debug)]
pub struct RunHandle {
    run: Addr<Run>,
    number: Option<RunNumber>,
    /// Held by the run itself: its watchers learn that it has ended when the channel closes.
    progress: Weak<watch::Sender<Progress>>,
    /// The last progress, once the run has ended.
    last: Arc<OnceLock<Progress>>,
    report: oneshot::Receiver<Report>,
    ended: Option<Report>,
    notes: Vec<String>,
}

impl RunHandle {
    /// Returns the run's number in its store; `None` when it is not kept.
    pub fn number(&self) -> Option<RunNumber> {
        self.number
    }

    /// Returns what is good to know of its caps: what they do not hold.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Returns where the run's progress is told, ten times a second, and once more at its end; then the channel closes.
    /// It costs something only while the receiver is there.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        let Some(progress) = self.progress.upgrade() else {
            return watch::channel(self.last.get().cloned().unwrap_or_default()).1;
        };
        let progress = progress.subscribe();
        self.run.do_send(Watched);
        progress
    }

    /// Takes no more items; those in flight are finished.
    pub fn stop_intake(&self) {
        self.run.do_send(StopIntake);
    }

    /// Gives up the items in flight, too.
    pub fn cancel(&self) {
        self.run.do_send(Cancel);
    }

    /// Waits for the end of the run. Asked again, it returns the same report.
    ///
    /// # Errors
    /// When the run's actor failed for good; every line written until then is whole.
    pub async fn report(&mut self) -> Result<Report, Error> {
        if self.ended.is_none() && !self.report.is_terminated() {
            self.ended = (&mut self.report).await.ok();
        }
        self.ended.clone().ok_or(Error::Stopped)
    }
}

/// A run that has begun and that its caller does not have yet. Dropped, it gives the run up: a caller that has gone
/// wants no answers.
pub(super) struct Unclaimed(Option<RunHandle>);

impl Unclaimed {
    pub(super) fn new(run: RunHandle) -> Self {
        Self(Some(run))
    }

    /// Returns the run to its caller; `None` once that was done.
    pub(super) fn claim(mut self) -> Option<RunHandle> {
        self.0.take()
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(run) = &self.0 {
            run.cancel();
        }
    }
}

/// What a run is begun with.
pub(super) struct Begin {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) protected: Arc<ProtectedFiles>,
    pub(super) router: Slot<Router>,
    pub(super) providers: Vec<Arc<provider::State>>,
    pub(super) routes: Vec<RunRoute>,
    pub(super) limits: RunLimits,
    pub(super) window: Option<usize>,
    pub(super) purses: RunPurses,
    pub(super) notes: Vec<String>,
    pub(super) kept: Option<Open>,
    pub(super) supervisor: Addr<Supervisor>,
    pub(super) policy: Policy,
    pub(super) arbiters: Arbiters,
    pub(super) open: OpenRun,
}

/// Begins a run: its actor, what feeds it and what writes for it. Not to be dropped half-way: its caller lets it run
/// in a task of its own.
pub(super) async fn begin(begin: Begin, reader: Reader, output: Output) -> Result<RunHandle, Error> {
    let Begin {
        pipeline,
        protected,
        router,
        providers,
        routes,
        limits,
        window,
        purses,
        notes,
        kept,
        supervisor,
        policy,
        arbiters,
        open,
    } = begin;
    let progress = Arc::new(watch::Sender::new(Progress::default()));
    let last = Arc::default();
    let ((report_to, told), (report_on, report)) = (oneshot::channel(), oneshot::channel());
    let (keeping, number) = (kept.as_ref().map(|kept| kept.keeping.clone()), kept.as_ref().map(Open::run));
    let priority = Priority::Batch;
    let setup = RunSetup {
        pipeline,
        protected,
        router,
        providers,
        routes,
        limits,
        priority,
        window,
        keeping,
        purses: purses.clone(),
        progress: progress.clone(),
        report: report_to,
    };
    let (run, tasks) = setup.split(reader, output);
    let run = match start_actor(run, &supervisor, policy, &arbiters).await {
        Ok(run) => run,
        Err(error) => {
            if let Some(kept) = kept {
                // Why it did not begin is worth more than that it could not be noted.
                drop(kept.close(Ending::Lost(Ended::Interrupted), false, &purses.own).await);
            }
            return Err(error);
        }
    };
    let work = tasks.work(run.clone());
    let watched = Arc::downgrade(&progress);
    let under_way =
        UnderWay { run: run.clone(), told, purses, kept, progress, last: Arc::clone(&last), open };
    drop(arbiters.runtime.spawn(async move {
        // Whoever does not wait for the report does not want it.
        if let Some(report) = Box::pin(under_way.end(work)).await {
            drop(report_on.send(report));
        }
    }));
    Ok(RunHandle { run, number, progress: watched, last, report, ended: None, notes })
}

async fn start_actor(
    run: Run,
    supervisor: &Addr<Supervisor>,
    policy: Policy,
    arbiters: &Arbiters,
) -> Result<Addr<Run>, Error> {
    static RUNS: AtomicU64 = AtomicU64::new(1);
    let run = Mutex::new(Some(run));
    let make = move |_: &mut Context<Run>| {
        let run = run.lock().unwrap_or_else(PoisonError::into_inner).take();
        #[expect(
            clippy::expect_used,
            reason = "a temporary child has one life; a second would have no source"
        )]
        run.expect("a run is made once")
    };
    let (name, slot) = (format!("run {}", RUNS.fetch_add(1, Relaxed)), Slot::default());
    let spec = ChildSpec::in_place(name, slot.clone(), make)
        .on([arbiters.items.clone()])
        .policy(policy)
        .restart(Restart::Transient)
        .never_by_name("end it with `cancel`, and begin it again: what is stored of it goes on");
    supervisor.send(Start(spec)).await.map_err(|_| Error::Stopped)?.map_err(|error| match error {
        supervisor::Error::Draining => Error::Stopped,
        error => Error::Actor(error),
    })?;
    slot.get().ok_or(Error::Stopped)
}

/// A run at work, until it is closed.
struct UnderWay {
    run: Addr<Run>,
    told: oneshot::Receiver<Report>,
    purses: RunPurses,
    kept: Option<Open>,
    progress: Arc<watch::Sender<Progress>>,
    /// Where its last progress stays.
    last: Arc<OnceLock<Progress>>,
    /// The last to go: a drain waits for it.
    open: OpenRun,
}

impl UnderWay {
    /// Works to the end, books what was spent and closes the run. Returns its report; `None` when its actor died
    /// before it could make one.
    async fn end(self, work: impl Future<Output = ()>) -> Option<Report> {
        let Self { run, told, purses, kept, progress, last, mut open } = self;
        let given_up = kept.as_ref().map(|kept| given_up(kept.store.clone(), kept.run()));
        let was_cancelled = work_unless(work, given_up, &mut open, &run).await;
        let told = told.await;
        last.get_or_init(|| progress.borrow().clone());
        // Its watchers learn of the end when the run's actor has gone, too.
        drop(progress);
        // Calls that were broken off are booked a moment later than their items end.
        settled(&purses).await;
        let mut report = told.ok();
        if let Some(report) = &mut report {
            (report.caps, report.perhaps_cost_usd) = (purses.caps(), purses.perhaps_usd());
            // What was out when the cap was met has ended since.
            if report.paused_class == Some(Class::Budget) {
                report.paused = report.paused.take().map(|why| purses.met().unwrap_or(why));
            }
            // Calls that were broken off with their items are in no trail. Money is counted for them, and so are they.
            let uncertain = purses.own.uncertain().saturating_sub(report.calls.beaten);
            report.calls.maybe_charged = report.calls.maybe_charged.max(uncertain);
        }
        if let Some(kept) = kept {
            let ending = match &report {
                Some(report) => Ending::Reported(Box::new(report.clone())),
                None if open.is_stopping() => Ending::Lost(Ended::Interrupted),
                None => Ending::Lost(Ended::Broken),
            };
            let closed = kept.close(ending, was_cancelled, &purses.own).await;
            match (closed, &mut report) {
                (Ok(()), _) => {}
                (Err(error), Some(report)) => drop(report.store_error.get_or_insert(error)),
                (Err(error), None) => tracing::error!(%error, "a run could not be closed"),
            }
        }
        report
    }
}

/// Works until the end; takes no more items when everything stops, and gives up the items in flight when the run is
/// given up, or the time for that is over. Returns whether the run was given up by its user.
async fn work_unless(
    work: impl Future<Output = ()>,
    given_up: Option<impl Future<Output = ()>>,
    open: &mut OpenRun,
    run: &Addr<Run>,
) -> bool {
    let mut work = pin!(work);
    let mut given_up = pin!(async {
        match given_up {
            Some(given_up) => given_up.await,
            None => std::future::pending().await,
        }
    });
    let (mut phase, mut was_cancelled) = (Phase::Open, false);
    loop {
        tokio::select! {
            () = &mut work => return was_cancelled,
            () = &mut given_up, if !was_cancelled => {
                was_cancelled = true;
                run.do_send(Cancel);
            }
            next = open.after(phase), if phase < Phase::GivingUp => {
                phase = next;
                match phase {
                    Phase::Open | Phase::Draining => run.do_send(StopIntake),
                    Phase::GivingUp => run.do_send(Cancel),
                }
            }
        }
    }
}

/// Returns when somebody has given the run up, from whatever process.
async fn given_up(store: Arc<dyn Store>, run: RunNumber) {
    loop {
        sleep(LOOK).await;
        // A store that cannot be read is noticed by the run itself.
        if store.state(run).await.is_ok_and(|state| state == RunState::Cancelled) {
            return;
        }
    }
}
