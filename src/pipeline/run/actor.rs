//! Keeps a bounded window of items in flight, counts, and hands one line per item to the writer.
//!
//! An item is settled when its run has taken its settlement; a second one is not taken, so that an
//! item which dies after settling and is born again has one line all the same. Reads no file and
//! writes none itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::warn;

use crate::guard::Meter;
use crate::provider;
use crate::router::Router;
use crate::supervisor::{Abort, ChildExited, ChildId, Exit, Stop, spawn_monitored_here};
use crate::types::{Class, Failure, ItemKey, Priority, RunId};

use super::item::{Item, Job, Walked};
use super::line;
use super::messages::{
    Arrived, Cancel, ItemSettled, OutputBroken, OutputEnded, SourceEnded, StepAsked, StopIntake, Written,
};
use super::progress::Progress;
use super::report::{Ended, Report};
use super::setup::RunSetup;
use super::tally::Tally;
use super::window::Window;
use super::writer::Record;
use crate::pipeline::definition::Pipeline;
use crate::pipeline::sink::RejectLine;
use crate::pipeline::source::{self, Entry};

/// How often progress is told, and the window looked at anew.
const TICK: Duration = Duration::from_millis(100);

/// Characters of a rejected item that are kept.
const REJECTED_CHARACTERS: usize = 2_000;

/// The actor of one run.
pub struct Run {
    pipeline: Arc<Pipeline>,
    router: Addr<Router>,
    providers: Vec<Arc<provider::State>>,
    priority: Priority,
    id: RunId,
    window: Window,
    /// Where entries are asked for; `None` once no more are.
    wanted: Option<mpsc::UnboundedSender<usize>>,
    /// Where lines go; `None` once no more will.
    records: Option<mpsc::UnboundedSender<Record>>,
    progress: watch::Sender<Progress>,
    report: Option<oneshot::Sender<Report>>,
    exits: Option<Recipient<ChildExited>>,
    in_flight: BTreeMap<u64, InFlight>,
    next_id: u64,
    /// Entries asked for and not yet here.
    owed: usize,
    /// Lines handed to the writer and not yet written.
    unwritten: usize,
    read: u64,
    input_read: Option<f64>,
    tally: Tally,
    items_met: Meter,
    calls_met: Meter,
    started: Instant,
    ended: Ended,
    input_error: Option<String>,
}

/// An item that has an actor.
struct InFlight {
    job: Arc<Job>,
    started: Instant,
    life: u64,
    abort: Abort,
}

impl Run {
    pub(super) fn new(
        setup: RunSetup,
        wanted: mpsc::UnboundedSender<usize>,
        records: mpsc::UnboundedSender<Record>,
        ordered: bool,
    ) -> Self {
        let now = Instant::now();
        let steps = setup.pipeline.steps().iter().map(|step| step.name.clone());
        Self {
            tally: Tally::new(steps),
            pipeline: setup.pipeline,
            router: setup.router,
            providers: setup.providers,
            priority: setup.priority,
            id: RunId::next(),
            window: Window::new(setup.window, ordered),
            wanted: Some(wanted),
            records: Some(records),
            progress: setup.progress,
            report: Some(setup.report),
            exits: None,
            in_flight: BTreeMap::new(),
            next_id: 0,
            owed: 0,
            unwritten: 0,
            read: 0,
            input_read: None,
            items_met: Meter::new(now),
            calls_met: Meter::new(now),
            started: now,
            ended: Ended::Whole,
            input_error: None,
        }
    }

    /// Asks for as many entries as the window has room for, or ends when there is nothing left.
    fn go_on(&mut self) {
        let busy = self.in_flight.len() + self.owed + self.unwritten;
        let oldest = self.in_flight.values().next().map(|item| item.job.item.number);
        let room = self.window.room(busy, oldest, self.read + self.owed as u64);
        match &self.wanted {
            Some(wanted) if room > 0 => {
                self.owed += room;
                // The feeder is gone only when the source has ended, which it has told.
                let _ = wanted.send(room);
            }
            Some(_) => {}
            // The writer ends when it is told that no more will come, and then tells us.
            None if self.in_flight.is_empty() && self.owed == 0 => self.records = None,
            None => {}
        }
    }

    fn stop_intake(&mut self, ended: Ended) {
        self.wanted = None;
        self.owed = 0;
        if self.ended == Ended::Whole {
            self.ended = ended;
        }
    }

    fn record(&mut self, record: Record) {
        if let Some(records) = &self.records {
            self.unwritten += 1;
            // The writer lives until it is told that no more will come.
            drop(records.send(record));
        }
    }

    fn arrived(&mut self, entry: Entry, ctx: &mut Context<Self>) {
        self.owed = self.owed.saturating_sub(1);
        match entry {
            Entry::Rejected(reject) => self.reject(RejectLine::from(reject)),
            Entry::Item(item) => {
                self.read += 1;
                if let Err(reason) = self.pipeline.validate_item(&item.value) {
                    self.record(Record::NoLine(item.number));
                    return self.reject(not_as_asked(&item, reason));
                }
                let (pipeline, router, priority) =
                    (self.pipeline.clone(), self.router.clone(), self.priority);
                self.begin(
                    Arc::new(Job { pipeline, item, router, priority, run: self.id }),
                    Instant::now(),
                    1,
                    ctx,
                );
            }
        }
    }

    fn reject(&mut self, reject: RejectLine) {
        self.tally.items.rejected += 1;
        if self.tally.first_reject.is_none() {
            self.tally.first_reject = Some(format!("line {}: {}", reject.line, reject.reason));
        }
        self.record(Record::Reject(reject));
    }

    fn begin(&mut self, job: Arc<Job>, started: Instant, life: u64, ctx: &mut Context<Self>) {
        let exits = self.exits.get_or_insert_with(|| ctx.address().recipient()).clone();
        let id = self.next_id;
        self.next_id += 1;
        let item = Item::new(job.clone(), ChildId(id), ctx.address());
        let abort = spawn_monitored_here(ChildId(id), life, exits, |_| item).abort;
        self.in_flight.insert(id, InFlight { job, started, life, abort });
    }

    fn settle(&mut self, item: &InFlight, walked: &Walked) {
        self.items_met.add(1, Instant::now());
        let settled = &walked.settled;
        let error = settled.error.as_ref().map(|(step, failure)| (step, failure));
        self.tally.settled(settled.status, error, item.started.elapsed());
        let line = line::line(&item.job, walked);
        self.record(Record::Line(item.job.item.number, Box::new(line)));
    }

    /// An item whose actor died before it settled gets one second life.
    fn lost(&mut self, item: InFlight, exit: &Exit, ctx: &mut Context<Self>) {
        let key = &item.job.item.key;
        warn!(item = %key, ?exit, life = item.life, "the actor of an item died before the item was settled");
        if item.life == 1 {
            return self.begin(item.job, item.started, 2, ctx);
        }
        let message = format!("the actor of the item died twice, at last: {exit:?}");
        let failure = Failure::new(Class::Internal, message).maybe_charged();
        let walked = Walked::died(&item.job, failure, item.started.elapsed());
        self.settle(&item, &walked);
    }

    fn tell(&mut self) {
        let now = Instant::now();
        let oldest = |item: &InFlight| (item.job.item.key.clone(), item.started.elapsed().as_secs_f64());
        let oldest: Option<(ItemKey, f64)> =
            self.in_flight.values().min_by_key(|item| item.started).map(oldest);
        let mut progress = Progress {
            items: self.tally.items,
            in_flight: self.in_flight.len() as u64,
            window: self.window.size(),
            oldest,
            calls: self.tally.calls,
            items_per_second: self.items_met.per_second(now),
            calls_per_second: self.calls_met.per_second(now),
            tokens: self.tally.tokens,
            cost_usd: self.tally.cost.dollars(),
            calls_of_unknown_cost: self.tally.cost.unknown(),
            seconds: self.started.elapsed().as_secs_f64(),
            input_read: self.input_read,
            practice: self.tally.practice,
            stopping: self.wanted.is_none() && self.ended != Ended::Whole,
            providers: self.providers.iter().map(|provider| provider.snapshot(now)).collect(),
            ..Progress::default()
        };
        progress.forecast(self.read + self.tally.items.rejected);
        self.progress.send_replace(progress);
    }
}

impl Actor for Run {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.window.fit(&self.providers);
        self.go_on();
        ctx.run_interval(TICK, |run, _| {
            run.window.fit(&run.providers);
            run.go_on();
            run.tell();
        });
    }
}

impl Supervised for Run {
    /// What was counted stays: each count is whole, and an item whose settlement was lost in the panic
    /// is still in flight, so its exit brings it back.
    fn restarting(&mut self, _: &mut Self::Context) {}
}

impl Handler<Arrived> for Run {
    type Result = ();

    fn handle(&mut self, arrived: Arrived, ctx: &mut Self::Context) {
        if self.wanted.is_none() && self.ended != Ended::Whole {
            // Read after the run was stopped: not begun, and begun anew by the next run.
            return;
        }
        self.input_read = arrived.input_read;
        for entry in arrived.entries {
            self.arrived(entry, ctx);
        }
        self.go_on();
    }
}

impl Handler<SourceEnded> for Run {
    type Result = ();

    fn handle(&mut self, source: SourceEnded, _: &mut Self::Context) {
        self.input_read = Some(1.0);
        let ended = if source.error.is_some() { Ended::Broken } else { Ended::Whole };
        self.input_error = source.error;
        self.stop_intake(ended);
        self.go_on();
    }
}

impl Handler<StepAsked> for Run {
    type Result = ();

    fn handle(&mut self, asked: StepAsked, _: &mut Self::Context) {
        self.calls_met.add(asked.trail.calls() as u64, Instant::now());
        if let Some(step) = self.pipeline.steps().get(asked.step) {
            self.tally.question(&step.name, &asked.trail, asked.practice);
        }
        if asked.reasked {
            self.tally.reasked();
        }
    }
}

impl Handler<ItemSettled> for Run {
    type Result = ();

    fn handle(&mut self, settled: ItemSettled, _: &mut Self::Context) {
        if let Some(item) = self.in_flight.remove(&settled.id.0) {
            self.settle(&item, &settled.walked);
            self.go_on();
        }
    }
}

impl Handler<ChildExited> for Run {
    type Result = ();

    fn handle(&mut self, exited: ChildExited, ctx: &mut Self::Context) {
        if let Some(item) = self.in_flight.remove(&exited.id.0) {
            self.lost(item, &exited.exit, ctx);
            self.go_on();
        }
    }
}

impl Handler<Written> for Run {
    type Result = ();

    fn handle(&mut self, Written(records): Written, _: &mut Self::Context) {
        self.unwritten = self.unwritten.saturating_sub(records);
        self.go_on();
    }
}

impl Handler<OutputBroken> for Run {
    type Result = ();

    /// Answers that nobody can keep are not worth their money: those in flight are the last.
    fn handle(&mut self, _: OutputBroken, _: &mut Self::Context) {
        self.stop_intake(Ended::Broken);
        self.go_on();
    }
}

impl Handler<OutputEnded> for Run {
    type Result = ();

    fn handle(&mut self, output: OutputEnded, ctx: &mut Self::Context) {
        self.tally.items.unwritten = output.unwritten;
        self.tell();
        let mut report = self.tally.report(self.pipeline.name(), self.ended, self.started.elapsed());
        (report.output_error, report.reader_gone) = (output.error, output.reader_gone);
        report.input_error = self.input_error.take();
        if let Some(asker) = self.report.take() {
            // Whoever does not wait for the report does not want it.
            drop(asker.send(report));
        }
        ctx.stop();
    }
}

impl Handler<Stop> for Run {
    type Result = ();

    /// The process stops: nothing new is begun. Whoever waits for the report sees that it never comes if
    /// the items in flight do not end in time.
    fn handle(&mut self, _: Stop, _: &mut Self::Context) {
        self.stop_intake(Ended::Interrupted);
        self.go_on();
    }
}

impl Handler<StopIntake> for Run {
    type Result = ();

    fn handle(&mut self, _: StopIntake, _: &mut Self::Context) {
        self.stop_intake(Ended::Interrupted);
        self.go_on();
    }
}

impl Handler<Cancel> for Run {
    type Result = ();

    fn handle(&mut self, _: Cancel, _: &mut Self::Context) {
        self.stop_intake(Ended::Interrupted);
        for item in std::mem::take(&mut self.in_flight).into_values() {
            self.tally.items.unfinished += 1;
            item.abort.abort();
        }
        self.go_on();
    }
}

/// Makes the reject of an item that is not as the pipeline's `[input] schema` asks.
fn not_as_asked(item: &source::Item, reason: String) -> RejectLine {
    let text: String = item.value.to_string().chars().take(REJECTED_CHARACTERS).collect();
    RejectLine { line: item.line, reason, key: Some(item.key.clone()), text }
}
