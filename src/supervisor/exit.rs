//! Says how a life of an actor ended, exactly once, whatever ended it.
//!
//! `Actor::stopped` cannot serve: an actor that actix drives does not get it when no address is alive at the
//! time of a panic, gets it while the thread unwinds otherwise, and may panic in there itself. Only a drop always happens, so the report is a drop guard.
//! A guard never blocks and never panics.

use std::any::Any;
use std::fmt;

use actix::{Message, Recipient};

/// How a life ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// The actor stopped by itself: it was asked to, or its last address was dropped.
    Normal,
    /// It panicked, in a handler, in a future of its context, in its factory or while stopping; with the text.
    Panicked(String),
    /// It was aborted, or its arbiter stopped or had stopped before.
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

/// Tells one child from another; the watcher chooses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChildId(pub u64);

/// Reports the end of one life of a child. Each life sends exactly one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildExited {
    /// The child, as its watcher called it.
    pub id: ChildId,
    /// Which of its lives; reports of an earlier life than the present one are to be ignored.
    pub life: u64,
    /// How it ended.
    pub exit: Exit,
}

impl Message for ChildExited {
    type Result = ();
}

/// Owes the report of one life. Dropped unused, it reports [`Exit::Killed`].
pub(super) struct ExitGuard {
    to: Recipient<ChildExited>,
    id: ChildId,
    life: u64,
    exit: Exit,
}

impl ExitGuard {
    pub(super) fn new(to: Recipient<ChildExited>, id: ChildId, life: u64) -> Self {
        Self { to, id, life, exit: Exit::Killed }
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
        self.to.do_send(ChildExited { id: self.id, life: self.life, exit });
    }
}

/// Returns the words of a panic.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without words".to_owned()
    }
}
