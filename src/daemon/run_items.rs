//! Pages of the items of a run, and single items.

use std::io;

use crate::run::History;
use crate::store::{ItemNumber, RunNumber};
use crate::types::ItemKey;

use super::caller::Caller;
use super::daemon::Daemon;
use super::error::Error;
use super::item_view::{ItemPage, ItemState, ItemView};
use super::page_size::PageSize;

/// How many items a page has if its query does not say so.
const DEFAULT_LIMIT: u32 = 50;

/// How many items a page has at most.
const MAX_LIMIT: u32 = 200;

/// How many items are read for one page, if few of them are in the state that is asked for.
const MAX_READ_ITEMS: u32 = 2_000;

/// The size of a page in JSON after which it gets no more items. An item alone may be larger.
const MAX_PAGE_BYTES: usize = 4 << 20;

/// Which items a page has.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ItemQuery {
    /// Only those in this state.
    pub state: Option<ItemState>,
    /// Where the page begins: `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// How many items it has at most; 0 is 50.
    pub limit: u32,
}

impl ItemQuery {
    /// Creates the query of the first page of all items.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Daemon {
    /// Returns a page of the items of a run that have started, with their attempt logs.
    ///
    /// # Errors
    /// If there is no such run, the caller may not see it, or the cursor is none.
    pub async fn run_items(
        &self,
        run: RunNumber,
        query: ItemQuery,
        caller: &Caller,
    ) -> Result<ItemPage, Error> {
        let after = query.cursor.as_deref().map_or(Ok(0), str::parse::<i64>);
        let after = after
            .map_err(|_| Error::invalid("the cursor is not one: use `next_cursor` of the page before"))?;
        let (stored, _) = self.stored_run(run, caller).await?;
        let history = History::of_stored(self.store().clone(), stored)?;
        let page = async move { read_page(&history, &query, ItemNumber(after)).await };
        self.pointsman().work(page).await?
    }

    /// Returns an item of a run that has started, with its attempt log.
    ///
    /// # Errors
    /// If there is no such run or item, or the caller may not see it.
    pub async fn run_item(&self, run: RunNumber, key: &str, caller: &Caller) -> Result<ItemView, Error> {
        let (stored, _) = self.stored_run(run, caller).await?;
        let history = History::of_stored(self.store().clone(), stored)?;
        let item = history.item(&ItemKey::from(key)).await?;
        let missing = || Error::NotFound { what: "item that has started", name: key.to_owned() };
        Ok(ItemView::of(&history, &item.ok_or_else(missing)?))
    }
}

async fn read_page(history: &History, query: &ItemQuery, mut after: ItemNumber) -> Result<ItemPage, Error> {
    let max = match query.limit {
        0 => DEFAULT_LIMIT,
        limit => limit.min(MAX_LIMIT),
    } as usize;
    let mut items = Vec::new();
    let mut bytes = 0;
    let mut read = 0;
    let mut size = PageSize::first();
    loop {
        let page = match query.state {
            Some(ItemState::Failed) => history.failed_page(after, size.items()).await?,
            Some(ItemState::Open | ItemState::Completed | ItemState::Skipped) | None => {
                history.page(after, size.items()).await?
            }
        };
        let is_last = page.len() < size.items() as usize;
        size = size.after(&page);
        for item in &page {
            if items.len() == max || bytes > MAX_PAGE_BYTES {
                return Ok(ItemPage { items, next_cursor: Some(after.to_string()) });
            }
            after = item.head.number;
            read += 1;
            if query.state.is_some_and(|state| state != ItemState::of(item)) {
                continue;
            }
            let view = ItemView::of(history, item);
            bytes += json_size(&view);
            items.push(view);
        }
        if is_last {
            return Ok(ItemPage { items, next_cursor: None });
        }
        if read >= MAX_READ_ITEMS {
            return Ok(ItemPage { items, next_cursor: Some(after.to_string()) });
        }
    }
}

/// Returns the size of an item in JSON.
fn json_size(item: &ItemView) -> usize {
    let mut size = Size(0);
    // The writer accepts everything.
    drop(serde_json::to_writer(&mut size, item));
    size.0
}

/// Counts what is written.
struct Size(usize);

impl io::Write for Size {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
