//! Starts items: every item that arrives gets an actor or is rejected.

use std::sync::Arc;

use actix::prelude::*;
use tokio::time::Instant;

use super::{ActiveItem, Run};
use crate::chaos;
use crate::router::StopSignal;
use crate::run::inbox::{EntryRead, Event, EventState};
use crate::run::item::ItemActor;
use crate::run::job::Job;
use crate::run::messages::ItemRecipients;
use crate::run::output_line;
use crate::run::persistence::EarlierItem;
use crate::run::writer::OutputRecord;
use crate::sink::RejectLine;
use crate::source::{self, Entry};
use crate::supervisor::{ChildId, spawn_monitored_here};
use crate::telemetry::item_span;

impl Run {
    /// Starts the item that has arrived. Rejects what is not an item, and an item over which the run panics.
    pub(super) fn start_or_reject(&mut self, read: EntryRead, state: EventState, ctx: &mut Context<Self>) {
        let (EntryRead { entry, earlier }, ()) =
            self.inbox.keep_on_panic(Event::Entry, read, state, |read| match (&read.entry, state) {
                (Entry::Item(_), EventState::New | EventState::PanickedOnce) => chaos::point("run.entry"),
                (Entry::Item(_), EventState::Poisoned) | (Entry::Rejected(_), _) => {}
            });
        match entry {
            Entry::Item(item) => {
                self.pause_before_another();
                if self.count_entry() {
                    self.start_or_reject_item(item, earlier, state, ctx);
                }
            }
            Entry::Rejected(reject) => {
                if self.count_entry() {
                    self.reject(output_line::reject_line(reject));
                }
            }
        }
    }

    /// Counts an entry, unless the run was stopped before it arrived: then it is not started, and the next session
    /// reads it again.
    fn count_entry(&mut self) -> bool {
        let is_stopped = self.demand.is_none() && !self.outcome.is_regular();
        self.entries += u64::from(!is_stopped);
        !is_stopped
    }

    fn start_or_reject_item(
        &mut self,
        item: source::Item,
        earlier: Option<Box<EarlierItem>>,
        state: EventState,
        ctx: &mut Context<Self>,
    ) {
        self.items_read += 1;
        if state == EventState::Poisoned {
            self.record(OutputRecord::NoLine(item.number));
            self.reject(output_line::rejected(&item, "the run panicked while handling the item".to_owned()));
            return;
        }
        let Some(persistence) = self.resume_item(&item, earlier) else { return };
        let span = item_span(&self.span, item.key.as_str());
        let job = Job {
            pipeline: self.pipeline.clone(),
            protected: self.protected.clone(),
            item,
            router: self.router.clone(),
            priority: self.priority,
            run: self.id,
            scope: self.scope.clone(),
            scope_limits: self.scope_limits.clone(),
            counts: self.counts.clone(),
            stop: StopSignal::new(&self.stop),
            budget: self.budgets.own.clone(),
            persistence,
            gate: self.gate.clone(),
            warmups: self.warmups.clone(),
            embeddings: self.embeddings.clone(),
            span,
        };
        self.start_item(Arc::new(job), Instant::now(), 1, ctx);
    }

    fn reject(&mut self, reject: RejectLine) {
        let first = format!("line {}: {}", reject.line, reject.reason);
        self.record(OutputRecord::Reject(reject));
        self.stats.items.rejected += 1;
        self.metrics.count_rejected();
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
        let in_progress = self.metrics.start_item();
        let item = ActiveItem { job, started, incarnation, abort, _in_progress: in_progress };
        self.in_flight.insert(id, item);
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
