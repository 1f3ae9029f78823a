//! State of one child in its supervisor: up, waiting for its restart, stopping, or down.
//!
//! It has no reference to its siblings and schedules nothing.

use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;
use tokio::time::Instant;

use super::child::{ChildSpec, WhenExhausted};
use super::child_runtime::{ArbiterList, ChildRuntime};
use super::deferred::Responder;
use super::error::Error;
use super::exit::{ChildExited, ChildId, Exit, ExitGuard};
use super::restart::{Decision, RestartTracker};

/// State of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChildState {
    /// It runs.
    Up,
    /// Its last incarnation has ended; it waits for the back-off before the next.
    Restarting,
    /// It was requested to stop and has not ended yet.
    Stopping,
    /// It has exhausted its restarts and stays down until it is restarted by name.
    Down,
}

/// Public status of a child.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChildStatus {
    /// Its name.
    pub name: Arc<str>,
    /// Its state.
    pub state: ChildState,
    /// Number of the current or last incarnation; the first is 1.
    pub incarnation: u64,
    /// Number of restarts after unexpected exits.
    pub restarts: u64,
    /// How its last incarnation ended; `None` in the first.
    pub last_exit: Option<Exit>,
}

/// Responder for a caller that waits until a child has stopped or restarted.
pub(super) type StopResponder = Responder<Result<(), Error>>;

/// What follows when a child that was requested to stop has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterStop {
    Remove,
    Restart,
}

pub(super) enum Phase {
    Up,
    Restarting,
    Stopping { then: AfterStop, responders: Vec<StopResponder> },
    Down,
}

pub(super) struct ChildEntry {
    pub(super) id: ChildId,
    pub(super) name: Arc<str>,
    pub(super) incarnation: u64,
    pub(super) grace: Duration,
    pub(super) when_exhausted: WhenExhausted,
    pub(super) drained_last: bool,
    pub(super) manual_restart_advice: Option<&'static str>,
    pub(super) phase: Phase,
    restarts: RestartTracker,
    last_exit: Option<Exit>,
    arbiters: ArbiterList,
    runtime: Box<dyn ChildRuntime>,
}

impl ChildEntry {
    pub(super) fn new(id: ChildId, spec: ChildSpec) -> Self {
        let ChildSpec {
            name,
            restart,
            policy,
            when_exhausted,
            grace,
            arbiters,
            drained_last,
            manual_restart_advice,
            runtime,
        } = spec;
        let restarts = RestartTracker::new(restart, policy, Instant::now());
        Self {
            id,
            name,
            incarnation: 0,
            grace,
            when_exhausted,
            drained_last,
            manual_restart_advice,
            phase: Phase::Down,
            restarts,
            last_exit: None,
            arbiters,
            runtime,
        }
    }

    /// Starts the next incarnation.
    pub(super) fn start(&mut self, to: Recipient<ChildExited>) {
        if matches!(self.phase, Phase::Down) {
            self.restarts.reset();
        }
        self.incarnation += 1;
        self.phase = Phase::Up;
        self.restarts.on_start(Instant::now());
        self.runtime.start(&self.arbiters, ExitGuard::new(to, self.id, self.incarnation));
    }

    /// Returns whether a report of this incarnation is still relevant.
    pub(super) fn is_current(&self, incarnation: u64) -> bool {
        self.incarnation == incarnation && matches!(self.phase, Phase::Up | Phase::Stopping { .. })
    }

    /// Records the end of the current incarnation. Returns the phase in which it came.
    pub(super) fn record_exit(&mut self, exit: Exit) -> Phase {
        self.last_exit = Some(exit);
        self.runtime.on_exit();
        std::mem::replace(&mut self.phase, Phase::Restarting)
    }

    /// Decides what follows an unexpected exit.
    pub(super) fn decide(&mut self, exit: &Exit) -> Decision {
        self.restarts.on_exit(Instant::now(), exit, fastrand::f64())
    }

    /// Keeps the child down until it is restarted by name.
    pub(super) fn mark_down(&mut self) {
        self.runtime.retire();
        self.phase = Phase::Down;
    }

    /// Sends the graceful `Stop`. A later order replaces an earlier one, whose callers get
    /// [`Error::Superseded`].
    pub(super) fn request_stop(&mut self, by: Instant, then: AfterStop, responder: Option<StopResponder>) {
        let mut responders = match std::mem::replace(&mut self.phase, Phase::Down) {
            Phase::Stopping { then: before, responders } if before == then => responders,
            Phase::Stopping { responders, .. } => {
                respond_all(responders, &Err(Error::Superseded { name: Arc::clone(&self.name) }));
                Vec::new()
            }
            Phase::Up | Phase::Restarting | Phase::Down => Vec::new(),
        };
        responders.extend(responder);
        self.phase = Phase::Stopping { then, responders };
        self.runtime.request_stop(by);
    }

    pub(super) fn abort(&self) {
        self.runtime.abort();
    }

    /// Takes the responders of callers that wait for a stopping child.
    pub(super) fn take_responders(&mut self) -> Vec<StopResponder> {
        match &mut self.phase {
            Phase::Stopping { responders, .. } => std::mem::take(responders),
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
            incarnation: self.incarnation,
            restarts: self.restarts.total(),
            last_exit: self.last_exit.clone(),
        }
    }
}

impl Drop for ChildEntry {
    /// A child must not outlive its entry or its supervisor, because its exit would not be reported to
    /// anything.
    fn drop(&mut self) {
        self.runtime.retire();
    }
}

/// Sends the same result to all responders.
pub(super) fn respond_all(responders: Vec<StopResponder>, result: &Result<(), Error>) {
    for responder in responders {
        responder.send(result.clone());
    }
}
