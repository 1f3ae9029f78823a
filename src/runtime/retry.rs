//! Finds the failed items of a run that are to be asked again, and makes a source of them: their fields are kept
//! with them. Until they settle anew they have failed.

use std::sync::Arc;

use serde_json::Value;
use tokio::runtime::Handle;

use crate::pipeline::run::History;
use crate::pipeline::source::Source;
use crate::store::{self, ItemNumber, KnownItem, RunNumber, Store};
use crate::types::{Class, ItemStatus};

use super::error::Error;
use super::keep::Kept;

/// Failed items that are to be asked again.
#[derive(Debug)]
pub struct Retried {
    store: Arc<dyn Store>,
    run: RunNumber,
    items: Vec<ItemNumber>,
}

impl Kept {
    /// Finds what has failed, of one of `classes` or of anything when there are none; the run must have been found
    /// with [`Keep::retry`](super::Keep::retry).
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn retried(&self, classes: &[Class]) -> Result<Retried, Error> {
        let (store, run) = (self.store().clone(), self.number().unwrap_or_default());
        let mut items = Vec::new();
        let is_due = |item: &KnownItem| {
            let Some(settled) = &item.settled else { return false };
            let class = settled.error.as_ref().map(|(_, failure)| failure.class);
            let is_one = classes.is_empty() || class.is_some_and(|class| classes.contains(&class));
            settled.status == ItemStatus::Failed && is_one
        };
        let history = History::of(store.clone(), run).await?;
        history
            .items(async |item: &KnownItem| {
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
        let Self { store, run, items } = self;
        let items = items.into_iter().map(move |number| {
            let before = ItemNumber(number.0 - 1);
            let found = runtime.block_on(store.items(run, before, 1)).ok();
            let found = found.and_then(|found| found.into_iter().next());
            // What cannot be read is no object: it is rejected with its line, and has failed still.
            let input = |item: &KnownItem| serde_json::from_str(item.head.input.as_deref()?).ok();
            found.map_or((0, Value::Null), |item| (item.head.line, input(&item).unwrap_or_default()))
        });
        Source::numbered(name, items)
    }
}
