//! Watches actors: hears of every end, restarts with back-off, gives up in time, drains with a deadline.
//!
//! An actor of actix is one task. A panic unwinds that task and no further, but actix's own supervisor
//! does not notice it: it restarts what *stops*. So children are driven here: the actor's future is polled
//! inside a net ([`spawn_monitored`]), a drop guard sends exactly one [`ChildExited`] for each life, and the
//! [`Supervisor`] decides by the plain [`Restarts`] what follows. A child keeps its name, its [`Slot`], when
//! its address changes; a child [in place](ChildSpec::in_place) keeps its address and its mailbox as well.
//!
//! One for one: the end of a child never touches its siblings. Nothing here ends the process: giving up on
//! a child that the process cannot do without is a message to the owner, [`GaveUp`].
//!
//! ```
//! use actix::prelude::*;
//! use pointsman::supervisor::{ChildSpec, GaveUp, Slot, Start, Stop, Supervisor};
//!
//! struct Bell;
//! impl Actor for Bell {
//!     type Context = Context<Self>;
//! }
//! impl Handler<Stop> for Bell {
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
//! impl Handler<GaveUp> for Owner {
//!     type Result = ();
//!     fn handle(&mut self, _: GaveUp, _: &mut Context<Self>) {
//!         System::current().stop_with_code(70);
//!     }
//! }
//!
//! # actix_rt::System::new().block_on(async {
//! let supervisor = Supervisor::new(Owner.start().recipient()).start();
//! let bell = Slot::default();
//! let spec = ChildSpec::new("bell", bell.clone(), |_| Bell);
//! supervisor.send(Start(spec)).await.unwrap().unwrap();
//! assert!(bell.get().is_some());
//! # });
//! ```
//!
//! The room has never heard of a prompt, a provider or a price.

mod child;
mod contain;
mod entry;
mod exit;
mod in_place;
mod later;
mod order;
mod restart;
mod slot;
mod spawn;
#[expect(clippy::module_inception, reason = "the actor bears the name of the room")]
mod supervisor;
mod watchdog;

pub use child::{ChildSpec, Stop, WhenExhausted};
pub use entry::{ChildState, ChildStatus};
pub(crate) use exit::panic_text;
pub use exit::{ChildExited, ChildId, Exit};
pub use later::{Later, Reply};
pub use order::{Children, Drain, Drained, Error, GaveUp, RestartChild, Start, StopChild};
pub use restart::{Backoff, Decision, Intensity, Policy, Restart, Restarts};
pub use slot::Slot;
pub use spawn::{Abort, Monitored, spawn_monitored, spawn_monitored_here};
pub use supervisor::Supervisor;
pub use watchdog::{Turning, Watchdog};

#[cfg(test)]
mod tests;
