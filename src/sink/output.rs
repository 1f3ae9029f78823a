//! Writes blocks of lines to a file or a pipe, and keeps the file whole: no half line stays, and the file that was there
//! before is replaced when it is time.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::Error;
use super::restore::keep_in_place;
use super::successor::Successor;

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Whole lines, a header not counted.
    pub lines: u64,
    /// Bytes, a header included.
    pub bytes: u64,
    /// Whether the file that was there before has been left in its place: it holds more.
    pub left_before: bool,
}

/// What both sides of a sink know.
#[derive(Default)]
pub(super) struct Flags {
    /// Lines are missing at the end.
    pub(super) cut_short: AtomicBool,
    /// The input was not dealt with to its end.
    pub(super) partial: AtomicBool,
    /// The output was given up: what is not written now is not written.
    pub(super) abandoned: AtomicBool,
    /// Whole lines that are written.
    pub(super) lines: AtomicU64,
    /// The file that was there before is still in its place.
    pub(super) left_before: AtomicBool,
}

/// Where the lines of a sink are written.
pub(super) struct Output {
    pub(super) name: String,
    pub(super) out: Option<Box<dyn Write + Send>>,
    pub(super) file: Option<File>,
    /// Set until it has taken the place of the file that is named.
    pub(super) successor: Option<Successor>,
    pub(super) path: Option<PathBuf>,
    pub(super) written: Written,
    pub(super) flags: Arc<Flags>,
}

impl Output {
    /// Writes `block`, in which lines end at `ends`.
    pub(super) fn write(&mut self, block: &[u8], ends: &[usize]) -> Result<(), Error> {
        let mut done = 0;
        let result = match &mut self.out {
            _ if self.flags.abandoned.load(Relaxed) => Err(io::ErrorKind::BrokenPipe.into()),
            Some(out) => write_out(out, block, &mut done),
            None => Ok(()),
        };
        match result {
            Ok(()) => {
                self.written.lines += ends.len() as u64;
                self.written.bytes += block.len() as u64;
                let lines = self.written.lines;
                self.flags.lines.store(lines, Relaxed);
                self.succeed(|successor| successor.is_due(lines))
            }
            Err(source) => Err(self.failed(source, ends, done)),
        }
    }

    /// Cuts off the line of which only a part was written, and tells how many are whole.
    pub(super) fn failed(&mut self, source: io::Error, ends: &[usize], done: usize) -> Error {
        let whole = ends.partition_point(|end| *end <= done);
        self.written.lines += whole as u64;
        self.flags.lines.store(self.written.lines, Relaxed);
        self.written.bytes += ends[..whole].last().copied().unwrap_or_default() as u64;
        if let Some(file) = &self.file {
            // The error that led here is the one worth telling.
            let _ = file.set_len(self.written.bytes);
        }
        Error::of_write(self.name.clone(), self.written.lines, source)
    }

    /// Takes out what was in the file.
    pub(super) fn empty(&self) -> Result<(), Error> {
        let failed = |source| Error::Write { name: self.name.clone(), lines: 0, source: Arc::new(source) };
        self.file.as_ref().map_or(Ok(()), |file| file.set_len(0)).map_err(failed)
    }

    /// Takes the place of the file that was there, if it is time.
    fn succeed(&mut self, is_due: impl Fn(&Successor) -> bool) -> Result<(), Error> {
        let Some(successor) = self.successor.take_if(|successor| is_due(successor)) else { return Ok(()) };
        let failed = |source| {
            let (name, lines) = (self.name.clone(), 0);
            Error::Write { name, lines, source: Arc::new(source) }
        };
        successor.take(self.file.as_ref()).map_err(failed)?;
        self.flags.left_before.store(false, Relaxed);
        Ok(())
    }

    pub(super) fn finish(&mut self) -> Result<Written, Error> {
        // An output that was given up has gaps.
        let cut_short = self.flags.cut_short.load(Relaxed) || self.flags.abandoned.load(Relaxed);
        let lines = self.written.lines;
        let is_partial = self.flags.partial.load(Relaxed);
        let is_enough = |successor: &Successor| !is_partial || lines >= successor.at_least;
        self.succeed(|successor| successor.is_due(lines) || !cut_short && is_enough(successor))?;
        self.written.left_before = self.successor.is_some();
        let failed =
            |lines, source| Error::Write { name: self.name.clone(), lines, source: Arc::new(source) };
        let Some(file) = &self.file else { return Ok(self.written) };
        // A network file system may tell only now that its disk was full.
        file.sync_data().map_err(|source| failed(lines, source))?;
        if let Some(path) = self.path.as_ref().filter(|_| !self.written.left_before) {
            // What was written is in no file any more where this fails.
            keep_in_place(file, path).map_err(|source| failed(0, source))?;
        }
        Ok(self.written)
    }
}

fn write_out(out: &mut dyn Write, block: &[u8], done: &mut usize) -> io::Result<()> {
    if block.is_empty() {
        return Ok(());
    }
    while *done < block.len() {
        match out.write(&block[*done..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => *done += written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    out.flush()
}
