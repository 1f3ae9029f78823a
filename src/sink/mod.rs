//! Writes one line per settled item, and one per rejected piece of the input.
//!
//! A thread writes; a [`Sink`] passes lines to it through a bounded queue, so a slow disk or pipe slows
//! the run instead of filling the memory. Or it gives them to the program itself, through a channel. A write that fails is seen by the next one and by
//! [`Sink::finish`], which also say how many lines are safe; a file never ends in half a line.

mod columns;
mod error;
mod line;
mod order;
mod output;
mod owned;
mod restore;
mod successor;
mod target;
#[cfg(test)]
mod tests;
mod write;
mod write_queue;

pub use error::Error;
pub use line::{Line, LineError, RejectLine, StepError, StepLine, StepStatus, TokenCount};
pub use order::Reorder;
pub use output::Written;
pub use owned::{Owner, ReplaceableFile, Replaced, WrittenFile};
pub use target::Target;
pub use write::{Format, Formulas, Sink};
