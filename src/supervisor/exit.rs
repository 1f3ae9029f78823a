//! Reports how an incarnation of an actor ended, exactly once, whatever the cause.
//!
//! `Actor::stopped` is not sufficient: actix does not call it if no address is alive at the time of a
//! panic, calls it while the thread unwinds otherwise, and it may panic itself. Only a drop always happens,
//! so the report is a drop guard. A guard never blocks and never panics.

use std::any::Any;
use std::fmt;

use actix::{Message, Recipient};

/// How an incarnation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// The actor stopped by itself: it was requested to, or its last address was dropped.
    Normal,
    /// It panicked, in a handler, in a future of its context, in its factory or while stopping; with the
    /// panic message.
    Panicked(String),
    /// It was aborted, or its arbiter had stopped.
    Killed,
}

impl fmt::Display for Exit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Normal => out.write_str("ended"),
            Self::Panicked(text) => write!(out, "panicked: {text}"),
            Self::Killed => out.write_str("was killed"),
        }
    }
}

/// Identifies a child; chosen by its watcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChildId(pub u64);

/// Reports the end of one incarnation of a child. Each incarnation sends exactly one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildExited {
    /// The child.
    pub id: ChildId,
    /// The incarnation; reports of an earlier incarnation than the current one must be ignored.
    pub incarnation: u64,
    /// How it ended.
    pub exit: Exit,
}

impl Message for ChildExited {
    type Result = ();
}

/// Sends the report of one incarnation. Dropped unused, it reports [`Exit::Killed`].
pub(super) struct ExitGuard {
    to: Recipient<ChildExited>,
    id: ChildId,
    incarnation: u64,
    exit: Exit,
}

impl ExitGuard {
    pub(super) fn new(to: Recipient<ChildExited>, id: ChildId, incarnation: u64) -> Self {
        Self { to, id, incarnation, exit: Exit::Killed }
    }

    /// Sends the report.
    pub(super) fn report(mut self, exit: Exit) {
        self.exit = exit;
    }
}

impl Drop for ExitGuard {
    fn drop(&mut self) {
        let exit = std::mem::replace(&mut self.exit, Exit::Killed);
        // `do_send` ignores the bound of the mailbox, so a report is neither lost nor waited for.
        self.to.do_send(ChildExited { id: self.id, incarnation: self.incarnation, exit });
    }
}

/// Returns the message of a panic.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a message".to_owned()
    }
}
