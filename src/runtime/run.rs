//! Starts a run, and hands out what can be seen and done of it.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;

use crate::pipeline::Pipeline;
use crate::pipeline::run::{Cancel, Output, Progress, Report, Run, RunPurses, RunSetup, StopIntake};
use crate::pipeline::source::Source;
use crate::provider;
use crate::router::Router;
use crate::store::{RunNumber, RunState, Store};
use crate::supervisor::{ChildSpec, Policy, Restart, Slot, Start, Supervisor};
use crate::types::Priority;

use super::capped::settled;
use super::error::Error;
use super::keep::Open;
use super::threads::Arbiters;

/// How often it is looked whether a run has been given up.
const LOOK: Duration = Duration::from_millis(500);

/// A run under way. Dropping it changes nothing: the run goes on.
#[derive(Debug)]
pub struct RunHandle {
    run: Addr<Run>,
    number: Option<RunNumber>,
    progress: watch::Receiver<Progress>,
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

    /// Returns where the run's progress is told, ten times a second.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
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

/// What a run is begun with.
pub(super) struct Begin {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) router: Slot<Router>,
    pub(super) providers: Vec<Arc<provider::State>>,
    pub(super) window: Option<usize>,
    pub(super) purses: RunPurses,
    pub(super) notes: Vec<String>,
    pub(super) kept: Option<Open>,
    pub(super) supervisor: Addr<Supervisor>,
    pub(super) policy: Policy,
    pub(super) arbiters: Arbiters,
}

pub(super) async fn begin(begin: Begin, source: Source, output: Output) -> Result<RunHandle, Error> {
    static RUNS: AtomicU64 = AtomicU64::new(1);
    let Begin { pipeline, router, providers, window, purses, notes, mut kept, supervisor, policy, arbiters } =
        begin;
    if let Some(kept) = &mut kept {
        kept.reads(&source);
    }
    let (progress_to, progress) = watch::channel(Progress::default());
    let ((report_to, told), (report_on, report)) = (oneshot::channel(), oneshot::channel());
    let (keeping, number) = (kept.as_ref().map(|kept| kept.keeping.clone()), kept.as_ref().map(Open::run));
    let judge = pipeline.clone();
    let source = source.fit(move |item| judge.validate_item(item));
    let reader = source.read().map_err(Error::Source)?;
    let priority = Priority::Batch;
    let setup = RunSetup {
        pipeline,
        router,
        providers,
        priority,
        window,
        keeping,
        purses: purses.clone(),
        progress: progress_to,
        report: report_to,
    };
    let (run, tasks) = setup.split(reader, output);
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
        .restart(Restart::Transient);
    supervisor.send(Start(spec)).await.map_err(|_| Error::Stopped)?.map_err(Error::Actor)?;
    let run = slot.get().ok_or(Error::Stopped)?;
    let work = tasks.work(run.clone());
    let given_up = kept.as_ref().map(|kept| given_up(kept.store.clone(), kept.run()));
    let addr = run.clone();
    drop(arbiters.runtime.spawn(async move {
        let was_cancelled = work_unless(work, given_up, &addr).await;
        let Ok(mut report) = told.await else { return };
        // Calls that were broken off are booked a moment later than their items end.
        settled(&purses).await;
        (report.caps, report.perhaps_cost_usd) = (purses.caps(), purses.perhaps_usd());
        if let Some(kept) = kept
            && let Err(error) = kept.close(&report, was_cancelled, &purses.own).await
        {
            report.store_error.get_or_insert(error);
        }
        // Whoever does not wait for the report does not want it.
        drop(report_on.send(report));
    }));
    Ok(RunHandle { run, number, progress, report, ended: None, notes })
}

/// Works until the end, and gives up the items in flight when the run is given up; returns whether it was.
async fn work_unless(
    work: impl Future<Output = ()>,
    given_up: Option<impl Future<Output = ()>>,
    run: &Addr<Run>,
) -> bool {
    let mut work = pin!(work);
    let Some(given_up) = given_up else {
        work.await;
        return false;
    };
    tokio::select! {
        () = &mut work => return false,
        () = given_up => run.do_send(Cancel),
    }
    work.await;
    true
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
