//! The source task and the writer task of a run, and the channels between them and its actor.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use actix::prelude::*;
use futures_util::FutureExt;
use tokio::sync::{mpsc, watch};

use crate::supervisor::panic_text;
use crate::types::StepName;

use super::actor::Run;
use super::messages::{InputEnd, SourceEnded};
use super::persistence::RunPersistence;
use super::setup::RunSetup;
use super::source_task::{SourceRecipients, run_source_task};
use super::writer::{OutputRecord, RunOutput, WriterRecipients, write};
use crate::source::Reader;

/// The source task and the writer task of a run. Start them once the run has an address.
pub struct RunTasks {
    reader: Reader,
    output: RunOutput,
    persistence: Option<Arc<RunPersistence>>,
    /// The steps of a line.
    steps: Vec<StepName>,
    demand: mpsc::UnboundedReceiver<usize>,
    records: mpsc::UnboundedReceiver<OutputRecord>,
    /// Whether the run was aborted.
    aborted: watch::Receiver<bool>,
    /// Whether lines are gathered before they are written: only without a store, whose commits gather
    /// them, and without a configured `max_in_flight_items`.
    gathers: bool,
}

impl RunSetup {
    /// Creates the actor of the run and its tasks.
    pub fn split(self, reader: Reader, output: RunOutput) -> (Run, RunTasks) {
        // The channels are unbounded, but at most one window of entries is requested.
        let (demand_tx, demand) = mpsc::unbounded_channel();
        let (records_tx, records) = mpsc::unbounded_channel();
        let persistence = self.persistence.clone();
        let gathers = self.persistence.is_none() && self.window.is_none();
        let steps = self.pipeline.steps().iter().map(|step| step.name.clone()).collect();
        let (abort_tx, aborted) = watch::channel(false);
        let run = Run::new(self, demand_tx, records_tx, abort_tx, &output, &reader);
        (run, RunTasks { reader, output, persistence, steps, demand, records, aborted, gathers })
    }
}

impl RunTasks {
    /// Reads entries for `run` and writes its records, until it has ended.
    pub async fn work(self, run: Addr<Run>) {
        let source = SourceRecipients {
            entries_read: run.clone().recipient(),
            source_ended: run.clone().recipient(),
            ledger_failed: run.clone().recipient(),
        };
        let writer = WriterRecipients {
            records_written: run.clone().recipient(),
            ledger_failed: run.clone().recipient(),
            output_failed: run.clone().recipient(),
            output_ended: run.clone().recipient(),
        };
        let source_task = run_source_task(self.reader, self.demand, self.persistence.clone(), source);
        let source_task = AssertUnwindSafe(source_task).catch_unwind();
        let source_task = async {
            if let Err(payload) = source_task.await {
                let error = format!("the task that reads the items panicked: {}", panic_text(&*payload));
                run.do_send(SourceEnded { end: InputEnd::Failed(error.into()) });
            }
        };
        let persistence = self.persistence.map(|persistence| (persistence, self.steps));
        let writer_task = write(self.output, self.records, persistence, self.gathers, self.aborted, writer);
        futures_util::future::join(source_task, writer_task).await;
    }
}
