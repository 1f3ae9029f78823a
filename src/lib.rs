//! Runs very many AI calls at once and loses none of them.

pub mod document;
pub mod guard;
pub mod types;
