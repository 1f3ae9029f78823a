//! Runs very many AI calls at once and loses none of them.

#[cfg(feature = "server")]
pub mod simulator;
pub mod types;
