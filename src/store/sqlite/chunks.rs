//! Sizes of the statements that read or write many rows.

/// Rows per statement, largest first. Each size is half of the previous, so any number of rows takes few statements.
/// Each statement is a round trip to the database's thread, and each size is prepared once.
pub(super) const CHUNKS: [usize; 8] = [128, 64, 32, 16, 8, 4, 2, 1];
