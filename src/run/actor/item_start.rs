//! Starts items: every item that arrives gets an actor or is rejected.

use std::sync::Arc;

use actix::prelude::*;
use tokio::time::Instant;

use super::{ActiveItem, Event, Run};
use crate::router::StopSignal;
use crate::run::item::ItemActor;
use crate::run::job::Job;
use crate::run::messages::ItemRecipients;
use crate::run::output_line;
use crate::run::report::RunOutcome;
use crate::run::writer::OutputRecord;
use crate::sink::RejectLine;
use crate::source::Entry;
use crate::supervisor::{ChildId, spawn_monitored_here};

impl Run {
    /// Starts the item that has arrived if it is valid; otherwise rejects it.
    pub(super) fn start_or_reject(&mut self, validity: Result<(), String>, ctx: &mut Context<Self>) {
        let Some(Event::Entry(entry, known)) = self.inbox.pop() else { return };
        if matches!(entry, Entry::Item(_)) {
            self.pause_before_another();
        }
        if self.demand.is_none() && self.outcome != RunOutcome::Completed {
            // Read after the run was stopped: it is not started. The next session reads it again.
            return;
        }
        self.entries += 1;
        match (entry, validity) {
            (Entry::Rejected(reject), _) => self.reject(output_line::reject_line(reject)),
            (Entry::Item(item), Err(reason)) => {
                self.items_read += 1;
                self.record(OutputRecord::NoLine(item.number));
                self.reject(output_line::rejected(&item, reason));
            }
            (Entry::Item(item), Ok(())) => {
                self.items_read += 1;
                let Some(persistence) = self.resume_item(&item, known) else { return };
                let pipeline = self.pipeline.clone();
                let router = self.router.clone();
                let counts = self.counts.clone();
                let budget = self.budgets.own.clone();
                let stop = StopSignal::new(&self.stop);
                let protected = self.protected.clone();
                let gate = self.gate.clone();
                let job = Job {
                    pipeline,
                    protected,
                    item,
                    router,
                    priority: self.priority,
                    run: self.id,
                    counts,
                    stop,
                    budget,
                    persistence,
                    gate,
                };
                self.start_item(Arc::new(job), Instant::now(), 1, ctx);
            }
        }
    }

    fn reject(&mut self, reject: RejectLine) {
        let first = format!("line {}: {}", reject.line, reject.reason);
        self.record(OutputRecord::Reject(reject));
        self.stats.items.rejected += 1;
        self.stats.first_reject.get_or_insert(first);
    }

    pub(super) fn start_item(
        &mut self,
        job: Arc<Job>,
        started: Instant,
        incarnation: u64,
        ctx: &mut Context<Self>,
    ) {
        let create_recipients = || (Arc::new(item_recipients(ctx)), ctx.address().recipient());
        let (run, exits) = self.own.get_or_insert_with(create_recipients).clone();
        let id = self.next_id;
        self.next_id += 1;
        if self.capacity_shares.is_empty() {
            self.capacity_shares = self.providers.iter().map(|provider| provider.share_capacity()).collect();
        }
        let item = ItemActor::new(job.clone(), ChildId(id), run);
        let abort = spawn_monitored_here(ChildId(id), incarnation, exits, |_| item).abort;
        self.in_flight.insert(id, ActiveItem { job, started, incarnation, abort });
        if self.is_tick_idle {
            self.schedule_tick(ctx);
        }
    }
}

fn item_recipients(ctx: &Context<Run>) -> ItemRecipients {
    ItemRecipients {
        request_ended: ctx.address().recipient(),
        finished: ctx.address().recipient(),
        deferred: ctx.address().recipient(),
        ledger_failed: ctx.address().recipient(),
    }
}
