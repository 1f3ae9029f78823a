//! How items end, and the run itself: each line is handed on before anything else is done about it.

use actix::prelude::*;
use tokio::time::Instant;
use tracing::warn;

use super::{InFlight, Paper, Run};
use crate::chaos;
use crate::run::line;
use crate::run::report::{Ended, NotBegun};
use crate::run::walked::Walked;
use crate::run::writer::Record;
use crate::sink::Line;
use crate::supervisor::ChildExited;
use crate::types::{Class, Failure};

impl Run {
    /// Hands on the line of the item that has walked to its end; without a line it was settled before.
    pub(super) fn walked(&mut self, line: Option<Box<Line>>) {
        let (Some(Paper::Settled(settled)), Some(line)) = (self.desk.take(), line) else { return };
        if let Some(item) = self.in_flight.remove(&settled.id.0) {
            self.settle(&item, &settled.walked, line);
        }
    }

    /// Hands on the line first: what comes after it may panic and cost no more than a count.
    fn settle(&mut self, item: &InFlight, walked: &Walked, line: Box<Line>) {
        let kept = item.job.kept.as_ref().map(|kept| Box::new(kept.settlement(&item.job, walked, item.life)));
        if let Some(kept) = &item.job.kept {
            kept.keeping.has_line(kept.head.number);
        }
        self.record(Record::Line(item.job.item.number, line, kept, item.job.item.held.clone()));
        self.items_met.add(1, Instant::now());
        let (questions, cost) = self.of_ended;
        self.of_ended = (questions + walked.questions, cost + walked.cost());
        let settled = &walked.settled;
        self.count_failure(settled);
        let error = settled.error.as_ref().map(|(step, failure)| (step, failure));
        self.tally.settled(settled.status, error, item.started.elapsed());
    }

    /// An item whose actor died before it settled gets one second life.
    pub(super) fn exited(&mut self, ctx: &mut Context<Self>) {
        let Some(Paper::Exited(ChildExited { id, exit, .. })) = self.desk.take() else { return };
        let Some(item) = self.in_flight.remove(&id.0) else { return };
        let key = &item.job.item.key;
        warn!(item = %key, ?exit, life = item.life, "the actor of an item died before the item was settled");
        self.tally.lost(1);
        if item.life == 1 {
            return self.begin(item.job, item.started, 2, ctx);
        }
        let message = format!("the actor of the item died twice, at last: {exit:?}");
        let failure = Failure::new(Class::Internal, message).maybe_charged();
        let walked = Walked::died(&item.job, failure, item.started.elapsed());
        let line = Box::new(line::line(&item.job, &walked));
        self.settle(&item, &walked, line);
    }

    /// Tells how it went and stops, if its output has ended.
    pub(super) fn end(&mut self, ctx: &mut Context<Self>) {
        let Some(output) = &self.output else { return };
        self.tally.items.unwritten = output.unwritten;
        self.tally.items.add_settled_before(output.rest);
        let mut report = self.tally.report(self.pipeline.name(), self.ended, self.started.elapsed());
        // Calls of questions that were broken off have ended, too, and progress has counted them.
        report.calls = self.calls(self.counts.so_far());
        (report.output_error, report.reader_gone) = (output.error.clone(), output.reader_gone);
        report.input_error = self.input_error.clone();
        report.output_left_before = output.left_before.clone();
        (report.caps, report.perhaps_cost_usd) = (self.purses.caps(), self.purses.perhaps_usd());
        report.paused = self.paused.as_ref().map(|why| why.message.to_string());
        report.paused_class = self.paused.as_ref().map(|why| why.class);
        report.kept = self.keeping.is_some();
        report.unkept = output.unkept;
        report.store_error = self.unkept.as_ref().map(ToString::to_string);
        if report.ended == Ended::Interrupted && self.has_dealt_with_all() && output.unwritten == 0 {
            // It was told to stop when there was nothing left to begin, and what was begun is done.
            report.ended = Ended::Whole;
        }
        let is_of_money = report.paused_class == Some(Class::Budget);
        if report.ended == Ended::Paused && !is_of_money && self.has_dealt_with_all() && output.unwritten == 0
        {
            // It paused when the last item had ended.
            report.ended = Ended::Whole;
            (report.paused, report.paused_class) = (None, None);
        }
        if report.ended == Ended::Whole {
            let had = self.keeping.as_ref().map(|keeping| keeping.had).unwrap_or_default();
            report.items.gone = had.saturating_sub(self.met_again);
        }
        // Where failed items are asked again every other item keeps its line, however far the input was read.
        let is_retry = self.keeping.as_ref().is_some_and(|keeping| keeping.retry.is_some());
        report.not_begun = (report.ended != Ended::Whole && !is_retry)
            .then(|| NotBegun::after(self.pieces, self.input_read));
        self.tell();
        chaos::point("run.ends");
        if let Some(asker) = self.report.take() {
            // Whoever does not wait for the report does not want it.
            drop(asker.send(report));
        }
        ctx.stop();
    }
}
