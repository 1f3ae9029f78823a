//! Runs very many AI calls at once and loses none of them.

pub mod document;
pub mod pipeline;
pub mod types;
