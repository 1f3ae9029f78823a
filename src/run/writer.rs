//! Writes a run's lines, in the order of completion or of the input, and reports what is written.
//!
//! A separate task, so that a slow disk never blocks the run's actor. The run starts no
//! more items while too many lines are unwritten.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use futures_util::FutureExt;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tracing::warn;

use crate::chaos;
use crate::guard::HeldMemory;
use crate::store::{self, ItemNumber};
use crate::supervisor::panic_text;
use crate::types::{NanoUsd, StepName, error_chain};

use super::abort_deadline::AbortDeadline;
use super::messages::{LedgerFailed, OutputEnded, OutputFailed, RecordsWritten};
use super::output_line;
use super::persistence::RunPersistence;
use super::preview::ResultPreview;
use super::report::{Items, UnsavedItems};
use crate::sink::{self, Line, RejectLine, ReorderBuffer, Sink};

/// Most records that are processed and reported at once.
const MAX_BATCH_RECORDS: usize = 512;

/// How long records are gathered, if they are.
const GATHER_TIME: Duration = Duration::from_millis(1);

/// Items that are read from the store at once.
const PAGE_ITEMS: u32 = 200;

/// A record for the writer.
pub(super) enum OutputRecord {
    /// An item has finished.
    Line(FinishedItem),
    /// A piece of the input that is not an item.
    Reject(RejectLine),
    /// The item with this number has no line: it was rejected.
    NoLine(u64),
    /// The run ends before its input: lines are missing.
    LinesMissing,
    /// The run ends before its input, and the store has the lines of the items that it has not read.
    StoredLines,
}

/// The line of an item that has finished.
pub(super) struct FinishedItem {
    /// The number of the item.
    pub(super) number: u64,
    pub(super) line: Box<Line>,
    /// What is stored before the line is written, if results are stored and it is not stored yet.
    pub(super) unsaved: Option<Box<store::Record>>,
    /// Memory that is reserved until the line is written.
    pub(super) memory: HeldMemory,
}

/// The output of a run.
#[non_exhaustive]
pub struct RunOutput {
    /// The results.
    pub lines: Sink<Line>,
    /// The rejected pieces of the input; `None` only counts them.
    pub rejects: Option<Sink<RejectLine>>,
    /// Whether lines are in the order of the input.
    pub ordered: bool,
    /// Where the first lines are kept, to be shown after the run.
    pub preview: Option<ResultPreview>,
}

impl RunOutput {
    /// Writes results to `lines` as they complete, and only counts rejects.
    pub fn new(lines: Sink<Line>) -> Self {
        Self { lines, rejects: None, ordered: false, preview: None }
    }

    /// Writes a line for each rejected piece of the input to `rejects`.
    #[must_use]
    pub fn with_rejects(mut self, rejects: Sink<RejectLine>) -> Self {
        self.rejects = Some(rejects);
        self
    }

    /// Writes lines in the order of the input.
    #[must_use]
    pub fn with_input_order(mut self) -> Self {
        self.ordered = true;
        self
    }

    /// Keeps the first lines in `preview`.
    #[must_use]
    pub fn with_preview(mut self, preview: ResultPreview) -> Self {
        self.preview = Some(preview);
        self
    }
}

impl From<Sink<Line>> for RunOutput {
    fn from(lines: Sink<Line>) -> Self {
        Self::new(lines)
    }
}

/// The run, as the recipient of the writer's messages.
pub(super) struct WriterRecipients {
    pub(super) records_written: Recipient<RecordsWritten>,
    pub(super) ledger_failed: Recipient<LedgerFailed>,
    pub(super) output_failed: Recipient<OutputFailed>,
    pub(super) output_ended: Recipient<OutputEnded>,
}

/// Writes records until the channel is closed. A panic is treated as a failed output: the records of that batch
/// are lost, and everything before is complete. Once the run is aborted, lines that the reader does not take
/// are only counted.
pub(super) async fn write(
    output: RunOutput,
    mut records: mpsc::UnboundedReceiver<OutputRecord>,
    persistence: Option<(Arc<RunPersistence>, Vec<StepName>)>,
    gathers: bool,
    aborted: watch::Receiver<bool>,
    run: WriterRecipients,
) {
    let RunOutput { mut lines, mut rejects, ordered, preview } = output;
    let order = ordered.then(ReorderBuffer::new);
    let mut writer = Writer {
        lines: &lines,
        rejects: rejects.as_ref(),
        preview,
        order,
        received: 0,
        failure: None,
        persistence,
        gathers,
        rewritten: Items::default(),
        unsaved: None,
        abort_deadline: AbortDeadline::new(aborted),
        run,
    };
    // After a failure records still arrive: they are received and counted until the channel is closed.
    while let Err(payload) = AssertUnwindSafe(writer.work(&mut records)).catch_unwind().await {
        writer.record_failure(format!("the task that writes panicked: {}", panic_text(&*payload)), false);
    }
    let Writer { received, mut failure, mut abort_deadline, run, rewritten, unsaved, .. } = writer;
    let written_lines = match abort_deadline.within_deadline(lines.end()).await {
        // Lines that are still queued are not written later either.
        None => {
            lines.abandon();
            lines.lines()
        }
        Some(Ok(written)) => written.lines,
        Some(Err(error)) => {
            failure.get_or_insert_with(|| OutputFailure::from(&error));
            match error {
                sink::Error::Write { lines, .. } | sink::Error::BrokenPipe { lines, .. } => lines,
                // It is not known which lines a changed file still has.
                sink::Error::Changed { .. }
                | sink::Error::WriteText { .. }
                | sink::Error::Open { .. }
                | sink::Error::Directory { .. }
                | sink::Error::SameFile { .. }
                | sink::Error::NotOwned { .. }
                | sink::Error::Extended { .. }
                | sink::Error::RealAnswers { .. }
                | sink::Error::InUse { .. }
                | sink::Error::NotAFile { .. }
                | sink::Error::NoParquet { .. }
                | sink::Error::Thread { .. }
                | sink::Error::Panicked { .. } => 0,
            }
        }
    };
    if let Some(rejects) = &mut rejects {
        match abort_deadline.within_deadline(rejects.end()).await {
            Some(ended) => failure = failure.or(ended.err().map(|error| OutputFailure::from(&error))),
            None => rejects.abandon(),
        }
    }
    let kept_name = lines.keeps_original().then(|| lines.name());
    let kept_name = kept_name.or(rejects.as_ref().filter(|rejects| rejects.keeps_original()).map(Sink::name));
    let kept_file = kept_name.map(str::to_owned);
    let output_closed = failure.as_ref().is_some_and(|failure| failure.output_closed);
    let error = failure.filter(|_| !output_closed).map(|failure| failure.message);
    run.output_ended.do_send(OutputEnded {
        error,
        output_closed,
        kept_file,
        unwritten: received.saturating_sub(written_lines),
        rewritten,
        unsaved,
    });
}

/// State of the writer task.
struct Writer<'a> {
    lines: &'a Sink<Line>,
    rejects: Option<&'a Sink<RejectLine>>,
    preview: Option<ResultPreview>,
    order: Option<ReorderBuffer<(Box<Line>, HeldMemory)>>,
    /// Lines that were received.
    received: u64,
    /// The first failure.
    failure: Option<OutputFailure>,
    /// Where results are stored before their line is written, and the steps of a line.
    persistence: Option<(Arc<RunPersistence>, Vec<StepName>)>,
    /// Whether records are gathered before they are processed.
    gathers: bool,
    /// Items that had finished before and were not read in this session.
    rewritten: Items,
    /// Items that the store could not save.
    unsaved: Option<UnsavedItems>,
    abort_deadline: AbortDeadline,
    run: WriterRecipients,
}

/// Returns the known cost of the attempts of a record.
fn cost(record: &store::Record) -> NanoUsd {
    let attempts = record.steps.iter().flat_map(|step| &step.attempts.0);
    attempts.filter_map(|attempt| attempt.cost).sum()
}

struct OutputFailure {
    message: String,
    output_closed: bool,
}

impl From<&sink::Error> for OutputFailure {
    fn from(error: &sink::Error) -> Self {
        Self { message: error_chain(error), output_closed: error.is_broken_pipe() }
    }
}

impl Writer<'_> {
    async fn work(&mut self, records: &mut mpsc::UnboundedReceiver<OutputRecord>) {
        let mut batch = Vec::with_capacity(MAX_BATCH_RECORDS);
        while let Some(first) = records.recv().await {
            batch.push(first);
            if self.gathers && !records.is_closed() {
                // While the ledger commits, more records gather. Without a store they would arrive one by one,
                // and a wake-up for each costs more than writing it.
                sleep(GATHER_TIME).await;
            }
            records.recv_many(&mut batch, MAX_BATCH_RECORDS - 1).now_or_never();
            let count = batch.len();
            self.store_results(&mut batch).await;
            self.received +=
                batch.iter().filter(|record| matches!(record, OutputRecord::Line(..))).count() as u64;
            for record in batch.drain(..) {
                chaos::point("writer.record");
                for (line, memory) in self.ready_lines(record).await {
                    self.write(*line, memory).await;
                }
            }
            self.run.records_written.do_send(RecordsWritten(count));
        }
        // Aborted items leave gaps: the lines after them are written now.
        for (line, memory) in self.order.as_mut().map(ReorderBuffer::finish).unwrap_or_default() {
            self.write(*line, memory).await;
        }
    }

    /// Stores results durably before their lines are written, so that every written line is known to the store.
    async fn store_results(&mut self, batch: &mut [OutputRecord]) {
        let take_record = |record: &mut OutputRecord| match record {
            OutputRecord::Line(item) => item.unsaved.take().map(|record| *record),
            OutputRecord::Reject(_)
            | OutputRecord::NoLine(_)
            | OutputRecord::LinesMissing
            | OutputRecord::StoredLines => None,
        };
        let to_store: Vec<_> = batch.iter_mut().filter_map(take_record).collect();
        let Some((persistence, _)) = self.persistence.as_ref().filter(|_| !to_store.is_empty()) else {
            return;
        };
        let items = to_store.len() as u64;
        let cost = to_store.iter().map(cost).sum::<NanoUsd>();
        let Err(error) = persistence.ledger.record(to_store).await else { return };
        let is_first = self.unsaved.is_none();
        let total = self.unsaved.get_or_insert_default();
        total.items += items;
        total.cost_usd += cost.dollars();
        if is_first {
            // The lines of items that are not stored are not written: an original file is kept if it holds
            // more.
            self.lines.mark_lines_missing();
            self.run.ledger_failed.do_send(LedgerFailed(error));
        }
    }

    /// Returns the lines that can be written after `record`. Writes it if it is a reject.
    async fn ready_lines(&mut self, record: OutputRecord) -> Vec<(Box<Line>, HeldMemory)> {
        match record {
            OutputRecord::Reject(reject) => {
                if let (Some(rejects), None) = (self.rejects, &self.failure)
                    && let Some(result) = self.abort_deadline.within_deadline(rejects.write(reject)).await
                {
                    self.record_result(result);
                }
                Vec::new()
            }
            OutputRecord::Line(FinishedItem { number, line, memory, .. }) => match &mut self.order {
                Some(order) => {
                    let ready = order.push(number, (line, memory.clone()));
                    if ready.is_empty() {
                        // It waits for the lines of other items, which may wait for memory.
                        memory.park();
                    }
                    ready
                }
                None => vec![(line, memory)],
            },
            OutputRecord::LinesMissing => {
                self.lines.mark_lines_missing();
                self.rejects.inspect(|rejects| rejects.mark_lines_missing());
                Vec::new()
            }
            OutputRecord::StoredLines => {
                self.lines.mark_input_incomplete();
                // Rejects in the rest of the input are not known.
                self.rejects.inspect(|rejects| rejects.mark_lines_missing());
                self.write_stored_lines().await;
                Vec::new()
            }
            OutputRecord::NoLine(number) => {
                self.order.as_mut().map(|order| order.skip(number)).unwrap_or_default()
            }
        }
    }

    /// Writes the lines of all items that had finished before and were not read in this session, so that a
    /// session that ends early leaves an output with all finished items.
    async fn write_stored_lines(&mut self) {
        // Aborted items leave gaps: the lines after them are written first.
        for (line, memory) in self.order.as_mut().map(ReorderBuffer::finish).unwrap_or_default() {
            self.write(*line, memory).await;
        }
        let Some((persistence, steps)) = self.persistence.clone() else {
            return self.lines.mark_lines_missing();
        };
        let mut after = ItemNumber::default();
        loop {
            if self.failure.is_some() || self.unsaved.is_some() || self.abort_deadline.has_passed() {
                return self.lines.mark_lines_missing();
            }
            let page = match persistence.items_after(after, PAGE_ITEMS).await {
                Ok(page) => page,
                Err(error) => {
                    let run = persistence.run.0;
                    warn!(run, error = %error_chain(&error), "cannot read the stored lines of finished items");
                    return self.lines.mark_lines_missing();
                }
            };
            let Some(last) = page.last() else { return };
            after = last.head.number;
            for item in page.iter().filter(|item| persistence.needs_line(item.head.number)) {
                if let Some(mut line) = output_line::from_stored(steps.iter(), item, item.head.line) {
                    let is_previewed = self.preview.as_ref().is_some_and(ResultPreview::has_space);
                    if self.lines.needs_item() || is_previewed {
                        line.item = output_line::stored_fields(item);
                        if line.item.is_none() && self.lines.needs_item() {
                            // The item was not read in this session, and its fields are not stored: an original file
                            // that has its line is kept.
                            self.lines.mark_lines_missing();
                            continue;
                        }
                    }
                    self.received += 1;
                    self.rewritten.count_finished_before(line.status);
                    self.write(line, HeldMemory::default()).await;
                }
            }
        }
    }

    /// Writes a line. Its memory is released when it is written.
    async fn write(&mut self, mut line: Line, memory: HeldMemory) {
        if self.failure.is_some() || self.unsaved.is_some() {
            return;
        }
        if let Some(preview) = &self.preview {
            preview.add(&line);
            // Only the preview may have needed them.
            line.item = line.item.filter(|_| self.lines.needs_item());
        }
        match self.abort_deadline.within_deadline(self.lines.write_with_memory(line, memory)).await {
            Some(result) => self.record_result(result),
            // A line is missing: an original file is kept if it holds more.
            None => self.lines.mark_lines_missing(),
        }
    }

    fn record_result(&mut self, result: Result<(), sink::Error>) {
        if let Err(error) = result {
            let OutputFailure { message, output_closed } = OutputFailure::from(&error);
            self.record_failure(message, output_closed);
        }
    }

    /// Records the first failure and reports it to the run.
    fn record_failure(&mut self, message: String, output_closed: bool) {
        // Further lines are not written: an original file is kept if it holds more.
        self.lines.mark_lines_missing();
        if self.failure.is_none() {
            self.failure = Some(OutputFailure { message, output_closed });
            self.run.output_failed.do_send(OutputFailed);
        }
    }
}
