//! Starts an actor whose end is reported.
//!
//! One task, no box around the actor's future: cheap enough for an actor per item.
//! Nothing here decides what follows an end.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use actix::dev::channel::{AddressReceiver, channel};
use actix::{Actor, Addr, ArbiterHandle, Context, Recipient};
use futures_util::future::{AbortHandle, AbortRegistration, Abortable};

use super::contain::Contained;
use super::exit::{ChildExited, ChildId, ExitGuard};

/// What actix itself gives a mailbox. It bounds nothing (cloned addresses bypass it).
const MAILBOX: usize = 16;

/// A started actor.
#[derive(Debug)]
pub struct Monitored<A: Actor> {
    /// Its address in this life.
    pub addr: Addr<A>,
    /// Ends this life by force.
    pub abort: Abort,
}

/// Ends one life by force, from any thread. It may be called more than once; dropping it does nothing.
///
/// The actor is dropped where it next would have been polled: `stopped()` runs, senders see their mailbox
/// closed, and the report says [`Exit::Killed`](super::Exit::Killed). An actor that *blocks* its thread cannot be ended.
#[derive(Debug, Clone)]
pub struct Abort(How);

#[derive(Debug, Clone)]
enum How {
    /// The task was spawned on this thread, so its own handle is at hand and costs nothing.
    Task(tokio::task::AbortHandle),
    /// The task is spawned later, on another thread.
    Flag(AbortHandle),
}

impl Abort {
    /// Ends the life.
    pub fn abort(&self) {
        match &self.0 {
            How::Task(task) => task.abort(),
            How::Flag(flag) => flag.abort(),
        }
    }
}

/// Starts an actor on `arbiter`; `to` gets exactly one [`ChildExited`] when this life ends for any reason.
///
/// The factory runs on the arbiter; its panic is an exit too. If the arbiter is dead the exit is
/// [`Exit::Killed`](super::Exit::Killed) and the address closed.
pub fn spawn_monitored<A, F>(
    arbiter: &ArbiterHandle,
    id: ChildId,
    life: u64,
    to: Recipient<ChildExited>,
    make: F,
) -> Monitored<A>
where
    A: Actor<Context = Context<A>>,
    F: FnOnce(&mut Context<A>) -> A + Send + 'static,
{
    begin_life(Some(arbiter), ExitGuard::new(to, id, life), make)
}

/// Starts an actor on the arbiter of this thread, as [`spawn_monitored`] does but without the detour
/// through the arbiter's queue: the way for many short-lived actors.
///
/// The factory runs at once and need not be `Send`.
///
/// # Panics
///
/// If this thread is no arbiter.
pub fn spawn_monitored_here<A, F>(id: ChildId, life: u64, to: Recipient<ChildExited>, make: F) -> Monitored<A>
where
    A: Actor<Context = Context<A>>,
    F: FnOnce(&mut Context<A>) -> A,
{
    let guard = ExitGuard::new(to, id, life);
    run_here(guard, move |mailbox, guard| Life::begin(mailbox, guard, make))
}

/// Begins a life whose guard exists already; without an arbiter, on this thread's.
pub(super) fn begin_life<A, F>(arbiter: Option<&ArbiterHandle>, guard: ExitGuard, make: F) -> Monitored<A>
where
    A: Actor<Context = Context<A>>,
    F: FnOnce(&mut Context<A>) -> A + Send + 'static,
{
    let begin = move |mailbox, guard| Life::begin(mailbox, guard, make);
    match arbiter {
        Some(arbiter) => send_to(arbiter, guard, begin),
        None => run_here(guard, begin),
    }
}

/// Starts on `arbiter` the task that `begin` makes.
pub(super) fn send_to<A, T>(
    arbiter: &ArbiterHandle,
    guard: ExitGuard,
    begin: impl FnOnce(AddressReceiver<A>, ExitGuard) -> T + Send + 'static,
) -> Monitored<A>
where
    A: Actor,
    T: Future<Output = ()> + 'static,
{
    let (sender, mailbox) = channel(MAILBOX);
    let (flag, registration) = AbortHandle::new_pair();
    // A tuple drops from first to last: the mailbox closes before the end is reported.
    let belongings = (mailbox, guard);
    arbiter.spawn_fn(move || {
        let (mailbox, guard) = belongings;
        run_abortable(registration, move || begin(mailbox, guard));
    });
    Monitored { addr: Addr::new(sender), abort: Abort(How::Flag(flag)) }
}

fn run_abortable<T: Future<Output = ()> + 'static>(
    registration: AbortRegistration,
    begin: impl FnOnce() -> T,
) {
    // An actor that was aborted on its way here is not made at all.
    if !registration.handle().is_aborted() {
        actix_rt::spawn(Abortable::new(begin(), registration));
    }
}

/// Starts on this thread the task that `begin` makes.
pub(super) fn run_here<A, T>(
    guard: ExitGuard,
    begin: impl FnOnce(AddressReceiver<A>, ExitGuard) -> T,
) -> Monitored<A>
where
    A: Actor,
    T: Future<Output = ()> + 'static,
{
    let (sender, mailbox) = channel(MAILBOX);
    let task = actix_rt::spawn(begin(mailbox, guard));
    Monitored { addr: Addr::new(sender), abort: Abort(How::Task(task.abort_handle())) }
}

/// Drives one life of an actor and reports its end.
struct Life<A: Actor<Context = Context<A>>> {
    // Before the guard: what is left of the actor is dropped before its end is reported.
    actor: Option<Contained<A>>,
    guard: Option<ExitGuard>,
}

impl<A: Actor<Context = Context<A>>> Life<A> {
    fn begin(mailbox: AddressReceiver<A>, guard: ExitGuard, make: impl FnOnce(&mut Context<A>) -> A) -> Self {
        match Contained::make(mailbox, make) {
            Ok(actor) => Self { actor: Some(actor), guard: Some(guard) },
            Err(exit) => {
                guard.report(exit);
                Self { actor: None, guard: None }
            }
        }
    }
}

impl<A: Actor<Context = Context<A>>> Future for Life<A> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Some(actor) = &mut this.actor else { return Poll::Ready(()) };
        let Poll::Ready(exit) = actor.poll(cx) else { return Poll::Pending };
        let exit = actor.end(exit);
        if let Some(guard) = this.guard.take() {
            guard.report(exit);
        }
        Poll::Ready(())
    }
}
