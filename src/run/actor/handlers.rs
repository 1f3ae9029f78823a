//! Message handlers of a run. Each handler records the message first. Code that may panic runs after that; the
//! next incarnation or the next tick runs it again.

use actix::prelude::*;
use tracing::{debug, info};

use super::Run;
use crate::run::inbox::{EntryRead, Event};
use crate::run::messages::{
    Cancel, EntriesRead, InputEnd, ItemDeferred, ItemFinished, LedgerFailed, OutputEnded, OutputFailed,
    Pause, ProgressWatched, RecordsWritten, RequestEnded, SourceEnded, StopIntake,
};
use crate::run::report::RunOutcome;
use crate::supervisor::{ChildExited, Stop};
use crate::telemetry::record_error;
use crate::types::{Class, Failure};

impl Handler<EntriesRead> for Run {
    type Result = ();

    fn handle(&mut self, arrived: EntriesRead, ctx: &mut Self::Context) {
        self.outstanding = self.outstanding.saturating_sub(arrived.entries.len());
        let entries = arrived.entries.into_iter();
        entries.for_each(|(entry, earlier)| self.inbox.push(Event::Entry(EntryRead { entry, earlier })));
        if self.demand.is_some() || self.outcome.is_regular() {
            // Entries that arrive after the run was stopped are not started.
            self.input_read = arrived.input_read;
        }
        self.handle_events(ctx);
    }
}

impl Handler<SourceEnded> for Run {
    type Result = ();

    fn handle(&mut self, source: SourceEnded, ctx: &mut Self::Context) {
        // A run that was stopped has not started all entries that arrived last.
        let is_active = self.demand.is_some();
        let outcome = match source.end {
            InputEnd::Complete => {
                if is_active {
                    self.input_read = Some(1.0);
                    self.input_ended = true;
                }
                RunOutcome::Completed
            }
            InputEnd::Limited => RunOutcome::Limited,
            InputEnd::Failed(error) => {
                if is_active {
                    self.input_read = Some(1.0);
                }
                self.input_error = Some(error);
                RunOutcome::IoFailed
            }
        };
        self.stop_intake(outcome);
        self.handle_events(ctx);
    }
}

impl Handler<RequestEnded> for Run {
    type Result = ();

    fn handle(&mut self, request: RequestEnded, ctx: &mut Self::Context) {
        self.inbox.push(Event::RequestEnded(request));
        self.handle_events(ctx);
    }
}

impl Handler<ItemFinished> for Run {
    type Result = ();

    fn handle(&mut self, outcome: ItemFinished, ctx: &mut Self::Context) {
        self.inbox.push(Event::ItemFinished(outcome));
        self.handle_events(ctx);
    }
}

impl Handler<ItemDeferred> for Run {
    type Result = ();

    /// Other requests would be deferred too, so the items with requests in flight are the last.
    fn handle(&mut self, ItemDeferred { id, why }: ItemDeferred, ctx: &mut Self::Context) {
        let item = self.in_flight.remove(&id.0);
        let was_in_flight = item.is_some();
        if let Some(item) = &item {
            record_error(item.job.span.own(), why.class.as_str());
        }
        if why.class == Class::Budget {
            self.stats.items.paused += u64::from(was_in_flight);
            if self.paused.is_none() {
                info!(run = self.number(), pipeline = self.pipeline.name(), %why, "the run pauses");
            }
            self.paused.get_or_insert(*why);
            self.stop_intake(RunOutcome::Paused);
        } else {
            debug!(run = self.number(), pipeline = self.pipeline.name(), %why, "item deferred");
            let items = &mut self.stats.items;
            let count =
                if self.outcome == RunOutcome::Paused { &mut items.paused } else { &mut items.unfinished };
            *count += u64::from(was_in_flight);
            self.stop_intake(RunOutcome::Interrupted);
        }
        self.handle_events(ctx);
    }
}

impl Handler<ChildExited> for Run {
    type Result = ();

    fn handle(&mut self, exited: ChildExited, ctx: &mut Self::Context) {
        self.inbox.push(Event::ItemExited(exited));
        self.handle_events(ctx);
    }
}

impl Handler<RecordsWritten> for Run {
    type Result = ();

    fn handle(&mut self, RecordsWritten(records): RecordsWritten, _: &mut Self::Context) {
        self.unwritten = self.unwritten.saturating_sub(records);
        self.request_items();
    }
}

impl Handler<OutputFailed> for Run {
    type Result = ();

    /// Results that cannot be written are not worth their cost: the items in flight are the last.
    fn handle(&mut self, _: OutputFailed, _: &mut Self::Context) {
        self.stop_intake(RunOutcome::IoFailed);
        self.request_items();
    }
}

impl Handler<LedgerFailed> for Run {
    type Result = ();

    /// No more requests are sent, and the items in flight are aborted, because their answers cannot be stored.
    fn handle(&mut self, LedgerFailed(failure): LedgerFailed, _: &mut Self::Context) {
        self.store_failure.get_or_insert(failure);
        self.stop_intake(RunOutcome::IoFailed);
        self.abort();
    }
}

impl Handler<OutputEnded> for Run {
    type Result = ();

    fn handle(&mut self, ended: OutputEnded, ctx: &mut Self::Context) {
        if ended.error.is_some() || ended.output_closed {
            self.stop_intake(RunOutcome::IoFailed);
        }
        self.output = Some(ended);
        self.report_end(ctx);
    }
}

impl Handler<Stop> for Run {
    type Result = ();

    /// The process is stopping: no more items start. If the items in flight do not end in time, the report is
    /// never sent.
    fn handle(&mut self, _: Stop, _: &mut Self::Context) {
        self.stop_intake(RunOutcome::Interrupted);
        self.request_items();
    }
}

impl Handler<StopIntake> for Run {
    type Result = ();

    fn handle(&mut self, _: StopIntake, _: &mut Self::Context) {
        self.stop_intake(RunOutcome::Interrupted);
        self.request_items();
    }
}

impl Handler<Pause> for Run {
    type Result = ();

    fn handle(&mut self, Pause { why }: Pause, _: &mut Self::Context) {
        self.pause(Failure::new(Class::Cancelled, why));
        self.request_items();
    }
}

impl Handler<ProgressWatched> for Run {
    type Result = ();

    /// The first snapshot comes with the next tick: an immediate one would be empty.
    fn handle(&mut self, _: ProgressWatched, ctx: &mut Self::Context) {
        self.schedule_tick(ctx);
    }
}

impl Handler<Cancel> for Run {
    type Result = ();

    fn handle(&mut self, _: Cancel, _: &mut Self::Context) {
        self.stop_intake(RunOutcome::Interrupted);
        self.abort();
    }
}
