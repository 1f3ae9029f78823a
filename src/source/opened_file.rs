//! Detects that a file was changed in place while it was read.
//!
//! A file that is replaced by another one is not changed: the open file is read to its end.

use std::fs::Metadata;
use std::io;
use std::time::SystemTime;

/// A regular file that is read, with its state when it was opened.
pub(super) struct OpenedFile {
    state: FileState,
    metadata: Box<dyn Fn() -> io::Result<Metadata> + Send>,
}

#[derive(PartialEq, Eq)]
struct FileState {
    bytes: u64,
    /// `None` if the file system has no times.
    modified: Option<SystemTime>,
}

impl FileState {
    fn of(metadata: &Metadata) -> Self {
        Self { bytes: metadata.len(), modified: metadata.modified().ok() }
    }
}

impl OpenedFile {
    /// Creates a file that was opened with the metadata `opened`. `metadata` returns its present metadata.
    pub(super) fn new(
        opened: &Metadata,
        metadata: impl Fn() -> io::Result<Metadata> + Send + 'static,
    ) -> Self {
        Self { state: FileState::of(opened), metadata: Box::new(metadata) }
    }

    /// Returns whether the file has changed since it was opened. If its metadata cannot be read, it counts as
    /// unchanged: its content was read without an error.
    pub(super) fn has_changed(&self) -> bool {
        (self.metadata)().is_ok_and(|now| FileState::of(&now) != self.state)
    }
}
