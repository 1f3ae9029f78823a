//! Writes a run's lines, in the order of their completion or of the input, and tells what is written.
//!
//! A task of its own, so that a slow disk never stops the run's actor; the run starts no more items
//! than its window has room for unwritten lines.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use futures_util::FutureExt;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;

use crate::chaos;
use crate::guard::HeldMemory;
use crate::store::{self, ItemNumber};
use crate::supervisor::panic_text;
use crate::types::{NanoUsd, StepName, whole_story};

use super::actor::Run;
use super::keeping::Keeping;
use super::line;
use super::messages::{LedgerBroken, OutputBroken, OutputEnded, Written};
use super::report::{Items, UnkeptItems};
use crate::sink::{self, Line, RejectLine, Reorder, Sink};

/// Records that are taken and told of at once.
const BATCH: usize = 512;

/// How long records gather, where they do.
const GATHER: Duration = Duration::from_millis(1);

/// How long lines may take to be written once the run is given up. A file takes them in less; a reader that takes
/// nothing by then takes nothing.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Items that are read from the store at once.
const PAGE: u32 = 200;

/// What is to be written.
pub(super) enum Record {
    /// An item's line, the item's number, what is to be kept of it before the line is written, and the memory that
    /// it holds until then.
    Line(u64, Box<Line>, Option<Box<store::Record>>, HeldMemory),
    /// A piece of the input that is no item.
    Reject(RejectLine),
    /// The item of this number has no line: it was rejected.
    NoLine(u64),
    /// The run ends before its input does: lines are missing.
    CutShort,
    /// The run ends before its input does, and its store has the lines of the items that it has not come to.
    Rest,
}

/// Where a run writes.
pub struct Output {
    /// The results.
    pub lines: Sink<Line>,
    /// What of the input is no item; `None` only counts it.
    pub rejects: Option<Sink<RejectLine>>,
    /// Whether lines come in the order of the input.
    pub ordered: bool,
}

impl Output {
    /// Writes results to `lines` as they come, and only counts what is no item.
    pub fn new(lines: Sink<Line>) -> Self {
        Self { lines, rejects: None, ordered: false }
    }
}

/// Writes what comes until nothing more will. Ends like a broken output when it panics: what it held then is
/// lost, and everything before is whole. Once the run is given up, lines that nobody takes are only counted.
pub(super) async fn write(
    output: Output,
    mut records: mpsc::UnboundedReceiver<Record>,
    keeping: Option<(Arc<Keeping>, Vec<StepName>)>,
    gathers: bool,
    given_up: watch::Receiver<bool>,
    run: Addr<Run>,
) {
    let Output { mut lines, mut rejects, ordered } = output;
    let order = ordered.then(Reorder::new);
    let mut writer = Writer {
        lines: &lines,
        rejects: rejects.as_ref(),
        order,
        taken: 0,
        broken: None,
        keeping,
        gathers,
        rest: Items::default(),
        unkept: None,
        patience: Patience { given_up, end: None },
        run,
    };
    // Records still come when it cannot write any more: they are taken and counted until none will.
    while let Err(payload) = AssertUnwindSafe(writer.work(&mut records)).catch_unwind().await {
        writer.breaks(format!("the task that writes panicked: {}", panic_text(&*payload)), false);
    }
    let Writer { taken, mut broken, mut patience, run, rest, unkept, .. } = writer;
    let written = patience.unless_over(lines.end()).await;
    let safe = match &written {
        // What waits is not written later either.
        None => {
            lines.abandon();
            lines.lines()
        }
        Some(Ok(written)) => written.lines,
        Some(Err(sink::Error::Write { lines, .. } | sink::Error::BrokenPipe { lines, .. })) => *lines,
        Some(Err(_)) => 0,
    };
    broken = broken.or(written.and_then(Result::err).map(|error| Broken::from(&error)));
    if let Some(rejects) = &mut rejects {
        match patience.unless_over(rejects.end()).await {
            Some(ended) => broken = broken.or(ended.err().map(|error| Broken::from(&error))),
            None => rejects.abandon(),
        }
    }
    let left = lines.leaves_before().then(|| lines.name());
    let left = left.or(rejects.as_ref().filter(|rejects| rejects.leaves_before()).map(Sink::name));
    let left_before = left.map(str::to_owned);
    let reader_gone = broken.as_ref().is_some_and(|broken| broken.reader_gone);
    let error = broken.filter(|_| !reader_gone).map(|broken| broken.why);
    run.do_send(OutputEnded {
        error,
        reader_gone,
        left_before,
        unwritten: taken.saturating_sub(safe),
        rest,
        unkept,
    });
}

/// What is known while a run is written.
struct Writer<'a> {
    lines: &'a Sink<Line>,
    rejects: Option<&'a Sink<RejectLine>>,
    order: Option<Reorder<(Box<Line>, HeldMemory)>>,
    /// Lines that have come.
    taken: u64,
    /// The first thing that went wrong.
    broken: Option<Broken>,
    /// Where what is settled is kept before its line is written, and the steps that a line has.
    keeping: Option<(Arc<Keeping>, Vec<StepName>)>,
    /// Whether records gather before they are dealt with.
    gathers: bool,
    /// Items that had settled before and that the run has not come to.
    rest: Items,
    /// What the store could not keep.
    unkept: Option<UnkeptItems>,
    patience: Patience,
    run: Addr<Run>,
}

/// Returns what the calls of a record cost, as far as that is known.
fn cost(record: &store::Record) -> NanoUsd {
    let attempts = record.steps.iter().flat_map(|step| &step.trail.0);
    attempts.filter_map(|attempt| attempt.cost).sum()
}

/// How long lines are waited for that nobody takes: without an end, until the run is given up.
struct Patience {
    given_up: watch::Receiver<bool>,
    end: Option<Instant>,
}

impl Patience {
    /// Returns what `work` gives; `None` when it was not done in time.
    async fn unless_over<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.over() => None,
        }
    }

    /// Returns whether nothing is waited for any more.
    fn is_over(&self) -> bool {
        self.end.is_some_and(|end| end <= Instant::now())
    }

    async fn over(&mut self) {
        let end = match self.end {
            Some(end) => end,
            None => {
                // A run whose actor has gone is given up, too.
                let _ = self.given_up.wait_for(|given_up| *given_up).await;
                *self.end.insert(Instant::now() + LAST_LINES)
            }
        };
        sleep_until(end).await;
    }
}

struct Broken {
    why: String,
    reader_gone: bool,
}

impl From<&sink::Error> for Broken {
    fn from(error: &sink::Error) -> Self {
        Self { why: whole_story(error), reader_gone: error.is_broken_pipe() }
    }
}

impl Writer<'_> {
    async fn work(&mut self, records: &mut mpsc::UnboundedReceiver<Record>) {
        let mut batch = Vec::with_capacity(BATCH);
        while let Some(first) = records.recv().await {
            batch.push(first);
            if self.gathers && !records.is_closed() {
                // While the ledger commits, others gather. Where nothing is kept they would come one by one, and
                // to be woken for each costs more than to write it.
                sleep(GATHER).await;
            }
            records.recv_many(&mut batch, BATCH - 1).now_or_never();
            let count = batch.len();
            self.keep(&mut batch).await;
            self.taken += batch.iter().filter(|record| matches!(record, Record::Line(..))).count() as u64;
            for record in batch.drain(..) {
                chaos::point("writer.record");
                for (line, held) in self.due(record).await {
                    self.write(*line, held).await;
                }
            }
            self.run.do_send(Written(count));
        }
        // Items given up leave gaps: what waits behind them is due now.
        for (line, held) in self.order.as_mut().map(Reorder::finish).unwrap_or_default() {
            self.write(*line, held).await;
        }
    }

    /// Makes what is settled durable: a line that is written before could be one that the store does not know.
    async fn keep(&mut self, batch: &mut [Record]) {
        let kept = |record: &mut Record| match record {
            Record::Line(_, _, kept, _) => kept.take().map(|kept| *kept),
            Record::Reject(_) | Record::NoLine(_) | Record::CutShort | Record::Rest => None,
        };
        let kept: Vec<_> = batch.iter_mut().filter_map(kept).collect();
        let Some((keeping, _)) = self.keeping.as_ref().filter(|_| !kept.is_empty()) else { return };
        let (items, cost) = (kept.len() as u64, kept.iter().map(cost).sum::<NanoUsd>());
        let Err(unkept) = keeping.ledger.record(kept).await else { return };
        let is_first = self.unkept.is_none();
        let all = self.unkept.get_or_insert_default();
        all.items += items;
        all.cost_usd += cost.dollars();
        if is_first {
            // The lines of items that are not stored are not written: the file that was there stays, if it holds more.
            self.lines.cut_short();
            self.run.do_send(LedgerBroken(unkept));
        }
    }

    /// Returns the lines whose turn has come with `record`; writes it if it is a reject.
    async fn due(&mut self, record: Record) -> Vec<(Box<Line>, HeldMemory)> {
        match record {
            Record::Reject(reject) => {
                if let (Some(rejects), None) = (self.rejects, &self.broken)
                    && let Some(result) = self.patience.unless_over(rejects.write(reject)).await
                {
                    self.note(result);
                }
                Vec::new()
            }
            Record::Line(number, line, _, held) => match &mut self.order {
                Some(order) => {
                    let due = order.push(number, (line, held.clone()));
                    if due.is_empty() {
                        // It waits for lines whose items may wait for memory.
                        held.park();
                    }
                    due
                }
                None => vec![(line, held)],
            },
            Record::CutShort => {
                self.lines.cut_short();
                self.rejects.inspect(|rejects| rejects.cut_short());
                Vec::new()
            }
            Record::Rest => {
                self.lines.partial();
                // What of the rest of the input is no item is not known.
                self.rejects.inspect(|rejects| rejects.cut_short());
                self.rest().await;
                Vec::new()
            }
            Record::NoLine(number) => self.order.as_mut().map(|order| order.skip(number)).unwrap_or_default(),
        }
    }

    /// Writes the lines of all items that had settled before and that the run has not come to: an execution that ends
    /// early leaves an output with no fewer items than have settled.
    async fn rest(&mut self) {
        // Items that were given up leave gaps: what waits behind them comes first.
        for (line, held) in self.order.as_mut().map(Reorder::finish).unwrap_or_default() {
            self.write(*line, held).await;
        }
        let Some((keeping, steps)) = self.keeping.clone() else { return self.lines.cut_short() };
        let mut after = ItemNumber::default();
        loop {
            if self.broken.is_some() || self.unkept.is_some() || self.patience.is_over() {
                return self.lines.cut_short();
            }
            let page = match keeping.ledger.store().items(keeping.run, after, PAGE).await {
                Ok(page) => page,
                Err(error) => {
                    warn!(error = %whole_story(&error), "the lines of items that settled before cannot be read");
                    return self.lines.cut_short();
                }
            };
            let Some(last) = page.last() else { return };
            after = last.head.number;
            for item in page.iter().filter(|item| keeping.lacks_line(item.head.number)) {
                if let Some(line) = line::earlier(steps.iter(), item, item.head.line) {
                    self.taken += 1;
                    self.rest.count_settled_before(line.status);
                    self.write(line, HeldMemory::default()).await;
                }
            }
        }
    }

    /// Hands a line over, with the memory that is held until it is written.
    async fn write(&mut self, line: Line, held: HeldMemory) {
        if self.broken.is_some() || self.unkept.is_some() {
            return;
        }
        match self.patience.unless_over(self.lines.write_holding(line, held)).await {
            Some(result) => self.note(result),
            // A line is missing then: the file that was there stays, if it holds more.
            None => self.lines.cut_short(),
        }
    }

    fn note(&mut self, result: Result<(), sink::Error>) {
        if let Err(error) = result {
            let Broken { why, reader_gone } = Broken::from(&error);
            self.breaks(why, reader_gone);
        }
    }

    /// Remembers the first thing that went wrong, and tells the run.
    fn breaks(&mut self, why: String, reader_gone: bool) {
        // The lines that come now are not written: the file that was there stays, if it holds more.
        self.lines.cut_short();
        if self.broken.is_none() {
            self.broken = Some(Broken { why, reader_gone });
            self.run.do_send(OutputBroken);
        }
    }
}
