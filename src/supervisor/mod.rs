//! Supervision of actors: detects every exit, restarts with back-off up to a limit, and drains with a
//! deadline.
//!
//! An actix actor is one task. A panic unwinds only that task, but actix's own supervisor does not detect
//! it: it restarts actors that *stop*. So children are driven here: panics of the actor's future are caught
//! ([`spawn_monitored`]), a drop guard sends exactly one [`ChildExited`] for each incarnation, and the
//! [`Supervisor`] decides with the plain [`RestartTracker`] what follows. An incarnation is the lifetime of
//! an actor between two restarts. A child's [`Slot`] stays the same when its address changes; a child [in
//! place](ChildSpec::in_place) keeps its address and its mailbox as well.
//!
//! The strategy is one-for-one: the exit of a child never affects its siblings. Nothing here ends the
//! process: if a child that the process needs has exhausted its restarts, the owner gets a message,
//! [`RestartsExhausted`].
//!
//! ```
//! use actix::prelude::*;
//! use pointsman::supervisor::{ChildSpec, RestartsExhausted, Slot, Start, Stop, Supervisor};
//!
//! struct Worker;
//! impl Actor for Worker {
//!     type Context = Context<Self>;
//! }
//! impl Handler<Stop> for Worker {
//!     type Result = ();
//!     fn handle(&mut self, _: Stop, ctx: &mut Context<Self>) {
//!         ctx.stop();
//!     }
//! }
//!
//! struct Owner;
//! impl Actor for Owner {
//!     type Context = Context<Self>;
//! }
//! impl Handler<RestartsExhausted> for Owner {
//!     type Result = ();
//!     fn handle(&mut self, _: RestartsExhausted, _: &mut Context<Self>) {
//!         System::current().stop_with_code(70);
//!     }
//! }
//!
//! # actix_rt::System::new().block_on(async {
//! let supervisor = Supervisor::new(Owner.start().recipient()).start();
//! let worker = Slot::default();
//! let spec = ChildSpec::new("worker", worker.clone(), |_| Worker);
//! supervisor.send(Start(spec)).await.unwrap().unwrap();
//! assert!(worker.get().is_some());
//! # });
//! ```
//!
//! This module contains no domain logic: it does not depend on providers, prompts or prices.

mod child;
mod child_runtime;
mod deferred;
mod entry;
mod error;
mod exit;
mod in_place;
mod messages;
mod panic_isolation;
mod restart;
mod restart_counts;
mod slot;
mod spawn;
#[expect(clippy::module_inception, reason = "the module is named after its main actor")]
mod supervisor;
mod watchdog;

pub use child::{ChildSpec, WhenExhausted};
pub use child_runtime::Stop;
pub use deferred::{Deferred, Responder};
pub use entry::{ChildState, ChildStatus};
pub use error::Error;
pub(crate) use exit::panic_text;
pub use exit::{ChildExited, ChildId, Exit};
pub use messages::{Children, Drain, Drained, RestartChild, RestartsExhausted, Start, StopChild};
pub use restart::{Decision, Intensity, Restart, RestartBackoff, RestartPolicy, RestartTracker};
pub use restart_counts::RestartCounts;
pub use slot::Slot;
pub use spawn::{Abort, Monitored, spawn_monitored, spawn_monitored_here};
pub use supervisor::Supervisor;
pub use watchdog::{ArbiterEvent, Watchdog};

#[cfg(test)]
mod tests;
