//! Writes a run's lines, in the order of their completion or of the input, and tells what is written.
//!
//! A task of its own, so that a slow disk never stops the run's actor; the run starts no more items
//! than its window has room for unwritten lines.

use actix::prelude::*;
use tokio::sync::mpsc;

use crate::types::whole_story;

use super::actor::Run;
use super::messages::{OutputBroken, OutputEnded, Written};
use crate::pipeline::sink::{self, Line, RejectLine, Reorder, Sink};

/// Records that are taken and told of at once.
const BATCH: usize = 64;

/// What is to be written.
pub(super) enum Record {
    /// An item's line, and the item's number.
    Line(u64, Box<Line>),
    /// A piece of the input that is no item.
    Reject(RejectLine),
    /// The item of this number has no line: it was rejected.
    NoLine(u64),
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

/// Writes what comes until nothing more will.
pub(super) async fn write(output: Output, mut records: mpsc::UnboundedReceiver<Record>, run: Addr<Run>) {
    let Output { lines, rejects, ordered } = output;
    let mut order = ordered.then(Reorder::new);
    let mut handed = 0_u64;
    let mut broken: Option<sink::Error> = None;
    let mut batch = Vec::with_capacity(BATCH);
    while records.recv_many(&mut batch, BATCH).await > 0 {
        let count = batch.len();
        for record in batch.drain(..) {
            let due = match record {
                Record::Reject(reject) => {
                    if let (Some(rejects), None) = (&rejects, &broken) {
                        note(&mut broken, rejects.write(reject).await, &run);
                    }
                    Vec::new()
                }
                Record::Line(number, line) => match &mut order {
                    Some(order) => order.push(number, line),
                    None => vec![line],
                },
                Record::NoLine(number) => order.as_mut().map(|order| order.skip(number)).unwrap_or_default(),
            };
            for line in due {
                handed += 1;
                if broken.is_none() {
                    note(&mut broken, lines.write(*line).await, &run);
                }
            }
        }
        run.do_send(Written(count));
    }
    // Items given up leave gaps: what waits behind them is due now.
    for line in order.map(|mut order| order.finish()).unwrap_or_default() {
        handed += 1;
        if broken.is_none() {
            note(&mut broken, lines.write(*line).await, &run);
        }
    }
    let written = lines.finish().await;
    let safe = match &written {
        Ok(written) => written.lines,
        Err(sink::Error::Write { lines, .. } | sink::Error::BrokenPipe { lines, .. }) => *lines,
        Err(_) => 0,
    };
    note(&mut broken, written.map(|_| ()), &run);
    if let Some(rejects) = rejects {
        note(&mut broken, rejects.finish().await.map(|_| ()), &run);
    }
    let reader_gone = broken.as_ref().is_some_and(sink::Error::is_broken_pipe);
    let error = broken.as_ref().filter(|_| !reader_gone).map(|error| whole_story(error));
    run.do_send(OutputEnded { error, reader_gone, unwritten: handed.saturating_sub(safe) });
}

/// Remembers the first thing that went wrong, and tells the run.
fn note(broken: &mut Option<sink::Error>, result: Result<(), sink::Error>, run: &Addr<Run>) {
    if let Err(error) = result
        && broken.is_none()
    {
        *broken = Some(error);
        run.do_send(OutputBroken);
    }
}
