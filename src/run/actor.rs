//! Keeps a bounded window of items in flight, counts, and hands one line per item to the writer.
//!
//! An item is settled when its run has taken its settlement; a second one is not taken, so that an
//! item which dies after settling and is born again has one line all the same. What it is told lies on its
//! [`Desk`] until it is dealt with, so a panic loses nothing. Reads no file and writes none itself.

mod beginning;
mod ending;
mod holding;
mod keep;
mod telling;
mod told;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::chaos;
use crate::guard::Meter;
use crate::ledger::Unkept;
use crate::provider::{self, CapacityShare};
use crate::router::{CallCounts, Router};
use crate::store::ItemNumber;
use crate::supervisor::{Abort, ChildExited, Slot};
use crate::types::{Class, Failure, NanoUsd, Priority, RunId};

use super::desk::{Desk, Paper};
use super::failures::FailureLimit;
use super::forecast::Forecast;
use super::gate::Gate;
use super::item::Job;
use super::keeping::Keeping;
use super::line;
use super::messages::{ItemSettled, OutputEnded};
use super::money::RunPurses;
use super::progress::Progress;
use super::report::{Ended, Report};
use super::setup::RunSetup;
use super::tally::Tally;
use super::walked::Walked;
use super::window::Window;
use super::writer::Record;
use crate::pipeline::definition::Pipeline;
use crate::pipeline::protected::ProtectedFiles;
use crate::source::Entry;

/// How often progress is told, and the window looked at anew.
const TICK: Duration = Duration::from_millis(100);

/// Items whose requests wait until they may be sent again, for each that has a place: so many let others begin.
const WAITING_ITEMS: usize = 4;

/// How often a run looks whose items have all ended, and that nobody watches.
const IDLE_TICK: Duration = Duration::from_secs(2);

/// The actor of one run.
pub struct Run {
    pipeline: Arc<Pipeline>,
    /// The files that its items may not attach.
    protected: Arc<ProtectedFiles>,
    router: Slot<Router>,
    providers: Vec<Arc<provider::State>>,
    /// Its parts of their capacity, while it has work.
    shares: Vec<CapacityShare>,
    priority: Priority,
    id: RunId,
    window: Window,
    /// Where entries are asked for; `None` once no more are.
    wanted: Option<mpsc::UnboundedSender<usize>>,
    /// Where lines go; `None` once no more will.
    records: Option<mpsc::UnboundedSender<Record>>,
    /// Tells the writer that lines which nobody takes are not waited for any more.
    give_up: watch::Sender<bool>,
    progress: Arc<watch::Sender<Progress>>,
    report: Option<oneshot::Sender<Report>>,
    /// Where items report, and where their ends are.
    own: Option<(Arc<Addr<Self>>, Recipient<ChildExited>)>,
    desk: Desk,
    in_flight: BTreeMap<u64, InFlight>,
    next_id: u64,
    /// Entries asked for and not yet here.
    owed: usize,
    /// Lines handed to the writer and not yet written.
    unwritten: usize,
    read: u64,
    /// Pieces of the input that were begun or rejected.
    pieces: u64,
    input_read: Option<f64>,
    /// Whether the input has come to its own end.
    input_ended: bool,
    /// Where answers and settlements are kept, if they are.
    keeping: Option<Arc<Keeping>>,
    /// The last item that has a number in the store.
    last_item: ItemNumber,
    /// Items that the store knew when they came.
    met_again: u64,
    /// Whose money it spends.
    purses: RunPurses,
    /// Why it is paused.
    paused: Option<Failure>,
    /// Where requests wait while it holds.
    gate: Arc<Gate>,
    /// Whether the log says that it holds.
    logs_hold: bool,
    /// How long it may hold.
    max_hold: Option<Duration>,
    /// Whether the requests of a longer hold fail, and since when they do.
    gives_up: bool,
    gave_up: Option<Instant>,
    /// How many items may fail.
    failures: FailureLimit,
    /// That too many have failed, and that it pauses if another item comes.
    too_many: Option<Failure>,
    /// Why nothing can be kept any more.
    unkept: Option<Unkept>,
    tally: Tally,
    items_met: Meter,
    calls_met: Meter,
    /// Calls as they end.
    counts: Arc<CallCounts>,
    /// Tells questions that wait for their turn that the run stops.
    stop: watch::Sender<bool>,
    /// Calls that `calls_met` has met.
    met: u64,
    forecast: Forecast,
    /// What questions and money the items that have ended had.
    of_ended: (u64, NanoUsd),
    /// Questions that came back.
    questions: u64,
    /// The next look at the window.
    tick: Option<SpawnHandle>,
    /// Whether that is a long way off, because there was nothing to see.
    rests: bool,
    started: Instant,
    ended: Ended,
    input_error: Option<String>,
    /// How the output ended; the run has nothing more to do then.
    output: Option<OutputEnded>,
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
        give_up: watch::Sender<bool>,
        ordered: bool,
    ) -> Self {
        let now = Instant::now();
        let had_answers = setup.keeping.as_ref().is_some_and(|keeping| keeping.had_answers);
        let steps = setup.pipeline.steps().iter().map(|step| step.name.clone());
        let width = setup.pipeline.width();
        let patience = setup.pipeline.steps().iter().map(|step| step.deadline).min().unwrap_or(Duration::MAX);
        Self {
            tally: Tally::new(steps),
            pipeline: setup.pipeline,
            protected: setup.protected,
            last_item: setup.keeping.as_ref().map(|keeping| keeping.session.last_item).unwrap_or_default(),
            keeping: setup.keeping,
            purses: setup.purses,
            paused: None,
            gate: Gate::new(setup.routes, had_answers),
            max_hold: setup.limits.max_hold,
            gives_up: setup.limits.give_up,
            gave_up: None,
            logs_hold: false,
            failures: FailureLimit::new(setup.limits.max_failures),
            too_many: None,
            unkept: None,
            met_again: 0,
            router: setup.router,
            shares: Vec::new(),
            providers: setup.providers,
            priority: setup.priority,
            id: RunId::next(),
            window: Window::new(setup.window, ordered, patience, width),
            wanted: Some(wanted),
            records: Some(records),
            give_up,
            progress: setup.progress,
            report: Some(setup.report),
            own: None,
            desk: Desk::default(),
            in_flight: BTreeMap::new(),
            next_id: 0,
            owed: 0,
            unwritten: 0,
            read: 0,
            pieces: 0,
            input_read: None,
            input_ended: false,
            items_met: Meter::new(now),
            calls_met: Meter::new(now),
            counts: Arc::default(),
            stop: watch::Sender::new(false),
            met: 0,
            forecast: Forecast::default(),
            of_ended: (0, NanoUsd(0)),
            questions: 0,
            tick: None,
            rests: false,
            started: now,
            ended: Ended::Whole,
            input_error: None,
            output: None,
        }
    }

    /// Looks at the window and tells progress in a while: soon while there is something to see.
    fn tick_later(&mut self, ctx: &mut Context<Self>) {
        if let Some(tick) = self.tick.take() {
            ctx.cancel_future(tick);
        }
        let is_idle = self.in_flight.is_empty() && self.desk.is_empty() && self.unwritten == 0;
        if is_idle {
            self.shares.clear();
        }
        self.rests = is_idle && self.progress.is_closed();
        let pause = if self.rests { IDLE_TICK } else { TICK };
        let tick = ctx.run_later(pause, |run, ctx| {
            // First: a panic must not be the last tick.
            run.tick = None;
            run.tick_later(ctx);
            chaos::point("run.tick");
            run.window.fit(&run.providers);
            run.look_at_holds();
            run.work(ctx);
            if !run.progress.is_closed() {
                run.tell();
            }
        });
        self.tick = Some(tick);
    }

    /// Asks for as many entries as the window has room for, or ends when there is nothing left.
    fn go_on(&mut self) {
        chaos::point("run.goes_on");
        let busy = self.in_flight.len() + self.owed + self.desk.len();
        let oldest = self.in_flight.values().next().map(|item| item.job.item.number);
        // Requests that wait until they may be sent again ask nothing of the providers, and take no place from others.
        let at_most = self.window.size().saturating_mul(WAITING_ITEMS);
        let busy = busy - self.gate.resting().min(self.in_flight.len()).min(at_most);
        let more = self.wanted.is_some() && self.in_flight.len() <= at_most;
        self.gate.set_more(more);
        let is_idle = self.owed == 0 && self.desk.is_empty();
        let room = match self.gate.is_holding() {
            true => usize::from(more && is_idle && self.gate.wants_another(Instant::now())),
            false => self.window.room(busy, self.unwritten, oldest, self.read + self.owed as u64),
        };
        match &self.wanted {
            Some(wanted) if room > 0 => {
                self.owed += room;
                // The feeder is gone only when the source has ended, which it has told.
                let _ = wanted.send(room);
            }
            Some(_) => {}
            // The writer ends when it is told that no more will come, and then tells us.
            None if self.in_flight.is_empty() && self.owed == 0 && self.desk.is_empty() => {
                if self.ended != Ended::Whole && !self.has_dealt_with_all() {
                    // What was settled before and has not come has its line in the store.
                    // Where no item came, the output stays as it was.
                    let has_rest = self.unkept.is_none()
                        && self.read > 0
                        && self.keeping.as_ref().is_some_and(|it| !it.partly);
                    self.record(if has_rest { Record::Rest } else { Record::CutShort });
                }
                self.records = None;
            }
            None => {}
        }
    }

    /// Returns whether the input has ended, and nothing of it was given up.
    fn has_dealt_with_all(&self) -> bool {
        self.input_ended && self.tally.items.unfinished + self.tally.items.paused == 0
    }

    fn stop_intake(&mut self, ended: Ended) {
        self.wanted = None;
        self.owed = 0;
        if ended == Ended::Interrupted {
            self.stop.send_replace(true);
        }
        if self.ended == Ended::Whole {
            self.ended = ended;
        }
    }

    fn give_up(&mut self) {
        self.give_up.send_replace(true);
        for item in std::mem::take(&mut self.in_flight).into_values() {
            self.tally.items.unfinished += 1;
            item.abort.abort();
        }
        self.go_on();
    }

    fn record(&mut self, record: Record) {
        if let Some(records) = &self.records {
            self.unwritten += 1;
            // The writer lives until it is told that no more will come.
            drop(records.send(record));
        }
    }

    /// Deals with everything on the desk. Until a paper is taken off it, nothing has come of it.
    fn work(&mut self, ctx: &mut Context<Self>) {
        while let Some((paper, hopeless)) = self.desk.open() {
            match paper {
                Paper::Entry(Entry::Item(_), _) => {
                    let fit = if hopeless {
                        Err("the run panicked over it".to_owned())
                    } else {
                        chaos::point("run.entry");
                        Ok(())
                    };
                    self.arrived(fit, ctx);
                }
                Paper::Entry(Entry::Rejected(_), _) => self.arrived(Ok(()), ctx),
                Paper::Asked(_) => self.asked(),
                Paper::Settled(ItemSettled { id, walked }) => {
                    let line = self.in_flight.get(&id.0).map(|item| {
                        if hopeless {
                            let failure = Failure::new(Class::Internal, "the run panicked over its line");
                            **walked = Walked::died(&item.job, failure.maybe_charged(), walked.took);
                        } else {
                            chaos::point("run.settled");
                        }
                        Box::new(line::line(&item.job, walked))
                    });
                    self.walked(line);
                }
                Paper::Exited(_) => {
                    chaos::point("run.exited");
                    self.exited(ctx);
                }
            }
        }
        self.go_on();
    }

    /// Counts a question. It is counted at most once: a number that is too small beats one that is too large.
    fn asked(&mut self) {
        let Some(Paper::Asked(asked)) = self.desk.take() else { return };
        self.questions += u64::from(!asked.held);
        if let Some(step) = self.pipeline.steps().get(asked.step) {
            self.tally.question(&step.name, &asked.trail, asked.practice);
        }
        if asked.reasked {
            self.tally.reasked();
        }
        self.tally.lost(asked.lost);
    }
}

impl Actor for Run {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.tick_later(ctx);
        self.window.fit(&self.providers);
        self.work(ctx);
        self.end(ctx);
    }
}

impl Supervised for Run {
    /// What was counted stays: each count is whole. What lies on the desk is dealt with by the next life.
    fn restarting(&mut self, _: &mut Self::Context) {
        self.desk.panicked();
        // It died with its life.
        self.tick = None;
    }
}

impl Drop for Run {
    /// Its items do not outlive it: they would go on to ask questions, and no one would get their answers.
    fn drop(&mut self) {
        self.in_flight.values().for_each(|item| item.abort.abort());
    }
}
