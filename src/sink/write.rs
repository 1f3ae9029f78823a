//! Writes lines on a thread of its own, which is there while lines come.
//!
//! Lines are gathered while more of them wait and written when none does, or when 64 KB have come
//! together; those that come within the next millisecond are written together after it. A thread that has
//! nothing to write for a while ends, and the next line starts another. It never writes on after an error, and a
//! file never keeps half a line.

use std::borrow::Cow;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use super::columns::Columns;
use super::output::{Flags, Output, Written};
use super::owned::WrittenFile;
use super::write_queue::{Progress, WriteQueue};
use super::{Error, Line, RejectLine, Target};
use crate::chaos;
use crate::guard::HeldMemory;
use crate::screen;
use crate::supervisor::panic_text;
use crate::types::StepName;

/// Lines that may wait for the thread.
const WAITING: usize = 256;
/// Bytes that are gathered before they are written.
const BLOCK: usize = 1 << 16;
/// How long the thread rests when it has written all there was. Where lines come fast, a write and a wake of the
/// thread for each of them cost more than the line itself.
const REST: Duration = Duration::from_millis(1);
/// How often in a row it rests in vain before it ends.
const RESTS: u32 = 50;

/// What becomes of a CSV cell that a spreadsheet would run as a formula.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Formulas {
    /// It begins with an apostrophe, and a spreadsheet shows it as text.
    #[default]
    Neutral,
    /// It is written as it is.
    Kept,
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line.
    Jsonl,
    /// Comma-separated values under one header row.
    Csv(Formulas),
}

impl Format {
    /// Returns the format for a file of this name: CSV for `.csv`, else JSON lines.
    pub fn of(path: &Path) -> Self {
        let csv = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
        if csv { Self::Csv(Formulas::default()) } else { Self::Jsonl }
    }
}

/// Passes lines to whatever takes them.
///
/// Dropping it without [`finish`](Self::finish) lets what was accepted be written, but its end and
/// its errors are not reported.
pub struct Sink<T> {
    name: String,
    to: To<T>,
    flags: Arc<Flags>,
    file: Option<WrittenFile>,
}

enum To<T> {
    /// A thread writes them.
    Thread(WriteQueue<(T, HeldMemory), Written>),
    /// The program itself takes them.
    Program(mpsc::Sender<T>),
}

impl Sink<Line> {
    /// Writes results to `target`. The columns of CSV follow from `steps`, the pipeline's step names.
    pub fn results(target: Target, format: Format, steps: &[StepName]) -> Result<Self, Error> {
        match format {
            Format::Jsonl => Self::start(target, Vec::new(), screen::json, write_json),
            Format::Csv(formulas) => {
                let columns = Columns::new(steps, formulas);
                let header = columns
                    .header()
                    .map_err(|source| Error::Open { name: target.name.clone(), source: Arc::new(source) })?;
                Self::start(target, header, screen::lines, move |line, out| columns.write(line, out))
            }
        }
    }
}

impl Sink<RejectLine> {
    /// Writes rejects to `target`, one JSON object per line.
    pub fn rejects(target: Target) -> Result<Self, Error> {
        Self::start(target, Vec::new(), screen::json, write_json)
    }
}

impl<T: Send + 'static> Sink<T> {
    fn start(
        target: Target,
        header: Vec<u8>,
        on_screen: fn(&str) -> Cow<'_, str>,
        encode: impl Fn(&T, &mut Vec<u8>) -> io::Result<()> + Send + 'static,
    ) -> Result<Self, Error> {
        let is_terminal = target.is_terminal;
        // A line that cannot be made ends the output as one that cannot be written does: the lines before it
        // are whole, and are told.
        let encode = move |line: &T, out: &mut Vec<u8>| {
            let encoded = catch_unwind(AssertUnwindSafe(|| {
                chaos::point("sink.line");
                let start = out.len();
                encode(line, out)?;
                if is_terminal {
                    let shown = on_screen(&String::from_utf8_lossy(&out[start..])).into_owned();
                    out.truncate(start);
                    out.extend_from_slice(shown.as_bytes());
                }
                Ok(())
            }));
            encoded.unwrap_or_else(|payload| {
                Err(io::Error::other(format!("a line panicked: {}", panic_text(&*payload))))
            })
        };
        let noted = target.written();
        let Target { name, out, file, successor, is_terminal: _, path } = target;
        let left_before = AtomicBool::new(successor.is_some());
        let flags = Arc::new(Flags { left_before, ..Flags::default() });
        let written = Written::default();
        let mut output =
            Output { name: name.clone(), out, file, successor, path, written, flags: flags.clone() };
        let mut header = Some(header);
        let write = move |from: &mut _| {
            // Not before: a run that is refused after its output was opened leaves the file as it was.
            if let Some(header) = header.take() {
                output.empty()?;
                output.write(&header, &[])?;
            }
            match write_waiting(from, &encode, &mut output)? {
                More::MayCome => Ok(Progress::Idle),
                More::Never => output.finish().map(Progress::Over),
            }
        };
        Ok(Self { to: To::Thread(WriteQueue::new(name.clone(), WAITING, write)), name, flags, file: noted })
    }

    /// Gives the lines to the program itself instead of writing them.
    ///
    /// Take them while the run goes on: it waits when a few hundred have come together. When the
    /// receiver is dropped before the end, the run stops as it does when the reader of a pipe is gone.
    ///
    /// # Errors
    /// None today.
    pub fn channel() -> Result<(Self, mpsc::Receiver<T>), Error> {
        let (to, lines) = mpsc::channel(WAITING);
        let name = "the channel".to_owned();
        Ok((Self { name, to: To::Program(to), flags: Arc::default(), file: None }, lines))
    }

    /// Hands over a line, and waits while too many others wait. `Ok` means that it was accepted; an
    /// error may be that of an earlier line.
    pub async fn write(&self, line: T) -> Result<(), Error> {
        self.write_holding(line, HeldMemory::default()).await
    }

    /// Does the same; `held` is given back once the line is written, or the program has it.
    pub(crate) async fn write_holding(&self, line: T, held: HeldMemory) -> Result<(), Error> {
        match &self.to {
            To::Thread(queue) => queue.send((line, held)).await,
            To::Program(to) => {
                to.send(line).await.map_err(|_| self.is_not_taken())?;
                self.flags.lines.fetch_add(1, Relaxed);
                Ok(())
            }
        }
    }

    fn is_not_taken(&self) -> Error {
        Error::BrokenPipe { name: self.name.clone(), lines: self.lines() }
    }

    /// Returns how many whole lines are written.
    pub fn lines(&self) -> u64 {
        self.flags.lines.load(Relaxed)
    }

    /// Says that lines are missing at the end: a file that was to be replaced by all of them stays, if it may
    /// hold more.
    pub fn cut_short(&self) {
        self.flags.cut_short.store(true, Relaxed);
    }

    /// Says that the input was not dealt with to its end, and that every line is there which the run has.
    pub fn partial(&self) {
        self.flags.partial.store(true, Relaxed);
    }

    /// Gives the output up: what is not written now is not written later either.
    pub fn abandon(&self) {
        self.flags.abandoned.store(true, Relaxed);
    }

    /// Returns whether the file that was there before is still in its place, however the output has ended.
    pub fn leaves_before(&self) -> bool {
        self.flags.left_before.load(Relaxed)
    }

    /// Returns which file it writes to; `None` where that is no regular file.
    pub fn file(&self) -> Option<&WrittenFile> {
        self.file.as_ref()
    }

    /// Returns what messages call the output.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until everything is written and, for a file, safe on its disk.
    pub async fn finish(mut self) -> Result<Written, Error> {
        self.end().await
    }

    /// Does what [`finish`](Self::finish) does, and may be dropped and called again.
    pub(crate) async fn end(&mut self) -> Result<Written, Error> {
        match &mut self.to {
            To::Thread(queue) => queue.finish().await,
            To::Program(_) => Ok(Written { lines: self.lines(), ..Written::default() }),
        }
    }
}

fn write_json<T: Serialize>(line: &T, out: &mut Vec<u8>) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.push(b'\n');
    Ok(())
}

/// Whether lines may come after those that wait.
enum More {
    MayCome,
    Never,
}

/// Writes what waits, and what comes soon after it.
fn write_waiting<T>(
    from: &mut mpsc::Receiver<(T, HeldMemory)>,
    encode: impl Fn(&T, &mut Vec<u8>) -> io::Result<()>,
    output: &mut Output,
) -> Result<More, Error> {
    let mut block = Vec::new();
    let mut ends = Vec::new();
    let mut rests = 0;
    loop {
        let (line, held) = match from.try_recv() {
            Ok(next) => next,
            Err(end) => {
                output.write(&block, &ends)?;
                block.clear();
                block.shrink_to(4 * BLOCK);
                ends.clear();
                if end == TryRecvError::Disconnected {
                    return Ok(More::Never);
                }
                if rests == RESTS {
                    return Ok(More::MayCome);
                }
                rests += 1;
                rest();
                continue;
            }
        };
        rests = 0;
        if let Err(source) = encode(&line, &mut block) {
            block.truncate(ends.last().copied().unwrap_or_default());
            output.write(&block, &ends)?;
            return Err(output.failed(source, &[], 0));
        }
        ends.push(block.len());
        if block.len() >= BLOCK {
            drop(line);
            output.write(&block, &ends)?;
            block.clear();
            block.shrink_to(4 * BLOCK);
            ends.clear();
        }
        drop(held);
    }
}

#[expect(clippy::disallowed_methods, reason = "the thread is the sink's own, and blocks no arbiter")]
fn rest() {
    std::thread::sleep(REST);
}
