//! What to do with each item: steps, what they need of each other, and what their answers must be.
//!
//! A [`Pipeline`] is read from a TOML file, with every fault found at once. A [`Walk`] takes one item
//! through it: it says what to ask next and is told what came back. Both are plain structs.
//!
//! Nothing here waits, sends or reads a clock; the only files opened are the pipeline's own.

mod ask;
mod attach;
mod check;
mod choice;
mod code;
mod compile;
mod defaults;
mod definition;
mod graph;
mod json;
mod load;
mod mentions;
mod quoted;
mod raw;
mod schema;
mod template;
#[cfg(test)]
mod tests;
mod walk;

pub use ask::{Ask, Next};
pub use attach::{Attachment, FileAttachment};
pub use defaults::{Defaults, Temperature};
pub use definition::{Pipeline, Step};
pub use walk::{Settled, StepEnd, Walk};
