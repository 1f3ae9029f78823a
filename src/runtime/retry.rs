//! Finds the failed items of a run that are to be asked again, and makes a source of them for where the input cannot
//! be read again: their fields are kept with them. Until they settle again they have failed.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::Value;
use tokio::runtime::Handle;

use crate::run::History;
use crate::source::{Source, Unreadable};
use crate::store::{self, ItemNumber, KnownItem, RunNumber, Store};
use crate::types::Class;

use super::error::Error;
use super::keep::Kept;

/// Failed items that are read at once.
const PAGE: u32 = 100;

/// Failed items that are to be asked again.
#[derive(Debug)]
pub struct Retried {
    store: Arc<dyn Store>,
    run: RunNumber,
    items: VecDeque<ItemNumber>,
}

impl Kept {
    /// Finds what has failed, of one of `classes` or of anything when there are none, and is in the input as far as
    /// that is known; the run must have been found with [`Keep::retry`](super::Keep::retry).
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn retried(&self, classes: &[Class]) -> Result<Retried, Error> {
        let (store, run) = (self.store().clone(), self.number().unwrap_or_default());
        let mut items = VecDeque::new();
        let history = History::of(store.clone(), run).await?;
        let is_due = |item: &KnownItem| {
            let error = item.settled.as_ref().and_then(|settled| settled.error.as_ref());
            let class = error.map(|(_, failure)| failure.class);
            classes.is_empty() || class.is_some_and(|class| classes.contains(&class))
        };
        history
            .failed(async |item: &KnownItem| {
                items.extend(is_due(item).then_some(item.head.number));
                Ok::<_, store::Error>(())
            })
            .await?;
        Ok(Retried { store, run, items })
    }
}

impl Retried {
    /// Returns how many there are.
    pub fn count(&self) -> usize {
        self.items.len()
    }

    /// Makes a source of them, in the order in which they were begun; the store is read on `runtime`.
    pub fn source(self, name: impl Into<String>, runtime: Handle) -> Source {
        let total = self.items.len() as u64;
        Source::fallible(name, total, Pages { retried: self, runtime, page: VecDeque::new() })
    }
}

/// Reads failed items, a page at a time.
struct Pages {
    retried: Retried,
    runtime: Handle,
    page: VecDeque<KnownItem>,
}

impl Iterator for Pages {
    type Item = Result<(u64, Value), Unreadable>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.retried.items.pop_front()?;
        Some(self.item(next))
    }
}

impl Pages {
    fn item(&mut self, next: ItemNumber) -> Result<(u64, Value), Unreadable> {
        // Failed items that are not to be asked lie between.
        while self.page.front().is_some_and(|item| item.head.number < next) {
            self.page.pop_front();
        }
        if self.page.front().is_none_or(|item| item.head.number != next) {
            let Retried { store, run, .. } = &self.retried;
            let page = store.failed(*run, ItemNumber(next.0 - 1), PAGE);
            self.page = self.runtime.block_on(page).map_err(Box::new)?.into();
        }
        let item = self.page.pop_front().filter(|item| item.head.number == next);
        let item = item.ok_or_else(|| format!("item {next} is not in the store any more"))?;
        let input = item.head.input.as_deref();
        let input = input.ok_or_else(|| format!("the fields of item {next} are not in the store"))?;
        Ok((item.head.line, serde_json::from_str(input)?))
    }
}

#[cfg(test)]
#[cfg(feature = "sqlite")]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::store::{Outline, Sqlite};
    use crate::types::whole_story;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_item_that_the_store_cannot_give_ends_the_input_with_an_error_and_is_no_reject() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Sqlite::open(&folder.path().join("a.db")).await.unwrap());
        let (name, pipeline) = ("email".to_owned(), String::new());
        let outline = Outline { name, places: Value::Null, pipeline, grounds: Value::Null };
        let run = store.create("email on emails.jsonl", &outline).await.unwrap();
        let retried = Retried { store, run, items: [ItemNumber(7)].into() };
        let mut reader = retried.source("1 failed item", Handle::current()).read().unwrap();
        let error = reader.next().await.unwrap().unwrap_err();
        let said = "cannot bring the next of 1 failed item; 0 items were brought before: item 7 is not in the store any more";
        assert_eq!(whole_story(&error), said);
        assert!(reader.next().await.is_none());
    }
}
