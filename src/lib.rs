//! Runs very many AI calls at once and loses none of them.

#[cfg(not(panic = "unwind"))]
compile_error!("pointsman contains panics by unwinding: build it with `panic = \"unwind\"`");

pub mod config;
pub mod document;
pub mod guard;
pub mod pipeline;
pub mod provider;
pub mod router;
#[cfg(feature = "server")]
pub mod simulator;
pub mod supervisor;
pub mod types;
pub mod wire;
