//! How items begin: each that has come has an actor, or is rejected.

use std::sync::Arc;

use actix::prelude::*;
use tokio::time::Instant;

use super::{InFlight, Paper, Run};
use crate::router::StopSignal;
use crate::run::item::{Item, Job};
use crate::run::line;
use crate::run::report::Ended;
use crate::run::writer::Record;
use crate::sink::RejectLine;
use crate::source::Entry;
use crate::supervisor::{ChildId, spawn_monitored_here};

impl Run {
    /// Begins the item that has come, if it is fit, or rejects it.
    pub(super) fn arrived(&mut self, fit: Result<(), String>, ctx: &mut Context<Self>) {
        let Some(Paper::Entry(entry, known)) = self.desk.take() else { return };
        if matches!(entry, Entry::Item(_)) {
            self.pause_before_another();
        }
        if self.wanted.is_none() && self.ended != Ended::Whole {
            // Read after the run was stopped: not begun, and begun anew by the next run.
            return;
        }
        self.pieces += 1;
        match (entry, fit) {
            (Entry::Rejected(reject), _) => self.reject(line::reject_line(reject)),
            (Entry::Item(item), Err(reason)) => {
                self.read += 1;
                self.record(Record::NoLine(item.number));
                self.reject(line::rejected(&item, reason));
            }
            (Entry::Item(item), Ok(())) => {
                self.read += 1;
                let Some(kept) = self.keep(&item, known) else { return };
                let (pipeline, router) = (self.pipeline.clone(), self.router.clone());
                let (priority, run, counts) = (self.priority, self.id, self.counts.clone());
                let purse = self.purses.own.clone();
                let stop = StopSignal::of(&self.stop);
                let protected = self.protected.clone();
                let gate = self.gate.clone();
                let job =
                    Job { pipeline, protected, item, router, priority, run, counts, stop, purse, kept, gate };
                self.begin(Arc::new(job), Instant::now(), 1, ctx);
            }
        }
    }

    fn reject(&mut self, reject: RejectLine) {
        let first = format!("line {}: {}", reject.line, reject.reason);
        self.record(Record::Reject(reject));
        self.tally.items.rejected += 1;
        self.tally.first_reject.get_or_insert(first);
    }

    pub(super) fn begin(&mut self, job: Arc<Job>, started: Instant, life: u64, ctx: &mut Context<Self>) {
        let own = || (Arc::new(ctx.address()), ctx.address().recipient());
        let (run, exits) = self.own.get_or_insert_with(own).clone();
        let id = self.next_id;
        self.next_id += 1;
        if self.shares.is_empty() {
            self.shares = self.providers.iter().map(|provider| provider.share()).collect();
        }
        let item = Item::new(job.clone(), ChildId(id), run);
        let abort = spawn_monitored_here(ChildId(id), life, exits, |_| item).abort;
        self.in_flight.insert(id, InFlight { job, started, life, abort });
        if self.rests {
            self.tick_later(ctx);
        }
    }
}
