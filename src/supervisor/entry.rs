//! One child as its supervisor sees it.
//!
//! A child is up, waiting for its restart, asked to stop, or down. It knows nothing of its siblings and
//! sets no alarm.

use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;
use tokio::time::Instant;

use super::child::{ChildSpec, Lives, Place, WhenExhausted};
use super::exit::{ChildExited, ChildId, Exit, ExitGuard};
use super::later::Reply;
use super::order::Error;
use super::restart::{Decision, Restarts};

/// What a child is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildState {
    /// It lives.
    Up,
    /// Its last life has ended; it waits out the pause before the next.
    Restarting,
    /// It has been asked to stop and has not ended yet.
    Stopping,
    /// It used up its restarts and stays down until it is restarted by name.
    Down,
}

/// A child as others may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildStatus {
    /// Its name.
    pub name: Arc<str>,
    /// What it is doing.
    pub state: ChildState,
    /// Which life this is, or was; the first is 1.
    pub life: u64,
    /// How often it was restarted after an end that nobody had asked for.
    pub restarts: u64,
    /// How its last life ended; `None` in the first.
    pub last_exit: Option<Exit>,
}

/// Someone who waits for a child to be gone or back.
pub(super) type Waiting = Reply<Result<(), Error>>;

/// What follows when a child that was asked to stop has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    Remove,
    Restart,
}

pub(super) enum Phase {
    Up,
    Restarting,
    Stopping { then: Then, waiting: Vec<Waiting> },
    Down,
}

pub(super) struct Entry {
    pub(super) id: ChildId,
    pub(super) name: Arc<str>,
    pub(super) life: u64,
    pub(super) grace: Duration,
    pub(super) when_exhausted: WhenExhausted,
    pub(super) never_by_name: Option<&'static str>,
    pub(super) phase: Phase,
    restarts: Restarts,
    last_exit: Option<Exit>,
    place: Place,
    lives: Box<dyn Lives>,
}

impl Entry {
    pub(super) fn new(id: ChildId, spec: ChildSpec) -> Self {
        let ChildSpec { name, restart, policy, when_exhausted, grace, place, never_by_name, lives } = spec;
        let restarts = Restarts::new(restart, policy, Instant::now());
        Self {
            id,
            name,
            life: 0,
            grace,
            when_exhausted,
            never_by_name,
            phase: Phase::Down,
            restarts,
            last_exit: None,
            place,
            lives,
        }
    }

    /// Begins the next life.
    pub(super) fn begin(&mut self, to: Recipient<ChildExited>) {
        if matches!(self.phase, Phase::Down) {
            self.restarts.forgive();
        }
        self.life += 1;
        self.phase = Phase::Up;
        self.restarts.begin(Instant::now());
        self.lives.begin(&self.place, ExitGuard::new(to, self.id, self.life));
    }

    /// Returns whether a report of this life is news.
    pub(super) fn is_alive(&self, life: u64) -> bool {
        self.life == life && matches!(self.phase, Phase::Up | Phase::Stopping { .. })
    }

    /// Notes the end of the present life and returns the phase in which it came.
    pub(super) fn ended(&mut self, exit: Exit) -> Phase {
        self.last_exit = Some(exit);
        self.lives.ended();
        std::mem::replace(&mut self.phase, Phase::Restarting)
    }

    /// Decides what follows an end that nobody asked for.
    pub(super) fn decide(&mut self, exit: &Exit) -> Decision {
        self.restarts.on_exit(Instant::now(), exit, fastrand::f64())
    }

    /// Stays without a life until someone restarts it by name.
    pub(super) fn mark_down(&mut self) {
        self.lives.retire();
        self.phase = Phase::Down;
    }

    /// Sends the polite `Stop`. Of two wishes the later one holds, and who waits for the earlier is told.
    pub(super) fn ask_to_stop(&mut self, by: Instant, then: Then, waiting: Option<Waiting>) {
        let mut all = match std::mem::replace(&mut self.phase, Phase::Down) {
            Phase::Stopping { then: before, waiting } if before == then => waiting,
            Phase::Stopping { waiting, .. } => {
                answer(waiting, &Err(Error::Superseded { name: Arc::clone(&self.name) }));
                Vec::new()
            }
            Phase::Up | Phase::Restarting | Phase::Down => Vec::new(),
        };
        all.extend(waiting);
        self.phase = Phase::Stopping { then, waiting: all };
        self.lives.ask_to_stop(by);
    }

    pub(super) fn abort(&self) {
        self.lives.abort();
    }

    /// Takes those who wait for a child that is stopping.
    pub(super) fn take_waiting(&mut self) -> Vec<Waiting> {
        match &mut self.phase {
            Phase::Stopping { waiting, .. } => std::mem::take(waiting),
            Phase::Up | Phase::Restarting | Phase::Down => Vec::new(),
        }
    }

    pub(super) fn status(&self) -> ChildStatus {
        ChildStatus {
            name: Arc::clone(&self.name),
            state: match self.phase {
                Phase::Up => ChildState::Up,
                Phase::Restarting => ChildState::Restarting,
                Phase::Stopping { .. } => ChildState::Stopping,
                Phase::Down => ChildState::Down,
            },
            life: self.life,
            restarts: self.restarts.total(),
            last_exit: self.last_exit.clone(),
        }
    }
}

impl Drop for Entry {
    /// A child does not outlive its place in the tree, nor its supervisor: nobody would hear of its end.
    fn drop(&mut self) {
        self.lives.retire();
    }
}

/// Gives everyone who waits the same answer.
pub(super) fn answer(waiting: Vec<Waiting>, outcome: &Result<(), Error>) {
    for reply in waiting {
        reply.send(outcome.clone());
    }
}
