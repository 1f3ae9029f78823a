//! Panic isolation: catches every panic of an actor.
//!
//! Panics are caught directly around the actor's future. Around an `async` block that owns the future it
//! would be too late: unwinding drops the block's locals, the drop runs `stopped()`, and a second panic
//! there aborts the process. So polling, stopping and dropping are three steps, and each catches panics.
//! Restarts and reports are elsewhere.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{self, Poll, Waker};

use actix::dev::ContextFut;
use actix::dev::channel::AddressReceiver;
use actix::{Actor, ActorContext, ActorState, Context, Supervised};

use super::exit::{Exit, panic_text};

/// An actor's future whose panics are returned as values.
pub(super) struct IsolatedActor<A: Actor<Context = Context<A>>> {
    future: Option<ContextFut<A, Context<A>>>,
    started: bool,
}

impl<A: Actor<Context = Context<A>>> IsolatedActor<A> {
    /// Creates the actor. `Err` is the panic of its factory.
    pub(super) fn make(
        mailbox: AddressReceiver<A>,
        factory: impl FnOnce(&mut Context<A>) -> A,
    ) -> Result<Self, Exit> {
        let future = catch_panic(|| {
            let mut ctx = Context::with_receiver(mailbox);
            let actor = factory(&mut ctx);
            ctx.into_future(actor)
        });
        match future {
            Ok(future) => Ok(Self { future: Some(future), started: false }),
            Err(text) => Err(Exit::Panicked(format!("in its factory: {text}"))),
        }
    }

    /// Polls the actor. Ready when it has stopped or panicked; it is not dropped yet.
    pub(super) fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<Exit> {
        let Some(future) = &mut self.future else { return Poll::Ready(Exit::Killed) };
        self.started = true;
        match catch_panic(|| Pin::new(future).poll(cx)) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => Poll::Ready(Exit::Normal),
            Err(text) => Poll::Ready(Exit::Panicked(text)),
        }
    }

    /// Starts another incarnation in the same mailbox: cancels the futures of the context and calls
    /// `restarting()`.
    pub(super) fn restart(&mut self) -> Result<(), Exit>
    where
        A: Supervised,
    {
        match self.future.as_mut().map(|future| catch_panic(|| future.restart())) {
            Some(Ok(true)) => Ok(()),
            // The last address was dropped, which is a normal exit.
            Some(Ok(false)) => Err(Exit::Normal),
            Some(Err(text)) => Err(Exit::Panicked(format!("while restarting: {text}"))),
            None => Err(Exit::Killed),
        }
    }

    /// Stops and drops the actor. Returns how it ended, given how its last poll ended.
    pub(super) fn end(&mut self, exit: Exit) -> Exit {
        let Some(mut future) = self.future.take() else { return exit };
        let stopped = catch_panic(|| {
            // On drop, actix would skip `stopped()` if no address is alive.
            if self.started && future.ctx().state() != ActorState::Stopped {
                future.ctx().stop();
                let _ = Pin::new(&mut future).poll(&mut task::Context::from_waker(Waker::noop()));
            }
        });
        // Without this call the drop would poll again: `started()` for an actor that never started, or
        // `stopped()` a second time.
        future.ctx().terminate();
        let dropped = catch_panic(|| drop(future));
        match (exit, stopped.and(dropped)) {
            (Exit::Normal, Err(text)) => Exit::Panicked(format!("while stopping: {text}")),
            (exit, _) => exit,
        }
    }
}

impl<A: Actor<Context = Context<A>>> Drop for IsolatedActor<A> {
    fn drop(&mut self) {
        self.end(Exit::Killed);
    }
}

/// Runs `work` and returns its panic as text.
fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // After its panic an actor is only stopped, dropped or reset, so a broken invariant in it is not
    // observed.
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| panic_text(&*payload))
}
