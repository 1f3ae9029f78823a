//! The Run and Item actors, and what stands around them.
//!
//! A [`Run`] keeps a window of items in flight, each an actor of its own; a task feeds it from the
//! source and another writes its lines. What it counted becomes a [`Report`].

mod actor;
mod advice;
mod desk;
mod evidence;
mod failures;
mod feed;
mod forecast;
mod gate;
mod history;
mod hold;
mod item;
mod keeping;
mod line;
mod load_attachment;
mod messages;
mod met;
mod money;
mod off_thread;
mod progress;
mod questions;
mod rendering;
mod report;
mod setup;
mod share;
mod step_request;
mod steps;
mod tally;
#[cfg(test)]
mod tests;
mod walked;
mod window;
mod writer;

pub use actor::Run;
pub use failures::MaxFailures;
pub use gate::{RunRoute, RunTarget};
pub use history::{History, pause_of, sums_of_input};
pub use keeping::Keeping;
pub use messages::{Cancel, StopIntake, Watched};
pub use met::MetItems;
pub use money::{Cap, CapMet, CapOf, RunPurses};
pub use progress::{Holding, Progress};
pub use report::{Calls, Ended, ErrorCount, Items, NotBegun, Part, Report, Times, UnkeptItems};
pub use setup::{RunLimits, RunSetup, RunTasks};
pub use writer::Output;
