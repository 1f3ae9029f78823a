//! Panics on purpose, where a test says and how often.
//!
//! Wherever a panic must cost little, the code passes a `point` of its own name. Only the feature `chaos`,
//! which nobody but the tests switches on, makes anything of that; without it a point compiles to nothing.

#[cfg(feature = "chaos")]
mod armed;

#[cfg(feature = "chaos")]
pub(crate) use armed::point;
#[cfg(feature = "chaos")]
pub use armed::{Armed, Passed, Plan, arm, die_as_told, passed};

/// Does nothing, and costs nothing.
#[cfg(not(feature = "chaos"))]
#[inline(always)]
pub(crate) fn point(_: &'static str) {}
