//! The actor that starts, watches, restarts and drains its children.
//!
//! It sends messages and schedules ticks; [`RestartTracker`](super::RestartTracker) decides. Ticks are
//! tasks of their own, so that a thousand children in back-off do not make each message slower.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::time::Instant;
use tracing::{debug, error, warn};

use crate::chaos;

use super::child::WhenExhausted;
use super::deferred::{Deferred, Responder};
use super::entry::{AfterStop, ChildEntry, ChildStatus, Phase, respond_all};
use super::error::Error;
use super::exit::{ChildExited, ChildId, Exit};
use super::messages::{Children, Drain, Drained, RestartChild, RestartsExhausted, Start, StopChild};
use super::restart::Decision;
use super::restart_counts::RestartCounts;

/// How long an aborted child may take to end. Only a child that blocks its thread takes longer.
const MAX_ABORT_DURATION: Duration = Duration::from_millis(500);

/// Starts, watches, restarts and drains its children, one for one.
///
/// It runs as long as its arbiter or any of its children, which hold its address for their reports; to end
/// it, [`Drain`] it and drop its address. If it ends otherwise, its children are aborted.
pub struct Supervisor {
    owner: Recipient<RestartsExhausted>,
    /// In the order of their start, which is also the order of their ids.
    children: Vec<ChildEntry>,
    next_id: u64,
    draining: Option<Draining>,
    restart_counts: Arc<RestartCounts>,
}

struct Draining {
    by: Instant,
    current: Option<ChildId>,
    killed: usize,
    responders: Vec<Responder<Drained>>,
}

/// A timer to itself about one incarnation of a child.
struct Tick {
    id: ChildId,
    incarnation: u64,
    kind: TickKind,
}

#[derive(Debug, Clone, Copy)]
enum TickKind {
    /// The back-off before a restart is over.
    Restart,
    /// The grace of a stop is over.
    Abort,
    /// An aborted child has not ended.
    Abandon,
}

impl Message for Tick {
    type Result = ();
}

impl Supervisor {
    /// Creates a supervisor without children; `owner` is notified of children without which the process
    /// cannot continue.
    pub fn new(owner: Recipient<RestartsExhausted>) -> Self {
        Self { owner, children: Vec::new(), next_id: 0, draining: None, restart_counts: Arc::default() }
    }

    /// Counts the restarts of its children in `restart_counts`.
    #[must_use]
    pub fn with_restart_counts(self, restart_counts: Arc<RestartCounts>) -> Self {
        Self { restart_counts, ..self }
    }

    fn position(&self, name: &Arc<str>) -> Option<usize> {
        self.children.iter().position(|child| child.name == *name)
    }

    /// Returns the index of a child for an order about it.
    fn find_by_name(&self, name: &Arc<str>) -> Result<usize, Error> {
        match &self.draining {
            Some(_) => Err(Error::Draining),
            None => self.position(name).ok_or_else(|| Error::Unknown { name: Arc::clone(name) }),
        }
    }

    fn find_by_id(&self, id: ChildId) -> Option<usize> {
        self.children.binary_search_by_key(&id, |child| child.id).ok()
    }

    fn schedule_tick(&self, after: Duration, child: &ChildEntry, kind: TickKind, ctx: &Context<Self>) {
        let tick = Tick { id: child.id, incarnation: child.incarnation, kind };
        // Weak, so that a pending tick does not keep a dropped supervisor alive.
        let to = ctx.address().downgrade();
        actix_rt::spawn(async move {
            tokio::time::sleep(after).await;
            if let Some(to) = to.upgrade() {
                to.do_send(tick);
            }
        });
    }

    /// Requests a child to stop within its grace. The caller is answered when the child has stopped or restarted.
    fn stop_child(&mut self, at: usize, then: AfterStop, ctx: &Context<Self>) -> Deferred<Result<(), Error>> {
        let (responder, deferred) = Deferred::promise();
        let child = &mut self.children[at];
        let grace = child.grace;
        child.request_stop(Instant::now() + grace, then, Some(responder));
        self.schedule_tick(grace, &self.children[at], TickKind::Abort, ctx);
        deferred
    }

    /// Decides what follows an exit that was not requested.
    fn on_unexpected_exit(&mut self, at: usize, exit: &Exit, ctx: &Context<Self>) {
        let decision = self.children[at].decide(exit);
        let child = &self.children[at];
        let name = &child.name;
        let incarnation = child.incarnation;
        match decision {
            Decision::RestartAfter(backoff) => {
                warn!(child = %name, incarnation, %exit, ?backoff, "child ended, restarting it");
                self.restart_counts.record_restart(name);
                self.schedule_tick(backoff, child, TickKind::Restart, ctx);
            }
            Decision::Remove => {
                match exit {
                    Exit::Normal => debug!(child = %name, incarnation, "child ended"),
                    Exit::Panicked(_) | Exit::Killed => {
                        warn!(child = %name, incarnation, %exit, "child ended and is not restarted")
                    }
                }
                self.children.remove(at);
            }
            Decision::Exhausted => self.on_restarts_exhausted(at, exit),
        }
    }

    fn on_restarts_exhausted(&mut self, at: usize, exit: &Exit) {
        let child = &mut self.children[at];
        child.mark_down();
        let incarnation = child.incarnation;
        error!(child = %child.name, incarnation, %exit, "child exhausted its restarts and stays down");
        match child.when_exhausted {
            WhenExhausted::MarkDown => {}
            WhenExhausted::Escalate => {
                let reason = format!("it used up its restarts; at last it {exit}");
                self.owner.do_send(RestartsExhausted { child: Arc::clone(&child.name), reason });
            }
        }
    }

    /// Continues a drain: stops the last remaining child, those last that are marked so, and responds when there is none.
    fn continue_drain(&mut self, ctx: &Context<Self>) {
        let Some(draining) = &mut self.draining else { return };
        // Children without an incarnation need no stop.
        self.children.retain(|child| matches!(child.phase, Phase::Up | Phase::Stopping { .. }));
        let others = self.children.len().saturating_sub(1);
        let next = self.children.iter().rposition(|child| !child.drained_last).unwrap_or(others);
        let Some(child) = self.children.get_mut(next) else {
            let drained = Drained { killed: draining.killed };
            debug!(killed = drained.killed, "drained");
            draining.responders.drain(..).for_each(|responder| responder.send(drained));
            return;
        };
        if draining.current.replace(child.id) == Some(child.id) {
            return;
        }
        let now = Instant::now();
        let grace = drain_grace(draining.by.saturating_duration_since(now), others);
        child.request_stop(now + grace, AfterStop::Remove, None);
        self.schedule_tick(grace, &self.children[next], TickKind::Abort, ctx);
    }
}

/// Returns how much of the remaining time one child may take if this many others follow.
fn drain_grace(remaining: Duration, others: usize) -> Duration {
    match others {
        0 => remaining,
        _ => remaining - remaining / 10,
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;
}

impl Handler<Start> for Supervisor {
    type Result = Result<(), Error>;

    fn handle(&mut self, Start(spec): Start, ctx: &mut Context<Self>) -> Self::Result {
        if self.draining.is_some() {
            return Err(Error::Draining);
        }
        if self.position(&spec.name).is_some() {
            return Err(Error::NameTaken { name: spec.name });
        }
        let mut child = ChildEntry::new(ChildId(self.next_id), spec);
        self.next_id += 1;
        debug!(child = %child.name, "starting child");
        self.restart_counts.add_child(&child.name);
        child.start(ctx.address().recipient());
        self.children.push(child);
        Ok(())
    }
}

impl Handler<ChildExited> for Supervisor {
    type Result = ();

    fn handle(&mut self, ChildExited { id, incarnation, exit }: ChildExited, ctx: &mut Context<Self>) {
        let Some(at) = self.find_by_id(id).filter(|&at| self.children[at].is_current(incarnation)) else {
            return;
        };
        chaos::point("supervisor.exited");
        let child = &mut self.children[at];
        let phase = child.record_exit(exit.clone());
        if let Some(draining) = &mut self.draining {
            draining.killed += usize::from(exit == Exit::Killed);
            if let Phase::Stopping { responders, .. } = phase {
                respond_all(responders, &Ok(()));
            }
            self.children.remove(at);
            return self.continue_drain(ctx);
        }
        match phase {
            Phase::Stopping { then: AfterStop::Remove, responders } => {
                self.children.remove(at);
                respond_all(responders, &Ok(()));
            }
            Phase::Stopping { then: AfterStop::Restart, responders } => {
                child.start(ctx.address().recipient());
                respond_all(responders, &Ok(()));
            }
            Phase::Up | Phase::Restarting | Phase::Down => self.on_unexpected_exit(at, &exit, ctx),
        }
    }
}

impl Handler<Tick> for Supervisor {
    type Result = ();

    fn handle(&mut self, Tick { id, incarnation, kind }: Tick, ctx: &mut Context<Self>) {
        let Some(at) = self.find_by_id(id).filter(|&at| self.children[at].incarnation == incarnation) else {
            return;
        };
        let child = &mut self.children[at];
        match (kind, &child.phase) {
            (TickKind::Restart, Phase::Restarting) => child.start(ctx.address().recipient()),
            (TickKind::Abort, Phase::Stopping { .. }) => {
                let name = &child.name;
                match self.draining {
                    // The time of a drain is limited, so this is expected.
                    Some(_) => debug!(child = %name, incarnation, "child is aborted at the end of the drain"),
                    None => warn!(child = %name, incarnation, "child did not stop in time, aborting it"),
                }
                child.abort();
                self.schedule_tick(MAX_ABORT_DURATION, &self.children[at], TickKind::Abandon, ctx);
            }
            (TickKind::Abandon, Phase::Stopping { .. }) => {
                error!(child = %child.name, incarnation, "child blocks its thread and cannot be ended");
                let responders = child.take_responders();
                respond_all(responders, &Err(Error::Stuck { name: Arc::clone(&child.name) }));
                if let Some(draining) = &mut self.draining {
                    draining.killed += 1;
                    self.children.remove(at);
                    self.continue_drain(ctx);
                }
            }
            (TickKind::Restart | TickKind::Abort | TickKind::Abandon, _) => {}
        }
    }
}

impl Handler<StopChild> for Supervisor {
    type Result = Deferred<Result<(), Error>>;

    fn handle(&mut self, StopChild { name }: StopChild, ctx: &mut Context<Self>) -> Self::Result {
        let at = match self.find_by_name(&name) {
            Ok(at) => at,
            Err(error) => return Deferred::ready(Err(error)),
        };
        let child = &mut self.children[at];
        match child.phase {
            Phase::Restarting | Phase::Down => {
                self.children.remove(at);
                Deferred::ready(Ok(()))
            }
            Phase::Up | Phase::Stopping { .. } => self.stop_child(at, AfterStop::Remove, ctx),
        }
    }
}

impl Handler<RestartChild> for Supervisor {
    type Result = Deferred<Result<(), Error>>;

    fn handle(&mut self, RestartChild { name }: RestartChild, ctx: &mut Context<Self>) -> Self::Result {
        let at = match self.find_by_name(&name) {
            Ok(at) => at,
            Err(error) => return Deferred::ready(Err(error)),
        };
        let child = &mut self.children[at];
        if let Some(advice) = child.manual_restart_advice {
            return Deferred::ready(Err(Error::ManualRestartRefused { name, advice }));
        }
        match child.phase {
            Phase::Restarting | Phase::Down => {
                child.start(ctx.address().recipient());
                Deferred::ready(Ok(()))
            }
            Phase::Up | Phase::Stopping { .. } => self.stop_child(at, AfterStop::Restart, ctx),
        }
    }
}

impl Handler<Drain> for Supervisor {
    type Result = Deferred<Drained>;

    fn handle(&mut self, Drain { by }: Drain, ctx: &mut Context<Self>) -> Self::Result {
        let (responder, deferred) = Deferred::promise();
        let draining =
            self.draining.get_or_insert(Draining { by, current: None, killed: 0, responders: Vec::new() });
        draining.responders.push(responder);
        if by < draining.by {
            draining.by = by;
            draining.current = None;
        }
        self.continue_drain(ctx);
        deferred
    }
}

impl Handler<Children> for Supervisor {
    type Result = Vec<ChildStatus>;

    fn handle(&mut self, _: Children, _: &mut Context<Self>) -> Self::Result {
        self.children.iter().map(ChildEntry::status).collect()
    }
}
