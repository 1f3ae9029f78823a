//! Starts a run and controls it until it is closed.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;

use crate::pipeline::{Pipeline, ProtectedFiles};
use crate::router::{RequestMetrics, Router, Scope};
use crate::run::{
    Cancel, Pause, Progress, ProgressWatched, Report, Run, RunBudgets, RunLimits, RunMetrics, RunOutcome,
    RunOutput, RunRoute, RunSetup, StopIntake,
};
use crate::source::Reader;
use crate::store::{RunNumber, RunState, Store};
use crate::supervisor::{self, ChildSpec, Restart, RestartPolicy, Slot, Start, Supervisor};
use crate::types::{Class, Priority, ScopeName};

use super::budgets::wait_for_calls;
use super::error::Error;
use super::open_runs::{OpenRun, ShutdownPhase};
use super::progress_stream::ProgressStream;
use super::session::{ActiveSession, SessionEnd};
use super::threads::Arbiters;

/// How often the store is read to see whether a run was cancelled.
const CANCELLATION_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The handle to an active run.
///
/// Dropping the handle cancels the run: it takes no more items, and the items in flight are aborted. A stored run
/// can be resumed after that. [`detach`](Self::detach) lets it continue without a handle.
#[derive(Debug)]
pub struct RunHandle {
    run: Addr<Run>,
    id: Option<RunNumber>,
    /// Owned by the run itself, so that the channel closes when the run ends.
    progress: Weak<watch::Sender<Progress>>,
    /// The last progress, once the run has ended.
    last: Arc<OnceLock<Progress>>,
    report: oneshot::Receiver<Report>,
    ended: Option<Report>,
    notes: Vec<String>,
    cancel_on_drop: bool,
}

impl RunHandle {
    /// Returns the run's number in its store; `None` if it is not stored.
    pub fn id(&self) -> Option<RunNumber> {
        self.id
    }

    /// Returns notes about its caps, such as targets to which they do not apply.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Returns the run's progress as a stream: the current progress, then one about ten times a second, and the final
    /// one. It has a cost only while it exists.
    ///
    /// ```no_run
    /// # async fn example(run: pointsman::RunHandle) {
    /// let mut progress = run.progress();
    /// while let Some(now) = progress.next().await {
    ///     println!("{} items, {:.1} per second", now.items.finished(), now.items_per_second);
    /// }
    /// # }
    /// ```
    pub fn progress(&self) -> ProgressStream {
        match self.progress_updates() {
            Some(progress) => ProgressStream::of(progress),
            None => ProgressStream::ended(self.last.get().cloned().unwrap_or_default()),
        }
    }

    /// Returns a channel with the run's progress, for programs that need the current value at any time. When the
    /// run ends, the channel closes.
    #[doc(hidden)]
    pub fn watch_progress(&self) -> watch::Receiver<Progress> {
        let ended = || watch::channel(self.last.get().cloned().unwrap_or_default()).1;
        self.progress_updates().unwrap_or_else(ended)
    }

    /// Returns a channel with the run's progress; `None` if the run has ended.
    fn progress_updates(&self) -> Option<watch::Receiver<Progress>> {
        let progress = self.progress.upgrade()?.subscribe();
        self.run.do_send(ProgressWatched);
        Some(progress)
    }

    /// Returns a control of the run, for other tasks than the one that waits for its report.
    pub fn control(&self) -> RunControl {
        RunControl { run: self.run.clone(), progress: self.progress.clone(), last: self.last.clone() }
    }

    /// Takes no more items, finishes the calls in flight, and pauses the run, with this reason in its report. A stored run
    /// can be resumed.
    pub fn pause(&self, why: impl Into<Box<str>>) {
        self.control().pause(why);
    }

    /// Takes no more items. Items in flight are finished.
    pub fn stop_intake(&self) {
        self.run.do_send(StopIntake);
    }

    /// Takes no more items and aborts those in flight. Their attempts are recorded as possibly charged.
    pub fn cancel(&self) {
        self.run.do_send(Cancel);
    }

    /// Lets the run continue without this handle, until it ends or Pointsman stops. Its lines are still written.
    pub fn detach(mut self) {
        self.cancel_on_drop = false;
    }

    /// Waits for the end of the run. A later call returns the same report.
    ///
    /// # Errors
    /// If the run's actor failed permanently; every line that was written is complete.
    pub async fn report(&mut self) -> Result<Report, Error> {
        if self.ended.is_none() && !self.report.is_terminated() {
            self.ended = (&mut self.report).await.ok();
        }
        self.ended.clone().ok_or(Error::Stopped)
    }
}

impl Drop for RunHandle {
    fn drop(&mut self) {
        if self.cancel_on_drop {
            self.cancel();
        }
    }
}

/// Controls an active run, besides its handle. It does not keep the run alive: dropping it changes nothing, and nothing
/// happens once the run has ended.
#[derive(Debug, Clone)]
pub struct RunControl {
    run: Addr<Run>,
    progress: Weak<watch::Sender<Progress>>,
    last: Arc<OnceLock<Progress>>,
}

impl RunControl {
    /// Takes no more items, finishes the calls in flight, and pauses the run for its user, with this reason in its report.
    pub fn pause(&self, why: impl Into<Box<str>>) {
        self.run.do_send(Pause { why: why.into() });
    }

    /// Takes no more items and aborts those in flight. Their attempts are recorded as possibly charged.
    pub fn cancel(&self) {
        self.run.do_send(Cancel);
    }

    /// Returns the run's progress, as [`RunHandle::progress`] does.
    pub fn progress(&self) -> ProgressStream {
        match self.updates() {
            Some(progress) => ProgressStream::of(progress),
            None => ProgressStream::ended(self.last.get().cloned().unwrap_or_default()),
        }
    }

    /// Returns a channel with the run's progress; `None` if the run has ended.
    #[doc(hidden)]
    pub fn updates(&self) -> Option<watch::Receiver<Progress>> {
        let progress = self.progress.upgrade()?.subscribe();
        self.run.do_send(ProgressWatched);
        Some(progress)
    }
}

/// Everything that a run is started with.
pub(super) struct RunParts {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) protected: Arc<ProtectedFiles>,
    pub(super) router: Slot<Router>,
    pub(super) routes: Vec<RunRoute>,
    pub(super) limits: RunLimits,
    pub(super) metrics: RunMetrics,
    pub(super) request_metrics: Arc<RequestMetrics>,
    pub(super) window: Option<usize>,
    pub(super) budgets: RunBudgets,
    pub(super) scope: ScopeName,
    pub(super) scope_limits: Option<Arc<Scope>>,
    pub(super) notes: Vec<String>,
    pub(super) session: Option<ActiveSession>,
    pub(super) supervisor: Addr<Supervisor>,
    pub(super) policy: RestartPolicy,
    pub(super) arbiters: Arbiters,
    pub(super) open: OpenRun,
}

/// Starts a run: its actor, its source task and its writer task. This future must run to its end, so its caller
/// spawns it as a task.
pub(super) async fn start_run(
    parts: RunParts,
    reader: Reader,
    output: RunOutput,
) -> Result<RunHandle, Error> {
    let RunParts {
        pipeline,
        protected,
        router,
        routes,
        limits,
        metrics,
        request_metrics,
        window,
        budgets,
        scope,
        scope_limits,
        notes,
        session,
        supervisor,
        policy,
        arbiters,
        open,
    } = parts;
    let progress = Arc::new(watch::Sender::new(Progress::default()));
    let last = Arc::default();
    let (report_tx, report_rx) = oneshot::channel();
    let (final_report_tx, final_report_rx) = oneshot::channel();
    let persistence = session.as_ref().map(|session| session.persistence.clone());
    let id = session.as_ref().map(ActiveSession::run);
    let priority = Priority::Batch;
    let setup = RunSetup {
        pipeline,
        protected,
        router,
        routes,
        limits,
        metrics,
        request_metrics,
        priority,
        scope,
        scope_limits,
        window,
        persistence,
        budgets: budgets.clone(),
        progress: progress.clone(),
        report: report_tx,
    };
    let (run, tasks) = setup.split(reader, output);
    let run = match start_actor(run, &supervisor, policy, &arbiters).await {
        Ok(run) => run,
        Err(error) => {
            if let Some(session) = session {
                // The error that is returned is why it did not start; an error of closing is less important.
                drop(session.close(SessionEnd::NoReport(RunOutcome::Interrupted), false, &budgets.own).await);
            }
            return Err(error);
        }
    };
    let work = tasks.work(run.clone());
    let watched = Arc::downgrade(&progress);
    let task = RunTask {
        run: run.clone(),
        report: report_rx,
        budgets,
        session,
        progress,
        last: Arc::clone(&last),
        open,
    };
    drop(arbiters.runtime.spawn(async move {
        // The receiver is dropped where the caller does not wait for the report.
        if let Some(report) = Box::pin(task.end(work)).await {
            drop(final_report_tx.send(report));
        }
    }));
    Ok(RunHandle {
        run,
        id,
        progress: watched,
        last,
        report: final_report_rx,
        ended: None,
        notes,
        cancel_on_drop: true,
    })
}

async fn start_actor(
    run: Run,
    supervisor: &Addr<Supervisor>,
    policy: RestartPolicy,
    arbiters: &Arbiters,
) -> Result<Addr<Run>, Error> {
    static RUNS: AtomicU64 = AtomicU64::new(1);
    let run = Mutex::new(Some(run));
    let make = move |_: &mut Context<Run>| {
        let run = run.lock().unwrap_or_else(PoisonError::into_inner).take();
        #[expect(
            clippy::expect_used,
            reason = "a temporary child has one incarnation; a second would have no source"
        )]
        run.expect("a run actor is created once")
    };
    let name = format!("run {}", RUNS.fetch_add(1, Relaxed));
    let slot = Slot::default();
    let spec = ChildSpec::in_place(name, slot.clone(), make)
        .on([arbiters.items.clone()])
        .policy(policy)
        .restart(Restart::Transient)
        .without_manual_restart("stop it with `cancel` and start it again: a stored run is resumed");
    supervisor.send(Start(spec)).await.map_err(|_| Error::Stopped)?.map_err(|error| match error {
        supervisor::Error::Draining => Error::Stopped,
        error => Error::Actor(error),
    })?;
    slot.get().ok_or(Error::Stopped)
}

/// The task of a run, until it is closed.
struct RunTask {
    run: Addr<Run>,
    report: oneshot::Receiver<Report>,
    budgets: RunBudgets,
    session: Option<ActiveSession>,
    progress: Arc<watch::Sender<Progress>>,
    /// The last progress, for handles that read it after the end.
    last: Arc<OnceLock<Progress>>,
    /// Dropped last: a drain waits for it.
    open: OpenRun,
}

impl RunTask {
    /// Works to the end, records the spend and closes the run. Returns its report; `None` when its actor failed
    /// before it could make one.
    async fn end(self, work: impl Future<Output = ()>) -> Option<Report> {
        let Self { run, report, budgets, session, progress, last, mut open } = self;
        let cancelled =
            session.as_ref().map(|session| wait_until_cancelled(session.store.clone(), session.run()));
        let was_cancelled = work_until_cancelled(work, cancelled, &mut open, &run).await;
        let received = report.await;
        last.get_or_init(|| progress.borrow().clone());
        // The channel closes when the run's actor has dropped its sender, too.
        drop(progress);
        // Cancelled calls are recorded shortly after their items end.
        wait_for_calls(&budgets).await;
        let mut report = received.ok();
        if let Some(report) = &mut report {
            report.caps = budgets.caps();
            report.uncertain_cost_usd = budgets.uncertain_cost_usd();
            // The calls that were in flight when the cap was reached have ended since.
            if report.paused_class == Some(Class::Budget) {
                report.paused = report.paused.take().map(|why| budgets.cap_reached().unwrap_or(why));
            }
            // Calls that were cancelled with their items are in no attempt log. Their uncertain cost is in the
            // budget, and here they are counted.
            let uncertain = budgets.own.uncertain_calls().saturating_sub(report.calls.superseded);
            report.calls.possibly_charged = report.calls.possibly_charged.max(uncertain);
        }
        if let Some(session) = session {
            let ending = match &report {
                Some(report) => SessionEnd::Reported(Box::new(report.clone())),
                None if open.is_stopping() => SessionEnd::NoReport(RunOutcome::Interrupted),
                None => SessionEnd::NoReport(RunOutcome::IoFailed),
            };
            let closed = session.close(ending, was_cancelled, &budgets.own).await;
            match (closed, &mut report) {
                (Ok(()), _) => {}
                (Err(error), Some(report)) => drop(report.store_error.get_or_insert(error)),
                (Err(error), None) => tracing::error!(%error, "a run could not be closed"),
            }
        }
        report
    }
}

/// Works until the end. Takes no more items when the shutdown starts, and cancels the items in flight when the run
/// is cancelled or the shutdown aborts them. Returns whether the user cancelled the run.
async fn work_until_cancelled(
    work: impl Future<Output = ()>,
    cancelled: Option<impl Future<Output = ()>>,
    open: &mut OpenRun,
    run: &Addr<Run>,
) -> bool {
    let mut work = pin!(work);
    let mut cancelled = pin!(async {
        match cancelled {
            Some(cancelled) => cancelled.await,
            None => std::future::pending().await,
        }
    });
    let mut phase = ShutdownPhase::Running;
    let mut was_cancelled = false;
    loop {
        tokio::select! {
            () = &mut work => return was_cancelled,
            () = &mut cancelled, if !was_cancelled => {
                was_cancelled = true;
                run.do_send(Cancel);
            }
            next = open.next_phase(phase), if phase < ShutdownPhase::Aborting => {
                phase = next;
                match phase {
                    ShutdownPhase::Running | ShutdownPhase::Draining => run.do_send(StopIntake),
                    ShutdownPhase::Aborting => run.do_send(Cancel),
                }
            }
        }
    }
}

/// Returns when the run was cancelled, by this process or another.
async fn wait_until_cancelled(store: Arc<dyn Store>, run: RunNumber) {
    loop {
        sleep(CANCELLATION_POLL_INTERVAL).await;
        // The run itself reports a store that cannot be read.
        if store.state(run).await.is_ok_and(|state| state == RunState::Cancelled) {
            return;
        }
    }
}
