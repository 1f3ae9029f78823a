//! Messages to and from a supervisor.
//!
//! Orders about one child name it; ids and incarnations are internal to the supervisor and not in here.

use std::sync::Arc;

use actix::Message;
use tokio::time::Instant;

use super::child::ChildSpec;
use super::entry::ChildStatus;
use super::error::Error;

/// Adds a child and starts its first incarnation. Answered when its slot holds its address.
#[derive(Debug)]
pub struct Start(pub ChildSpec);

/// Stops a child and removes it. Answered when it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopChild {
    /// Its name.
    pub name: Arc<str>,
}

/// Replaces the current incarnation of a child, also of a hung child or of one that is down.
///
/// The new incarnation starts when the old one is gone: a graceful `Stop`, the grace, then the abort.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartChild {
    /// Its name.
    pub name: Arc<str>,
}

/// Stops all children, one after the other in the reverse order of their start, and starts no more. Children that are
/// [drained last](ChildSpec::drained_last) are stopped after the others.
///
/// Each gets a graceful `Stop` and then time. A child that does not stop leaves a tenth of the remaining
/// time to those started before it; a child that blocks its thread is abandoned half a second after its
/// abort. A second `Drain` may move the deadline forward, but not back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// When the last child is aborted.
    pub by: Instant,
}

/// Result of a drain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// Children that did not stop by themselves.
    pub killed: usize,
}

/// Requests the status of all children, in the order of their start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Children;

/// Notifies the owner that a child has exhausted its restarts, if it is to
/// [`Escalate`](super::WhenExhausted::Escalate).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartsExhausted {
    /// Its name.
    pub child: Arc<str>,
    /// Why, for the user.
    pub reason: String,
}

impl Message for Start {
    type Result = Result<(), Error>;
}
impl Message for StopChild {
    type Result = Result<(), Error>;
}
impl Message for RestartChild {
    type Result = Result<(), Error>;
}
impl Message for Drain {
    type Result = Drained;
}
impl Message for Children {
    type Result = Vec<ChildStatus>;
}
impl Message for RestartsExhausted {
    type Result = ();
}
