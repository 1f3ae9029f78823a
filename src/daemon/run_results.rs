//! The results of a run: its lines, its failed items and its rejects in pieces, and its report.
//!
//! A piece has whole lines. The next one is read when it is asked for, so a slow reader costs the memory of one. Everything
//! can be read while the run is in progress. An item that finishes after the reader has passed its place is not in the
//! answer.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use crate::run::{History, Report};
use crate::runtime::layout_of;
use crate::sink::{Format, LineEncoder, LineOptions};
use crate::store::{ItemNumber, RunNumber, StoredItem};
use crate::types::ItemKey;

use super::caller::Caller;
use super::daemon::Daemon;
use super::error::Error;
use super::page_size::PageSize;

/// How many bytes of a file are read for one piece.
const PIECE_BYTES: usize = 64 << 10;

/// Where the lines begin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResultsFrom {
    /// With the first item.
    #[default]
    Start,
    /// After the item with this number.
    Number(i64),
    /// After the item with this key, such as that of the last line that arrived.
    Key(String),
}

/// The lines of a run, in pieces.
#[derive(Debug)]
pub struct LineStream {
    daemon: Daemon,
    history: Arc<History>,
    content: Arc<Content>,
    header: Option<Vec<u8>>,
    after: ItemNumber,
    size: PageSize,
    is_at_end: bool,
}

#[derive(Debug)]
enum Content {
    /// The result lines of finished items.
    Results(ResultLines),
    /// Why items failed.
    Failures,
}

/// How result lines are made.
#[derive(Debug)]
struct ResultLines {
    encoder: LineEncoder,
    /// Whether they have the fields of their items.
    needs_item: bool,
}

impl ResultLines {
    /// Appends the line of an item, if it has finished.
    fn write(&self, history: &History, item: &StoredItem, out: &mut Vec<u8>) -> Result<(), Error> {
        history.verify(item)?;
        let Some(mut line) = history.line(item) else { return Ok(()) };
        if self.needs_item {
            line.item = Some(history.fields(item).ok_or_else(fields_not_stored)?);
        }
        self.encoder.write(&line, out).map_err(Error::io("write a line"))
    }
}

fn fields_not_stored() -> Error {
    Error::invalid(
        "the fields of the items are not stored (`keep_inputs` of `[store]`), so that the results cannot have them; \
         `columns=minimal` leaves them out of a table",
    )
}

/// A piece, and where the next one begins; `None` at the end.
struct Piece {
    bytes: Vec<u8>,
    next: Option<ItemNumber>,
    next_size: PageSize,
}

/// The rejects of a run, in pieces.
#[derive(Debug)]
pub struct RejectStream {
    file: Option<File>,
    /// The beginning of a line that is being written.
    partial: Vec<u8>,
}

impl Daemon {
    /// Returns the report of a run over all its sessions, also while it is in progress.
    ///
    /// # Errors
    /// If there is no such run, the caller may not see it, or rows of it are missing.
    pub async fn run_report(&self, run: RunNumber, caller: &Caller) -> Result<Report, Error> {
        let history = self.history(run, caller).await?;
        // It reads all items.
        Ok(self.pointsman().work(async move { history.report().await }).await??)
    }

    /// Returns the lines of the finished items of a run. Items that are not in the input any more have no line.
    ///
    /// # Errors
    /// If there is no such run or item, the caller may not see it, or rows of it are missing. If the lines have the fields
    /// of their items, and these are not stored.
    pub async fn run_results(
        &self,
        run: RunNumber,
        format: Format,
        options: LineOptions,
        from: ResultsFrom,
        caller: &Caller,
    ) -> Result<LineStream, Error> {
        if format == Format::Parquet {
            return Err(Error::invalid("results are streamed, and Parquet cannot be: ask for csv or jsonl"));
        }
        let history = self.history(run, caller).await?;
        let after = match from {
            ResultsFrom::Start => ItemNumber::default(),
            ResultsFrom::Number(number) => ItemNumber(number),
            ResultsFrom::Key(key) => match history.item(&ItemKey::from(key.as_str())).await? {
                Some(item) => item.head.number,
                None => return Err(Error::NotFound { what: "item that has started", name: key }),
            },
        };
        let layout = layout_of(&history, options.needs_fields(format)).await?;
        if options.needs_fields(format) && layout.fields.is_none() && has_finished_item(&history).await? {
            return Err(fields_not_stored());
        }
        let encoder = LineEncoder::with_layout(format, options, &layout);
        let header = encoder.header().map_err(Error::io("write the header"))?;
        // A part of a file has no second header.
        let header = Some(header).filter(|header| after == ItemNumber::default() && !header.is_empty());
        Ok(LineStream {
            daemon: self.clone(),
            history: Arc::new(history),
            content: Arc::new(Content::Results(ResultLines {
                encoder,
                needs_item: options.needs_item(format),
            })),
            header,
            after,
            size: PageSize::first(),
            is_at_end: false,
        })
    }

    /// Returns why items of a run failed: a JSON line for each.
    ///
    /// # Errors
    /// If there is no such run, the caller may not see it, or rows of it are missing.
    pub async fn run_failures(&self, run: RunNumber, caller: &Caller) -> Result<LineStream, Error> {
        Ok(LineStream {
            daemon: self.clone(),
            history: Arc::new(self.history(run, caller).await?),
            content: Arc::new(Content::Failures),
            header: None,
            after: ItemNumber::default(),
            size: PageSize::first(),
            is_at_end: false,
        })
    }

    /// Returns what of a run's input was not an item: a JSON line for each.
    ///
    /// # Errors
    /// If there is no such run, the caller may not see it, or its file cannot be opened.
    pub async fn run_rejects(&self, run: RunNumber, caller: &Caller) -> Result<RejectStream, Error> {
        Ok(RejectStream { file: self.rejects(run, caller).await?, partial: Vec::new() })
    }
}

impl LineStream {
    /// Returns the next piece, which is not empty; `None` at the end and after an error.
    ///
    /// # Errors
    /// If the store cannot be read, a result is missing, or the daemon stops.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        if let Some(header) = self.header.take() {
            return Ok(Some(header));
        }
        while !self.is_at_end {
            let history = self.history.clone();
            let content = self.content.clone();
            let after = self.after;
            let size = self.size;
            // On the threads of the actors, because lines may be long.
            let piece = async move { read_piece(&history, &content, after, size).await };
            // Set until the piece is there, so that nothing follows an error.
            self.is_at_end = true;
            let Piece { bytes, next, next_size } = self.daemon.pointsman().work(piece).await??;
            self.size = next_size;
            if let Some(next) = next {
                self.after = next;
                self.is_at_end = false;
            }
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }
}

/// Returns whether one of the first items has finished.
async fn has_finished_item(history: &History) -> Result<bool, Error> {
    let first = history.page(ItemNumber::default(), PageSize::first().items()).await?;
    Ok(first.iter().any(|item| item.outcome.is_some()))
}

async fn read_piece(
    history: &History,
    content: &Content,
    after: ItemNumber,
    size: PageSize,
) -> Result<Piece, Error> {
    let items = match content {
        Content::Results(_) => history.page(after, size.items()).await?,
        Content::Failures => history.failed_page(after, size.items()).await?,
    };
    let mut bytes = Vec::new();
    for item in items.iter().filter(|item| history.is_in_input(item.head.number)) {
        match content {
            Content::Results(lines) => lines.write(history, item, &mut bytes)?,
            Content::Failures => {
                if let Some(failed) = history.failure(item) {
                    serde_json::to_writer(&mut bytes, &failed).map_err(Error::json)?;
                    bytes.push(b'\n');
                }
            }
        }
    }
    let next = items.last().map(|item| item.head.number);
    Ok(Piece { bytes, next, next_size: size.after(&items) })
}

impl RejectStream {
    /// Returns the next piece, which is not empty; `None` at the end. It blocks while the disk is slow.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn next_piece(&mut self) -> Result<Option<Vec<u8>>, Error> {
        while let Some(file) = &mut self.file {
            let mut piece = std::mem::take(&mut self.partial);
            let read = read_some(file, &mut piece).map_err(Error::io("read the rejects of the run"))?;
            if read == 0 {
                self.file = None;
                break;
            }
            let complete = piece.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            self.partial = piece.split_off(complete);
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }
}

/// Appends the next bytes of a file. Returns how many there were; 0 at its end.
fn read_some(file: &mut File, piece: &mut Vec<u8>) -> io::Result<usize> {
    file.take(PIECE_BYTES as u64).read_to_end(piece)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn rejects_come_in_whole_lines_and_without_one_that_is_being_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rejects");
        let line = format!("{{\"line\":1,\"text\":\"{}\"}}\n", "a".repeat(1000));
        let mut file = File::create(&path).unwrap();
        file.write_all(line.repeat(200).as_bytes()).unwrap();
        file.write_all(b"{\"line\":2,").unwrap();
        let mut stream = RejectStream { file: Some(File::open(&path).unwrap()), partial: Vec::new() };
        let mut all = Vec::new();
        let mut pieces = 0;
        while let Some(piece) = stream.next_piece().unwrap() {
            assert!(piece.ends_with(b"\n") && piece.len() <= PIECE_BYTES + line.len());
            all.extend(piece);
            pieces += 1;
        }
        assert!(pieces > 2);
        assert_eq!(all, line.repeat(200).as_bytes());
        assert!(RejectStream { file: None, partial: Vec::new() }.next_piece().unwrap().is_none());
    }
}
