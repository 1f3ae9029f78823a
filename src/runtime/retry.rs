//! Opens failed items of a run again, and makes a source of them: their fields are kept with them.

use std::sync::Arc;

use serde_json::Value;
use tokio::runtime::Handle;

use crate::pipeline::source::Source;
use crate::store::{ItemNumber, KnownItem, Record, Store};
use crate::types::{Class, ItemStatus};

use super::error::Error;
use super::keep::Kept;

/// Items that are read at once.
const PAGE: u32 = 500;

/// Failed items that have been opened again.
#[derive(Debug)]
pub struct Reopened {
    store: Arc<dyn Store>,
    run: crate::store::RunNumber,
    items: Vec<ItemNumber>,
}

impl Kept {
    /// Opens again what has failed, of one of `classes` or of anything when there are none: it is not settled any
    /// more, and its answered steps stay answered. An item that failed twice before is tried like any other.
    ///
    /// # Errors
    /// When there is no such run, or its store cannot be used.
    pub async fn reopen(&self, classes: &[Class]) -> Result<Reopened, Error> {
        let store = self.store().clone();
        let mut reopened =
            Reopened { store: store.clone(), run: self.number().unwrap_or_default(), items: Vec::new() };
        let mut after = ItemNumber::default();
        loop {
            let page = store.items(reopened.run, after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(reopened) };
            after = last.head.number;
            let due = |item: &KnownItem| {
                let settled = item.settled.as_ref()?;
                let class = settled.error.as_ref().map(|(_, failure)| failure.class);
                let is_one = classes.is_empty() || class.is_some_and(|class| classes.contains(&class));
                (settled.status == ItemStatus::Failed && is_one).then_some(())
            };
            let records: Vec<Record> = page
                .into_iter()
                .filter(|item| due(item).is_some())
                .map(|item| Record {
                    run: reopened.run,
                    // No step is written: of which session it is said to be has no meaning.
                    session: 0,
                    item: Arc::new(item.head),
                    steps: Vec::new(),
                    settled: None,
                })
                .collect();
            reopened.items.extend(records.iter().map(|record| record.item.number));
            if !records.is_empty() {
                store.write(&records).await?;
            }
        }
    }
}

impl Reopened {
    /// Returns how many there are.
    pub fn count(&self) -> usize {
        self.items.len()
    }

    /// Makes a source of them, in the order in which they were begun; the store is read on `runtime`.
    pub fn source(self, name: impl Into<String>, runtime: Handle) -> Source {
        let Self { store, run, items } = self;
        let items = items.into_iter().map(move |number| {
            let before = ItemNumber(number.0 - 1);
            let found =
                runtime.block_on(store.items(run, before, 1)).ok().and_then(|found| found.into_iter().next());
            // What cannot be read is no object: it is rejected with its line, and stays open.
            let input = |item: &KnownItem| serde_json::from_str(item.head.input.as_deref()?).ok();
            found.map_or((0, Value::Null), |item| (item.head.line, input(&item).unwrap_or_default()))
        });
        Source::numbered(name, items)
    }
}
