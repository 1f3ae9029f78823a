//! The actor that starts, watches, restarts and drains its children.
//!
//! It waits and sends; [`Restarts`](super::Restarts) decides. Its alarms are tasks of their own, so that a
//! thousand children in their pause do not make each message dearer.
//! It never ends the process and never touches the sibling of a child that ended.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use crate::chaos;

use super::child::WhenExhausted;
use super::entry::{ChildStatus, Entry, Phase, Then, Waiting, answer};
use super::exit::{ChildExited, ChildId, Exit};
use super::later::{Later, Reply};
use super::order::{Children, Drain, Drained, Error, GaveUp, RestartChild, Start, StopChild};
use super::restart::Decision;

/// How long an aborted child may take to be gone. Only one that blocks its thread takes longer.
const PATIENCE: Duration = Duration::from_millis(500);

/// Starts, watches, restarts and drains its children, one for one.
///
/// It lives as long as its arbiter or any of its children, whose reports are addressed to it; to end it,
/// [`Drain`] it and drop its address. If it ends otherwise, its children are aborted.
pub struct Supervisor {
    owner: Recipient<GaveUp>,
    /// In the order of their start, which is also the order of their ids.
    children: Vec<Entry>,
    next: u64,
    draining: Option<Draining>,
}

struct Draining {
    by: Instant,
    current: Option<ChildId>,
    killed: usize,
    waiting: Vec<Reply<Drained>>,
}

/// An alarm to oneself about one life of a child.
struct Alarm {
    id: ChildId,
    life: u64,
    ring: Ring,
}

#[derive(Debug, Clone, Copy)]
enum Ring {
    /// The pause before a restart is over.
    Restart,
    /// The grace of a polite stop is over.
    Abort,
    /// An aborted child is still there.
    Abandon,
}

impl Message for Alarm {
    type Result = ();
}

impl Supervisor {
    /// Makes a supervisor without children; `owner` hears of those that nothing can go on without.
    pub fn new(owner: Recipient<GaveUp>) -> Self {
        Self { owner, children: Vec::new(), next: 0, draining: None }
    }

    fn position(&self, name: &Arc<str>) -> Option<usize> {
        self.children.iter().position(|child| child.name == *name)
    }

    /// Finds a child about which an order may still be given.
    fn named(&self, name: &Arc<str>) -> Result<usize, Error> {
        match &self.draining {
            Some(_) => Err(Error::Draining),
            None => self.position(name).ok_or_else(|| Error::Unknown { name: Arc::clone(name) }),
        }
    }

    fn numbered(&self, id: ChildId) -> Option<usize> {
        self.children.binary_search_by_key(&id, |child| child.id).ok()
    }

    fn alarm(&self, after: Duration, child: &Entry, ring: Ring, ctx: &Context<Self>) {
        let alarm = Alarm { id: child.id, life: child.life, ring };
        // Weak, or a pause would keep a supervisor alive that everybody has dropped.
        let to = ctx.address().downgrade();
        actix_rt::spawn(async move {
            tokio::time::sleep(after).await;
            if let Some(to) = to.upgrade() {
                to.do_send(alarm);
            }
        });
    }

    /// Asks a child to stop within its grace.
    fn stop(&mut self, at: usize, then: Then, reply: Waiting, ctx: &Context<Self>) {
        let child = &mut self.children[at];
        let grace = child.grace;
        child.ask_to_stop(Instant::now() + grace, then, Some(reply));
        self.alarm(grace, &self.children[at], Ring::Abort, ctx);
    }

    /// Decides what follows the end of a life that nobody asked to end.
    fn ended_unasked(&mut self, at: usize, exit: &Exit, ctx: &Context<Self>) {
        let decision = self.children[at].decide(exit);
        let child = &self.children[at];
        let (name, life) = (&child.name, child.life);
        match decision {
            Decision::RestartAfter(pause) => {
                warn!(child = %name, life, %exit, ?pause, "child ended, restarting it");
                self.alarm(pause, child, Ring::Restart, ctx);
            }
            Decision::Done => {
                match exit {
                    Exit::Normal => debug!(child = %name, life, "child ended"),
                    Exit::Panicked(_) | Exit::Killed => {
                        warn!(child = %name, life, %exit, "child ended for good")
                    }
                }
                self.children.remove(at);
            }
            Decision::GiveUp => self.give_up(at, exit),
        }
    }

    fn give_up(&mut self, at: usize, exit: &Exit) {
        let child = &mut self.children[at];
        child.mark_down();
        error!(child = %child.name, life = child.life, %exit, "child used up its restarts and stays down");
        match child.when_exhausted {
            WhenExhausted::MarkDown => {}
            WhenExhausted::Escalate => {
                let why = format!("it used up its restarts; at last it {exit}");
                self.owner.do_send(GaveUp { child: Arc::clone(&child.name), why });
            }
        }
    }

    /// Goes on draining: stops the last child that is left, and answers when none is.
    fn drain(&mut self, ctx: &Context<Self>) {
        let Some(draining) = &mut self.draining else { return };
        // Those without a life need no stopping.
        self.children.retain(|child| matches!(child.phase, Phase::Up | Phase::Stopping { .. }));
        let others = self.children.len().saturating_sub(1);
        let Some(child) = self.children.last_mut() else {
            let drained = Drained { killed: draining.killed };
            info!(killed = drained.killed, "drained");
            draining.waiting.drain(..).for_each(|reply| reply.send(drained));
            return;
        };
        if draining.current.replace(child.id) == Some(child.id) {
            return;
        }
        let now = Instant::now();
        let grace = share(draining.by.saturating_duration_since(now), others);
        child.ask_to_stop(now + grace, Then::Remove, None);
        self.alarm(grace, &self.children[others], Ring::Abort, ctx);
    }
}

/// Returns how much of the time that is left one child may take if so many others are to have some after it.
fn share(left: Duration, others: usize) -> Duration {
    match others {
        0 => left,
        _ => left - left / 10,
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
            return Err(Error::Taken { name: spec.name });
        }
        let mut child = Entry::new(ChildId(self.next), spec);
        self.next += 1;
        debug!(child = %child.name, "starting child");
        child.begin(ctx.address().recipient());
        self.children.push(child);
        Ok(())
    }
}

impl Handler<ChildExited> for Supervisor {
    type Result = ();

    fn handle(&mut self, ChildExited { id, life, exit }: ChildExited, ctx: &mut Context<Self>) {
        let Some(at) = self.numbered(id).filter(|&at| self.children[at].is_alive(life)) else { return };
        chaos::point("supervisor.exited");
        let child = &mut self.children[at];
        let phase = child.ended(exit.clone());
        if let Some(draining) = &mut self.draining {
            draining.killed += usize::from(exit == Exit::Killed);
            if let Phase::Stopping { waiting, .. } = phase {
                answer(waiting, &Ok(()));
            }
            self.children.remove(at);
            return self.drain(ctx);
        }
        match phase {
            Phase::Stopping { then: Then::Remove, waiting } => {
                self.children.remove(at);
                answer(waiting, &Ok(()));
            }
            Phase::Stopping { then: Then::Restart, waiting } => {
                child.begin(ctx.address().recipient());
                answer(waiting, &Ok(()));
            }
            Phase::Up | Phase::Restarting | Phase::Down => self.ended_unasked(at, &exit, ctx),
        }
    }
}

impl Handler<Alarm> for Supervisor {
    type Result = ();

    fn handle(&mut self, Alarm { id, life, ring }: Alarm, ctx: &mut Context<Self>) {
        let Some(at) = self.numbered(id).filter(|&at| self.children[at].life == life) else { return };
        let child = &mut self.children[at];
        match (ring, &child.phase) {
            (Ring::Restart, Phase::Restarting) => child.begin(ctx.address().recipient()),
            (Ring::Abort, Phase::Stopping { .. }) => {
                warn!(child = %child.name, life, "child did not stop in time, aborting it");
                child.abort();
                self.alarm(PATIENCE, &self.children[at], Ring::Abandon, ctx);
            }
            (Ring::Abandon, Phase::Stopping { .. }) => {
                error!(child = %child.name, life, "child blocks its thread and cannot be ended");
                let waiting = child.take_waiting();
                answer(waiting, &Err(Error::Stuck { name: Arc::clone(&child.name) }));
                if let Some(draining) = &mut self.draining {
                    draining.killed += 1;
                    self.children.remove(at);
                    self.drain(ctx);
                }
            }
            (Ring::Restart | Ring::Abort | Ring::Abandon, _) => {}
        }
    }
}

impl Handler<StopChild> for Supervisor {
    type Result = Later<Result<(), Error>>;

    fn handle(&mut self, StopChild { name }: StopChild, ctx: &mut Context<Self>) -> Self::Result {
        let (reply, later) = Later::promise();
        let at = match self.named(&name) {
            Ok(at) => at,
            Err(error) => {
                reply.send(Err(error));
                return later;
            }
        };
        let child = &mut self.children[at];
        match child.phase {
            Phase::Restarting | Phase::Down => {
                self.children.remove(at);
                reply.send(Ok(()));
            }
            Phase::Up | Phase::Stopping { .. } => self.stop(at, Then::Remove, reply, ctx),
        }
        later
    }
}

impl Handler<RestartChild> for Supervisor {
    type Result = Later<Result<(), Error>>;

    fn handle(&mut self, RestartChild { name }: RestartChild, ctx: &mut Context<Self>) -> Self::Result {
        let (reply, later) = Later::promise();
        let at = match self.named(&name) {
            Ok(at) => at,
            Err(error) => {
                reply.send(Err(error));
                return later;
            }
        };
        let child = &mut self.children[at];
        if let Some(advice) = child.never_by_name {
            reply.send(Err(Error::NeverByName { name, advice }));
            return later;
        }
        match child.phase {
            Phase::Restarting | Phase::Down => {
                child.begin(ctx.address().recipient());
                reply.send(Ok(()));
            }
            Phase::Up | Phase::Stopping { .. } => self.stop(at, Then::Restart, reply, ctx),
        }
        later
    }
}

impl Handler<Drain> for Supervisor {
    type Result = Later<Drained>;

    fn handle(&mut self, Drain { by }: Drain, ctx: &mut Context<Self>) -> Self::Result {
        let (reply, later) = Later::promise();
        let draining =
            self.draining.get_or_insert(Draining { by, current: None, killed: 0, waiting: Vec::new() });
        draining.waiting.push(reply);
        if by < draining.by {
            draining.by = by;
            draining.current = None;
        }
        self.drain(ctx);
        later
    }
}

impl Handler<Children> for Supervisor {
    type Result = Vec<ChildStatus>;

    fn handle(&mut self, _: Children, _: &mut Context<Self>) -> Self::Result {
        self.children.iter().map(Entry::status).collect()
    }
}
