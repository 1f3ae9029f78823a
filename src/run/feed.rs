//! Brings a run as many items as it asks for, and no more; each with what is known of it already.
//!
//! A task of its own, so that a slow source or store never stops the run's actor.

use std::sync::Arc;

use actix::prelude::*;
use futures_util::FutureExt;
use tokio::sync::mpsc;

use super::actor::Run;
use super::keeping::Keeping;
use super::messages::{Arrived, LedgerBroken, SourceEnded};
use crate::chaos;
use crate::guard::MemoryBudget;
use crate::ledger::Unkept;
use crate::source::{Entry, Reader, memory_of};
use crate::types::{ItemKey, whole_story};

/// Most entries sent at once.
const BATCH: usize = 64;

/// What an item in progress takes besides its data: its actor, its steps, its line.
const ITEM_BYTES: usize = 4 << 10;

/// How often the data of an item is in memory while it is in progress: as a value, for its templates, as a text
/// for the store, and once more in each.
const COPIES: usize = 4;

/// Sends `run` one entry for every one that `wanted` asks for, until the source ends or nobody asks
/// any more.
pub(super) async fn feed(
    reader: Reader,
    wanted: mpsc::UnboundedReceiver<usize>,
    keeping: Option<Arc<Keeping>>,
    run: Addr<Run>,
) {
    let memory = MemoryBudget::of_process();
    let mut feeder = Feeder { reader, wanted, owed: 0, batch: Vec::new(), items: 0, keeping, memory, run };
    let ended = match feeder.bring().await {
        Ok(End::Over) => SourceEnded { error: None },
        Ok(End::HungUp) => return,
        Err(Failed::Source(error)) => SourceEnded { error: Some(error) },
        Err(Failed::Store(unkept)) => return feeder.run.do_send(LedgerBroken(unkept)),
    };
    feeder.run.do_send(ended);
}

/// How the bringing ended.
enum End {
    /// There is nothing more.
    Over,
    /// Nobody asks any more.
    HungUp,
}

/// What broke.
enum Failed {
    Source(String),
    Store(Unkept),
}

struct Feeder {
    reader: Reader,
    wanted: mpsc::UnboundedReceiver<usize>,
    /// Entries that are asked for and not yet brought.
    owed: usize,
    batch: Vec<Entry>,
    /// Items that it had.
    items: u64,
    keeping: Option<Arc<Keeping>>,
    memory: Arc<MemoryBudget>,
    run: Addr<Run>,
}

impl Feeder {
    async fn bring(&mut self) -> Result<End, Failed> {
        loop {
            while self.owed == 0 {
                match self.wanted.recv().await {
                    Some(more) => self.owed = more,
                    None => return Ok(End::HungUp),
                }
            }
            // What has come already goes before anything is waited for: a source may be a person typing.
            let next = match self.reader.next().now_or_never() {
                Some(next) => next,
                None => {
                    self.send().await?;
                    let Self { reader, wanted, owed, .. } = self;
                    tokio::select! {
                        next = reader.next() => next,
                        () = stopped(wanted, owed) => return Ok(End::HungUp),
                    }
                }
            };
            match next {
                Some(Ok(mut entry)) => {
                    chaos::point("feed.entry");
                    if self.admit(&mut entry).await?.is_none() {
                        return Ok(End::HungUp);
                    }
                    self.owed -= 1;
                    self.batch.push(entry);
                    if self.batch.len() == BATCH || self.owed == 0 {
                        self.send().await?;
                    }
                }
                Some(Err(error)) => {
                    self.send().await?;
                    return Err(Failed::Source(whole_story(&error)));
                }
                None => {
                    self.send().await?;
                    self.refuse_emptied()?;
                    return Ok(End::Over);
                }
            }
        }
    }

    /// Waits until there is memory for an item; `None` when nobody asks any more.
    async fn admit(&mut self, entry: &mut Entry) -> Result<Option<()>, Failed> {
        let Entry::Item(item) = entry else { return Ok(Some(())) };
        self.items += 1;
        let bytes = ITEM_BYTES + memory_of(&item.value).saturating_mul(COPIES);
        let held = match self.memory.take(bytes).now_or_never() {
            Some(held) => held,
            None => {
                // What has come before is what the memory waits for.
                self.send().await?;
                let Self { memory, wanted, owed, .. } = self;
                tokio::select! {
                    held = memory.take(bytes) => held,
                    () = stopped(wanted, owed) => return Ok(None),
                }
            }
        };
        item.held = held;
        Ok(Some(()))
    }

    /// Refuses an input without any item where the run had some: an export that failed must not empty its output.
    fn refuse_emptied(&self) -> Result<(), Failed> {
        let had = self.keeping.as_ref().map_or(0, |keeping| keeping.had);
        if self.items == 0 && had > 0 {
            return Err(Failed::Source(format!("the input has no items, and the run had {had} before")));
        }
        Ok(())
    }

    /// Sends what has come, with what earlier sessions left of it.
    async fn send(&mut self) -> Result<(), Failed> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let key = |entry: &Entry| match entry {
            Entry::Item(item) => Some(item.key.clone()),
            Entry::Rejected(_) => None,
        };
        let known = match &self.keeping {
            Some(keeping) => {
                let keys: Vec<ItemKey> = self.batch.iter().filter_map(key).collect();
                let known = keeping.look_up(&keys).await;
                known.map_err(|error| Failed::Store(Unkept(whole_story(&error).into())))?
            }
            None => Vec::new(),
        };
        let mut known = known.into_iter();
        let with_known = |entry: Entry| {
            let known = key(&entry).and_then(|_| known.next().flatten()).map(Box::new);
            (entry, known)
        };
        let entries = std::mem::take(&mut self.batch).into_iter().map(with_known).collect();
        // At most a window of entries is under way: the run asked for each.
        self.run.do_send(Arrived { entries, input_read: self.reader.progress() });
        Ok(())
    }
}

/// Returns when the run has hung up.
async fn stopped(wanted: &mut mpsc::UnboundedReceiver<usize>, owed: &mut usize) {
    while let Some(more) = wanted.recv().await {
        *owed += more;
    }
}
