//! Writes blocks of lines to a file or a pipe and keeps the file consistent.
//!
//! No partial line stays in the file, and an original file is replaced only when the conditions for that are
//! met. A file that another program truncates or writes to ends the output with an error.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::Error;
use super::atomic_file::ReplacementFile;
use super::restore::restore_if_removed;
#[cfg(feature = "parquet")]
use super::table_file::TableFile;

/// Summary of what was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteSummary {
    /// Complete lines, without a header.
    pub lines: u64,
    /// Bytes, with a header.
    pub bytes: u64,
    /// Whether the original file was kept because it holds more lines.
    pub kept_original: bool,
}

/// State that both sides of a sink share.
#[derive(Debug, Default)]
pub(super) struct SharedFlags {
    /// Lines are missing at the end.
    pub(super) lines_missing: AtomicBool,
    /// The input was not processed to its end.
    pub(super) input_incomplete: AtomicBool,
    /// The output was abandoned: lines that are not written yet will not be written.
    pub(super) abandoned: AtomicBool,
    /// Complete lines that are written.
    pub(super) lines: AtomicU64,
    /// Bytes that are written, with a header.
    pub(super) bytes: AtomicU64,
    /// The original file is still in place.
    pub(super) kept_original: AtomicBool,
}

/// The length that the file of a sink has while no other program changes it.
#[derive(Debug)]
pub(crate) struct WrittenLength {
    pub(super) path: PathBuf,
    pub(super) flags: Arc<SharedFlags>,
}

impl WrittenLength {
    /// Returns the path of the file, with links resolved.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns how many bytes are written.
    pub(crate) fn bytes(&self) -> u64 {
        self.flags.bytes.load(Relaxed)
    }
}

/// Destination of the lines of a sink.
pub(super) struct OutputWriter {
    pub(super) name: String,
    pub(super) out: Option<Box<dyn Write + Send>>,
    pub(super) file: Option<File>,
    /// Set until it has replaced the original file.
    pub(super) replacement: Option<ReplacementFile>,
    pub(super) path: Option<PathBuf>,
    pub(super) written: WriteSummary,
    pub(super) flags: Arc<SharedFlags>,
    /// What the lines become at the end; `None` if they are the content of the file.
    #[cfg(feature = "parquet")]
    pub(super) table: Option<TableFile>,
}

impl OutputWriter {
    /// Writes `block`, in which lines end at `ends`.
    pub(super) fn write(&mut self, block: &[u8], ends: &[usize]) -> Result<(), Error> {
        let mut done = 0;
        let is_abandoned = self.flags.abandoned.load(Relaxed);
        if !is_abandoned && !block.is_empty() {
            self.refuse_changed_file()?;
        }
        let result = match &mut self.out {
            _ if is_abandoned => Err(io::ErrorKind::BrokenPipe.into()),
            Some(out) => write_all_counted(out, block, &mut done),
            None => Ok(()),
        };
        match result {
            Ok(()) => {
                self.written.lines += ends.len() as u64;
                self.written.bytes += block.len() as u64;
                let lines = self.written.lines;
                self.flags.lines.store(lines, Relaxed);
                self.flags.bytes.store(self.written.bytes, Relaxed);
                self.replace_original(|replacement| replacement.has_enough_lines(lines))
            }
            Err(source) => Err(self.failed(source, ends, done)),
        }
    }

    /// Removes a partial line from the file and returns the error with the number of complete lines.
    pub(super) fn failed(&mut self, source: io::Error, ends: &[usize], done: usize) -> Error {
        let complete_lines = ends.partition_point(|end| *end <= done);
        self.written.lines += complete_lines as u64;
        self.flags.lines.store(self.written.lines, Relaxed);
        self.written.bytes += ends[..complete_lines].last().copied().unwrap_or_default() as u64;
        self.flags.bytes.store(self.written.bytes, Relaxed);
        // A file that another program has truncated is not filled with zeros.
        let is_longer = |file: &&File| file.metadata().is_ok_and(|file| file.len() > self.written.bytes);
        if let Some(file) = self.file.as_ref().filter(is_longer) {
            // The error that led here is the one to report.
            let _ = file.set_len(self.written.bytes);
        }
        Error::of_write(self.name.clone(), self.written.lines, source)
    }

    /// Truncates the file.
    pub(super) fn empty(&self) -> Result<(), Error> {
        let failed = |source| Error::Write { name: self.name.clone(), lines: 0, source: Arc::new(source) };
        self.file.as_ref().map_or(Ok(()), |file| file.set_len(0)).map_err(failed)
    }

    /// Returns an error if the file does not have the length of what was written: another program has truncated
    /// it or written to it, so lines may be missing.
    fn refuse_changed_file(&self) -> Result<(), Error> {
        let Some(file) = &self.file else { return Ok(()) };
        let lines = self.written.lines;
        let failed = |source| Error::Write { name: self.name.clone(), lines, source: Arc::new(source) };
        if file.metadata().map_err(failed)?.len() == self.written.bytes {
            return Ok(());
        }
        Err(Error::Changed { name: self.name.clone(), lines })
    }

    /// Replaces the original file if `is_ready` returns true for the replacement.
    fn replace_original(&mut self, is_ready: impl Fn(&ReplacementFile) -> bool) -> Result<(), Error> {
        let Some(replacement) = self.replacement.take_if(|replacement| is_ready(replacement)) else {
            return Ok(());
        };
        self.refuse_changed_file()?;
        let failed = |source| Error::Write { name: self.name.clone(), lines: 0, source: Arc::new(source) };
        replacement.commit(self.file.as_ref()).map_err(failed)?;
        self.flags.kept_original.store(false, Relaxed);
        Ok(())
    }

    pub(super) fn finish(&mut self) -> Result<WriteSummary, Error> {
        // An abandoned output has gaps.
        let lines_missing = self.flags.lines_missing.load(Relaxed) || self.flags.abandoned.load(Relaxed);
        let lines = self.written.lines;
        let is_input_incomplete = self.flags.input_incomplete.load(Relaxed);
        let has_min_lines =
            |replacement: &ReplacementFile| !is_input_incomplete || lines >= replacement.min_lines_if_partial;
        let is_ready = |replacement: &ReplacementFile| {
            replacement.has_enough_lines(lines) || !lines_missing && has_min_lines(replacement)
        };
        #[cfg(feature = "parquet")]
        if let Some(table) = self.table.take() {
            return self.finish_table(table, is_ready);
        }
        self.replace_original(is_ready)?;
        self.written.kept_original = self.replacement.is_some();
        let failed =
            |lines, source| Error::Write { name: self.name.clone(), lines, source: Arc::new(source) };
        let Some(file) = &self.file else { return Ok(self.written) };
        // A network file system may report only now that its disk was full.
        file.sync_data().map_err(|source| failed(lines, source))?;
        self.refuse_changed_file()?;
        if let Some(path) = self.path.as_ref().filter(|_| !self.written.kept_original) {
            // If this fails, the written content is in no file.
            restore_if_removed(file, path).map_err(|source| failed(0, source))?;
        }
        Ok(self.written)
    }
}

#[cfg(feature = "parquet")]
impl OutputWriter {
    /// Writes the table of all lines, and replaces the original file by it if that is ready.
    fn finish_table(
        &mut self,
        table: TableFile,
        is_ready: impl Fn(&ReplacementFile) -> bool,
    ) -> Result<WriteSummary, Error> {
        self.refuse_changed_file()?;
        let is_kept = !is_ready(&table.replacement);
        self.written.kept_original = is_kept && self.flags.kept_original.load(Relaxed);
        if is_kept {
            return Ok(self.written);
        }
        let Some(spool) = &self.file else { return Ok(self.written) };
        let failed = |source| Error::of_write(self.name.clone(), 0, source);
        self.written.bytes = table.commit(spool).map_err(failed)?;
        self.flags.bytes.store(self.written.bytes, Relaxed);
        self.flags.kept_original.store(false, Relaxed);
        Ok(self.written)
    }
}

fn write_all_counted(out: &mut dyn Write, block: &[u8], done: &mut usize) -> io::Result<()> {
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
