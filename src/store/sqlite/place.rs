//! Notices that the database is not where it was: what is written then goes to a file that nobody finds again.
//!
//! The system lets a program write on into a file that was removed, and reports no error.

use std::io;
use std::path::Path;

use crate::files::FileId;

/// Which file it was that was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(Option<FileId>);

impl Place {
    /// Notes which file is at `path`.
    pub(super) fn of(path: &Path) -> Self {
        Self(FileId::at(path).ok())
    }

    /// Returns whether the same file is there still.
    ///
    /// # Errors
    /// What the system says when there is none, or that it is another one.
    pub(super) fn holds(self, path: &Path) -> io::Result<()> {
        if Some(FileId::at(path)?) == self.0 {
            return Ok(());
        }
        Err(io::Error::other("another file is in its place"))
    }
}
