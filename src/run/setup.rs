//! Puts a run together: the actor, the task that feeds it and the task that writes for it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot, watch};

use crate::provider;
use crate::router::Router;
use crate::supervisor::{Slot, panic_text};
use crate::types::{Priority, StepName};

use super::actor::Run;
use super::failures::MaxFailures;
use super::feed::feed;
use super::gate::RunRoute;
use super::keeping::Keeping;
use super::messages::SourceEnded;
use super::money::RunPurses;
use super::progress::Progress;
use super::report::Report;
use super::writer::{Output, Record, write};
use crate::pipeline::definition::Pipeline;
use crate::pipeline::protected::ProtectedFiles;
use crate::source::Reader;

/// What a run is made from.
#[derive(Debug)]
pub struct RunSetup {
    /// What to do with each item.
    pub pipeline: Arc<Pipeline>,
    /// Whom to ask; found anew for each question, as one that was killed comes back elsewhere.
    pub router: Slot<Router>,
    /// The providers that the pipeline's routes lead to; the window follows them.
    pub providers: Vec<Arc<provider::State>>,
    /// Who is waiting.
    pub priority: Priority,
    /// Most items in flight; `None` follows what the providers can take.
    pub window: Option<usize>,
    /// The files that its items may not attach.
    pub protected: Arc<ProtectedFiles>,
    /// Where answers are kept; `None` keeps nothing.
    pub keeping: Option<Arc<Keeping>>,
    /// Whose money its calls spend.
    pub purses: RunPurses,
    /// The routes of its steps.
    pub routes: Vec<RunRoute>,
    /// When it pauses.
    pub limits: RunLimits,
    /// Where progress is told.
    pub progress: Arc<watch::Sender<Progress>>,
    /// Where the report goes at the end.
    pub report: oneshot::Sender<Report>,
}

/// When a run pauses.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunLimits {
    /// How long it may hold; `None` is for as long as it takes.
    pub max_hold: Option<Duration>,
    /// How many of its items may fail for their own reasons.
    pub max_failures: MaxFailures,
    /// Whether the items whose requests hold for longer than it may fail, instead of it pausing for them.
    pub give_up: bool,
}

/// What feeds a run and writes for it; to be started once the run has an address.
pub struct RunTasks {
    reader: Reader,
    output: Output,
    keeping: Option<Arc<Keeping>>,
    /// The steps that a line has.
    steps: Vec<StepName>,
    wanted: mpsc::UnboundedReceiver<usize>,
    records: mpsc::UnboundedReceiver<Record>,
    /// Whether the run is given up.
    given_up: watch::Receiver<bool>,
    /// Whether lines gather before they are written: no commit delays them, and no window that is set.
    gathers: bool,
}

impl RunSetup {
    /// Makes the actor of the run, and its tasks.
    pub fn split(self, reader: Reader, output: Output) -> (Run, RunTasks) {
        // Unbounded channels, bounded by what the run asks for: its window.
        let (ask, wanted) = mpsc::unbounded_channel();
        let (record, records) = mpsc::unbounded_channel();
        let (keeping, gathers) = (self.keeping.clone(), self.keeping.is_none() && self.window.is_none());
        let steps = self.pipeline.steps().iter().map(|step| step.name.clone()).collect();
        let (give_up, given_up) = watch::channel(false);
        let run = Run::new(self, ask, record, give_up, output.ordered);
        (run, RunTasks { reader, output, keeping, steps, wanted, records, given_up, gathers })
    }
}

impl RunTasks {
    /// Feeds `run` and writes for it, until it has ended.
    pub async fn work(self, run: Addr<Run>) {
        let feeding = AssertUnwindSafe(feed(self.reader, self.wanted, self.keeping.clone(), run.clone()))
            .catch_unwind();
        let feeding = async {
            if let Err(payload) = feeding.await {
                let error = format!("the task that brings the items panicked: {}", panic_text(&*payload));
                run.do_send(SourceEnded { error: Some(error) });
            }
        };
        let keeping = self.keeping.map(|keeping| (keeping, self.steps));
        let writing = write(self.output, self.records, keeping, self.gathers, self.given_up, run.clone());
        futures_util::future::join(feeding, writing).await;
    }
}
