//! Runs very many AI calls at once and loses none of them.

pub mod config;
pub mod document;
pub mod guard;
pub mod provider;
pub mod router;
#[cfg(feature = "server")]
pub mod simulator;
pub mod types;
