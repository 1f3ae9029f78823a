//! Opens what lines are written to: a file, stdout, any writer, or nothing.
//!
//! Errors that can be found before the first line are reported here, once. An existing file is truncated only
//! when something is about to be written to it, so a run that is refused deletes nothing.

use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;
use super::atomic_file::ReplacementFile;
use super::output_owner::WrittenFile;
use crate::files::{self, FileId};
use crate::terminal_text;

/// An opened destination of lines.
pub struct Destination {
    pub(super) name: String,
    /// `None` writes nothing.
    pub(super) out: Option<Box<dyn Write + Send>>,
    /// A second handle to the file, to remove a partial line.
    pub(super) file: Option<File>,
    /// The file that will replace the original one.
    pub(super) replacement: Option<ReplacementFile>,
    /// Whether it is a terminal, which interprets control characters in what is written to it.
    pub(super) is_terminal: bool,
    /// Path of the file, with links resolved.
    pub(super) path: Option<PathBuf>,
}

impl Destination {
    /// Opens or creates a file. `others` are the run's other files; the file may be none of them.
    pub fn file(path: impl AsRef<Path>, others: &[&Path]) -> Result<Self, Error> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::IsADirectory => Error::Directory { name: name.clone() },
            _ => Error::Open { name: name.clone(), source: Arc::new(source) },
        };
        let open = |read| files::open_or_create(path, read);
        // The file is also opened for reading: if it is removed while it is written, it is restored from its
        // content. A pipe is not: opened for reading, it would always have a reader.
        let is_special = fs::metadata(path).is_ok_and(|found| !found.is_file());
        let file = match open(!is_special) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => open(false),
            opened => opened,
        };
        let file = file.map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            let is_terminal = file.is_terminal();
            return Ok(Self { is_terminal, ..Self::writer(name, file) });
        }
        if let Some(other) = others.iter().find(|other| is_same_file(path, &metadata, other)) {
            return Err(Error::SameFile { name, other: other.display().to_string() });
        }
        // On a file system without locks, two runs may write to the same file. Nothing else changes.
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            return Err(Error::InUse { name });
        }
        let second_handle = file.try_clone().map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        Ok(Self { file: Some(second_handle), path: Some(path), ..Self::writer(name, file) })
    }

    /// Writes to stdout. If stdout is redirected to a file, the file may be none of `others`.
    pub fn stdout(others: &[&Path]) -> Result<Self, Error> {
        let name = "standard output";
        let path = Path::new("/dev/stdout");
        let redirected = fs::metadata(path).ok().filter(Metadata::is_file);
        let find_same_file =
            |metadata: Metadata| others.iter().find(|other| is_same_file(path, &metadata, other));
        match redirected.and_then(find_same_file) {
            Some(other) => Err(Error::SameFile { name: name.into(), other: other.display().to_string() }),
            None => Ok(Self { is_terminal: io::stdout().is_terminal(), ..Self::writer(name, io::stdout()) }),
        }
    }

    /// Writes to any other writer; `name` is its name in messages.
    pub fn writer(name: impl Into<String>, writer: impl Write + Send + 'static) -> Self {
        Self {
            name: name.into(),
            out: Some(Box::new(writer)),
            file: None,
            replacement: None,
            is_terminal: false,
            path: None,
        }
    }

    /// Writes nothing: lines are counted and dropped.
    pub fn none() -> Self {
        Self { out: None, ..Self::writer("nothing", io::sink()) }
    }

    /// Keeps the existing file until `lines` lines, or all of them, are written. Until then lines are written
    /// to a file beside it, which then replaces it. If there is no such file or this is not possible, the file
    /// is written directly.
    #[must_use]
    pub fn replacing_after(mut self, path: &Path, lines: u64) -> Self {
        let is_filled =
            self.file.as_ref().is_some_and(|file| file.metadata().is_ok_and(|file| file.len() > 0));
        if is_filled
            && lines > 0
            && let Ok((mut replacement, out, second_handle)) = ReplacementFile::create(path, lines)
        {
            replacement.original = self.file.take();
            self.out = Some(Box::new(out));
            self.file = Some(second_handle);
            self.replacement = Some(replacement);
        }
        self
    }

    /// Writes to a file beside the existing one, which it replaces at the end, even if the existing one is empty.
    #[cfg(feature = "parquet")]
    pub(super) fn replacing_at_end(mut self) -> Result<Self, Error> {
        if self.replacement.is_some() {
            return Ok(self);
        }
        let Some(path) = &self.path else {
            return Err(Error::NotAFile { name: self.name, format: "Parquet" });
        };
        let created = ReplacementFile::create(path, 0);
        let (mut replacement, out, second_handle) =
            created.map_err(|source| Error::Open { name: self.name.clone(), source: Arc::new(source) })?;
        replacement.original = self.file.take();
        self.out = Some(Box::new(out));
        self.file = Some(second_handle);
        self.replacement = Some(replacement);
        Ok(self)
    }

    /// Keeps a file that would be replaced if the input is not processed to its end and fewer than `lines`
    /// lines are written.
    #[must_use]
    pub fn with_min_lines(mut self, lines: u64) -> Self {
        if let Some(replacement) = &mut self.replacement {
            replacement.min_lines_if_partial = lines;
        }
        self
    }

    /// Writes through `writer` instead, for example above a progress display on the same terminal.
    #[cfg(any(test, feature = "cli"))]
    pub(crate) fn through(self, writer: impl Write + Send + 'static) -> Self {
        Self { out: Some(Box::new(writer)), ..self }
    }

    /// Returns the identity of the file that it writes to, to be stored with the run; `None` if it is not a
    /// regular file.
    #[doc(hidden)]
    pub fn written_file(&self) -> Option<WrittenFile> {
        let metadata = self.file.as_ref()?.metadata().ok()?;
        Some(WrittenFile::of(self.path.as_ref()?, &metadata))
    }

    /// Writes the JSON text `json` and nothing else.
    pub fn overwrite(mut self, json: &str) -> Result<(), Error> {
        self.empty()?;
        let shown = if self.is_terminal { terminal_text::json(json) } else { json.into() };
        let failed = |source| Error::of_text(self.name.clone(), source);
        if let Some(out) = &mut self.out {
            out.write_all(shown.as_bytes()).and_then(|()| out.flush()).map_err(failed)?;
        }
        Ok(())
    }

    /// Truncates the file.
    pub(super) fn empty(&self) -> Result<(), Error> {
        let failed = |source| Error::Open { name: self.name.clone(), source: Arc::new(source) };
        self.file.as_ref().map_or(Ok(()), |file| file.set_len(0)).map_err(failed)
    }
}

/// Returns whether `other` is the same file as `path`, under another name or through a link.
#[cfg(unix)]
fn is_same_file(_path: &Path, metadata: &Metadata, other: &Path) -> bool {
    FileId::at(other).is_ok_and(|other| other == FileId::of(metadata))
}

#[cfg(not(unix))]
fn is_same_file(path: &Path, _metadata: &Metadata, other: &Path) -> bool {
    path.canonicalize().ok().zip(other.canonicalize().ok()).is_some_and(|(path, other)| path == other)
}
