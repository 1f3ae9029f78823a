//! Reads as many items as the run requests and sends them to it, each with what is stored about it.
//!
//! A separate task, so that a slow source or store never blocks the run's actor.

use std::sync::Arc;

use actix::prelude::*;
use futures_util::FutureExt;
use tokio::sync::mpsc;

use super::messages::{EntriesRead, InputEnd, InputError, LedgerFailed, SourceEnded};
use super::persistence::RunPersistence;
use crate::chaos;
use crate::guard::MemoryBudget;
use crate::ledger::CommitError;
use crate::source::{Entry, Reader, memory_of};
use crate::types::{ItemKey, error_chain};

/// Most entries sent at once.
const MAX_BATCH_ENTRIES: usize = 64;

/// Memory of an item in progress besides its data: its actor, its steps, its line.
const ITEM_OVERHEAD_BYTES: usize = 4 << 10;

/// Estimated number of copies of an item's data in memory while it is in progress: its value, its template
/// data, its text for the store, and temporary copies.
const ITEM_COPIES_IN_MEMORY: usize = 4;

/// The run, as the recipient of the source task's messages.
pub(super) struct SourceRecipients {
    pub(super) entries_read: Recipient<EntriesRead>,
    pub(super) source_ended: Recipient<SourceEnded>,
    pub(super) ledger_failed: Recipient<LedgerFailed>,
}

/// Sends `run` one entry for each one that is requested through `demand`, until the source ends or the run
/// stops requesting.
pub(super) async fn run_source_task(
    reader: Reader,
    demand: mpsc::UnboundedReceiver<usize>,
    persistence: Option<Arc<RunPersistence>>,
    run: SourceRecipients,
) {
    let memory = MemoryBudget::of_process();
    let mut task =
        SourceTask { reader, demand, outstanding: 0, batch: Vec::new(), items: 0, persistence, memory, run };
    let ended = match task.read_entries().await {
        Ok(SourceEnd::EndOfInput) => SourceEnded { end: InputEnd::Complete },
        Ok(SourceEnd::Limited) => SourceEnded { end: InputEnd::Limited },
        Ok(SourceEnd::RunStopped) => return,
        Err(SourceFailure::Source(error)) => SourceEnded { end: InputEnd::Failed(error) },
        Err(SourceFailure::Store(error)) => return task.run.ledger_failed.do_send(LedgerFailed(error)),
    };
    task.run.source_ended.do_send(ended);
}

/// How reading ended.
enum SourceEnd {
    /// The source has ended.
    EndOfInput,
    /// The most items that are read were read.
    Limited,
    /// The run requests no more entries.
    RunStopped,
}

/// Whether an entry is sent to the run.
enum Admission {
    Admitted,
    /// The run requests no more entries.
    RunStopped,
}

/// What failed.
enum SourceFailure {
    Source(InputError),
    Store(CommitError),
}

struct SourceTask {
    reader: Reader,
    demand: mpsc::UnboundedReceiver<usize>,
    /// Entries that were requested and not sent yet.
    outstanding: usize,
    batch: Vec<Entry>,
    /// Items that were read.
    items: u64,
    persistence: Option<Arc<RunPersistence>>,
    memory: Arc<MemoryBudget>,
    run: SourceRecipients,
}

impl SourceTask {
    async fn read_entries(&mut self) -> Result<SourceEnd, SourceFailure> {
        loop {
            while self.outstanding == 0 {
                match self.demand.recv().await {
                    Some(count) => self.outstanding = count,
                    None => return Ok(SourceEnd::RunStopped),
                }
            }
            // Entries that have arrived are sent before waiting for more: the source may be a terminal.
            let next = match self.reader.next().now_or_never() {
                Some(next) => next,
                None => {
                    self.send().await?;
                    let Self { reader, demand, outstanding, .. } = self;
                    tokio::select! {
                        next = reader.next() => next,
                        () = run_stopped(demand, outstanding) => return Ok(SourceEnd::RunStopped),
                    }
                }
            };
            match next {
                Some(Ok(mut entry)) => {
                    chaos::point("source.entry");
                    match self.admit(&mut entry).await? {
                        Admission::Admitted => {}
                        Admission::RunStopped => return Ok(SourceEnd::RunStopped),
                    }
                    self.outstanding -= 1;
                    self.batch.push(entry);
                    if self.batch.len() == MAX_BATCH_ENTRIES || self.outstanding == 0 {
                        self.send().await?;
                    }
                }
                Some(Err(error)) => {
                    self.send().await?;
                    let error = InputError { message: error_chain(&error), advice: error.advice() };
                    return Err(SourceFailure::Source(error));
                }
                None => {
                    self.send().await?;
                    if self.reader.is_limited() {
                        return Ok(SourceEnd::Limited);
                    }
                    self.reject_emptied_input()?;
                    return Ok(SourceEnd::EndOfInput);
                }
            }
        }
    }

    /// Waits until there is memory for an item.
    async fn admit(&mut self, entry: &mut Entry) -> Result<Admission, SourceFailure> {
        let Entry::Item(item) = entry else { return Ok(Admission::Admitted) };
        self.items += 1;
        if let Some(persistence) = &self.persistence {
            persistence.note_fields(item);
        }
        let bytes = ITEM_OVERHEAD_BYTES + memory_of(&item.value).saturating_mul(ITEM_COPIES_IN_MEMORY);
        let held = match self.memory.take(bytes).now_or_never() {
            Some(held) => held,
            None => {
                // The memory may be held by the entries that were read before, so they are sent first.
                self.send().await?;
                let Self { memory, demand, outstanding, .. } = self;
                tokio::select! {
                    held = memory.take(bytes) => held,
                    () = run_stopped(demand, outstanding) => return Ok(Admission::RunStopped),
                }
            }
        };
        item.held = held;
        Ok(Admission::Admitted)
    }

    /// Returns an error if the input has no items but the run had some before: a failed export must not empty
    /// the output.
    fn reject_emptied_input(&self) -> Result<(), SourceFailure> {
        let known_items = self.persistence.as_ref().map_or(0, |persistence| persistence.known_items);
        if self.items == 0 && known_items > 0 {
            let message = format!("the input has no items, and the run had {known_items} before");
            return Err(SourceFailure::Source(message.into()));
        }
        Ok(())
    }

    /// Sends the entries that were read, with what is stored about them.
    async fn send(&mut self) -> Result<(), SourceFailure> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let key = |entry: &Entry| match entry {
            Entry::Item(item) => Some(item.key.clone()),
            Entry::Rejected(_) => None,
        };
        let stored = match &self.persistence {
            Some(persistence) => {
                let keys: Vec<ItemKey> = self.batch.iter().filter_map(key).collect();
                let stored = persistence.look_up(&keys).await;
                stored.map_err(|error| SourceFailure::Store(CommitError(error_chain(&error).into())))?
            }
            None => Vec::new(),
        };
        let mut stored = stored.into_iter();
        let with_stored = |entry: Entry| {
            let stored = key(&entry).and_then(|_| stored.next().flatten()).map(Box::new);
            (entry, stored)
        };
        let entries = std::mem::take(&mut self.batch).into_iter().map(with_stored).collect();
        // At most one window of entries is in transit, because the run requested each of them.
        self.run.entries_read.do_send(EntriesRead { entries, input_read: self.reader.progress() });
        Ok(())
    }
}

/// Completes when the run requests no more entries.
async fn run_stopped(demand: &mut mpsc::UnboundedReceiver<usize>, outstanding: &mut usize) {
    while let Some(count) = demand.recv().await {
        *outstanding += count;
    }
}
