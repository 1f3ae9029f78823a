//! Runs very many AI calls at once and loses none of them.

#[cfg(not(panic = "unwind"))]
compile_error!("a panic must cost one actor, not the process: build with panic = \"unwind\"");

#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
pub mod document;
pub mod guard;
pub mod pipeline;
pub mod provider;
pub mod router;
pub mod runtime;
#[cfg(feature = "server")]
pub mod simulator;
pub mod supervisor;
pub mod types;
pub mod wire;
