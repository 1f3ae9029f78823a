//! Ends items and the run itself. Each line is sent to the writer before anything else is done.

use std::collections::btree_map;

use actix::prelude::*;
use tokio::time::Instant;
use tracing::{Span, warn};

use super::{ActiveItem, Run};
use crate::chaos;
use crate::run::inbox::{Event, EventState};
use crate::run::item_result::ItemResult;
use crate::run::messages::{InputError, ItemFinished};
use crate::run::output_line;
use crate::run::preview::ResultPreview;
use crate::run::report::{Report, RunOutcome, Unprocessed};
use crate::run::writer::{FinishedItem, OutputRecord};
use crate::sink::Line;
use crate::supervisor::ChildExited;
use crate::telemetry::{record_error, span_fields};
use crate::types::{Class, Failure};

impl Run {
    /// Returns whether the next line has the fields of its item. The writer removes those that only the preview needs.
    pub(super) fn needs_item(&self) -> bool {
        self.lines_need_item || self.preview.as_ref().is_some_and(ResultPreview::has_space)
    }

    /// Sends the line of a finished item, if the item was not finished before.
    pub(super) fn finish_item(&mut self, finished: ItemFinished, state: EventState) {
        let needs_item = self.needs_item();
        let btree_map::Entry::Occupied(item) = self.in_flight.entry(finished.id.0) else { return };
        let create_line = |ItemFinished { result, .. }: &mut ItemFinished| {
            let job = &item.get().job;
            match state {
                EventState::New | EventState::PanickedOnce => chaos::point("run.item_finished"),
                EventState::Poisoned => {
                    let message = "the run panicked while writing the item's line";
                    let failure = Failure::new(Class::Internal, message).maybe_charged();
                    **result = ItemResult::died(job, failure, result.took);
                }
            }
            Box::new(output_line::line(job, result, needs_item))
        };
        let (finished, line) = self.inbox.keep_on_panic(Event::ItemFinished, finished, state, create_line);
        let item = item.remove();
        self.record_result(&item, &finished.result, line);
    }

    /// Sends the line first: a panic after that loses at most a count.
    fn record_result(&mut self, item: &ActiveItem, result: &ItemResult, line: Box<Line>) {
        let persistence = item.job.persistence.as_ref();
        let unsaved = result.record(&item.job, item.incarnation).map(Box::new);
        if let Some(persistence) = persistence {
            persistence.run.mark_line(persistence.head.number);
        }
        let number = item.job.item.number;
        let memory = item.job.item.held.clone();
        self.record(OutputRecord::Line(FinishedItem { number, line, unsaved, memory }));
        self.items_meter.add(1, Instant::now());
        let (requests, cost) = self.finished_totals;
        self.finished_totals = (requests + result.requests, cost + result.cost());
        self.count_failed(result);
        let error = result.error.as_ref().map(|(step, failure)| (step, failure));
        let took = item.started.elapsed();
        record_item_end(item.job.span.own(), result);
        self.stats.count_item(result.status, error, took);
        self.metrics.count_item(result.status, took, result.restored_answers());
        self.metrics.count_cache_hits(result.cached_answers());
    }

    /// Starts an item again, once, whose actor died before the item finished.
    pub(super) fn restart_or_fail(
        &mut self,
        exited: ChildExited,
        state: EventState,
        ctx: &mut Context<Self>,
    ) {
        let (ChildExited { id, exit, .. }, ()) =
            self.inbox.keep_on_panic(Event::ItemExited, exited, state, |_| chaos::point("run.exited"));
        let Some(item) = self.in_flight.remove(&id.0) else { return };
        let key = &item.job.item.key;
        let incarnation = item.incarnation;
        warn!(
            run = self.number(),
            pipeline = self.pipeline.name(),
            item = %key,
            ?exit,
            incarnation,
            "the actor of an item died before the item finished"
        );
        self.stats.count_lost(1);
        if item.incarnation == 1 {
            return self.start_item(item.job, item.started, 2, ctx);
        }
        let message = format!("the actor of the item died twice, last: {exit:?}");
        let failure = Failure::new(Class::Internal, message).maybe_charged();
        let result = ItemResult::died(&item.job, failure, item.started.elapsed());
        let line = Box::new(output_line::line(&item.job, &result, self.needs_item()));
        self.record_result(&item, &result, line);
    }

    /// Ends the span of the run: the report may be sent long before this actor is dropped.
    fn end_span(&mut self, report: &Report) {
        let span = std::mem::replace(&mut self.span, Span::none());
        if span.is_disabled() {
            return;
        }
        span.record(span_fields::RUN_OUTCOME, report.outcome.as_str());
        span.record(span_fields::RUN_ITEMS, report.items.finished());
        if let Some(class) = report.paused_class {
            record_error(&span, class.as_str());
        } else if report.outcome == RunOutcome::IoFailed {
            record_error(&span, report.outcome.as_str());
        }
    }

    /// Sends the report and stops, if the output has ended.
    pub(super) fn report_end(&mut self, ctx: &mut Context<Self>) {
        let Some(output) = &self.output else { return };
        // Before the report is sent, which may be long before this actor is dropped.
        self.logged_hold = None;
        self.stats.items.unwritten = output.unwritten;
        self.stats.items.add_finished_before(output.rewritten);
        if let Some(persistence) = &self.persistence {
            self.stats.cache = persistence.cache.counts.totals();
        }
        let mut report = self.stats.report(self.pipeline.name(), self.outcome, self.started.elapsed());
        // Attempts of requests that were broken off have ended too, and progress has counted them.
        report.calls = self.calls(self.counts.snapshot());
        report.output_error = output.error.clone();
        report.output_closed = output.output_closed;
        if let Some(InputError { message, advice }) = self.input_error.clone() {
            report.input_error = Some(message);
            report.input_advice = advice;
        }
        report.unreplaced_output = output.kept_file.clone();
        report.caps = self.budgets.caps();
        report.uncertain_cost_usd = self.budgets.uncertain_cost_usd();
        report.paused = self.paused.as_ref().map(|why| why.message.to_string());
        report.paused_class = self.paused.as_ref().map(|why| why.class);
        if let Some(last_failure) = &self.last_counted_failure {
            // Items that were in flight may have failed since.
            report.paused = Some(format!("{}; {last_failure}", self.failure_limit.message()));
            report.max_failures_reached = true;
        }
        report.run = self.persistence.as_ref().map(|persistence| persistence.run);
        report.stored = report.run.is_some();
        report.unsaved = output.unsaved;
        report.store_error = self.store_failure.as_ref().map(ToString::to_string);
        if report.outcome == RunOutcome::Interrupted && self.has_processed_input() && output.unwritten == 0 {
            // It was stopped when nothing was left to start, and all started items have finished.
            report.outcome = RunOutcome::Completed;
        }
        let is_budget_pause = report.paused_class == Some(Class::Budget);
        if report.outcome == RunOutcome::Paused
            && !is_budget_pause
            && self.has_processed_input()
            && output.unwritten == 0
        {
            // It paused when the last item had ended.
            report.outcome = RunOutcome::Completed;
            report.paused = None;
            report.paused_class = None;
            report.max_failures_reached = false;
        }
        if report.outcome == RunOutcome::Completed {
            let known_items =
                self.persistence.as_ref().map(|persistence| persistence.known_items).unwrap_or_default();
            report.items.missing_from_input = known_items.saturating_sub(self.known_items_seen);
        }
        // If only failed items are processed again, every other item keeps its line, however far the input was
        // read.
        let is_retry =
            self.persistence.as_ref().is_some_and(|persistence| persistence.retry_classes.is_some());
        report.unprocessed = (report.outcome != RunOutcome::Completed && !is_retry)
            .then(|| Unprocessed::after(self.entries, self.input_read, self.input_total.get()));
        self.end_span(&report);
        self.publish_progress();
        chaos::point("run.ends");
        if let Some(report_sender) = self.report.take() {
            // The receiver is gone if the caller does not wait for the report.
            drop(report_sender.send(report));
        }
        ctx.stop();
    }
}

/// Records how an item ended in its span.
fn record_item_end(span: &Span, result: &ItemResult) {
    if span.is_disabled() {
        return;
    }
    span.record(span_fields::ITEM_STATUS, result.status.as_str());
    if let Some((_, failure)) = &result.error {
        record_error(span, failure.class.as_str());
    }
}
