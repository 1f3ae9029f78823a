//! Drives an actor whose mailbox survives its panics.
//!
//! After an exit the task keeps the mailbox and waits for permission to restart, which arrives as the guard
//! of the next incarnation; so a permission that is never used is reported as an exit, too. Messages that
//! were queued behind the panic stay in the mailbox. The message that caused the panic is gone; broken
//! *state* is not, unless `Supervised::restarting` replaces it. The task never decides about restarts, and
//! its mailbox does not survive the death of its arbiter.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};

use actix::dev::channel::AddressReceiver;
use actix::{Actor, Context, Handler, Supervised};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use super::child_runtime::{ArbiterList, ChildRuntime, Factory, Stop};
use super::exit::ExitGuard;
use super::panic_isolation::IsolatedActor;
use super::slot::Slot;
use super::spawn::{Abort, Monitored, spawn_here, spawn_on};

/// A child that keeps its mailbox across incarnations.
pub(super) struct RestartInPlace<A: Actor<Context = Context<A>>> {
    make: Factory<A>,
    slot: Slot<A>,
    task: Option<MailboxTask>,
}

/// The task that holds the mailbox.
struct MailboxTask {
    restart_tx: UnboundedSender<ExitGuard>,
    abort: Abort,
}

impl<A: Actor<Context = Context<A>>> RestartInPlace<A> {
    pub(super) fn new(make: Factory<A>, slot: Slot<A>) -> Self {
        Self { make, slot, task: None }
    }

    /// Aborts the task; the next incarnation is a new one.
    fn drop_task(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort.abort();
        }
        self.slot.clear();
    }
}

impl<A: Actor<Context = Context<A>> + Supervised + Handler<Stop>> ChildRuntime for RestartInPlace<A> {
    fn start(&mut self, arbiters: &ArbiterList, guard: ExitGuard) {
        self.slot.reopen();
        if let Some(task) = self.task.as_ref().filter(|task| !task.restart_tx.is_closed()) {
            // If the task ends before it receives the guard, the guard reports the incarnation as killed.
            let _ = task.restart_tx.send(guard);
            return;
        }
        let make = Arc::clone(&self.make);
        let (restart_tx, restart_rx) = unbounded_channel();
        let start = move |mailbox, guard| InPlaceActor::start(mailbox, guard, restart_rx, |ctx| make(ctx));
        let Monitored { addr, abort } = match arbiters.select() {
            Some(arbiter) => spawn_on(arbiter, guard, start),
            None => spawn_here(guard, start),
        };
        self.slot.set(addr);
        self.task = Some(MailboxTask { restart_tx, abort });
    }

    fn request_stop(&self, by: Instant) {
        if let Some(addr) = self.slot.shared() {
            addr.do_send(Stop { by });
        }
    }

    fn abort(&self) {
        if let Some(task) = &self.task {
            task.abort.abort();
        }
    }

    fn on_exit(&mut self) {
        if self.task.as_ref().is_some_and(|task| task.restart_tx.is_closed()) {
            self.drop_task();
        }
    }

    fn retire(&mut self) {
        self.drop_task();
        self.slot.retire();
    }
}

/// Drives all incarnations of an actor in one mailbox.
struct InPlaceActor<A: Actor<Context = Context<A>> + Supervised> {
    // Fields drop in this order: the exit is reported after everything that could restart is gone.
    actor: Option<IsolatedActor<A>>,
    restart_rx: UnboundedReceiver<ExitGuard>,
    // `None` between two incarnations.
    guard: Option<ExitGuard>,
}

impl<A: Actor<Context = Context<A>> + Supervised> InPlaceActor<A> {
    fn start(
        mailbox: AddressReceiver<A>,
        guard: ExitGuard,
        mut restart_rx: UnboundedReceiver<ExitGuard>,
        make: impl FnOnce(&mut Context<A>) -> A,
    ) -> Self {
        match IsolatedActor::make(mailbox, make) {
            Ok(actor) => Self { actor: Some(actor), guard: Some(guard), restart_rx },
            Err(exit) => {
                // Closed before the report, so that the next incarnation does not use this task.
                restart_rx.close();
                guard.report(exit);
                Self { actor: None, guard: None, restart_rx }
            }
        }
    }
}

impl<A: Actor<Context = Context<A>> + Supervised> Future for InPlaceActor<A> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let this = self.get_mut();
        // After a panic in the factory there is no actor to restart: the task ends, and the next
        // incarnation is a new one.
        let Some(actor) = &mut this.actor else { return Poll::Ready(()) };
        loop {
            if this.guard.is_some() {
                let exit = ready!(actor.poll(cx));
                if let Some(guard) = this.guard.take() {
                    guard.report(exit);
                }
            }
            let Some(guard) = ready!(this.restart_rx.poll_recv(cx)) else { return Poll::Ready(()) };
            match actor.restart() {
                Ok(()) => this.guard = Some(guard),
                Err(exit) => guard.report(exit),
            }
        }
    }
}
