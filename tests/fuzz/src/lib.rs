//! The entries that are fuzzed: those of the test suite, which keeps them from rotting.

#[path = "../../it/fuzzed/entries.rs"]
mod entries;

pub use entries::*;
