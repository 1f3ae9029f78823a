//! The store in one SQLite file, in WAL mode.
//!
//! One connection writes, and each commit is on the disk before it returns (`synchronous = FULL`). A commit contains many
//! records, which keeps the cost per record low. Two connections read. SQLite is the bundled one.

mod advice;
mod answers;
mod calls;
mod chunks;
mod connection;
mod database;
mod documents;
mod file_identity;
mod open;
mod read;
mod read_only;
mod row;
mod row_counts;
mod run_pages;
mod run_row;
mod runs;
mod schema;
mod scope_spending;
mod spending;
mod spending_rows;
mod store;
mod write;
mod write_check;

pub use database::Sqlite;
#[cfg(test)]
pub(super) use documents::DocumentChange;
