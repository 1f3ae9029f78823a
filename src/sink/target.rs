//! Opens what lines are written to: a file, stdout, any writer, or nothing.
//!
//! What can be known before the first line is said here, once. A file that was there is emptied only
//! when something is about to be written to it, so that a run which is refused takes nothing away.

use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;
use super::owned::WrittenFile;
use super::successor::Successor;
use crate::files::{self, FileId};
use crate::screen;

/// What lines are written to, opened.
pub struct Target {
    pub(super) name: String,
    /// `None` writes nothing.
    pub(super) out: Option<Box<dyn Write + Send>>,
    /// The same file once more, to cut off half a line.
    pub(super) file: Option<File>,
    /// The file whose place this one is going to take.
    pub(super) successor: Option<Successor>,
    /// Whether it is a terminal, which takes commands from what is written to it.
    pub(super) is_terminal: bool,
    /// Where the file is, links followed.
    pub(super) path: Option<PathBuf>,
}

impl Target {
    /// Opens a file, or creates it. `others` are the run's other files, none of which it may be.
    pub fn file(path: impl AsRef<Path>, others: &[&Path]) -> Result<Self, Error> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::IsADirectory => Error::Directory { name: name.clone() },
            _ => Error::Open { name: name.clone(), source: Arc::new(source) },
        };
        let open = |read| files::open_or_create(path, read);
        // Read, too: a file that is removed while it is written is written again from what is in it. A pipe that is
        // opened to be read has a reader for ever.
        let is_other = fs::metadata(path).is_ok_and(|found| !found.is_file());
        let file = match open(!is_other) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => open(false),
            opened => opened,
        };
        let file = file.map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            let is_terminal = file.is_terminal();
            return Ok(Self { is_terminal, ..Self::writer(name, file) });
        }
        if let Some(other) = others.iter().find(|other| same(path, &metadata, other)) {
            return Err(Error::SameFile { name, other: other.display().to_string() });
        }
        // Where a file system knows no locks nothing is different but that two runs may write there.
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            return Err(Error::InUse { name });
        }
        let again = file.try_clone().map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        Ok(Self { file: Some(again), path: Some(path), ..Self::writer(name, file) })
    }

    /// Writes to stdout. Where that was redirected to a file it may be none of `others`.
    pub fn stdout(others: &[&Path]) -> Result<Self, Error> {
        let name = "standard output";
        let path = Path::new("/dev/stdout");
        let redirected = fs::metadata(path).ok().filter(Metadata::is_file);
        let same = |metadata: Metadata| others.iter().find(|other| same(path, &metadata, other));
        match redirected.and_then(same) {
            Some(other) => Err(Error::SameFile { name: name.into(), other: other.display().to_string() }),
            None => Ok(Self { is_terminal: io::stdout().is_terminal(), ..Self::writer(name, io::stdout()) }),
        }
    }

    /// Writes to anything else; `name` is what messages call it.
    pub fn writer(name: impl Into<String>, writer: impl Write + Send + 'static) -> Self {
        Self {
            name: name.into(),
            out: Some(Box::new(writer)),
            file: None,
            successor: None,
            is_terminal: false,
            path: None,
        }
    }

    /// Writes nothing: lines are counted and dropped.
    pub fn none() -> Self {
        Self { out: None, ..Self::writer("nothing", io::sink()) }
    }

    /// Leaves the file that is there as it is until `lines` lines are written, or all of them: they are written
    /// beside it and take its place then. Where that cannot be, or there is no such file, nothing is different.
    #[must_use]
    pub fn after(mut self, path: &Path, lines: u64) -> Self {
        let is_filled =
            self.file.as_ref().is_some_and(|file| file.metadata().is_ok_and(|file| file.len() > 0));
        if is_filled
            && lines > 0
            && let Ok((mut successor, out, again)) = Successor::of(path, lines)
        {
            successor.before = self.file.take();
            self.out = Some(Box::new(out));
            (self.file, self.successor) = (Some(again), Some(successor));
        }
        self
    }

    /// Leaves a file that is replaced as it is where the input is not dealt with to its end and fewer than `lines` lines
    /// are written.
    #[must_use]
    pub fn at_least(mut self, lines: u64) -> Self {
        if let Some(successor) = &mut self.successor {
            successor.at_least = lines;
        }
        self
    }

    /// Writes through `writer` instead, as a disk that is slow would.
    #[cfg(test)]
    pub(crate) fn through(self, writer: impl Write + Send + 'static) -> Self {
        Self { out: Some(Box::new(writer)), ..self }
    }

    /// Returns which file it writes to, to be kept with the run; `None` where that is no regular file.
    pub fn written(&self) -> Option<WrittenFile> {
        let metadata = self.file.as_ref()?.metadata().ok()?;
        Some(WrittenFile::of(self.path.as_ref()?, &metadata))
    }

    /// Writes the JSON text `json`, and nothing else.
    pub fn overwrite(mut self, json: &str) -> Result<(), Error> {
        self.empty()?;
        let shown = if self.is_terminal { screen::json(json) } else { json.into() };
        let failed = |source| Error::of_write(self.name.clone(), 0, source);
        if let Some(out) = &mut self.out {
            out.write_all(shown.as_bytes()).and_then(|()| out.flush()).map_err(failed)?;
        }
        Ok(())
    }

    /// Takes out what is in the file.
    pub(super) fn empty(&self) -> Result<(), Error> {
        let failed = |source| Error::Open { name: self.name.clone(), source: Arc::new(source) };
        self.file.as_ref().map_or(Ok(()), |file| file.set_len(0)).map_err(failed)
    }
}

/// Returns whether `other` is the file of `path` too, by another name or a link.
#[cfg(unix)]
fn same(_path: &Path, metadata: &Metadata, other: &Path) -> bool {
    FileId::at(other).is_ok_and(|other| other == FileId::of(metadata))
}

#[cfg(not(unix))]
fn same(path: &Path, _metadata: &Metadata, other: &Path) -> bool {
    path.canonicalize().ok().zip(other.canonicalize().ok()).is_some_and(|(path, other)| path == other)
}
