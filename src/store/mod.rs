//! Durable storage of runs, items, answers and costs.
//!
//! [`Store`] is the interface; `Sqlite` implements it. All SQL is in this module. A record is written completely or
//! not at all. Each row has a checksum and the rows of a run are counted, so that a damaged file is reported instead of
//! read as valid data. This module makes no decisions about runs or items.

mod answer_cache;
mod call_count;
mod database_files;
mod document;
mod error;
#[cfg_attr(not(feature = "sqlite"), expect(dead_code, reason = "only `Sqlite` takes locks"))]
mod lock;
mod record;
mod run;
mod spending;
#[cfg(feature = "sqlite")]
mod sqlite;
#[expect(clippy::module_inception, reason = "the module is named after its trait")]
mod store;
#[cfg(test)]
#[cfg(feature = "sqlite")]
mod tests;
mod url;

pub use answer_cache::{CacheLimits, CachedAnswer, CachedTarget, PrunedAnswers};
pub use call_count::CallCount;
pub use document::{
    Document, DocumentKind, ExpectedVersion, MAX_DOCUMENT_BYTES, MAX_DOCUMENT_DEPTH, MAX_DOCUMENT_VERSIONS,
};
pub use error::Error;
pub use lock::RunLock;
pub use record::{
    FileStamp, ItemHead, ItemNumber, OutcomeRecord, Record, StepRecord, StepState, StoredItem, StoredStep,
};
pub use run::{RunFilter, RunMetadata, RunNumber, RunState, RunTotals, StoredRun};
pub use spending::{MAX_SPENDING_ROWS, ScopeSpendingRow, SpendingRow};
#[cfg(feature = "sqlite")]
pub use sqlite::Sqlite;
pub(crate) use store::MAX_LOCK_WAIT;
pub use store::{Session, Store, StoreFuture};
pub use url::{StoreUrl, StoreUrlError};
