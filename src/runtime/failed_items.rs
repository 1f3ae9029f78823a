//! Failed items of a run, which are processed again.
//!
//! Their fields are stored with them, so that they can be the source of a session whose input cannot be read
//! again. Its stored state stays failed until it has been processed again.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::Value;
use tokio::runtime::Handle;

use crate::run::History;
use crate::source::{Source, ValueError};
use crate::store::{self, ItemNumber, RunNumber, Store, StoredItem};
use crate::types::{Class, ItemKey};

use super::error::Error;
use super::resume::PreparedRun;

/// How many failed items are read from the store at once.
const ITEMS_PER_READ: u32 = 100;

/// Failed items that are to be processed again.
#[derive(Debug)]
pub struct FailedItems {
    store: Arc<dyn Store>,
    run: RunNumber,
    items: VecDeque<ItemNumber>,
}

impl PreparedRun {
    /// Finds the failed items whose class is one of `classes`, or all of them if `classes` is empty. Items that
    /// are known to be missing from the input are left out. The run must have been prepared with
    /// [`ResumeOptions::retry`](super::ResumeOptions::retry).
    ///
    /// # Errors
    /// If the store cannot be read.
    #[doc(hidden)]
    pub async fn failed_items(&self, classes: &[Class]) -> Result<FailedItems, Error> {
        let store = self.store().clone();
        let run = self.id().unwrap_or_default();
        let mut items = VecDeque::new();
        let history = History::of(store.clone(), run).await?;
        let is_due = |item: &StoredItem| {
            let error = item.outcome.as_ref().and_then(|outcome| outcome.error.as_ref());
            let class = error.map(|(_, failure)| failure.class);
            classes.is_empty() || class.is_some_and(|class| classes.contains(&class))
        };
        history
            .failed_items(async |item: &StoredItem| {
                items.extend(is_due(item).then_some(item.head.number));
                Ok::<_, store::Error>(())
            })
            .await?;
        Ok(FailedItems { store, run, items })
    }
}

impl FailedItems {
    /// Returns the number of items.
    pub fn count(&self) -> usize {
        self.items.len()
    }

    /// Creates a source of these items, in the order in which they began. The store is read on `runtime`.
    pub fn source(self, name: impl Into<String>, runtime: Handle) -> Source {
        let total = self.items.len() as u64;
        Source::fallible(name, total, FailedItemReader { retried: self, runtime, page: VecDeque::new() })
    }
}

/// Reads failed items in pages.
struct FailedItemReader {
    retried: FailedItems,
    runtime: Handle,
    page: VecDeque<StoredItem>,
}

impl Iterator for FailedItemReader {
    type Item = Result<(u64, ItemKey, Value), ValueError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.retried.items.pop_front()?;
        Some(self.item(next))
    }
}

impl FailedItemReader {
    fn item(&mut self, next: ItemNumber) -> Result<(u64, ItemKey, Value), ValueError> {
        // The page also has failed items that are not processed again.
        while self.page.front().is_some_and(|item| item.head.number < next) {
            self.page.pop_front();
        }
        if self.page.front().is_none_or(|item| item.head.number != next) {
            let FailedItems { store, run, .. } = &self.retried;
            let page = store.failed(*run, ItemNumber(next.0 - 1), ITEMS_PER_READ);
            self.page = self.runtime.block_on(page).map_err(Box::new)?.into();
        }
        let item = self.page.pop_front().filter(|item| item.head.number == next);
        let item = item.ok_or_else(|| format!("item {next} is not in the store any more"))?;
        let input = item.head.input.as_deref();
        let input = input.ok_or_else(|| format!("the fields of item {next} are not in the store"))?;
        let fields = serde_json::from_str(input)?;
        Ok((item.head.line, item.head.key, fields))
    }
}

#[cfg(test)]
#[cfg(feature = "sqlite")]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::store::{RunMetadata, Sqlite};
    use crate::types::error_chain;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_item_that_is_missing_in_the_store_ends_the_input_with_an_error_and_is_no_reject() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Sqlite::open(&folder.path().join("a.db")).await.unwrap());
        let name = "email".to_owned();
        let pipeline = String::new();
        let outline = RunMetadata { name, command: Value::Null, pipeline, manifest: Value::Null };
        let run = store.create("email on emails.jsonl", &outline).await.unwrap();
        let retried = FailedItems { store, run, items: [ItemNumber(7)].into() };
        let mut reader = retried.source("1 failed item", Handle::current()).read().unwrap();
        let error = reader.next().await.unwrap().unwrap_err();
        let expected = "cannot read the next value of 1 failed item (items read: 0): item 7 is not in the store any more";
        assert_eq!(error_chain(&error), expected);
        assert!(reader.next().await.is_none());
    }
}
