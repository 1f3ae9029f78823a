//! The fuzz functions. The test suite runs the same functions with fixed seeds.

#[path = "../../it/fuzzed/entries.rs"]
mod entries;

pub use entries::*;
