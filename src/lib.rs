//! Runs very many AI calls at once and loses none of them.

pub mod types;
pub mod wire;
