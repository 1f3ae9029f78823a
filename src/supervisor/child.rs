//! Specification of a child: how it is made, on which arbiter it runs, and its restart policy.
//!
//! The actor's type is erased here, so that one supervisor holds children of every type.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ArbiterHandle, Context, Handler, Supervised};
use tokio::time::Instant;

use super::child_runtime::{ArbiterList, ChildRuntime, Factory, Stop};
use super::exit::ExitGuard;
use super::in_place::RestartInPlace;
use super::restart::{Restart, RestartPolicy};
use super::slot::Slot;
use super::spawn::{Abort, Monitored, spawn_incarnation};

/// Time in which a child must stop unless the specification sets another.
const DEFAULT_GRACE: Duration = Duration::from_secs(5);

/// Upper bound of the grace: adding more to an instant could overflow.
const MAX_GRACE: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// What happens to a child that has exhausted its restarts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WhenExhausted {
    /// It stays down and is reported as such; the other children continue. `RestartChild` restarts it.
    MarkDown,
    /// It stays down and the owner of the supervisor is notified, because the process cannot continue
    /// without it.
    #[default]
    Escalate,
}

/// Specification of a child.
pub struct ChildSpec {
    pub(super) name: Arc<str>,
    pub(super) restart: Restart,
    pub(super) policy: RestartPolicy,
    pub(super) when_exhausted: WhenExhausted,
    pub(super) grace: Duration,
    pub(super) arbiters: ArbiterList,
    /// Whether a drain stops it after all children without this mark.
    pub(super) drained_last: bool,
    /// Advice if it cannot be restarted by name; `None` if it can.
    pub(super) manual_restart_advice: Option<&'static str>,
    pub(super) runtime: Box<dyn ChildRuntime>,
}

impl ChildSpec {
    /// Describes a child that gets a new actor, mailbox and address with each incarnation.
    ///
    /// `make` is called once per incarnation, on its arbiter. It captures whatever must outlive the actor.
    pub fn new<A>(
        name: impl Into<Arc<str>>,
        slot: Slot<A>,
        make: impl Fn(&mut Context<A>) -> A + Send + Sync + 'static,
    ) -> Self
    where
        A: Actor<Context = Context<A>> + Handler<Stop>,
    {
        Self::with_runtime(name.into(), Box::new(Respawn { make: Arc::new(make), slot, current: None }))
    }

    /// Describes a child that keeps its address and its queued messages when it panics or stops.
    ///
    /// `Supervised::restarting` must replace all of the actor's state, as `*self = Self::fresh(..)` does;
    /// any state that it keeps is as the panic left it. `make` is called again, and the address changes,
    /// only if the child was aborted or its arbiter died.
    pub fn in_place<A>(
        name: impl Into<Arc<str>>,
        slot: Slot<A>,
        make: impl Fn(&mut Context<A>) -> A + Send + Sync + 'static,
    ) -> Self
    where
        A: Actor<Context = Context<A>> + Supervised + Handler<Stop>,
    {
        Self::with_runtime(name.into(), Box::new(RestartInPlace::new(Arc::new(make), slot)))
    }

    fn with_runtime(name: Arc<str>, runtime: Box<dyn ChildRuntime>) -> Self {
        Self {
            name,
            restart: Restart::default(),
            policy: RestartPolicy::default(),
            when_exhausted: WhenExhausted::default(),
            grace: DEFAULT_GRACE,
            arbiters: ArbiterList(Vec::new()),
            drained_last: false,
            manual_restart_advice: None,
            runtime,
        }
    }

    /// Runs each incarnation on the first of these arbiters that is alive; by default on the supervisor's
    /// own.
    #[must_use]
    pub fn on(mut self, arbiters: impl IntoIterator<Item = ArbiterHandle>) -> Self {
        self.arbiters = ArbiterList(arbiters.into_iter().collect());
        self
    }

    /// Sets which exits cause a restart. A child whose exit does not is removed.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// Sets the restart limit and the back-off.
    #[must_use]
    pub fn policy(mut self, policy: RestartPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets what happens when the restarts are exhausted.
    #[must_use]
    pub fn when_exhausted(mut self, then: WhenExhausted) -> Self {
        self.when_exhausted = then;
        self
    }

    /// Lets a drain stop it after all children without this mark, whenever it was started.
    #[must_use]
    pub fn drained_last(mut self) -> Self {
        self.drained_last = true;
        self
    }

    /// Rejects restarts by name with this advice: for a child that must not run again after a graceful
    /// stop.
    #[must_use]
    pub fn without_manual_restart(mut self, advice: &'static str) -> Self {
        self.manual_restart_advice = Some(advice);
        self
    }

    /// Sets the time between a graceful `Stop` and the abort, where no drain sets it; 30 years at most.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace.min(MAX_GRACE);
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

/// A child that is created again for each incarnation.
struct Respawn<A: Actor<Context = Context<A>>> {
    make: Factory<A>,
    slot: Slot<A>,
    current: Option<Abort>,
}

impl<A: Actor<Context = Context<A>> + Handler<Stop>> ChildRuntime for Respawn<A> {
    fn start(&mut self, arbiters: &ArbiterList, guard: ExitGuard) {
        self.slot.reopen();
        let make = Arc::clone(&self.make);
        let Monitored { addr, abort } = spawn_incarnation(arbiters.select(), guard, move |ctx| make(ctx));
        self.slot.set(addr);
        self.current = Some(abort);
    }

    fn request_stop(&self, by: Instant) {
        if let Some(addr) = self.slot.shared() {
            addr.do_send(Stop { by });
        }
    }

    fn abort(&self) {
        if let Some(current) = &self.current {
            current.abort();
        }
    }

    fn on_exit(&mut self) {
        self.slot.clear();
        self.current = None;
    }

    fn retire(&mut self) {
        self.abort();
        self.current = None;
        self.slot.retire();
    }
}
