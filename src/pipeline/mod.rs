//! What to do with each item, and doing it for all of them.
//!
//! A [`Pipeline`] is read from a TOML file, with every fault found at once. A [`Walk`] takes one item
//! through it: it says what to ask next and is told what came back. Both are plain structs that wait
//! for nothing, send nothing and read no clock. The actors of [`run`] do the waiting and sending:
//! from a [`source`], through the walks, into a [`sink`].

pub(crate) mod ask;
pub(crate) mod attach;
mod check;
mod choice;
mod compile;
pub(crate) mod defaults;
pub(crate) mod definition;
mod explain;
mod facts;
mod filters;
mod graph;
pub(crate) mod grounds;
mod json;
mod load;
mod mentions;
pub(crate) mod meter;
mod nesting;
mod operators;
pub(crate) mod protected;
mod quoted;
mod raw;
mod reask;
mod rewrite;
mod rewrite_calls;
mod rewrite_expressions;
mod rewrite_names;
mod rewrite_statements;
mod schema;
pub(crate) mod shaped;
mod signatures;
pub(crate) mod template;
#[cfg(test)]
mod tests;
mod values;
pub(crate) mod walk;

pub use ask::{Ask, Next};
pub use attach::{Attachment, FileAttachment};
pub use defaults::{Defaults, Temperature};
pub use definition::{Pipeline, Step};
pub use grounds::{Changes, Grounds, LaneGround, StepGround};
pub use protected::{FileUse, ProtectedFiles};
pub use shaped::Voice;
pub use walk::{Settled, StepEnd, Walk};
