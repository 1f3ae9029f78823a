//! Writes lines on a separate thread that exists only while lines arrive.
//!
//! Lines are gathered while more of them are queued. They are written when the queue is empty, or when 64 KB
//! have been gathered. Lines that arrive within the next millisecond are written together after it. A thread
//! that has nothing to write for a while ends, and the next line starts another. After an error nothing more is
//! written, and a file never keeps a partial line.

use std::borrow::Cow;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use super::format::Format;
use super::line_encoder::{LineEncoder, write_json};
use super::output::{OutputWriter, SharedFlags, WriteSummary, WrittenLength};
use super::output_owner::WrittenFile;
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
}

enum Backend<T> {
    /// A thread writes the lines.
    Thread(WriteQueue<(T, HeldMemory), WriteSummary>),
    /// The program itself receives the lines.
    Channel(mpsc::Sender<T>),
}

impl Sink<Line> {
    /// Writes results to `destination`. The columns of CSV follow from `steps`, the pipeline's step names.
    pub fn results(destination: Destination, format: Format, steps: &[StepName]) -> Result<Self, Error> {
        let encoder = LineEncoder::new(format, steps);
        let header = encoder
            .header()
            .map_err(|source| Error::Open { name: destination.name.clone(), source: Arc::new(source) })?;
        let show_on_terminal = match format {
            Format::Jsonl => terminal_text::json,
            Format::Csv(_) => terminal_text::lines,
        };
        Self::start(destination, header, show_on_terminal, move |line, out| encoder.write(line, out))
    }
}

impl Sink<RejectLine> {
    /// Writes rejects to `destination`, one JSON object per line.
    pub fn rejects(destination: Destination) -> Result<Self, Error> {
        Self::start(destination, Vec::new(), terminal_text::json, write_json)
    }
}

impl<T: Send + 'static> Sink<T> {
    fn start(
        destination: Destination,
        header: Vec<u8>,
        show_on_terminal: fn(&str) -> Cow<'_, str>,
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
        let file_identity = destination.written_file();
        let Destination { name, out, file, replacement, is_terminal: _, path } = destination;
        let kept_original = AtomicBool::new(replacement.is_some());
        let flags = Arc::new(SharedFlags { kept_original, ..SharedFlags::default() });
        let written = WriteSummary::default();
        let mut output =
            OutputWriter { name: name.clone(), out, file, replacement, path, written, flags: flags.clone() };
        let mut header = Some(header);
        let write = move |from: &mut _| {
            // Not earlier: a run that is refused after its output was opened leaves the file unchanged.
            if let Some(header) = header.take() {
                output.empty()?;
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
        Ok((Self { name, backend: Backend::Channel(to), flags: Arc::default(), file: None }, lines))
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
