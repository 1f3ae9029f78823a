//! Writes the results of a stored run, with the fields of its items where the output has them.
//!
//! The fields come from the store, or else from the input, if it has the items as they were.

use crate::run::{History, ItemSet};
use crate::sink::{Line, RowLayout, Sink, StepColumns};
use crate::source::{Entry, Item, Reader, Source, content_fingerprint};
use crate::store::{ItemNumber, StoredItem};
use crate::types::{FieldCollector, InputFields, ItemKey};

use super::error::Error;
use super::existing_run::was_simulated;
use super::outcome::stored_layout;

/// Items whose fields show the columns of the input, if the run has not recorded them.
const LOOK_AHEAD_ITEMS: u32 = 1_000;

/// Items of the input that are looked up at once.
const BATCH_ITEMS: usize = 200;

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exported {
    /// Lines that are older than the last change of the pipeline.
    pub outdated: u64,
}

/// Returns what the columns of the results of a run are made from. `needs_fields` is whether it must have the fields of
/// the input. They are those of the whole input if the run has read it to its end.
///
/// # Errors
/// If the store cannot be read.
pub async fn layout_of(history: &History, needs_fields: bool) -> Result<RowLayout, Error> {
    let run = history.run();
    let steps = || history.steps().iter().cloned().map(StepColumns::new).collect();
    let has_steps = |layout: &RowLayout| layout.steps.iter().map(|step| &step.step).eq(history.steps());
    let stored = stored_layout(run).filter(has_steps);
    let mut layout = stored.unwrap_or_else(|| RowLayout::new(steps()));
    layout.is_simulated |= was_simulated(run);
    if needs_fields && layout.fields.is_none() {
        layout.fields = stored_fields(history).await?;
    }
    Ok(layout)
}

/// Returns the fields of the first items whose fields are stored; `None` without any.
async fn stored_fields(history: &History) -> Result<Option<InputFields>, Error> {
    let page = history.page(ItemNumber::default(), LOOK_AHEAD_ITEMS).await?;
    let has_more = page.len() as u64 >= u64::from(LOOK_AHEAD_ITEMS);
    let mut collector = FieldCollector::default();
    let mut has_fields = false;
    for item in &page {
        if let Some(fields) = history.fields(item).as_ref().and_then(|fields| fields.as_object()) {
            collector.add(&item.head.key, fields);
            has_fields = true;
        }
    }
    Ok(has_fields.then(|| collector.fields(has_more)))
}

/// Writes the lines of all finished items of a run to `sink`. Items that are not in the input any more have no line.
/// `items` is the input, for the fields of items that the store does not have.
///
/// # Errors
/// If the store cannot be read or the output cannot be written, and [`Error::FieldsNotStored`]. An original file then
/// stays.
pub async fn export(
    history: &History,
    mut sink: Sink<Line>,
    items: Option<Source>,
) -> Result<Exported, Error> {
    let written = write(history, &mut sink, items).await;
    if written.is_err() {
        sink.mark_lines_missing();
    }
    // The error of the writer is more specific than the error of the closed channel.
    let finished = sink.finish().await;
    finished.map_err(Error::Output)?;
    written
}

async fn write(history: &History, sink: &mut Sink<Line>, items: Option<Source>) -> Result<Exported, Error> {
    let mut layout = layout_of(history, sink.needs_fields()).await?;
    let mut input = None;
    if sink.needs_fields() && layout.fields.is_none() {
        let mut reader = items.map(Source::read).transpose().map_err(Error::Source)?;
        if let Some(reader) = &mut reader {
            layout.fields = Some(reader.fields().await);
        }
        input = reader.map(|reader| Input::Reader(Box::new(reader)));
    } else if let Some(items) = items {
        input = Some(Input::Source(Box::new(items)));
    }
    sink.set_layout(&layout);
    let mut export = Export {
        history,
        sink,
        exported: Exported::default(),
        missing: ItemSet::default(),
        missing_count: 0,
    };
    export.write_stored().await?;
    if export.missing_count > 0
        && let Some(input) = input
    {
        export.write_from(input.reader()?).await?;
    }
    match export.missing_count {
        0 => Ok(export.exported),
        items => Err(Error::FieldsNotStored { items }),
    }
}

/// The input of a run.
enum Input {
    Source(Box<Source>),
    Reader(Box<Reader>),
}

impl Input {
    fn reader(self) -> Result<Reader, Error> {
        match self {
            Self::Source(source) => source.read().map_err(Error::Source),
            Self::Reader(reader) => Ok(*reader),
        }
    }
}

struct Export<'a> {
    history: &'a History,
    sink: &'a Sink<Line>,
    exported: Exported,
    /// Items whose fields are not stored and were not found in the input.
    missing: ItemSet,
    missing_count: u64,
}

impl Export<'_> {
    /// Writes the lines for which the store has everything.
    async fn write_stored(&mut self) -> Result<(), Error> {
        let history = self.history;
        history
            .items(async |item: &StoredItem| -> Result<(), Error> {
                let is_in_input = history.is_in_input(item.head.number);
                let Some(mut line) = history.line(item).filter(|_| is_in_input) else { return Ok(()) };
                if self.sink.needs_item() {
                    line.item = history.fields(item);
                    if line.item.is_none() {
                        self.missing.insert(item.head.number);
                        self.missing_count += 1;
                        return Ok(());
                    }
                }
                self.write(item, line).await
            })
            .await
    }

    async fn write(&mut self, item: &StoredItem, line: Line) -> Result<(), Error> {
        self.exported.outdated += u64::from(self.history.is_outdated(item));
        self.sink.write(line).await.map_err(Error::Output)
    }

    /// Writes the lines of the missing items that the input has.
    async fn write_from(&mut self, mut reader: Reader) -> Result<(), Error> {
        let mut batch: Vec<Item> = Vec::with_capacity(BATCH_ITEMS);
        while self.missing_count > 0 {
            let entry = reader.next().await.transpose().map_err(Error::Source)?;
            let is_end = entry.is_none();
            if let Some(Entry::Item(item)) = entry {
                batch.push(item);
            }
            if batch.len() == BATCH_ITEMS || is_end {
                self.write_batch(std::mem::take(&mut batch)).await?;
            }
            if is_end {
                break;
            }
        }
        Ok(())
    }

    async fn write_batch(&mut self, batch: Vec<Item>) -> Result<(), Error> {
        let keys: Vec<ItemKey> = batch.iter().map(|item| item.key.clone()).collect();
        let found = self.history.items_of(&keys).await?;
        for (item, stored) in batch.into_iter().zip(found) {
            let Some(stored) = stored.filter(|stored| self.missing.contains(stored.head.number)) else {
                continue;
            };
            // An item that has changed since is not the one that was answered.
            if stored.head.content != content_fingerprint(&item.value) {
                continue;
            }
            self.history.verify(&stored)?;
            let Some(mut line) = self.history.line(&stored) else { continue };
            line.item = Some(item.value);
            self.missing_count = self.missing_count.saturating_sub(1);
            self.write(&stored, line).await?;
        }
        Ok(())
    }
}
