//! Describes a child: how it is made, where it lives, what it is granted.
//!
//! The actor's type is erased here, so that one supervisor holds children of every kind.
//! Nothing here decides when a life begins or ends.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ArbiterHandle, Context, Handler, Message, Supervised};
use tokio::time::Instant;

use super::exit::ExitGuard;
use super::in_place::Kept;
use super::restart::{Policy, Restart};
use super::slot::Slot;
use super::spawn::{Abort, Monitored, begin_life};

/// Time a child has to stop when nothing else was said.
const GRACE: Duration = Duration::from_secs(5);

/// The longest grace: adding more to the present instant could overflow.
const LONGEST_GRACE: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// Asks a child to finish what it has begun and stop. Whoever has not stopped by then is aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// When the child is aborted.
    pub by: Instant,
}

impl Message for Stop {
    type Result = ();
}

/// What happens to a child that used up its restarts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WhenExhausted {
    /// It stays down and is shown so; the others go on. `RestartChild` brings it back.
    MarkDown,
    /// It stays down and the owner of the supervisor is told, because nothing can go on without it.
    #[default]
    Escalate,
}

/// All that a supervisor needs to know about a child.
pub struct ChildSpec {
    pub(super) name: Arc<str>,
    pub(super) restart: Restart,
    pub(super) policy: Policy,
    pub(super) when_exhausted: WhenExhausted,
    pub(super) grace: Duration,
    pub(super) place: Place,
    /// Why it is not restarted by name, as advice; `None` where it may be.
    pub(super) never_by_name: Option<&'static str>,
    pub(super) lives: Box<dyn Lives>,
}

impl ChildSpec {
    /// Describes a child that gets a new actor, mailbox and address with each life.
    ///
    /// `make` is called once per life, on the arbiter of that life. What is to outlive the actor, it captures.
    pub fn new<A>(
        name: impl Into<Arc<str>>,
        slot: Slot<A>,
        make: impl Fn(&mut Context<A>) -> A + Send + Sync + 'static,
    ) -> Self
    where
        A: Actor<Context = Context<A>> + Handler<Stop>,
    {
        Self::of(name.into(), Box::new(Anew { make: Arc::new(make), slot, present: None }))
    }

    /// Describes a child that keeps its address and its queued messages when it panics or stops.
    ///
    /// `Supervised::restarting` must replace all of the actor's state, as `*self = Self::fresh(..)` does;
    /// whatever it leaves is what the panic left. `make` is called again, and the address changes, only when
    /// the child was aborted or its arbiter died.
    pub fn in_place<A>(
        name: impl Into<Arc<str>>,
        slot: Slot<A>,
        make: impl Fn(&mut Context<A>) -> A + Send + Sync + 'static,
    ) -> Self
    where
        A: Actor<Context = Context<A>> + Supervised + Handler<Stop>,
    {
        Self::of(name.into(), Box::new(Kept::new(Arc::new(make), slot)))
    }

    fn of(name: Arc<str>, lives: Box<dyn Lives>) -> Self {
        Self {
            name,
            restart: Restart::default(),
            policy: Policy::default(),
            when_exhausted: WhenExhausted::default(),
            grace: GRACE,
            place: Place(Vec::new()),
            never_by_name: None,
            lives,
        }
    }

    /// Puts each life on the first of these arbiters that is alive; without, on the supervisor's own.
    #[must_use]
    pub fn on(mut self, arbiters: impl IntoIterator<Item = ArbiterHandle>) -> Self {
        self.place = Place(arbiters.into_iter().collect());
        self
    }

    /// Chooses which ends are answered with a restart. A child whose end is not, is removed.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// Grants restarts and sets the pauses before them.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Chooses what happens when the restarts are used up.
    #[must_use]
    pub fn when_exhausted(mut self, then: WhenExhausted) -> Self {
        self.when_exhausted = then;
        self
    }

    /// Refuses to restart it by name, and says what to do instead: for a child whose polite stop is its end.
    #[must_use]
    pub fn never_by_name(mut self, advice: &'static str) -> Self {
        self.never_by_name = Some(advice);
        self
    }

    /// Sets the time between a polite `Stop` and the abort, where no drain sets it; 30 years at most.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace.min(LONGEST_GRACE);
        self
    }
}

impl fmt::Debug for ChildSpec {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ChildSpec")
            .field("name", &self.name)
            .field("restart", &self.restart)
            .finish_non_exhaustive()
    }
}

/// Where lives begin. Empty means the supervisor's own arbiter.
pub(super) struct Place(Vec<ArbiterHandle>);

impl Place {
    /// Returns the arbiter of the next life; `None` is the one of this thread.
    pub(super) fn arbiter(&self) -> Option<&ArbiterHandle> {
        // With all of them dead the first is as good: the life ends as killed and counts as a restart.
        self.0.iter().find(|arbiter| arbiter.alive()).or_else(|| self.0.first())
    }
}

/// Makes an actor for a life.
pub(super) type Factory<A> = Arc<dyn Fn(&mut Context<A>) -> A + Send + Sync>;

/// A child of any type.
pub(super) trait Lives: Send {
    /// Begins a life; `guard` reports its end.
    fn begin(&mut self, place: &Place, guard: ExitGuard);
    /// Sends the polite `Stop`.
    fn ask_to_stop(&self, by: Instant);
    /// Ends the present life by force.
    fn abort(&self);
    /// Lets go of a life that has ended; another may follow.
    fn ended(&mut self);
    /// Lets go of everything: no life follows, and one that has not ended is aborted.
    fn retire(&mut self);
}

/// A child that is made anew for each life.
struct Anew<A: Actor<Context = Context<A>>> {
    make: Factory<A>,
    slot: Slot<A>,
    present: Option<Abort>,
}

impl<A: Actor<Context = Context<A>> + Handler<Stop>> Lives for Anew<A> {
    fn begin(&mut self, place: &Place, guard: ExitGuard) {
        self.slot.reopen();
        let make = Arc::clone(&self.make);
        let Monitored { addr, abort } = begin_life(place.arbiter(), guard, move |ctx| make(ctx));
        self.slot.set(addr);
        self.present = Some(abort);
    }

    fn ask_to_stop(&self, by: Instant) {
        if let Some(addr) = self.slot.shared() {
            addr.do_send(Stop { by });
        }
    }

    fn abort(&self) {
        if let Some(present) = &self.present {
            present.abort();
        }
    }

    fn ended(&mut self) {
        self.slot.clear();
        self.present = None;
    }

    fn retire(&mut self) {
        self.abort();
        self.present = None;
        self.slot.retire();
    }
}
