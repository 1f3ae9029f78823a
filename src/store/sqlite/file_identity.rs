//! Detects that the database file was moved or removed. Writes would then go to a file without a name.
//!
//! The system allows writing to a removed file and reports no error.

use std::io;
use std::path::Path;

use crate::files::FileId;

/// The identity of the opened file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileIdentity(Option<FileId>);

impl FileIdentity {
    /// Records the identity of the file at `path`.
    pub(super) fn of(path: &Path) -> Self {
        Self(FileId::at(path).ok())
    }

    /// Checks that the same file is still at `path`.
    ///
    /// # Errors
    /// If there is no file, or another one.
    pub(super) fn verify(self, path: &Path) -> io::Result<()> {
        if Some(FileId::at(path)?) == self.0 {
            return Ok(());
        }
        Err(io::Error::other("another file is in its place"))
    }
}
