//! A day as spending is capped by: from midnight to midnight, UTC.

const MILLISECONDS: i64 = 24 * 60 * 60 * 1_000;

/// Days since the first of January 1970, UTC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub i64);

impl Day {
    /// Returns the day of an instant, given in milliseconds since 1970.
    pub fn at(milliseconds: i64) -> Self {
        Self(milliseconds.div_euclid(MILLISECONDS))
    }
}
