//! Fault injection: panics and aborts at named failure points, for tests.
//!
//! `point` is called with a name wherever the program must survive a panic. With the feature `chaos`, which only
//! tests enable, a point can panic. Without it, a point compiles to nothing.

#[cfg(feature = "chaos")]
mod armed;

#[cfg(feature = "chaos")]
pub(crate) use armed::point;
#[cfg(feature = "chaos")]
pub use armed::{Armed, Plan, PointCounts, abort_at_configured_point, arm, point_counts};

/// Does nothing.
#[cfg(not(feature = "chaos"))]
#[inline(always)]
pub(crate) fn point(_: &'static str) {}
