//! Keeps every panic of an actor inside it.
//!
//! The net sits directly on the actor's future. Around an `async` block that owns the future it would come
//! too late: unwinding drops the block's locals, the drop runs `stopped()`, and a second panic in there
//! aborts the process. So polling, stopping and dropping are three steps with a net each.
//! Nothing here restarts or reports.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{self, Poll, Waker};

use actix::dev::ContextFut;
use actix::dev::channel::AddressReceiver;
use actix::{Actor, ActorContext, ActorState, Context, Supervised};

use super::exit::{Exit, panic_text};

/// An actor's future whose panics arrive as values.
pub(super) struct Contained<A: Actor<Context = Context<A>>> {
    future: Option<ContextFut<A, Context<A>>>,
    started: bool,
}

impl<A: Actor<Context = Context<A>>> Contained<A> {
    /// Makes the actor. `Err` is the panic of its factory.
    pub(super) fn make(
        mailbox: AddressReceiver<A>,
        factory: impl FnOnce(&mut Context<A>) -> A,
    ) -> Result<Self, Exit> {
        let future = catch(|| {
            let mut ctx = Context::with_receiver(mailbox);
            let actor = factory(&mut ctx);
            ctx.into_future(actor)
        });
        match future {
            Ok(future) => Ok(Self { future: Some(future), started: false }),
            Err(text) => Err(Exit::Panicked(format!("in its factory: {text}"))),
        }
    }

    /// Lets the actor work. Ready when it has stopped or panicked; it is not dropped yet.
    pub(super) fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<Exit> {
        let Some(future) = &mut self.future else { return Poll::Ready(Exit::Killed) };
        self.started = true;
        match catch(|| Pin::new(future).poll(cx)) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => Poll::Ready(Exit::Normal),
            Err(text) => Poll::Ready(Exit::Panicked(text)),
        }
    }

    /// Begins another life in the same mailbox: cancels the futures of the context and calls `restarting()`.
    pub(super) fn restart(&mut self) -> Result<(), Exit>
    where
        A: Supervised,
    {
        match self.future.as_mut().map(|future| catch(|| future.restart())) {
            Some(Ok(true)) => Ok(()),
            // Nobody holds an address any more: an end like any other whose last address was dropped.
            Some(Ok(false)) => Err(Exit::Normal),
            Some(Err(text)) => Err(Exit::Panicked(format!("while restarting: {text}"))),
            None => Err(Exit::Killed),
        }
    }

    /// Stops and drops what is left of the actor, and returns how it ended given how its last poll did.
    pub(super) fn end(&mut self, exit: Exit) -> Exit {
        let Some(mut future) = self.future.take() else { return exit };
        let stopped = catch(|| {
            // Left to its drop, actix would skip `stopped()` if no address is alive.
            if self.started && future.ctx().state() != ActorState::Stopped {
                future.ctx().stop();
                let _ = Pin::new(&mut future).poll(&mut task::Context::from_waker(Waker::noop()));
            }
        });
        // Without this mark the drop would poll again: `started()` for an actor that never began, or
        // `stopped()` once more.
        future.ctx().terminate();
        let dropped = catch(|| drop(future));
        match (exit, stopped.and(dropped)) {
            (Exit::Normal, Err(text)) => Exit::Panicked(format!("while stopping: {text}")),
            (exit, _) => exit,
        }
    }
}

impl<A: Actor<Context = Context<A>>> Drop for Contained<A> {
    fn drop(&mut self) {
        self.end(Exit::Killed);
    }
}

/// Runs `work` and turns its panic into text.
fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // Nothing of a torn actor is used after its panic except to stop, drop or reset it.
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| panic_text(&*payload))
}
