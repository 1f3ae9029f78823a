//! Starts an actor whose exit is reported.
//!
//! One task, without a box around the actor's future: cheap enough for one actor per item.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use actix::dev::channel::{AddressReceiver, channel};
use actix::{Actor, Addr, ArbiterHandle, Context, Recipient};
use futures_util::future::{AbortHandle, AbortRegistration, Abortable};

use super::exit::{ChildExited, ChildId, ExitGuard};
use super::panic_isolation::IsolatedActor;

/// The capacity of actix's own mailboxes. It is not a hard bound, because cloned addresses bypass it.
const MAILBOX_CAPACITY: usize = 16;

/// A started actor.
#[derive(Debug)]
pub struct Monitored<A: Actor> {
    /// The address of this incarnation.
    pub addr: Addr<A>,
    /// Aborts this incarnation.
    pub abort: Abort,
}

/// Aborts one incarnation, from any thread. It may be called more than once; dropping it does nothing.
///
/// The actor is dropped when it would be polled next: `stopped()` runs, senders get a closed mailbox, and
/// the report is [`Exit::Killed`](super::Exit::Killed). An actor that *blocks* its thread cannot be
/// aborted.
#[derive(Debug, Clone)]
pub struct Abort(AbortTarget);

#[derive(Debug, Clone)]
enum AbortTarget {
    /// The task was spawned on this thread, so its own handle is available at no cost.
    Task(tokio::task::AbortHandle),
    /// The task is spawned later, on another thread.
    Flag(AbortHandle),
}

impl Abort {
    /// Aborts the incarnation.
    pub fn abort(&self) {
        match &self.0 {
            AbortTarget::Task(task) => task.abort(),
            AbortTarget::Flag(flag) => flag.abort(),
        }
    }
}

/// Starts an actor on `arbiter`; `to` gets exactly one [`ChildExited`] when this incarnation ends for any
/// reason.
///
/// The factory runs on the arbiter; its panic is an exit, too. If the arbiter is dead the exit is
/// [`Exit::Killed`](super::Exit::Killed) and the address is closed.
pub fn spawn_monitored<A, F>(
    arbiter: &ArbiterHandle,
    id: ChildId,
    incarnation: u64,
    to: Recipient<ChildExited>,
    make: F,
) -> Monitored<A>
where
    A: Actor<Context = Context<A>>,
    F: FnOnce(&mut Context<A>) -> A + Send + 'static,
{
    spawn_incarnation(Some(arbiter), ExitGuard::new(to, id, incarnation), make)
}

/// Starts an actor on the arbiter of this thread, as [`spawn_monitored`] does but without the queue of the
/// arbiter; for many short-lived actors.
///
/// The factory runs at once and need not be `Send`.
///
/// # Panics
///
/// If this thread is not an arbiter.
pub fn spawn_monitored_here<A, F>(
    id: ChildId,
    incarnation: u64,
    to: Recipient<ChildExited>,
    make: F,
) -> Monitored<A>
where
    A: Actor<Context = Context<A>>,
    F: FnOnce(&mut Context<A>) -> A,
{
    let guard = ExitGuard::new(to, id, incarnation);
    spawn_here(guard, move |mailbox, guard| Incarnation::start(mailbox, guard, make))
}

/// Starts an incarnation with an existing guard; without an arbiter, on this thread's.
pub(super) fn spawn_incarnation<A, F>(
    arbiter: Option<&ArbiterHandle>,
    guard: ExitGuard,
    make: F,
) -> Monitored<A>
where
    A: Actor<Context = Context<A>>,
    F: FnOnce(&mut Context<A>) -> A + Send + 'static,
{
    let start = move |mailbox, guard| Incarnation::start(mailbox, guard, make);
    match arbiter {
        Some(arbiter) => spawn_on(arbiter, guard, start),
        None => spawn_here(guard, start),
    }
}

/// Starts on `arbiter` the task that `start` makes.
pub(super) fn spawn_on<A, T>(
    arbiter: &ArbiterHandle,
    guard: ExitGuard,
    start: impl FnOnce(AddressReceiver<A>, ExitGuard) -> T + Send + 'static,
) -> Monitored<A>
where
    A: Actor,
    T: Future<Output = ()> + 'static,
{
    let (sender, mailbox) = channel(MAILBOX_CAPACITY);
    let (flag, registration) = AbortHandle::new_pair();
    // A tuple drops from first to last: the mailbox closes before the exit is reported.
    let owned = (mailbox, guard);
    arbiter.spawn_fn(move || {
        let (mailbox, guard) = owned;
        run_abortable(registration, move || start(mailbox, guard));
    });
    Monitored { addr: Addr::new(sender), abort: Abort(AbortTarget::Flag(flag)) }
}

fn run_abortable<T: Future<Output = ()> + 'static>(
    registration: AbortRegistration,
    start: impl FnOnce() -> T,
) {
    // An actor that was aborted before it arrived here is not made at all.
    if !registration.handle().is_aborted() {
        actix_rt::spawn(Abortable::new(start(), registration));
    }
}

/// Starts on this thread the task that `start` makes.
pub(super) fn spawn_here<A, T>(
    guard: ExitGuard,
    start: impl FnOnce(AddressReceiver<A>, ExitGuard) -> T,
) -> Monitored<A>
where
    A: Actor,
    T: Future<Output = ()> + 'static,
{
    let (sender, mailbox) = channel(MAILBOX_CAPACITY);
    let task = actix_rt::spawn(start(mailbox, guard));
    Monitored { addr: Addr::new(sender), abort: Abort(AbortTarget::Task(task.abort_handle())) }
}

/// Drives one incarnation of an actor and reports its exit.
struct Incarnation<A: Actor<Context = Context<A>>> {
    // Declared before the guard, so that the actor is dropped before its exit is reported.
    actor: Option<IsolatedActor<A>>,
    guard: Option<ExitGuard>,
}

impl<A: Actor<Context = Context<A>>> Incarnation<A> {
    fn start(mailbox: AddressReceiver<A>, guard: ExitGuard, make: impl FnOnce(&mut Context<A>) -> A) -> Self {
        match IsolatedActor::make(mailbox, make) {
            Ok(actor) => Self { actor: Some(actor), guard: Some(guard) },
            Err(exit) => {
                guard.report(exit);
                Self { actor: None, guard: None }
            }
        }
    }
}

impl<A: Actor<Context = Context<A>>> Future for Incarnation<A> {
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
