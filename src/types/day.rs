//! The day that daily budgets count by: from midnight to midnight, UTC.

const MILLISECONDS_PER_DAY: i64 = 24 * 60 * 60 * 1_000;

/// The number of days since 1970-01-01, UTC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub i64);

impl Day {
    /// Returns the day that contains an instant, given in milliseconds since 1970.
    pub fn at(milliseconds: i64) -> Self {
        Self(milliseconds.div_euclid(MILLISECONDS_PER_DAY))
    }
}
