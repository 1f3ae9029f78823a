//! Writes lines on a separate thread that exists only while lines arrive.
//!
//! Lines are gathered while more of them are queued. They are written when the queue is empty, or when 64 KB
//! have been gathered. Lines that arrive within the next millisecond are written together after it. A thread
//! that has nothing to write for a while ends, and the next line starts another. After an error nothing more is
//! written, and a file never keeps a partial line.

use std::borrow::Cow;
use std::io;
#[cfg(feature = "parquet")]
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use super::atomic_file::ReplacementFile;
use super::encoder_slot::EncoderSlot;
use super::format::{Format, LineOptions};
use super::layout::RowLayout;
use super::line_encoder::write_json;
use super::output::{OutputWriter, SharedFlags, WriteSummary, WrittenLength};
use super::output_owner::WrittenFile;
#[cfg(feature = "parquet")]
use super::table_file::{TableFile, create_spool};
use super::write_queue::{Progress, WriteQueue};
use super::{Destination, Error, Line, RejectLine};
use crate::chaos;
use crate::guard::HeldMemory;
use crate::supervisor::panic_text;
use crate::terminal_text;
use crate::types::StepName;

/// Lines that may be queued for the thread.
const QUEUE_CAPACITY: usize = 256;
/// Bytes that are gathered before they are written.
const BLOCK_BYTES: usize = 1 << 16;
/// How long the thread sleeps after it has written everything. When lines arrive fast, one write and one
/// wake-up per line cost more than the line itself.
const IDLE_SLEEP: Duration = Duration::from_millis(1);
/// Number of consecutive sleeps without a new line after which the thread ends.
const MAX_IDLE_SLEEPS: u32 = 50;

/// Accepts lines and writes them, or sends them to the program.
///
/// If it is dropped without [`finish`](Self::finish), accepted lines are still written, but the end and errors
/// are not reported.
pub struct Sink<T> {
    name: String,
    backend: Backend<T>,
    flags: Arc<SharedFlags>,
    file: Option<WrittenFile>,
    /// The encoder of result lines; `None` for other lines, and if they are not encoded.
    encoder: Option<Arc<EncoderSlot>>,
    /// Whether nothing is written.
    writes_nothing: bool,
}

enum Backend<T> {
    /// A thread writes the lines.
    Thread(WriteQueue<(T, HeldMemory), WriteSummary>),
    /// The program itself receives the lines.
    Channel(mpsc::Sender<T>),
}

impl Sink<Line> {
    /// Writes results to `destination`. The columns of CSV are the fields of the run's input, `steps`, which are the
    /// pipeline's steps, and how the item ended.
    pub fn results(destination: Destination, format: Format, steps: &[StepName]) -> Result<Self, Error> {
        Self::results_with(destination, format, LineOptions::default(), steps)
    }

    /// Does the same with other columns, or with the fields of the items.
    pub fn results_with(
        destination: Destination,
        format: Format,
        options: LineOptions,
        steps: &[StepName],
    ) -> Result<Self, Error> {
        let slot = Arc::new(EncoderSlot::new(format, options, steps));
        let show_on_terminal = match format {
            Format::Jsonl => terminal_text::json,
            Format::Csv(_) | Format::Parquet => terminal_text::lines,
        };
        let is_spooled = format == Format::Parquet && destination.out.is_some();
        #[cfg(not(feature = "parquet"))]
        if is_spooled {
            return Err(Error::NoParquet { name: destination.name });
        }
        #[cfg(feature = "parquet")]
        let destination = if is_spooled { destination.replacing_at_end()? } else { destination };
        let table = is_spooled.then(|| slot.clone());
        let for_header = slot.clone();
        let encoder = slot.clone();
        let header = move || for_header.header();
        let encode = move |line: &Line, out: &mut Vec<u8>| encoder.write(line, out);
        let mut sink = Self::start(destination, header, show_on_terminal, table, encode)?;
        sink.encoder = Some(slot);
        Ok(sink)
    }

    /// Returns whether the lines must have the fields of their items.
    #[doc(hidden)]
    pub fn needs_item(&self) -> bool {
        self.encoder.as_ref().is_some_and(|slot| slot.options.needs_item(slot.format)) && !self.writes_nothing
    }

    /// Returns whether the layout must have the fields of the input.
    #[doc(hidden)]
    pub fn needs_fields(&self) -> bool {
        self.encoder.as_ref().is_some_and(|slot| slot.options.needs_fields(slot.format))
            && !self.writes_nothing
    }

    /// Sets what the columns are made from, before the first line. Without it, they are only the steps.
    #[doc(hidden)]
    pub fn set_layout(&mut self, layout: &RowLayout) {
        let Some(slot) = &self.encoder else { return };
        slot.set_layout(layout);
        if let (Some(file), Ok(header)) = (&mut self.file, slot.header()) {
            file.set_beginning(&header);
        }
    }
}

impl Sink<RejectLine> {
    /// Writes rejects to `destination`, one JSON object per line.
    pub fn rejects(destination: Destination) -> Result<Self, Error> {
        Self::start(destination, || Ok(Vec::new()), terminal_text::json, None, write_json)
    }
}

impl<T: Send + 'static> Sink<T> {
    fn start(
        destination: Destination,
        header: impl FnOnce() -> io::Result<Vec<u8>> + Send + 'static,
        show_on_terminal: fn(&str) -> Cow<'_, str>,
        table: Option<Arc<EncoderSlot>>,
        encode: impl Fn(&T, &mut Vec<u8>) -> io::Result<()> + Send + 'static,
    ) -> Result<Self, Error> {
        let is_terminal = destination.is_terminal;
        // A line that cannot be encoded ends the output like one that cannot be written: the lines before it
        // are complete and are counted.
        let encode = move |line: &T, out: &mut Vec<u8>| {
            let encoded = catch_unwind(AssertUnwindSafe(|| {
                chaos::point("sink.line");
                let start = out.len();
                encode(line, out)?;
                if is_terminal {
                    let shown = show_on_terminal(&String::from_utf8_lossy(&out[start..])).into_owned();
                    out.truncate(start);
                    out.extend_from_slice(shown.as_bytes());
                }
                Ok(())
            }));
            encoded.unwrap_or_else(|payload| {
                Err(io::Error::other(format!("a line panicked: {}", panic_text(&*payload))))
            })
        };
        let header = move || {
            let header = header()?;
            if !is_terminal {
                return Ok(header);
            }
            Ok(show_on_terminal(&String::from_utf8_lossy(&header)).into_owned().into_bytes())
        };
        let file_identity = destination.written_file();
        let writes_nothing = destination.out.is_none();
        let Destination { name, out, file, replacement, is_terminal: _, path } = destination;
        let has_original = replacement.as_ref().is_some_and(ReplacementFile::has_original);
        let kept_original = AtomicBool::new(has_original);
        let flags = Arc::new(SharedFlags { kept_original, ..SharedFlags::default() });
        let written = WriteSummary::default();
        #[cfg(not(feature = "parquet"))]
        drop(table);
        #[cfg(feature = "parquet")]
        let (out, file, replacement, table) = match (table, file, replacement, &path) {
            (Some(slot), Some(file), Some(replacement), Some(path)) => {
                let spool = create_spool(path);
                let (spool, second_handle) =
                    spool.map_err(|source| Error::Open { name: name.clone(), source: Arc::new(source) })?;
                let out: Box<dyn Write + Send> = Box::new(spool);
                (Some(out), Some(second_handle), None, Some(TableFile { replacement, file, slot }))
            }
            (_, file, replacement, _) => (out, file, replacement, None),
        };
        let mut output = OutputWriter {
            name: name.clone(),
            out,
            file,
            replacement,
            path,
            written,
            flags: flags.clone(),
            #[cfg(feature = "parquet")]
            table,
        };
        let mut header = Some(header);
        let write = move |from: &mut _| {
            // Not earlier: a run that is refused after its output was opened leaves the file unchanged.
            if let Some(header) = header.take() {
                output.empty()?;
                let header = header().map_err(|source| output.failed(source, &[], 0))?;
                output.write(&header, &[])?;
            }
            match write_queued(from, &encode, &mut output)? {
                MoreLines::Possible => Ok(Progress::Idle),
                MoreLines::None => output.finish().map(Progress::Finished),
            }
        };
        Ok(Self {
            backend: Backend::Thread(WriteQueue::new(name.clone(), QUEUE_CAPACITY, write)),
            name,
            flags,
            file: file_identity,
            encoder: None,
            writes_nothing,
        })
    }

    /// Sends the lines to the program instead of writing them.
    ///
    /// Receive them while the run is in progress: the run waits when a few hundred lines are queued. If the
    /// receiver is dropped before the end, the run stops as it does when the reader of a pipe has gone.
    ///
    /// # Errors
    /// None today.
    pub fn channel() -> Result<(Self, mpsc::Receiver<T>), Error> {
        let (to, lines) = mpsc::channel(QUEUE_CAPACITY);
        let name = "the channel".to_owned();
        let backend = Backend::Channel(to);
        let sink =
            Self { name, backend, flags: Arc::default(), file: None, encoder: None, writes_nothing: false };
        Ok((sink, lines))
    }

    /// Accepts a line. Waits while too many lines are queued. `Ok` means that the line was accepted; an error
    /// may be that of an earlier line.
    #[doc(hidden)]
    pub async fn write(&self, line: T) -> Result<(), Error> {
        self.write_with_memory(line, HeldMemory::default()).await
    }

    /// Does the same. `memory` is released once the line is written or the program has received it.
    pub(crate) async fn write_with_memory(&self, line: T, memory: HeldMemory) -> Result<(), Error> {
        match &self.backend {
            Backend::Thread(queue) => queue.send((line, memory)).await,
            Backend::Channel(to) => {
                to.send(line).await.map_err(|_| self.channel_closed_error())?;
                self.flags.lines.fetch_add(1, Relaxed);
                Ok(())
            }
        }
    }

    fn channel_closed_error(&self) -> Error {
        Error::BrokenPipe { name: self.name.clone(), lines: self.lines() }
    }

    /// Returns how many complete lines are written.
    pub fn lines(&self) -> u64 {
        self.flags.lines.load(Relaxed)
    }

    /// Records that lines are missing at the end. An original file that all lines would have replaced then
    /// stays, because it may hold more.
    #[doc(hidden)]
    pub fn mark_lines_missing(&self) {
        self.flags.lines_missing.store(true, Relaxed);
    }

    /// Records that the input was not processed to its end, and that the output holds every line that the run
    /// has.
    #[doc(hidden)]
    pub fn mark_input_incomplete(&self) {
        self.flags.input_incomplete.store(true, Relaxed);
    }

    /// Abandons the output: lines that are not written yet will not be written.
    #[doc(hidden)]
    pub fn abandon(&self) {
        self.flags.abandoned.store(true, Relaxed);
    }

    /// Returns whether the original file is still in place, however the output has ended.
    #[doc(hidden)]
    pub fn keeps_original(&self) -> bool {
        self.flags.kept_original.load(Relaxed)
    }

    /// Returns the file that it writes to; `None` if it is not a regular file.
    #[doc(hidden)]
    pub fn file(&self) -> Option<&WrittenFile> {
        self.file.as_ref()
    }

    /// Returns the length that its file should have; `None` if it is not a regular file.
    pub(crate) fn written_length(&self) -> Option<WrittenLength> {
        let path = self.file.as_ref()?.path().to_owned();
        Some(WrittenLength { path, flags: self.flags.clone() })
    }

    /// Returns the name of the output for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until everything is written and, for a file, synced to disk.
    #[doc(hidden)]
    pub async fn finish(mut self) -> Result<WriteSummary, Error> {
        self.end().await
    }

    /// Does what [`finish`](Self::finish) does. Cancel-safe, and may be called again.
    pub(crate) async fn end(&mut self) -> Result<WriteSummary, Error> {
        match &mut self.backend {
            Backend::Thread(queue) => queue.finish().await,
            Backend::Channel(_) => Ok(WriteSummary { lines: self.lines(), ..WriteSummary::default() }),
        }
    }
}

/// Whether more lines may arrive after the queued ones.
enum MoreLines {
    Possible,
    None,
}

/// Writes the queued lines, and those that arrive soon after.
fn write_queued<T>(
    from: &mut mpsc::Receiver<(T, HeldMemory)>,
    encode: impl Fn(&T, &mut Vec<u8>) -> io::Result<()>,
    output: &mut OutputWriter,
) -> Result<MoreLines, Error> {
    let mut block = Vec::new();
    let mut line_ends = Vec::new();
    let mut idle_sleeps = 0;
    loop {
        let (line, memory) = match from.try_recv() {
            Ok(next) => next,
            Err(end) => {
                output.write(&block, &line_ends)?;
                block.clear();
                block.shrink_to(4 * BLOCK_BYTES);
                line_ends.clear();
                if end == TryRecvError::Disconnected {
                    return Ok(MoreLines::None);
                }
                if idle_sleeps == MAX_IDLE_SLEEPS {
                    return Ok(MoreLines::Possible);
                }
                idle_sleeps += 1;
                sleep_while_idle();
                continue;
            }
        };
        idle_sleeps = 0;
        if let Err(source) = encode(&line, &mut block) {
            block.truncate(line_ends.last().copied().unwrap_or_default());
            output.write(&block, &line_ends)?;
            return Err(output.failed(source, &[], 0));
        }
        line_ends.push(block.len());
        if block.len() >= BLOCK_BYTES {
            drop(line);
            output.write(&block, &line_ends)?;
            block.clear();
            block.shrink_to(4 * BLOCK_BYTES);
            line_ends.clear();
        }
        drop(memory);
    }
}

#[expect(clippy::disallowed_methods, reason = "the thread is the sink's own, and blocks no arbiter")]
fn sleep_while_idle() {
    std::thread::sleep(IDLE_SLEEP);
}
