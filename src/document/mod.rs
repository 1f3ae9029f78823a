//! Reads TOML and remembers where everything stood, so that every fault has a place.
//!
//! serde stops at the first fault. A person who made four wants to hear of four, so a
//! [`Document`] that does not read as a whole is read leaf by leaf.
//!
//! Knows nothing of what the settings mean; it opens no file.

mod fault;
mod instead;
mod nearest;
mod places;
mod read;
mod search;
mod words;

pub use fault::{Fault, Faults, Place};
pub use nearest::nearest;
pub use places::{Places, Text};
pub use read::Document;
