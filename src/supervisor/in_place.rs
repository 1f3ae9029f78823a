//! Drives an actor whose mailbox outlives its panics.
//!
//! After an end the task keeps the mailbox and waits for the leave to live again, which comes as the guard
//! of the next life; so that also a leave that is never taken up is reported as an end. Messages that were
//! queued behind the panic wait with it. The message that caused the panic is gone; a poisoned *state* is
//! not, unless `Supervised::restarting` replaces it.
//! The task never decides about restarts, and its mailbox never survives the death of its arbiter.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};

use actix::dev::channel::AddressReceiver;
use actix::{Actor, Context, Handler, Supervised};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use super::child::{Factory, Lives, Place, Stop};
use super::contain::Contained;
use super::exit::ExitGuard;
use super::slot::Slot;
use super::spawn::{Abort, Monitored, run_here, send_to};

/// A child that keeps its mailbox from life to life.
pub(super) struct Kept<A: Actor<Context = Context<A>>> {
    make: Factory<A>,
    slot: Slot<A>,
    present: Option<Present>,
}

/// The task that holds the mailbox.
struct Present {
    again: UnboundedSender<ExitGuard>,
    abort: Abort,
}

impl<A: Actor<Context = Context<A>>> Kept<A> {
    pub(super) fn new(make: Factory<A>, slot: Slot<A>) -> Self {
        Self { make, slot, present: None }
    }

    /// Lets go of the task; the next life is made anew.
    fn let_go(&mut self) {
        if let Some(present) = self.present.take() {
            present.abort.abort();
        }
        self.slot.clear();
    }
}

impl<A: Actor<Context = Context<A>> + Supervised + Handler<Stop>> Lives for Kept<A> {
    fn begin(&mut self, place: &Place, guard: ExitGuard) {
        self.slot.reopen();
        if let Some(present) = self.present.as_ref().filter(|present| !present.again.is_closed()) {
            // Should the task end before it takes the guard up, the guard reports the life as killed.
            let _ = present.again.send(guard);
            return;
        }
        let make = Arc::clone(&self.make);
        let (again, granted) = unbounded_channel();
        let begin = move |mailbox, guard| InPlace::begin(mailbox, guard, granted, |ctx| make(ctx));
        let Monitored { addr, abort } = match place.arbiter() {
            Some(arbiter) => send_to(arbiter, guard, begin),
            None => run_here(guard, begin),
        };
        self.slot.set(addr);
        self.present = Some(Present { again, abort });
    }

    fn ask_to_stop(&self, by: Instant) {
        if let Some(addr) = self.slot.shared() {
            addr.do_send(Stop { by });
        }
    }

    fn abort(&self) {
        if let Some(present) = &self.present {
            present.abort.abort();
        }
    }

    fn ended(&mut self) {
        if self.present.as_ref().is_some_and(|present| present.again.is_closed()) {
            self.let_go();
        }
    }

    fn retire(&mut self) {
        self.let_go();
        self.slot.retire();
    }
}

/// Drives all lives of an actor in one mailbox.
struct InPlace<A: Actor<Context = Context<A>> + Supervised> {
    // The order is that of dropping: the end is reported when nothing is left that could live again.
    actor: Option<Contained<A>>,
    again: UnboundedReceiver<ExitGuard>,
    // `None` between two lives.
    guard: Option<ExitGuard>,
}

impl<A: Actor<Context = Context<A>> + Supervised> InPlace<A> {
    fn begin(
        mailbox: AddressReceiver<A>,
        guard: ExitGuard,
        mut again: UnboundedReceiver<ExitGuard>,
        make: impl FnOnce(&mut Context<A>) -> A,
    ) -> Self {
        match Contained::make(mailbox, make) {
            Ok(actor) => Self { actor: Some(actor), guard: Some(guard), again },
            Err(exit) => {
                // Closed before the report, so that the next life does not ask this task for it.
                again.close();
                guard.report(exit);
                Self { actor: None, guard: None, again }
            }
        }
    }
}

impl<A: Actor<Context = Context<A>> + Supervised> Future for InPlace<A> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let this = self.get_mut();
        // A factory that panicked left no actor to restart: the task ends, and the next life begins anew.
        let Some(actor) = &mut this.actor else { return Poll::Ready(()) };
        loop {
            if this.guard.is_some() {
                let exit = ready!(actor.poll(cx));
                if let Some(guard) = this.guard.take() {
                    guard.report(exit);
                }
            }
            let Some(guard) = ready!(this.again.poll_recv(cx)) else { return Poll::Ready(()) };
            match actor.restart() {
                Ok(()) => this.guard = Some(guard),
                Err(exit) => guard.report(exit),
            }
        }
    }
}
