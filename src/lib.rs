//! Runs very many AI calls at once and loses none of them.

pub mod document;
pub mod guard;
#[cfg(feature = "server")]
pub mod simulator;
pub mod types;
