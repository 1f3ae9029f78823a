//! What the supervisor does with a child of any actor type: start an incarnation, stop it, abort it.

use std::sync::Arc;

use actix::{ArbiterHandle, Context, Message};
use tokio::time::Instant;

use super::exit::ExitGuard;

/// Requests a child to finish what it has begun and stop. A child that has not stopped by then is aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// When the child is aborted.
    pub by: Instant,
}

impl Message for Stop {
    type Result = ();
}

/// Arbiters for the incarnations of a child. Empty means the supervisor's own arbiter.
pub(super) struct ArbiterList(pub(super) Vec<ArbiterHandle>);

impl ArbiterList {
    /// Returns the arbiter of the next incarnation; `None` is the one of this thread.
    pub(super) fn select(&self) -> Option<&ArbiterHandle> {
        // If all are dead, the first is used: the incarnation ends as killed and counts as a restart.
        self.0.iter().find(|arbiter| arbiter.alive()).or_else(|| self.0.first())
    }
}

/// Creates the actor of an incarnation.
pub(super) type Factory<A> = Arc<dyn Fn(&mut Context<A>) -> A + Send + Sync>;

/// A child of any actor type.
pub(super) trait ChildRuntime: Send {
    /// Starts an incarnation; `guard` reports its exit.
    fn start(&mut self, arbiters: &ArbiterList, guard: ExitGuard);
    /// Sends the graceful `Stop`.
    fn request_stop(&self, by: Instant);
    /// Aborts the current incarnation.
    fn abort(&self);
    /// Releases an incarnation that has ended; another may follow.
    fn on_exit(&mut self);
    /// Releases everything: no incarnation follows, and one that has not ended is aborted.
    fn retire(&mut self);
}
