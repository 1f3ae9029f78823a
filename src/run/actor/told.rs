//! What a run does when it is told something: notes it, and goes on.
//!
//! Each handler notes first. What may panic comes after it, and is done again by the next life or at the
//! next tick.

use actix::prelude::*;
use tracing::debug;

use super::{Paper, Run};
use crate::run::messages::{
    Arrived, Cancel, ItemLeft, ItemSettled, LedgerBroken, OutputBroken, OutputEnded, SourceEnded, StepAsked,
    StopIntake, Watched, Written,
};
use crate::run::report::Ended;
use crate::supervisor::{ChildExited, Stop};
use crate::types::Class;

impl Handler<Arrived> for Run {
    type Result = ();

    fn handle(&mut self, arrived: Arrived, ctx: &mut Self::Context) {
        self.owed = self.owed.saturating_sub(arrived.entries.len());
        let papers = arrived.entries.into_iter().map(|(entry, known)| Paper::Entry(entry, known));
        papers.for_each(|paper| self.desk.lay(paper));
        if self.wanted.is_some() || self.ended == Ended::Whole {
            // What comes after the run was stopped is not begun.
            self.input_read = arrived.input_read;
        }
        self.work(ctx);
    }
}

impl Handler<SourceEnded> for Run {
    type Result = ();

    fn handle(&mut self, source: SourceEnded, ctx: &mut Self::Context) {
        // One that was told to stop has not begun all that it was brought last.
        if self.wanted.is_some() {
            self.input_read = Some(1.0);
            self.input_ended = source.error.is_none();
        }
        let ended = if source.error.is_some() { Ended::Broken } else { Ended::Whole };
        self.input_error = source.error;
        self.stop_intake(ended);
        self.work(ctx);
    }
}

impl Handler<StepAsked> for Run {
    type Result = ();

    fn handle(&mut self, asked: StepAsked, ctx: &mut Self::Context) {
        self.desk.lay(Paper::Asked(asked));
        self.work(ctx);
    }
}

impl Handler<ItemSettled> for Run {
    type Result = ();

    fn handle(&mut self, settled: ItemSettled, ctx: &mut Self::Context) {
        self.desk.lay(Paper::Settled(settled));
        self.work(ctx);
    }
}

impl Handler<ItemLeft> for Run {
    type Result = ();

    /// Whatever else is asked would be left, too: those whose calls are out are the last.
    fn handle(&mut self, ItemLeft { id, why }: ItemLeft, ctx: &mut Self::Context) {
        let was_in_flight = self.in_flight.remove(&id.0).is_some();
        if why.class == Class::Budget {
            self.tally.items.paused += u64::from(was_in_flight);
            self.paused.get_or_insert(*why);
            self.stop_intake(Ended::Paused);
        } else {
            debug!(%why, "an item is left for later");
            let items = &mut self.tally.items;
            let left = if self.ended == Ended::Paused { &mut items.paused } else { &mut items.unfinished };
            *left += u64::from(was_in_flight);
            self.stop_intake(Ended::Interrupted);
        }
        self.work(ctx);
    }
}

impl Handler<ChildExited> for Run {
    type Result = ();

    fn handle(&mut self, exited: ChildExited, ctx: &mut Self::Context) {
        self.desk.lay(Paper::Exited(exited));
        self.work(ctx);
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

impl Handler<LedgerBroken> for Run {
    type Result = ();

    /// Nothing more is asked, and what is in flight is given up: nobody could keep its answers.
    fn handle(&mut self, LedgerBroken(unkept): LedgerBroken, _: &mut Self::Context) {
        self.unkept.get_or_insert(unkept);
        self.stop_intake(Ended::Broken);
        self.give_up();
    }
}

impl Handler<OutputEnded> for Run {
    type Result = ();

    fn handle(&mut self, output: OutputEnded, ctx: &mut Self::Context) {
        if output.error.is_some() || output.reader_gone {
            self.stop_intake(Ended::Broken);
        }
        self.output = Some(output);
        self.end(ctx);
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

impl Handler<Watched> for Run {
    type Result = ();

    /// The first snapshot comes with the next tick: at once there would be nothing to see.
    fn handle(&mut self, _: Watched, ctx: &mut Self::Context) {
        self.tick_later(ctx);
    }
}

impl Handler<Cancel> for Run {
    type Result = ();

    fn handle(&mut self, _: Cancel, _: &mut Self::Context) {
        self.stop_intake(Ended::Interrupted);
        self.give_up();
    }
}
