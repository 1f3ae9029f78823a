//! What to do with each item, and doing it for all of them.
//!
//! A [`Pipeline`] is read from a TOML file, with every fault found at once. A [`Walk`] takes one item
//! through it: it says what to ask next and is told what came back. Both are plain structs that wait
//! for nothing, send nothing and read no clock. The actors of [`run`] do the waiting and sending:
//! from a [`source`], through the walks, into a [`sink`].

mod ask;
mod attach;
mod check;
mod choice;
mod compile;
mod defaults;
mod definition;
mod explain;
mod extent;
mod facts;
mod filters;
mod graph;
mod grounds;
mod json;
mod load;
mod mentions;
mod meter;
mod nesting;
mod operators;
mod protected;
mod quoted;
mod raw;
mod reask;
mod rewrite;
mod rewrite_calls;
mod rewrite_expressions;
mod rewrite_names;
mod rewrite_statements;
pub mod run;
mod schema;
mod seen;
mod shaped;
mod signatures;
pub mod sink;
pub mod source;
mod template;
#[cfg(test)]
mod tests;
mod values;
mod walk;

pub use ask::{Ask, Next};
pub use attach::{Attachment, FileAttachment};
pub use defaults::{Defaults, Temperature};
pub use definition::{Pipeline, Step};
pub use grounds::{Changes, Grounds, LaneGround, StepGround};
pub use protected::{FileUse, ProtectedFiles};
pub use shaped::Voice;
pub use walk::{Settled, StepEnd, Walk};
