//! What can be asked of a supervisor, and what it says.
//!
//! Orders about one child name it; its ids and lives are the supervisor's own affair and not in here.

use std::fmt;
use std::sync::Arc;

use actix::Message;
use tokio::time::Instant;

use super::child::ChildSpec;
use super::entry::ChildStatus;

/// Adds a child and begins its first life. Answered when its slot holds its address.
#[derive(Debug)]
pub struct Start(pub ChildSpec);

/// Stops a child and removes it. Answered when it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopChild {
    /// Its name.
    pub name: Arc<str>,
}

/// Replaces a child's life by a new one, also that of a hung child or of one that is down.
///
/// The new life begins when the old one is gone: a polite `Stop`, the grace, then the abort.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartChild {
    /// Its name.
    pub name: Arc<str>,
}

/// Stops all children, one after the other in the reverse order of their start, and starts none any more.
///
/// Each gets a polite `Stop` and then time. One that does not stop leaves a tenth of the time that is left to
/// those started before it; one that blocks its thread is left behind half a second after its abort. A second
/// `Drain` may bring the end forward, not put it off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// When the last one is aborted.
    pub by: Instant,
}

/// The end of a drain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drained {
    /// Children that did not stop by themselves.
    pub killed: usize,
}

/// Asks for the state of all children, in the order of their start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Children;

/// Tells the owner that a child is down for good which was to [`Escalate`](super::WhenExhausted::Escalate).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GaveUp {
    /// Its name.
    pub child: Arc<str>,
    /// Why, for people.
    pub why: String,
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
impl Message for GaveUp {
    type Result = ();
}

/// Why a supervisor did not do as it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// No child has this name.
    Unknown {
        /// The name.
        name: Arc<str>,
    },
    /// Another child has this name.
    Taken {
        /// The name.
        name: Arc<str>,
    },
    /// A later message wanted something else of the child.
    Superseded {
        /// Its name.
        name: Arc<str>,
    },
    /// The child blocks its thread and cannot be ended. It is dealt with as asked when it ends after all.
    Stuck {
        /// Its name.
        name: Arc<str>,
    },
    /// The child is not restarted by name.
    NeverByName {
        /// Its name.
        name: Arc<str>,
        /// What to do instead.
        advice: &'static str,
    },
    /// The children are being stopped, and none is started any more.
    Draining,
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name } => write!(out, "no child is named {name}"),
            Self::Taken { name } => write!(out, "another child is named {name}"),
            Self::Superseded { name } => write!(out, "a later order about {name} replaced this one"),
            Self::Stuck { name } => write!(out, "{name} blocks its thread and cannot be ended"),
            Self::NeverByName { name, advice } => write!(out, "{name} cannot be restarted by name: {advice}"),
            Self::Draining => out.write_str("all children are being stopped"),
        }
    }
}

impl std::error::Error for Error {}
