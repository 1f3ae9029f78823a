//! Runs very many AI calls at once and loses none of them.

pub mod document;
#[cfg(feature = "server")]
pub mod simulator;
pub mod types;
